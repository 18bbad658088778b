/* The model as a whole: what it refuses to open, that its paths agree, that one replaced operation
 * is seen from its layer on, and that it computes what Hugging Face computed (the committed
 * fixtures; without them this test fails). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <unistd.h>

#include "model/gguf_builder.h"
#include "refparity/model.h"

#define N_LAYERS 3
#define HIDDEN 8
#define FFN 32
#define HEADS 4
#define KV_HEADS 2
#define HEAD_DIM 6
#define VOCAB 11
#define N_TOKENS 9

static const int32_t tokens[N_TOKENS] = {3, 1, 4, 1, 5, 9, 2, 6, 10};

/* ---- small random models on disk ---- */

/* What is to be wrong, or absent, in the model that is written. */
struct variant {
    const char *architecture; /* NULL: "qwen3" */
    const char *without;      /* key or tensor that is left out */
    const char *changed;      /* integer key that gets the value below; added if not usual */
    uint32_t value;
    const char *extra_tensor; /* added, [HIDDEN] */
    const char *scaling;      /* rope.scaling.type */
    const char *bad_type;     /* tensor that becomes Q4_K by its type alone */
    float freq_factor;        /* of rope_freqs, if not 0 */
    bool untied, eps_is_zero;
    int n_tokens_listed; /* of the tokenizer, if not 0 */
};

struct writer {
    struct gguf_builder builder;
    const struct variant *variant;
    uint32_t seed;
};

static char folder[] = "/tmp/refparity-model-XXXXXX";
static char path[sizeof folder + 16];

static void add_key(struct writer *writer, const char *name, uint32_t value)
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
static void add_weight(struct writer *writer, const char *name, uint64_t n_out, uint64_t n_in)
{
    const struct variant *variant = writer->variant;
    const uint64_t dims[2] = {n_in, n_out};
    float values[FFN * HIDDEN];
    size_t n = (size_t)(n_in * n_out);
    if (variant->without && strcmp(variant->without, name) == 0)
        return;
    for (size_t i = 0; i < n; i++) {
        writer->seed = writer->seed * 1664525u + 1013904223u;
        float random = (float)(writer->seed >> 8) / 8388608.0f - 1.0f;
        values[i] = n_out == 1 ? 1 + 0.3f * random : random;
    }
    if (variant->bad_type && strcmp(variant->bad_type, name) == 0)
        gguf_add_tensor(&writer->builder, name, 24, n_out == 1 ? 1 : 2, dims, values, n);
    else
        gguf_add_tensor(&writer->builder, name, RP_GGML_F32, n_out == 1 ? 1 : 2, dims, values,
                        n * sizeof *values);
}

static void add_layer(struct writer *writer, int layer, bool is_qwen3)
{
    static const struct {
        const char *name;
        uint64_t n_out, n_in;
        bool qwen3_only;
    } weights[] = {
        {"attn_norm", 1, HIDDEN, false},
        {"attn_q", HEADS * HEAD_DIM, HIDDEN, false},
        {"attn_k", KV_HEADS * HEAD_DIM, HIDDEN, false},
        {"attn_v", KV_HEADS * HEAD_DIM, HIDDEN, false},
        {"attn_q_norm", 1, HEAD_DIM, true},
        {"attn_k_norm", 1, HEAD_DIM, true},
        {"attn_output", HIDDEN, HEADS * HEAD_DIM, false},
        {"ffn_norm", 1, HIDDEN, false},
        {"ffn_gate", FFN, HIDDEN, false},
        {"ffn_up", FFN, HIDDEN, false},
        {"ffn_down", HIDDEN, FFN, false},
    };
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, weights[i].name);
        if (is_qwen3 || !weights[i].qwen3_only)
            add_weight(writer, name, weights[i].n_out, weights[i].n_in);
    }
}

static void add_tokenizer(struct writer *writer, int n)
{
    struct gguf_bytes pieces = {NULL, 0};
    for (int i = 0; i < n; i++)
        gguf_put_string(&pieces, "x");
    gguf_add_array(&writer->builder, "tokenizer.ggml.tokens", RP_GGUF_STRING, (uint64_t)n,
                   pieces.data, pieces.size);
    free(pieces.data);
}

