/* GGUF metadata -> struct rp_model_config, for the keys that llama.cpp's converter writes.
 * Keys that would change the computation and are not computed here are errors. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model_internal.h"
#include "weights/prediction_layers.h"

#define MAX_LAYERS 4096
#define MAX_SIZE (1 << 24)    /* of any one dimension; products of two stay far below SIZE_MAX */
#define DEFAULT_THETA 10000.0 /* llama.cpp's, where the key is absent */
#define MAX_EXPERTS 65536
#define KEY_SIZE 128

struct reader {
    const struct rp_gguf *gguf;
    const char *architecture;
    struct rp_error *err;
};

static const char *make_key(const struct reader *reader, const char *name, char *key)
{
    snprintf(key, KEY_SIZE, "%s.%s", reader->architecture, name);
    return key;
}

static const struct rp_gguf_value *find(const struct reader *reader, const char *name)
{
    char key[KEY_SIZE];
    return rp_gguf_find_value(reader->gguf, make_key(reader, name, key));
}

/* A number for each layer, which has to be the same for all: of these sizes a layer has none of its own. */
static enum rp_status read_equal_sizes(const struct reader *reader, const char *key, int64_t max,
                                       int64_t *value)
{
    int64_t *sizes;
    size_t n;
    enum rp_status status = rp_gguf_get_ints(reader->gguf, key, &sizes, &n, reader->err);
    if (status != RP_OK)
        return status;
    if (n == 0 || sizes[0] < 1 || sizes[0] > max)
        status = rp_fail(reader->err, RP_ERR_UNSUPPORTED, rp_gguf_path(reader->gguf), -1,
                         "key '%s' is %lld for layer 0, expected 1 to %lld", key,
                         n == 0 ? 0 : (long long)sizes[0], (long long)max);
    for (size_t i = 1; i < n && status == RP_OK; i++)
        if (sizes[i] != sizes[0])
            status = rp_fail(reader->err, RP_ERR_UNSUPPORTED, rp_gguf_path(reader->gguf), -1,
                             "key '%s' is %lld for layer 0 and %lld for layer %zu: of "
                             "layers only feed_forward_length may differ",
                             key, (long long)sizes[0], (long long)sizes[i], i);
    if (status == RP_OK)
        *value = sizes[0];
    free(sizes);
    return status;
}

static enum rp_status read_size(const struct reader *reader, const char *name, int64_t max,
                                size_t *out)
{
    char key[KEY_SIZE];
    int64_t value;
    const struct rp_gguf_value *found = find(reader, name);
    make_key(reader, name, key);
    const enum rp_status status =
        found && found->kind == RP_GGUF_ARRAY
            ? read_equal_sizes(reader, key, max, &value)
            : rp_gguf_get_int(reader->gguf, key, 1, max, &value, reader->err);
    if (status == RP_OK)
        *out = (size_t)value;
    return status;
}

/* The FFN's width: a number, or one for each layer, which go to *sizes where they differ. */
static enum rp_status read_widths(const struct reader *reader, struct rp_model_config *config,
                                  size_t **sizes)
{
    static const char name[] = "feed_forward_length";
    const struct rp_gguf_value *found = find(reader, name);
    char key[KEY_SIZE];
    int64_t *widths = NULL;
    size_t n = 0;
    if (!found || found->kind != RP_GGUF_ARRAY)
        return read_size(reader, name, MAX_SIZE, &config->intermediate_size);
    const char *path = rp_gguf_path(reader->gguf);
    make_key(reader, name, key);
    enum rp_status status = rp_gguf_get_ints(reader->gguf, key, &widths, &n, reader->err);
    if (status != RP_OK)
        return status;
    if (n < config->n_layers || n > config->n_layers + config->n_prediction_layers)
        status = rp_fail(reader->err, RP_ERR_MISMATCH, path, -1,
                         "key '%s' has %zu elements, expected one per layer, %zu", key, n,
                         config->n_layers);
    size_t *all = status == RP_OK ? malloc(n * sizeof *all) : NULL;
    if (status == RP_OK && !all)
        status = rp_fail(reader->err, RP_ERR_MEMORY, path, -1, "no memory for %zu layers", n);
    bool differs = false;
    for (size_t i = 0; i < config->n_layers && status == RP_OK; i++) {
        if (widths[i] < 1 || widths[i] > MAX_SIZE) {
            status = rp_fail(reader->err, RP_ERR_UNSUPPORTED, path, -1,
                             "key '%s' is %lld for layer %zu, expected 1 to %d", key,
                             (long long)widths[i], i, MAX_SIZE);
            break;
        }
        all[i] = (size_t)widths[i];
        differs = differs || all[i] != all[0];
        if (all[i] > config->intermediate_size)
            config->intermediate_size = all[i];
    }
    free(widths);
    if (status != RP_OK || !differs) {
        free(all);
        return status;
    }
    *sizes = all;
    config->intermediate_sizes = all;
    return RP_OK;
}

