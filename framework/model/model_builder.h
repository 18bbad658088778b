/* Small random models on disk, right or wrong in one thing, for the model's tests. Tests only;
 * include cmocka.h first. */
#ifndef REFPARITY_MODEL_MODEL_BUILDER_H
#define REFPARITY_MODEL_MODEL_BUILDER_H

#include <unistd.h>

#include "weights/gguf_builder.h"
#include "refparity/model.h"

#define N_LAYERS 3
#define HIDDEN 8
#define FFN 32
#define HEADS 4
#define KV_HEADS 2
#define HEAD_DIM 6
#define VOCAB 11
#define LINEAR_K_HEADS 2
#define LINEAR_V_HEADS 4
#define LINEAR_DIM 3
#define LINEAR_CHANNELS ((2 * LINEAR_K_HEADS + LINEAR_V_HEADS) * LINEAR_DIM)
#define CONV_KERNEL 4

/* What is to be wrong, or absent, in the model that is written. */
struct variant {
    const char *architecture; /* NULL: "qwen3" */
    const char *without;      /* key or tensor that is left out */
    const char *changed;      /* integer key that gets value; added if not usual */
    const uint32_t *widths;   /* [N_LAYERS] feed_forward_length as an array; NULL: a number */
    size_t n_widths;          /* of those that are written; 0: all */
    const char *extra_tensor; /* added, [HIDDEN] */
    const char *scaling;      /* rope.scaling.type */
    const char *bad_type;     /* tensor that becomes I8 by its type alone */
    float freq_factor;        /* of rope_freqs, if not 0 */
    float long_factor;        /* of rope_factors_long, if not 0; rope_factors_short has 1 */
    uint32_t context_length;  /* if not 0 */
    uint32_t value;           /* of changed */
    struct {
        const char *name; /* behind the architecture's; NULL: none */
        float value;
    } numbers[4];
    bool untied, eps_is_zero;
    int n_tokens_listed;          /* of the tokenizer, if not 0 */
    const char *recurrent_layers; /* of "qwen35", a digit each; NULL: full_attention_interval */
};

struct writer {
    struct gguf_builder builder;
    const struct variant *variant;
    uint32_t seed;
};

static char folder[] = "/tmp/refparity-model-XXXXXX";
static char path[sizeof folder + 16];

static inline void add_key(struct writer *writer, const char *name, uint32_t value)
{
    const struct variant *variant = writer->variant;
    char key[128];
    snprintf(key, sizeof key, "%s.%s", variant->architecture ? variant->architecture : "qwen3",
             name);
    if (variant->without && strcmp(variant->without, name) == 0)
        return;
    if (variant->changed && strcmp(variant->changed, name) == 0)
        value = variant->value;
    gguf_add_u32(&writer->builder, key, value);
}

/* F32 [n_out][n_in], norms around 1, matrices of a size that keeps the stream's. */
static inline void add_weight(struct writer *writer, const char *name, uint64_t n_out,
                              uint64_t n_in)
{
    const struct variant *variant = writer->variant;
    const uint64_t dims[2] = {n_in, n_out};
    float values[2 * HEADS * HEAD_DIM * HIDDEN]; /* the largest, a gated attn_q */
    bool is_decay = strlen(name) > 5 && strcmp(name + strlen(name) - 5, "ssm_a") == 0;
    size_t n = (size_t)(n_in * n_out);
    if (variant->without && strcmp(variant->without, name) == 0)
        return;
    for (size_t i = 0; i < n; i++) {
        writer->seed = writer->seed * 1664525u + 1013904223u;
        float random = (float)(writer->seed >> 8) / 8388608.0f - 1.0f;
        values[i] = n_out == 1 ? 1 + 0.3f * random : random;
        if (is_decay)
            values[i] = -values[i];
    }
    if (variant->bad_type && strcmp(variant->bad_type, name) == 0)
        gguf_add_tensor(&writer->builder, name, 24, n_out == 1 ? 1 : 2, dims, values, n);
    else
        gguf_add_tensor(&writer->builder, name, RP_GGML_F32, n_out == 1 ? 1 : 2, dims, values,
                        n * sizeof *values);
}

/* The layers of "qwen35" in turn: linear, full and again linear attention. */
enum builder_layer { LLAMA_LAYER = 1, QWEN3_LAYER = 2, FULL_LAYER = 4, LINEAR_LAYER = 8 };