static void write_model(const struct variant *variant)
{
    struct writer writer = {.variant = variant, .seed = 7};
    const char *architecture = variant->architecture ? variant->architecture : "qwen3";
    char key[128];
    gguf_add_string(&writer.builder, "general.architecture", architecture);
    add_key(&writer, "block_count", N_LAYERS);
    add_key(&writer, "embedding_length", HIDDEN);
    add_key(&writer, "feed_forward_length", FFN);
    add_key(&writer, "attention.head_count", HEADS);
    add_key(&writer, "attention.head_count_kv", KV_HEADS);
    add_key(&writer, "attention.key_length", HEAD_DIM);
    add_key(&writer, "attention.value_length", HEAD_DIM);
    add_key(&writer, "rope.dimension_count", HEAD_DIM);
    add_key(&writer, "vocab_size", VOCAB);
    if (variant->changed && strcmp(variant->changed, "expert_count") == 0)
        add_key(&writer, "expert_count", 0);
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", architecture);
    gguf_add_f32(&writer.builder, key, variant->eps_is_zero ? 0 : 1e-6f);
    snprintf(key, sizeof key, "%s.rope.freq_base", architecture);
    gguf_add_f32(&writer.builder, key, 10000);
    snprintf(key, sizeof key, "%s.rope.scaling.type", architecture);
    if (variant->scaling)
        gguf_add_string(&writer.builder, key, variant->scaling);
    if (variant->n_tokens_listed)
        add_tokenizer(&writer, variant->n_tokens_listed);
    add_weight(&writer, "token_embd.weight", VOCAB, HIDDEN);
    add_weight(&writer, "output_norm.weight", 1, HIDDEN);
    if (variant->untied)
        add_weight(&writer, "output.weight", VOCAB, HIDDEN);
    if (variant->extra_tensor)
        add_weight(&writer, variant->extra_tensor, 1, HIDDEN);
    if (variant->freq_factor != 0) {
        const float factors[HEAD_DIM / 2] = {1, 2, variant->freq_factor};
        const uint64_t dims[1] = {HEAD_DIM / 2};
        gguf_add_tensor(&writer.builder, "rope_freqs.weight", RP_GGML_F32, 1, dims, factors,
                        sizeof factors);
    }
    for (int layer = 0; layer < N_LAYERS; layer++)
        add_layer(&writer, layer, strcmp(architecture, "llama") != 0);
    gguf_write(&writer.builder, path);
}

static struct rp_model *open_variant(const struct variant *variant)
{
    struct rp_model *model = NULL;
    struct rp_error err = {.code = RP_OK};
    write_model(variant);
    if (rp_model_open(path, &model, &err) != RP_OK)
        fail_msg("%s", err.message);
    return model;
}

static void expect_refused(const struct variant *variant, enum rp_status code, const char *message)
{
    struct rp_model *model = NULL;
    struct rp_error err = {.code = RP_OK};
    write_model(variant);
    assert_int_equal(rp_model_open(path, &model, &err), code);
    assert_string_equal(err.message, message);
    assert_string_equal(err.where, path);
    assert_null(model);
}

/* ---- runs, recorded slot by slot ---- */

#define MAX_SLOTS 64

struct recorded_slot {
    char name[RP_SLOT_NAME_SIZE];
    size_t dim, n_rows;
    int64_t next_position;
    float *rows; /* [n_rows][dim] */
};

struct recording {
    struct recorded_slot slots[MAX_SLOTS];
    size_t n_slots;
};

static enum rp_status record(void *context, const struct rp_tap *tap, struct rp_error *err)
{
    (void)err;
    struct recording *recording = context;
    struct recorded_slot *slot = NULL;
    for (size_t i = 0; i < recording->n_slots; i++) {
        if (strcmp(recording->slots[i].name, tap->slot) == 0)
            slot = &recording->slots[i];
    }
    if (!slot) {
        assert_true(recording->n_slots < MAX_SLOTS);
        slot = &recording->slots[recording->n_slots++];
        *slot = (struct recorded_slot){.dim = tap->dim, .next_position = tap->positions[0]};
        snprintf(slot->name, sizeof slot->name, "%s", tap->slot);
    }
    assert_int_equal(tap->dim, slot->dim);
    slot->rows = realloc(slot->rows, (slot->n_rows + tap->n_positions) * tap->dim * sizeof(float));
    assert_non_null(slot->rows);
    memcpy(slot->rows + slot->n_rows * tap->dim, tap->rows,
           tap->n_positions * tap->dim * sizeof(float));
    for (size_t i = 0; i < tap->n_positions; i++)
        assert_int_equal(tap->positions[i], slot->next_position++);
    slot->n_rows += tap->n_positions;
    return RP_OK;
}