/* Leaves *out, the default, where the key is absent. */
static enum rp_status read_optional_size(const struct reader *reader, const char *name, int64_t max,
                                         size_t *out)
{
    return find(reader, name) ? read_size(reader, name, max, out) : RP_OK;
}

/* A finite number above 0. */
static enum rp_status read_positive(const struct reader *reader, const char *name, float *out)
{
    char key[KEY_SIZE];
    double value;
    enum rp_status status =
        rp_gguf_get_float(reader->gguf, make_key(reader, name, key), &value, reader->err);
    if (status != RP_OK)
        return status;
    if (!(value > 0 && isfinite(value)))
        return rp_fail(reader->err, RP_ERR_FORMAT, rp_gguf_path(reader->gguf), -1,
                       "key '%s' is %g, expected a number above 0", key, value);
    *out = (float)value;
    return RP_OK;
}

static enum rp_status mismatch(const struct reader *reader, const char *name, size_t value,
                               const char *expected)
{
    return rp_fail(reader->err, RP_ERR_MISMATCH, rp_gguf_path(reader->gguf), -1,
                   "key '%s.%s' is %zu, expected %s", reader->architecture, name, value, expected);
}

/* Latent attention: n_heads, n_kv_heads, head_dim and n_rot are set, as attention runs. */
static enum rp_status read_latents(const struct reader *reader, struct rp_model_config *config)
{
    size_t query_dim = config->head_dim, value_length = 0, rank = 0;
    int64_t q_rank = 0;
    char key[KEY_SIZE], expected[80];
    enum rp_status status = read_size(reader, "attention.kv_lora_rank", MAX_SIZE, &rank);
    if (status == RP_OK && find(reader, "attention.q_lora_rank"))
        status = rp_gguf_get_int(reader->gguf, make_key(reader, "attention.q_lora_rank", key), 0,
                                 MAX_SIZE, &q_rank, reader->err);
    if (status == RP_OK)
        status = read_size(reader, "attention.value_length", MAX_SIZE, &value_length);
    config->is_absorbed = find(reader, "attention.key_length_mla");
    config->v_head_dim = value_length;
    if (status == RP_OK && config->is_absorbed)
        status = read_size(reader, "attention.key_length_mla", MAX_SIZE, &query_dim);
    if (status == RP_OK && config->is_absorbed)
        status = read_size(reader, "attention.value_length_mla", MAX_SIZE, &config->v_head_dim);
    if (status != RP_OK)
        return status;
    config->kv_lora_rank = rank;
    config->q_lora_rank = (size_t)q_rank;
    const size_t n_kv_heads = config->is_absorbed ? 1 : config->n_heads;
    const size_t key_length = config->is_absorbed ? rank + config->n_rot : query_dim;
    snprintf(expected, sizeof expected, "%zu, with kv_lora_rank %zu and %zu heads",
             config->n_kv_heads != n_kv_heads ? n_kv_heads : key_length, rank, config->n_heads);
    if (config->n_kv_heads != n_kv_heads)
        return mismatch(reader, "attention.head_count_kv", config->n_kv_heads, expected);
    if (config->head_dim != key_length)
        return mismatch(reader, "attention.key_length", config->head_dim, expected);
    if (query_dim <= config->n_rot)
        return mismatch(reader, "rope.dimension_count", config->n_rot,
                        "less than a query's values");
    if (config->is_absorbed && value_length != rank)
        return mismatch(reader, "attention.value_length", value_length, "kv_lora_rank");
    if (value_length > config->head_dim)
        return mismatch(reader, "attention.value_length", value_length, "key_length at most");
    config->nope_dim = query_dim - config->n_rot;
    config->attention_scale = 1.0f / sqrtf((float)query_dim);
    return RP_OK;
}