static inline void add_layer(struct writer *writer, int layer, const char *architecture)
{
    enum { ATTENTION = LLAMA_LAYER | QWEN3_LAYER | FULL_LAYER, ANY = ATTENTION | LINEAR_LAYER };
    static const struct {
        const char *name;
        uint64_t n_out, n_in;
        unsigned layers; /* that have it */
    } weights[] = {
        {"attn_norm.weight", 1, HIDDEN, ANY},
        {"attn_q.weight", HEADS * HEAD_DIM, HIDDEN, LLAMA_LAYER | QWEN3_LAYER},
        {"attn_q.weight", 2 * HEADS * HEAD_DIM, HIDDEN, FULL_LAYER},
        {"attn_k.weight", KV_HEADS * HEAD_DIM, HIDDEN, ATTENTION},
        {"attn_v.weight", KV_HEADS * HEAD_DIM, HIDDEN, ATTENTION},
        {"attn_q_norm.weight", 1, HEAD_DIM, QWEN3_LAYER | FULL_LAYER},
        {"attn_k_norm.weight", 1, HEAD_DIM, QWEN3_LAYER | FULL_LAYER},
        {"attn_output.weight", HIDDEN, HEADS * HEAD_DIM, ATTENTION},
        {"attn_qkv.weight", LINEAR_CHANNELS, HIDDEN, LINEAR_LAYER},
        {"attn_gate.weight", LINEAR_V_HEADS * LINEAR_DIM, HIDDEN, LINEAR_LAYER},
        {"ssm_conv1d.weight", LINEAR_CHANNELS, CONV_KERNEL, LINEAR_LAYER},
        {"ssm_alpha.weight", LINEAR_V_HEADS, HIDDEN, LINEAR_LAYER},
        {"ssm_beta.weight", LINEAR_V_HEADS, HIDDEN, LINEAR_LAYER},
        {"ssm_dt.bias", 1, LINEAR_V_HEADS, LINEAR_LAYER},
        {"ssm_a", 1, LINEAR_V_HEADS, LINEAR_LAYER},
        {"ssm_norm.weight", 1, LINEAR_DIM, LINEAR_LAYER},
        {"ssm_out.weight", HIDDEN, LINEAR_V_HEADS * LINEAR_DIM, LINEAR_LAYER},
        {"ffn_norm.weight", 1, HIDDEN, LLAMA_LAYER | QWEN3_LAYER},
        {"post_attention_norm.weight", 1, HIDDEN, FULL_LAYER | LINEAR_LAYER},
        {"ffn_gate.weight", FFN, HIDDEN, ANY},
        {"ffn_up.weight", FFN, HIDDEN, ANY},
        {"ffn_down.weight", HIDDEN, FFN, ANY},
    };
    unsigned kind = QWEN3_LAYER;
    if (strcmp(architecture, "llama") == 0)
        kind = LLAMA_LAYER;
    else if (strcmp(architecture, "qwen35") == 0)
        kind = layer % 2 == 1 ? FULL_LAYER : LINEAR_LAYER;
    const uint32_t *widths = writer->variant->widths;
    const uint64_t width = widths && widths[layer] > 0 ? widths[layer] : FFN;
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        char name[64];
        const bool is_ffn = strncmp(weights[i].name, "ffn_", 4) == 0;
        const uint64_t n_out = is_ffn && weights[i].n_out == FFN ? width : weights[i].n_out;
        const uint64_t n_in = is_ffn && weights[i].n_in == FFN ? width : weights[i].n_in;
        snprintf(name, sizeof name, "blk.%d.%s", layer, weights[i].name);
        if (weights[i].layers & kind)
            add_weight(writer, name, n_out, n_in);
    }
}

/* The keys of "qwen35" alone. */
static inline void add_delta_net(struct writer *writer)
{
    const char *recurrent = writer->variant->recurrent_layers;
    unsigned char bools[8];
    add_key(writer, "ssm.conv_kernel", CONV_KERNEL);
    add_key(writer, "ssm.state_size", LINEAR_DIM);
    add_key(writer, "ssm.group_count", LINEAR_K_HEADS);
    add_key(writer, "ssm.time_step_rank", LINEAR_V_HEADS);
    add_key(writer, "ssm.inner_size", LINEAR_V_HEADS * LINEAR_DIM);
    add_key(writer, "full_attention_interval", 2);
    if (!recurrent)
        return;
    for (size_t i = 0; recurrent[i]; i++)
        bools[i] = (unsigned char)(recurrent[i] - '0');
    gguf_add_array(&writer->builder, "qwen35.attention.recurrent_layers", RP_GGUF_BOOL,
                   strlen(recurrent), bools, strlen(recurrent));
}