static void forget(struct recording *recording)
{
    for (size_t i = 0; i < recording->n_slots; i++)
        free(recording->slots[i].rows);
    recording->n_slots = 0;
}

static void run(const struct rp_model *model, struct rp_run run_options,
                struct recording *recording)
{
    struct rp_error err = {.code = RP_OK};
    if (!run_options.tokens) {
        run_options.tokens = tokens;
        run_options.n_tokens = N_TOKENS;
    }
    run_options.tap = record;
    run_options.tap_context = recording;
    if (rp_model_run(model, &run_options, &err) != RP_OK)
        fail_msg("%s", err.message);
}

/* ||a - b|| / ||b|| of one row; NaN where a value is not finite. */
static double l2_rel(const float *a, const float *b, size_t dim)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < dim; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / norm);
}

static double worst_l2_rel(const struct recorded_slot *a, const struct recorded_slot *b)
{
    double worst = 0;
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->n_rows, b->n_rows);
    assert_int_equal(a->dim, b->dim);
    for (size_t row = 0; row < a->n_rows; row++) {
        double here = l2_rel(a->rows + row * a->dim, b->rows + row * b->dim, a->dim);
        if (!(here <= worst))
            worst = here;
    }
    return worst;
}

static void expect_same(const struct recording *a, const struct recording *b, double limit)
{
    assert_int_equal(a->n_slots, b->n_slots);
    for (size_t i = 0; i < a->n_slots; i++) {
        double worst = worst_l2_rel(&a->slots[i], &b->slots[i]);
        if (!(worst <= limit))
            fail_msg("%s differs by %g", a->slots[i].name, worst);
    }
}

/* ---- tests ---- */

static void the_configuration_is_read(void **state)
{
    (void)state;
    struct variant llama = {.architecture = "llama", .untied = true, .freq_factor = 8};
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    const struct rp_model_config *config = rp_model_config(model);
    assert_string_equal(config->architecture, "qwen3");
    assert_int_equal(config->n_layers, N_LAYERS);
    assert_int_equal(config->head_dim, HEAD_DIM);
    assert_int_equal(config->n_rot, HEAD_DIM);
    assert_int_equal(config->vocab_size, VOCAB);
    assert_int_equal(config->rope_ordering, RP_ROPE_NEOX);
    assert_true(config->has_tied_embeddings);
    assert_true(config->rms_norm_eps == 1e-6f);
    rp_model_close(model);
    model = open_variant(&llama);
    config = rp_model_config(model);
    assert_int_equal(config->rope_ordering, RP_ROPE_INTERLEAVED);
    assert_false(config->has_tied_embeddings);
    rp_model_close(model);
    rp_model_close(NULL);
}

static void head_size_and_kv_heads_have_defaults(void **state)
{
    (void)state;
    struct variant no_rot = {.without = "rope.dimension_count"};
    struct rp_model *model = open_variant(&no_rot);
    assert_int_equal(rp_model_config(model)->n_rot, HEAD_DIM);
    rp_model_close(model);
    expect_refused(&(struct variant){.without = "attention.head_count_kv"}, RP_ERR_MISMATCH,
                   "tensor 'blk.0.attn_k.weight' is [1][1][12][8], expected [1][1][24][8] from the "
                   "configuration");
}

static void a_missing_key_is_named(void **state)
{
    (void)state;
    static const char *const keys[] = {"block_count", "embedding_length", "feed_forward_length",
                                       "attention.head_count"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char message[128];
        snprintf(message, sizeof message, "key 'qwen3.%s' is missing", keys[i]);
        expect_refused(&(struct variant){.without = keys[i]}, RP_ERR_MISSING, message);
    }
}