static enum rp_status read_heads(const struct reader *reader, bool has_latents,
                                 struct rp_model_config *config)
{
    char expected[64];
    size_t value_length;
    enum rp_status status = read_size(reader, "attention.head_count", MAX_SIZE, &config->n_heads);
    config->n_kv_heads = config->n_heads;
    if (status == RP_OK)
        status =
            read_optional_size(reader, "attention.head_count_kv", MAX_SIZE, &config->n_kv_heads);
    if (status != RP_OK)
        return status;
    if (config->n_heads % config->n_kv_heads != 0) {
        snprintf(expected, sizeof expected, "a divisor of head_count, %zu", config->n_heads);
        return mismatch(reader, "attention.head_count_kv", config->n_kv_heads, expected);
    }
    config->head_dim = config->hidden_size / config->n_heads;
    if (find(reader, "attention.key_length"))
        status = read_size(reader, "attention.key_length", MAX_SIZE, &config->head_dim);
    else if (config->hidden_size % config->n_heads != 0)
        return mismatch(reader, "attention.head_count", config->n_heads,
                        "a divisor of embedding_length where key_length is absent");
    if (has_latents)
        return status;
    value_length = config->head_dim;
    if (status == RP_OK)
        status = read_optional_size(reader, "attention.value_length", MAX_SIZE, &value_length);
    if (status != RP_OK)
        return status;
    if (value_length != config->head_dim)
        return rp_fail(reader->err, RP_ERR_UNSUPPORTED, rp_gguf_path(reader->gguf), -1,
                       "key '%s.attention.value_length' is %zu and key_length %zu; only equal "
                       "lengths are computed",
                       reader->architecture, value_length, config->head_dim);
    return RP_OK;
}

static enum rp_status read_rope(const struct reader *reader, struct rp_model_config *config)
{
    char expected[64];
    enum rp_status status = RP_OK;
    config->n_rot = config->head_dim;
    config->rope_theta = (float)DEFAULT_THETA;
    status = read_optional_size(reader, "rope.dimension_count", MAX_SIZE, &config->n_rot);
    if (status == RP_OK && (config->n_rot % 2 != 0 || config->n_rot > config->head_dim)) {
        snprintf(expected, sizeof expected, "an even number up to the head size, %zu",
                 config->head_dim);
        return mismatch(reader, "rope.dimension_count", config->n_rot, expected);
    }
    if (status == RP_OK && find(reader, "rope.freq_base"))
        status = read_positive(reader, "rope.freq_base", &config->rope_theta);
    return status;
}

/* Layers that attend to a window, and their base of RoPE. Without the key all layers are alike. */
static enum rp_status read_window(const struct reader *reader,
                                  const struct rp_architecture *architecture,
                                  struct rp_model_config *config)
{
    char key[KEY_SIZE];
    int64_t window = 0;
    enum rp_status status = RP_OK;
    if (find(reader, "attention.sliding_window"))
        status = rp_gguf_get_int(reader->gguf, make_key(reader, "attention.sliding_window", key), 0,
                                 INT32_MAX, &window, reader->err);
    config->window = (size_t)window;
    config->rope_theta_sliding =
        architecture->window_has_own_rope ? (float)DEFAULT_THETA : config->rope_theta;
    if (status == RP_OK && architecture->window_has_own_rope && find(reader, "rope.freq_base_swa"))
        status = read_positive(reader, "rope.freq_base_swa", &config->rope_theta_sliding);
    return status;
}