static inline void add_tokenizer(struct writer *writer, int n)
{
    struct gguf_bytes pieces = {NULL, 0};
    for (int i = 0; i < n; i++)
        gguf_put_string(&pieces, "x");
    gguf_add_array(&writer->builder, "tokenizer.ggml.tokens", RP_GGUF_STRING, (uint64_t)n,
                   pieces.data, pieces.size);
    free(pieces.data);
}

static inline void add_rope_factors(struct writer *writer, const char *name, float last)
{
    const float factors[HEAD_DIM / 2] = {1, 2, last};
    const uint64_t dims[1] = {HEAD_DIM / 2};
    gguf_add_tensor(&writer->builder, name, RP_GGML_F32, 1, dims, factors, sizeof factors);
}

static inline void write_model(const struct variant *variant)
{
    struct writer writer = {.variant = variant, .seed = 7};
    const char *architecture = variant->architecture ? variant->architecture : "qwen3";
    char key[128];
    gguf_add_string(&writer.builder, "general.architecture", architecture);
    add_key(&writer, "block_count", N_LAYERS);
    add_key(&writer, "embedding_length", HIDDEN);
    if (variant->widths) {
        snprintf(key, sizeof key, "%s.feed_forward_length", architecture);
        const size_t n = variant->n_widths ? variant->n_widths : N_LAYERS;
        gguf_add_array(&writer.builder, key, RP_GGUF_UINT32, n, variant->widths,
                       n * sizeof *variant->widths);
    } else {
        add_key(&writer, "feed_forward_length", FFN);
    }
    add_key(&writer, "attention.head_count", HEADS);
    add_key(&writer, "attention.head_count_kv", KV_HEADS);
    add_key(&writer, "attention.key_length", HEAD_DIM);
    add_key(&writer, "attention.value_length", HEAD_DIM);
    add_key(&writer, "rope.dimension_count", HEAD_DIM);
    add_key(&writer, "vocab_size", VOCAB);
    if (variant->changed && strcmp(variant->changed, "expert_count") == 0)
        add_key(&writer, "expert_count", 0);
    if (variant->changed && strcmp(variant->changed, "nextn_predict_layers") == 0)
        add_key(&writer, "nextn_predict_layers", 0);
    if (strcmp(architecture, "qwen35") == 0)
        add_delta_net(&writer);
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", architecture);
    gguf_add_f32(&writer.builder, key, variant->eps_is_zero ? 0 : 1e-6f);
    snprintf(key, sizeof key, "%s.rope.freq_base", architecture);
    gguf_add_f32(&writer.builder, key, 10000);
    snprintf(key, sizeof key, "%s.rope.scaling.type", architecture);
    if (variant->scaling)
        gguf_add_string(&writer.builder, key, variant->scaling);
    for (size_t i = 0; i < 4 && variant->numbers[i].name; i++) {
        snprintf(key, sizeof key, "%s.%s", architecture, variant->numbers[i].name);
        gguf_add_f32(&writer.builder, key, variant->numbers[i].value);
    }
    if (variant->context_length)
        add_key(&writer, "context_length", variant->context_length);
    if (variant->n_tokens_listed)
        add_tokenizer(&writer, variant->n_tokens_listed);
    add_weight(&writer, "token_embd.weight", VOCAB, HIDDEN);
    add_weight(&writer, "output_norm.weight", 1, HIDDEN);
    if (variant->untied)
        add_weight(&writer, "output.weight", VOCAB, HIDDEN);
    if (variant->extra_tensor)
        add_weight(&writer, variant->extra_tensor, 1, HIDDEN);
    if (variant->freq_factor != 0)
        add_rope_factors(&writer, "rope_freqs.weight", variant->freq_factor);
    if (variant->long_factor != 0) {
        add_rope_factors(&writer, "rope_factors_short.weight", 1);
        add_rope_factors(&writer, "rope_factors_long.weight", variant->long_factor);
    }
    for (int layer = 0; layer < N_LAYERS; layer++)
        add_layer(&writer, layer, architecture);
    gguf_write(&writer.builder, path);
}

static inline struct rp_model *open_variant(const struct variant *variant)
{
    struct rp_model *model = NULL;
    struct rp_error err = {.code = RP_OK};
    write_model(variant);
    if (rp_model_open(path, &model, &err) != RP_OK)
        fail_msg("%s", err.message);
    return model;
}

static inline int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    return 0;
}

static inline int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

#endif