static void contradicting_keys_are_an_error(void **state)
{
    (void)state;
    expect_refused(&(struct variant){.changed = "attention.head_count_kv", .value = 3},
                   RP_ERR_MISMATCH,
                   "key 'qwen3.attention.head_count_kv' is 3, expected a divisor of head_count, 4");
    expect_refused(&(struct variant){.changed = "rope.dimension_count", .value = 5},
                   RP_ERR_MISMATCH,
                   "key 'qwen3.rope.dimension_count' is 5, expected an even number up to the head "
                   "size, 6");
    expect_refused(&(struct variant){.changed = "rope.dimension_count", .value = 8},
                   RP_ERR_MISMATCH,
                   "key 'qwen3.rope.dimension_count' is 8, expected an even number up to the head "
                   "size, 6");
    expect_refused(&(struct variant){.changed = "vocab_size", .value = 12}, RP_ERR_MISMATCH,
                   "key 'qwen3.vocab_size' is 12, expected the rows of 'token_embd.weight', 11");
    expect_refused(&(struct variant){.n_tokens_listed = 10}, RP_ERR_MISMATCH,
                   "key 'tokenizer.ggml.tokens' lists 10 tokens, expected the rows of "
                   "'token_embd.weight', 11");
    expect_refused(&(struct variant){.eps_is_zero = true}, RP_ERR_FORMAT,
                   "key 'qwen3.attention.layer_norm_rms_epsilon' is 0, expected a number above 0");
    expect_refused(&(struct variant){.changed = "attention.head_count", .value = 0},
                   RP_ERR_UNSUPPORTED,
                   "key 'qwen3.attention.head_count' is 0, expected 1 to 16777216");
}

static void shapes_that_contradict_the_configuration_are_an_error(void **state)
{
    (void)state;
    expect_refused(&(struct variant){.changed = "embedding_length", .value = 16}, RP_ERR_MISMATCH,
                   "tensor 'token_embd.weight' is [1][1][11][8], expected [1][1][11][16] from the "
                   "configuration");
    expect_refused(&(struct variant){.changed = "feed_forward_length", .value = 31},
                   RP_ERR_MISMATCH,
                   "tensor 'blk.0.ffn_gate.weight' is [1][1][32][8], expected [1][1][31][8] from "
                   "the configuration");
}

static void too_few_or_too_many_tensors_are_an_error(void **state)
{
    (void)state;
    expect_refused(&(struct variant){.without = "blk.1.attn_q_norm.weight"}, RP_ERR_MISSING,
                   "tensor 'blk.1.attn_q_norm.weight' is missing");
    expect_refused(&(struct variant){.without = "token_embd.weight"}, RP_ERR_MISSING,
                   "tensor 'token_embd.weight' is missing");
    expect_refused(&(struct variant){.changed = "block_count", .value = 4}, RP_ERR_MISSING,
                   "tensor 'blk.3.attn_norm.weight' is missing");
    expect_refused(&(struct variant){.changed = "block_count", .value = 2}, RP_ERR_UNSUPPORTED,
                   "tensor 'blk.2.attn_norm.weight' is not part of architecture 'qwen3' with 2 "
                   "layers");
    expect_refused(&(struct variant){.extra_tensor = "blk.0.attn_q.bias"}, RP_ERR_UNSUPPORTED,
                   "tensor 'blk.0.attn_q.bias' is not part of architecture 'qwen3' with 3 layers");
    expect_refused(&(struct variant){.freq_factor = 8}, RP_ERR_UNSUPPORTED,
                   "tensor 'rope_freqs.weight' is not part of architecture 'qwen3' with 3 layers");
}

static void what_is_not_computed_is_refused(void **state)
{
    (void)state;
    expect_refused(&(struct variant){.architecture = "gpt2"}, RP_ERR_UNSUPPORTED,
                   "architecture \"gpt2\"; \"llama\" and \"qwen3\" are computed");
    expect_refused(&(struct variant){.changed = "attention.value_length", .value = 4},
                   RP_ERR_UNSUPPORTED,
                   "key 'qwen3.attention.value_length' is 4 and key_length 6; only equal lengths "
                   "are computed");
    expect_refused(&(struct variant){.scaling = "yarn"}, RP_ERR_UNSUPPORTED,
                   "key 'qwen3.rope.scaling.type' is not \"none\"; rope scaling is computed only "
                   "as the tensor 'rope_freqs.weight'");
    expect_refused(&(struct variant){.changed = "expert_count", .value = 8}, RP_ERR_UNSUPPORTED,
                   "key 'qwen3.expert_count' is 8, which this model does not compute");
    expect_refused(&(struct variant){.bad_type = "blk.2.ffn_up.weight"}, RP_ERR_UNSUPPORTED,
                   "tensor 'blk.2.ffn_up.weight' is of type I8; F32, F16, BF16, Q8_0 and Q4_0 are "
                   "read");
    expect_refused(&(struct variant){.architecture = "llama", .freq_factor = -1}, RP_ERR_FORMAT,
                   "tensor 'rope_freqs.weight': value 2 is -1, expected a number above 0");
    rp_model_close(open_variant(&(struct variant){.scaling = "none"}));
}