/* The sizes of the gated DeltaNet, under the keys that llama.cpp shares with Mamba. */
static enum rp_status read_delta_net(const struct reader *reader, struct rp_model_config *config)
{
    char expected[80];
    size_t inner_size = 0;
    const struct {
        const char *name;
        size_t *size;
    } keys[] = {{"ssm.conv_kernel", &config->conv_kernel},
                {"ssm.state_size", &config->linear_head_dim},
                {"ssm.group_count", &config->n_linear_k_heads},
                {"ssm.time_step_rank", &config->n_linear_v_heads},
                {"ssm.inner_size", &inner_size}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        enum rp_status status = read_size(reader, keys[i].name, MAX_SIZE, keys[i].size);
        if (status != RP_OK)
            return status;
    }
    if (config->n_linear_v_heads % config->n_linear_k_heads != 0) {
        snprintf(expected, sizeof expected, "a divisor of ssm.time_step_rank, %zu",
                 config->n_linear_v_heads);
        return mismatch(reader, "ssm.group_count", config->n_linear_k_heads, expected);
    }
    if (inner_size != config->n_linear_v_heads * config->linear_head_dim) {
        snprintf(expected, sizeof expected, "ssm.time_step_rank * ssm.state_size, %zu",
                 config->n_linear_v_heads * config->linear_head_dim);
        return mismatch(reader, "ssm.inner_size", inner_size, expected);
    }
    return RP_OK;
}

/* How a router's scores are made, as ggml numbers it: softmax, sigmoid, softmax of the chosen. */
static enum rp_status read_scores(const struct reader *reader, struct rp_router *router)
{
    static const char name[] = "expert_gating_func";
    char key[KEY_SIZE];
    int64_t value;
    if (!find(reader, name))
        return RP_OK;
    const enum rp_status status =
        rp_gguf_get_int(reader->gguf, make_key(reader, name, key), 0, 3, &value, reader->err);
    if (status == RP_OK && value > 0)
        router->scores = value == 1   ? RP_ROUTER_SOFTMAX
                         : value == 2 ? RP_ROUTER_SIGMOID
                                      : RP_ROUTER_SOFTMAX_CHOSEN;
    return status;
}

/* The groups that experts are chosen from. */
static enum rp_status check_groups(const struct reader *reader, const struct rp_router *router)
{
    char expected[96];
    if (router->n_experts % router->n_groups != 0) {
        snprintf(expected, sizeof expected, "a divisor of expert_count, %zu", router->n_experts);
        return mismatch(reader, "expert_group_count", router->n_groups, expected);
    }
    if (router->n_chosen_groups > router->n_groups) {
        snprintf(expected, sizeof expected, "at most expert_group_count, %zu", router->n_groups);
        return mismatch(reader, "expert_group_used_count", router->n_chosen_groups, expected);
    }
    const size_t n_most = router->n_experts / router->n_groups * router->n_chosen_groups;
    if (router->n_chosen > n_most) {
        snprintf(expected, sizeof expected, "at most the experts to choose from, %zu", n_most);
        return mismatch(reader, "expert_used_count", router->n_chosen, expected);
    }
    return RP_OK;
}

static enum rp_status read_router(const struct reader *reader, struct rp_router *router)
{
    static const char norm[] = "expert_weights_norm";
    char key[KEY_SIZE];
    enum rp_status status = read_size(reader, "expert_count", MAX_EXPERTS, &router->n_experts);
    if (status == RP_OK)
        status = read_size(reader, "expert_used_count", MAX_EXPERTS, &router->n_chosen);
    if (status == RP_OK)
        status = read_scores(reader, router);
    if (status == RP_OK && find(reader, norm))
        status = rp_gguf_get_bool(reader->gguf, make_key(reader, norm, key), &router->normalizes,
                                  reader->err);
    router->scale = 1;
    if (status == RP_OK && find(reader, "expert_weights_scale"))
        status = read_positive(reader, "expert_weights_scale", &router->scale);
    router->n_groups = router->n_chosen_groups = 1;
    if (status == RP_OK)
        status = read_optional_size(reader, "expert_group_count", MAX_EXPERTS, &router->n_groups);
    if (status == RP_OK && router->n_groups > 1)
        status =
            read_size(reader, "expert_group_used_count", MAX_EXPERTS, &router->n_chosen_groups);
    router->group_score = rp_router_group_score(router);
    return status == RP_OK ? check_groups(reader, router) : status;
}

static enum rp_status read_experts(const struct reader *reader,
                                   const struct rp_architecture *architecture,
                                   struct rp_model_config *config)
{
    static const char dense[] = "leading_dense_block_count";
    char key[KEY_SIZE];
    int64_t n_dense = 0;
    size_t n_shared = 0;
    enum rp_status status = read_router(reader, &config->router);
    config->expert_size = config->intermediate_size;
    if (status == RP_OK)
        status = read_optional_size(reader, "expert_feed_forward_length", MAX_SIZE,
                                    &config->expert_size);
    if (status == RP_OK && config->expert_size == 0)
        status = read_size(reader, "expert_feed_forward_length", MAX_SIZE, &config->expert_size);
    const bool has_shared = rp_architecture_has_shared_expert(architecture);
    if (status == RP_OK && has_shared)
        status = read_optional_size(reader, "expert_shared_count", MAX_EXPERTS, &n_shared);
    config->shared_expert_size = n_shared * config->expert_size;
    if (status == RP_OK && has_shared)
        status = read_optional_size(reader, "expert_shared_feed_forward_length", MAX_SIZE,
                                    &config->shared_expert_size);
    if (status == RP_OK && find(reader, dense))
        status = rp_gguf_get_int(reader->gguf, make_key(reader, dense, key), 0, MAX_LAYERS,
                                 &n_dense, reader->err);
    config->n_dense_layers = (size_t)n_dense;
    return status;
}

/* kinds [n_layers] by the architecture's pattern, whose keys the file may have. */
static enum rp_status read_pattern(const struct reader *reader,
                                   const struct rp_layer_pattern *pattern,
                                   const struct rp_model_config *config, enum rp_layer_kind *kinds)
{
    const size_t n_layers = config->n_layers, n_listed = n_layers + config->n_prediction_layers;
    char key[KEY_SIZE];
    bool *is_other = NULL;
    size_t n = 0, interval = pattern->interval;
    enum rp_status status = RP_OK;
    if (interval == 0)
        return RP_OK;
    const bool is_listed = pattern->gguf_others && find(reader, pattern->gguf_others);
    if (is_listed)
        status = rp_gguf_get_bools(reader->gguf, make_key(reader, pattern->gguf_others, key),
                                   &is_other, &n, reader->err);
    else if (pattern->gguf_interval)
        status = read_optional_size(reader, pattern->gguf_interval, MAX_LAYERS, &interval);
    if (status == RP_OK && is_listed && n != n_layers && n != n_listed)
        status =
            rp_fail(reader->err, RP_ERR_MISMATCH, rp_gguf_path(reader->gguf), -1,
                    "key '%s' has %zu elements, expected one per layer, %zu", key, n, n_layers);
    for (size_t i = 0; i < n_layers && status == RP_OK; i++)
        kinds[i] =
            (is_listed ? is_other[i] : (i + 1) % interval != 0) ? pattern->others : pattern->nth;
    free(is_other);
    return status;
}