static void slots_come_in_forward_order(void **state)
{
    (void)state;
    struct recording recording = {.n_slots = 0};
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    run(model, (struct rp_run){.mode = RP_MODE_PER_TOKEN}, &recording);
    assert_int_equal(recording.n_slots, 1 + 5 * N_LAYERS + 2);
    assert_string_equal(recording.slots[0].name, "emb");
    assert_string_equal(recording.slots[recording.n_slots - 1].name, "logits");
    for (size_t i = 0; i < recording.n_slots; i++) {
        assert_int_equal(recording.slots[i].n_rows, N_TOKENS);
        if (i > 0)
            assert_true(rp_slot_order(recording.slots[i - 1].name, recording.slots[i].name) < 0);
    }
    forget(&recording);
    rp_model_close(model);
}

/* Equal to the bit without a BLAS. With one, sgemm sums 32 products in another order: 2e-7 each, and
 * three layers pass it on. */
#if defined(RP_HAVE_CBLAS)
#define SAME_ARITHMETIC 5e-6
#else
#define SAME_ARITHMETIC 0
#endif

static void all_paths_and_batch_sizes_agree(void **state)
{
    (void)state;
    static const struct variant variants[] = {
        {.architecture = "qwen3"},
        {.architecture = "llama", .untied = true, .freq_factor = 8},
    };
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        struct recording one = {.n_slots = 0}, other = {.n_slots = 0};
        struct rp_model *model = open_variant(&variants[i]);
        run(model, (struct rp_run){.mode = RP_MODE_PER_TOKEN}, &one);
        for (size_t chunk = 0; chunk <= N_TOKENS + 1; chunk++) {
            run(model, (struct rp_run){.mode = RP_MODE_BATCHED, .chunk = chunk}, &other);
            expect_same(&other, &one, SAME_ARITHMETIC);
            forget(&other);
        }
        forget(&one);
        rp_model_close(model);
    }
}

/* RoPE is relative: angles of positions near 100 are rounded at 1e-5 in FP32, and that is all. */
static void shifting_all_positions_changes_nothing(void **state)
{
    (void)state;
    struct recording at_0 = {.n_slots = 0}, at_100 = {.n_slots = 0};
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    run(model, (struct rp_run){.mode = RP_MODE_BATCHED}, &at_0);
    run(model, (struct rp_run){.mode = RP_MODE_BATCHED, .first_position = 100}, &at_100);
    expect_same(&at_100, &at_0, 1e-4);
    forget(&at_0);
    forget(&at_100);
    rp_model_close(model);
}

/* ---- replaced operations ---- */

struct replacement {
    int layer;
    enum rp_mode mode;
    int n_calls;
};

static enum rp_status double_ffn(void *context, const struct rp_site *site,
                                 const struct rp_residual_add *args)
{
    struct replacement *replacement = context;
    float twice[N_TOKENS * HIDDEN];
    struct rp_residual_add changed = *args;
    if (site->layer != replacement->layer || site->mode != replacement->mode ||
        args->which != RP_FFN_DOWN)
        return rp_ops_default()->residual_add(NULL, site, args);
    replacement->n_calls++;
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        twice[i] = 2 * args->branch[i];
    changed.branch = twice;
    return rp_ops_default()->residual_add(NULL, site, &changed);
}