static enum rp_status read_layer_kinds(const struct reader *reader,
                                       const struct rp_architecture *architecture,
                                       struct rp_model_config *config,
                                       enum rp_layer_kind **layer_kinds)
{
    enum rp_layer_kind *kinds = malloc(config->n_layers * sizeof *kinds);
    *layer_kinds = kinds;
    if (!kinds)
        return rp_fail(reader->err, RP_ERR_MEMORY, rp_gguf_path(reader->gguf), -1,
                       "no memory for %zu layers", config->n_layers);
    config->layer_kinds = kinds;
    for (size_t i = 0; i < config->n_layers; i++)
        kinds[i] = RP_LAYER_FULL_ATTENTION;
    enum rp_status status = RP_OK;
    if (rp_architecture_is_hybrid(architecture))
        status = read_delta_net(reader, config);
    if (rp_architecture_has_window(architecture)) {
        status = read_window(reader, architecture, config);
        if (status == RP_OK && config->window == 0)
            return RP_OK;
    }
    if (status == RP_OK)
        status = read_pattern(reader, &architecture->pattern, config, kinds);
    return status;
}

/* A cap has to be the architecture's: none reads the key of one that it does not have. */
static enum rp_status read_softcap(const struct reader *reader, const char *name, float usual,
                                   float *cap)
{
    char key[KEY_SIZE];
    *cap = usual;
    if (!find(reader, name))
        return RP_OK;
    if (usual > 0)
        return read_positive(reader, name, cap);
    return rp_fail(reader->err, RP_ERR_UNSUPPORTED, rp_gguf_path(reader->gguf), -1,
                   "key '%s': a cap is computed of gemma2 alone", make_key(reader, name, key));
}

static enum rp_status read_softcaps(const struct reader *reader,
                                    const struct rp_architecture *architecture,
                                    struct rp_model_config *config)
{
    const enum rp_status status =
        read_softcap(reader, "attn_logit_softcapping", architecture->attention_softcap,
                     &config->attention_softcap);
    if (status != RP_OK)
        return status;
    return read_softcap(reader, "final_logit_softcapping", architecture->logits_softcap,
                        &config->logits_softcap);
}

/* Keys of features that change the result; zero, or absent, means that they are off. */
static enum rp_status refuse_features(const struct reader *reader,
                                      const struct rp_architecture *architecture)
{
    static const char window[] = "attention.sliding_window";
    static const char *const names[] = {"expert_count", "expert_used_count", window};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if ((names[i] == window && rp_architecture_has_window(architecture)) ||
            (strncmp(names[i], "expert", 6) == 0 && rp_architecture_has_experts(architecture)))
            continue;
        char key[KEY_SIZE];
        int64_t value = 0;
        enum rp_status status = RP_OK;
        if (find(reader, names[i]))
            status = rp_gguf_get_int(reader->gguf, make_key(reader, names[i], key), 0, INT64_MAX,
                                     &value, reader->err);
        if (status == RP_OK && value != 0)
            return rp_fail(reader->err, RP_ERR_UNSUPPORTED, rp_gguf_path(reader->gguf), -1,
                           "key '%s' is %lld, which this model does not compute", key,
                           (long long)value);
        if (status != RP_OK)
            return status;
    }
    return RP_OK;
}

static enum rp_status read_vocab(const struct reader *reader, struct rp_model_config *config)
{
    static const char tokens_key[] = "tokenizer.ggml.tokens";
    const struct rp_gguf_tensor *table = rp_gguf_find_tensor(reader->gguf, "token_embd.weight");
    const struct rp_gguf_value *tokens = rp_gguf_find_value(reader->gguf, tokens_key);
    char expected[64];
    size_t declared;
    if (!table && rp_gguf_is_partial(reader->gguf) && tokens) { /* it is in another shard */
        config->vocab_size = tokens->n_elements;
        return RP_OK;
    }
    if (!table)
        return rp_fail(reader->err, RP_ERR_MISSING, rp_gguf_path(reader->gguf), -1,
                       "tensor 'token_embd.weight' is missing");
    config->vocab_size = declared = table->n_rows;
    enum rp_status status = read_optional_size(reader, "vocab_size", INT32_MAX, &declared);
    if (status != RP_OK)
        return status;
    snprintf(expected, sizeof expected, "the rows of 'token_embd.weight', %zu", table->n_rows);
    if (declared != table->n_rows)
        return mismatch(reader, "vocab_size", declared, expected);
    if (tokens && tokens->n_elements != table->n_rows)
        return rp_fail(reader->err, RP_ERR_MISMATCH, rp_gguf_path(reader->gguf), -1,
                       "key '%s' lists %zu tokens, expected %s", tokens_key, tokens->n_elements,
                       expected);
    if (table->n_rows > INT32_MAX)
        return rp_fail(reader->err, RP_ERR_UNSUPPORTED, rp_gguf_path(reader->gguf), -1,
                       "'token_embd.weight' has %zu rows, expected at most %d", table->n_rows,
                       INT32_MAX);
    return RP_OK;
}

enum rp_status rp_config_read(const struct rp_gguf *gguf,
                              const struct rp_architecture **architecture,
                              struct rp_model_config *config, enum rp_layer_kind **layer_kinds,
                              size_t **intermediate_sizes, struct rp_error *err)
{
    static const char key[] = "general.architecture";
    struct rp_gguf_string name;
    struct reader reader = {.gguf = gguf, .err = err};
    enum rp_status status = rp_gguf_get_string(gguf, key, &name, err);
    if (status != RP_OK)
        return status;
    *architecture = rp_architecture_find(name);
    if (!*architecture) {
        char text[RP_GGUF_NAME_SIZE], names[256];
        return rp_fail(err, RP_ERR_UNSUPPORTED, rp_gguf_path(gguf), -1,
                       "architecture %s; computed are: %s",
                       rp_gguf_value_text(gguf, rp_gguf_find_value(gguf, key), text, sizeof text),
                       rp_architecture_names(names, sizeof names));
    }
    memset(config, 0, sizeof *config);
    snprintf(config->architecture, sizeof config->architecture, "%s", (*architecture)->name);
    config->rope_ordering = (*architecture)->rope_ordering;
    config->is_interleaved_in_hf = (*architecture)->is_interleaved_in_hf;
    config->has_attention_gate = (*architecture)->has_attention_gate;
    config->norms_round_last = (*architecture)->norms_round_last;
    config->activation = (*architecture)->activation;
    config->router = (*architecture)->router;
    reader.architecture = config->architecture;
    status = rp_gguf_count_layers(gguf, MAX_LAYERS, &config->n_layers, &config->n_prediction_layers,
                                  err);
    if (status == RP_OK)
        status = read_size(&reader, "embedding_length", MAX_SIZE, &config->hidden_size);
    const bool has_experts = rp_architecture_has_experts(*architecture);
    if (status == RP_OK && (!has_experts || find(&reader, "feed_forward_length")))
        status = read_widths(&reader, config, intermediate_sizes);
    if (status == RP_OK && has_experts)
        status = read_experts(&reader, *architecture, config);
    if (status == RP_OK)
        status = read_positive(&reader, "attention.layer_norm_rms_epsilon", &config->rms_norm_eps);
    if (status == RP_OK)
        status = read_heads(&reader, (*architecture)->form != NULL, config);
    if (status == RP_OK) {
        config->attention_scale = rp_attention_scale(*architecture, config);
        if ((*architecture)->scales_embeddings)
            config->embedding_scale = sqrtf((float)config->hidden_size);
        status = read_rope(&reader, config);
    }
    if (status == RP_OK && (*architecture)->form) {
        status = read_latents(&reader, config);
        *architecture = (*architecture)->form(config);
    }
    if (status == RP_OK)
        status = rp_config_read_rope_scaling(gguf, *architecture, config, err);
    if (status == RP_OK)
        status = refuse_features(&reader, *architecture);
    if (status == RP_OK)
        status = read_softcaps(&reader, *architecture, config);
    if (status == RP_OK)
        status = read_layer_kinds(&reader, *architecture, config, layer_kinds);
    if (status == RP_OK)
        status = read_vocab(&reader, config);
    return status;
}