static void a_replaced_operation_is_seen_from_its_layer_on(void **state)
{
    (void)state;
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    struct recording clean = {.n_slots = 0}, changed = {.n_slots = 0};
    struct rp_ops ops = *rp_ops_default();
    run(model, (struct rp_run){.mode = RP_MODE_BATCHED}, &clean);
    for (int layer = 0; layer < N_LAYERS; layer++) {
        struct replacement replacement = {.layer = layer, .mode = RP_MODE_BATCHED};
        char first[RP_SLOT_NAME_SIZE];
        ops.context = &replacement;
        ops.residual_add = double_ffn;
        run(model, (struct rp_run){.ops = &ops, .mode = RP_MODE_BATCHED}, &changed);
        assert_int_equal(replacement.n_calls, 1);
        rp_slot_name(RP_PART_OUTPUT, layer, first);
        for (size_t i = 0; i < clean.n_slots; i++) {
            double worst = worst_l2_rel(&changed.slots[i], &clean.slots[i]);
            bool is_after = rp_slot_order(clean.slots[i].name, first) >= 0;
            assert_true(is_after ? worst > 1e-3 : worst == 0);
        }
        forget(&changed);
    }
    forget(&clean);
    rp_model_close(model);
}

static void an_operation_can_be_replaced_in_one_path_only(void **state)
{
    (void)state;
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    struct recording clean = {.n_slots = 0}, changed = {.n_slots = 0};
    struct replacement replacement = {.layer = 1, .mode = RP_MODE_BATCHED};
    struct rp_ops ops = *rp_ops_default();
    ops.context = &replacement;
    ops.residual_add = double_ffn;
    run(model, (struct rp_run){.mode = RP_MODE_PER_TOKEN}, &clean);
    run(model, (struct rp_run){.ops = &ops, .mode = RP_MODE_PER_TOKEN}, &changed);
    expect_same(&changed, &clean, 0);
    assert_int_equal(replacement.n_calls, 0);
    forget(&changed);
    run(model, (struct rp_run){.ops = &ops, .mode = RP_MODE_BATCHED, .chunk = 4}, &changed);
    assert_int_equal(replacement.n_calls, 3);
    assert_true(worst_l2_rel(&changed.slots[changed.n_slots - 1], &clean.slots[clean.n_slots - 1]) >
                1e-3);
    forget(&changed);
    forget(&clean);
    rp_model_close(model);
}

static enum rp_status fail_rope(void *context, const struct rp_site *site,
                                const struct rp_rope *args)
{
    (void)context;
    (void)args;
    return rp_fail(site->err, RP_ERR_UNSUPPORTED, NULL, -1, "no rope in layer %d", site->layer);
}

static enum rp_status fail_tap(void *context, const struct rp_tap *tap, struct rp_error *err)
{
    (void)context;
    if (strcmp(tap->slot, "h1_ffnout") == 0)
        return rp_fail(err, RP_ERR_IO, NULL, -1, "the disk is full");
    return RP_OK;
}

static void an_error_of_an_operation_or_tap_ends_the_run(void **state)
{
    (void)state;
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    struct rp_ops ops = *rp_ops_default();
    struct rp_error err;
    struct rp_run options = {.tokens = tokens, .n_tokens = N_TOKENS, .ops = &ops};
    ops.rope = fail_rope;
    assert_int_equal(rp_model_run(model, &options, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "no rope in layer 0");
    options.ops = NULL;
    options.tap = fail_tap;
    assert_int_equal(rp_model_run(model, &options, &err), RP_ERR_IO);
    assert_string_equal(err.message, "the disk is full");
    rp_model_close(model);
}

/* ---- one layer by itself ---- */

static void a_layer_alone_computes_what_the_run_did(void **state)
{
    (void)state;
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    struct recording whole = {.n_slots = 0};
    struct rp_forward forward = {.model = model, .mode = RP_MODE_BATCHED};
    struct rp_layer layer = {.owned = NULL};
    struct rp_layer_state *layer_state = NULL;
    float hidden[N_TOKENS * HIDDEN];
    int64_t positions[N_TOKENS];
    run(model, (struct rp_run){.mode = RP_MODE_BATCHED}, &whole);
    const struct recorded_slot *input = &whole.slots[1 + 5 * 1]; /* h1_in */
    const struct recorded_slot *output = &whole.slots[5 + 5 * 1];
    assert_string_equal(input->name, "h1_in");
    assert_string_equal(output->name, "h1");
    for (size_t i = 0; i < N_TOKENS; i++)
        positions[i] = (int64_t)i;
    memcpy(hidden, input->rows, sizeof hidden);
    assert_int_equal(rp_layer_load(model, 1, &layer, NULL), RP_OK);
    assert_int_equal(layer.weights[RP_FFN_DOWN].n_in, FFN);
    assert_int_equal(rp_layer_state_open(model, 1, N_TOKENS, &layer_state, NULL), RP_OK);
    assert_int_equal(
        rp_layer_forward(&forward, 1, &layer, layer_state, N_TOKENS, positions, hidden, NULL),
        RP_OK);
    assert_memory_equal(hidden, output->rows, sizeof hidden);
    rp_layer_state_close(layer_state);
    rp_layer_free(&layer);
    forget(&whole);
    rp_model_close(model);
}

static void calls_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const int64_t ahead[2] = {5, 6}, repeated[2] = {7, 7}, behind[1] = {6};
    static const int32_t outside[1] = {VOCAB}, negative[1] = {-1};
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    struct rp_forward forward = {.model = model};
    struct rp_layer layer = {.owned = NULL};
    struct rp_layer_state *layer_state = NULL;
    struct rp_error err;
    float hidden[3 * HIDDEN] = {1};
    assert_int_equal(rp_layer_load(model, N_LAYERS, &layer, &err), RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "layer 3 of a model with 3");
    assert_int_equal(rp_layer_state_open(model, N_LAYERS, 1, &layer_state, &err), RP_ERR_ARGUMENT);
    assert_int_equal(rp_layer_load(model, 0, &layer, NULL), RP_OK);
    assert_int_equal(rp_layer_state_open(model, 0, 3, &layer_state, NULL), RP_OK);
    assert_int_equal(rp_layer_forward(&forward, 0, &layer, layer_state, 2, repeated, hidden, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "position 7 does not follow the one before it");
    assert_int_equal(rp_layer_forward(&forward, 0, &layer, layer_state, 2, ahead, hidden, NULL),
                     RP_OK);
    assert_int_equal(rp_layer_forward(&forward, 0, &layer, layer_state, 1, behind, hidden, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "position 6 does not follow the one before it");
    assert_int_equal(rp_layer_forward(&forward, 0, &layer, layer_state, 2, ahead, hidden, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "2 positions for a state that holds 2 of 3");
    assert_int_equal(rp_model_run(model, &(struct rp_run){.tokens = outside, .n_tokens = 1}, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "token 0 is 11, outside the vocabulary of 11");
    assert_int_equal(rp_model_run(model, &(struct rp_run){.tokens = negative, .n_tokens = 1}, &err),
                     RP_ERR_ARGUMENT);
    assert_int_equal(rp_model_run(model, &(struct rp_run){.tokens = outside}, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "there are no tokens to run");
    rp_layer_state_close(layer_state);
    rp_layer_state_close(NULL);
    rp_layer_free(&layer);
    rp_model_close(model);
}

/* ---- against Hugging Face ---- */

/* HF's own FP32 rounding noise on these models is about 2e-6; the smallest known bug shows 2e-3. */
#define HF_LIMIT 1e-5

struct parity {
    size_t n_compared; /* rows */
    double worst;
    char where[128];
};

static void compare_slot(struct rp_tensor_set *set, const struct recorded_slot *slot,
                         struct parity *parity)
{
    struct rp_tensor tensor = {.data = NULL};
    struct rp_error err;
    float *reference = malloc(slot->dim * sizeof *reference);
    assert_non_null(reference);
    if (rp_tensor_load(set, slot->name, &tensor, &err) != RP_OK)
        fail_msg("%s: %s", slot->name, err.message);
    assert_int_equal(tensor.n_positions, slot->n_rows);
    assert_int_equal(tensor.dim, slot->dim);
    for (size_t row = 0; row < slot->n_rows; row++) {
        memcpy(reference, (const char *)tensor.data + row * slot->dim * sizeof *reference,
               slot->dim * sizeof *reference);
        double here = l2_rel(slot->rows + row * slot->dim, reference, slot->dim);
        if (!(here <= parity->worst)) {
            parity->worst = here;
            snprintf(parity->where, sizeof parity->where, "%s at position %lld", slot->name,
                     (long long)tensor.positions[row]);
        }
        parity->n_compared++;
    }
    rp_tensor_release(&tensor);
    free(reference);
}

static void compare_fixture(const struct rp_model *model, const char *fixture, enum rp_mode mode,
                            struct parity *parity)
{
    struct rp_tensor_set *set = NULL;
    struct recording recording = {.n_slots = 0};
    struct rp_error err;
    const int64_t *ids;
    int32_t prompt[512];
    size_t n;
    if (rp_tensor_set_open(fixture, RP_LAYOUT_NPZ, 0, &set, &err) != RP_OK)
        fail_msg("%s: %s", fixture, err.message);
    assert_int_equal(rp_tensor_set_tokens(set, &ids, &n, &err), RP_OK);
    assert_in_range(n, 1, 512);
    for (size_t i = 0; i < n; i++)
        prompt[i] = (int32_t)ids[i];
    run(model, (struct rp_run){.tokens = prompt, .n_tokens = n, .mode = mode}, &recording);
    for (size_t i = 0; i < recording.n_slots; i++)
        compare_slot(set, &recording.slots[i], parity);
    forget(&recording);
    rp_tensor_set_close(set);
}

static void expect_parity(const char *architecture)
{
    char store[512], gguf[512];
    struct rp_model *model = NULL;
    struct rp_error err;
    snprintf(store, sizeof store, "%s/fixtures/store/tiny--%s/main/float32", RP_SOURCE_DIR,
             architecture);
    snprintf(gguf, sizeof gguf, "%s/fixtures/tiny/%s/%s-bf16.gguf", RP_SOURCE_DIR, architecture,
             architecture);
    if (rp_model_open(gguf, &model, &err) != RP_OK)
        fail_msg("%s: %s", gguf, err.message);
    for (int mode = RP_MODE_PER_TOKEN; mode <= RP_MODE_BATCHED; mode++) {
        struct parity parity = {.n_compared = 0};
        size_t n_fixtures = 0;
        DIR *dir = opendir(store);
        assert_non_null(dir);
        for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
            char fixture[1024];
            size_t length = strlen(entry->d_name);
            if (length < 4 || strcmp(entry->d_name + length - 4, ".npz") != 0)
                continue;
            snprintf(fixture, sizeof fixture, "%s/%s", store, entry->d_name);
            compare_fixture(model, fixture, (enum rp_mode)mode, &parity);
            n_fixtures++;
        }
        closedir(dir);
        assert_true(n_fixtures >= 6);
        assert_true(parity.n_compared > 0);
        print_message("%s %s: worst L2_rel %.3g, %s, of %zu rows\n", architecture,
                      mode == RP_MODE_PER_TOKEN ? "per-token" : "batched", parity.worst,
                      parity.where, parity.n_compared);
        assert_true(parity.worst < HF_LIMIT);
    }
    rp_model_close(model);
}

static void qwen3_is_within_1e_5_of_hf_at_every_slot_and_position(void **state)
{
    (void)state;
    expect_parity("qwen3");
}

static void llama_is_within_1e_5_of_hf_at_every_slot_and_position(void **state)
{
    (void)state;
    expect_parity("llama");
}

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_configuration_is_read),
        cmocka_unit_test(head_size_and_kv_heads_have_defaults),
        cmocka_unit_test(a_missing_key_is_named),
        cmocka_unit_test(contradicting_keys_are_an_error),
        cmocka_unit_test(shapes_that_contradict_the_configuration_are_an_error),
        cmocka_unit_test(too_few_or_too_many_tensors_are_an_error),
        cmocka_unit_test(what_is_not_computed_is_refused),
        cmocka_unit_test(slots_come_in_forward_order),
        cmocka_unit_test(all_paths_and_batch_sizes_agree),
        cmocka_unit_test(shifting_all_positions_changes_nothing),
        cmocka_unit_test(a_replaced_operation_is_seen_from_its_layer_on),
        cmocka_unit_test(an_operation_can_be_replaced_in_one_path_only),
        cmocka_unit_test(an_error_of_an_operation_or_tap_ends_the_run),
        cmocka_unit_test(a_layer_alone_computes_what_the_run_did),
        cmocka_unit_test(calls_that_cannot_be_are_refused),
        cmocka_unit_test(qwen3_is_within_1e_5_of_hf_at_every_slot_and_position),
        cmocka_unit_test(llama_is_within_1e_5_of_hf_at_every_slot_and_position),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder) ? 1 : 0;
}
