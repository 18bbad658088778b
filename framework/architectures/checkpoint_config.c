/* See architectures/checkpoint_config.h. */
#include "architectures/checkpoint_config.h"

#include "architectures/checkpoint_rope_scaling.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operations/activation.h"

#define MAX_LAYERS 4096
#define MAX_SIZE (1 << 24) /* of any one dimension; products of two stay far below SIZE_MAX */
#define REQUIRED SIZE_MAX  /* as a default: there is none */

struct reader {
    const struct rp_checkpoint *checkpoint;
    const cJSON *rope;         /* rope_parameters, or rope_scaling; NULL: neither */
    const cJSON *sliding_rope; /* of layers with a window, where they have their own; else NULL */
    struct rp_error *err;
};

/* rp_fail's value is code, which the compiler cannot know. */
#define FAIL(reader, value, code, ...) \
    (rp_checkpoint_fail((reader)->checkpoint, value, (reader)->err, code, __VA_ARGS__), (code))

static enum rp_status read_size(const struct reader *reader, const char *key, size_t fallback,
                                size_t *out)
{
    const cJSON *value = rp_checkpoint_setting(reader->checkpoint, key);
    long long number;
    if (!value && fallback != REQUIRED) {
        *out = fallback;
        return RP_OK;
    }
    if (!value)
        return FAIL(reader, NULL, RP_ERR_MISSING, "\"%s\" is missing", key);
    if (!rp_json_int(value, 1, MAX_SIZE, &number))
        return FAIL(reader, value, RP_ERR_FORMAT, "\"%s\": expected a number from 1 to %d", key,
                    MAX_SIZE);
    *out = (size_t)number;
    return RP_OK;
}

static enum rp_status check_positive(const struct reader *reader, const cJSON *value,
                                     const char *key, double *out)
{
    if (!value)
        return FAIL(reader, NULL, RP_ERR_MISSING, "\"%s\" is missing", key);
    if (!cJSON_IsNumber(value) || !(value->valuedouble > 0 && value->valuedouble < 1e30))
        return FAIL(reader, value, RP_ERR_FORMAT, "\"%s\": expected a number above 0", key);
    *out = value->valuedouble;
    return RP_OK;
}

/* A number of the rope's object, or, in older files, of config.json itself. NULL: neither. */
static const cJSON *rope_setting(const struct reader *reader, const char *key)
{
    const cJSON *value = reader->rope ? cJSON_GetObjectItemCaseSensitive(reader->rope, key) : NULL;
    return value && !cJSON_IsNull(value) ? value : rp_checkpoint_setting(reader->checkpoint, key);
}

static enum rp_status read_bool(const struct reader *reader, const char *key, bool *out)
{
    const cJSON *value = rp_checkpoint_setting(reader->checkpoint, key);
    *out = value && cJSON_IsTrue(value);
    if (value && !cJSON_IsBool(value))
        return FAIL(reader, value, RP_ERR_FORMAT, "\"%s\": expected true or false", key);
    return RP_OK;
}

/* Where config.json has it, it has to be the one that a GGUF's readers take: no key says it. */
static enum rp_status check_attention_scale(const struct reader *reader,
                                            const struct rp_model_config *model)
{
    const char key[] = "query_pre_attn_scalar";
    const cJSON *value = rp_checkpoint_setting(reader->checkpoint, key);
    double scalar = 0;
    if (!value)
        return RP_OK;
    enum rp_status status = check_positive(reader, value, key, &scalar);
    if (status == RP_OK && fabs(1 / sqrt(scalar) - (double)model->attention_scale) > 1e-6)
        status = FAIL(reader, value, RP_ERR_UNSUPPORTED,
                      "\"%s\" is %g; a GGUF's readers take attention's scale for %g", key, scalar,
                      (double)model->attention_scale);
    return status;
}

/* The FFN's width: a number, or one for each layer. */
static enum rp_status read_widths(const struct reader *reader, struct rp_checkpoint_config *config)
{
    const char key[] = "intermediate_size";
    const bool has_experts = rp_architecture_has_experts(config->architecture);
    const cJSON *list = rp_checkpoint_setting(reader->checkpoint, key), *item;
    struct rp_model_config *model = &config->model;
    size_t n = 0;
    if (!cJSON_IsArray(list))
        return read_size(reader, key, has_experts ? 0 : REQUIRED, &model->intermediate_size);
    if ((size_t)cJSON_GetArraySize(list) != model->n_layers)
        return FAIL(reader, list, RP_ERR_MISMATCH,
                    "\"%s\": expected a number, or an array of one per layer, %zu", key,
                    model->n_layers);
    size_t *sizes = calloc(model->n_layers, sizeof *sizes);
    config->intermediate_sizes = sizes;
    model->intermediate_sizes = sizes;
    if (!sizes)
        return FAIL(reader, NULL, RP_ERR_MEMORY, "no memory for %zu layers", model->n_layers);
    cJSON_ArrayForEach(item, list)
    {
        long long number;
        if (!rp_json_int(item, 1, MAX_SIZE, &number))
            return FAIL(reader, item, RP_ERR_FORMAT, "\"%s\": expected numbers from 1 to %d", key,
                        MAX_SIZE);
        sizes[n++] = (size_t)number;
        if ((size_t)number > model->intermediate_size)
            model->intermediate_size = (size_t)number;
    }
    return RP_OK;
}

static enum rp_status read_sizes(const struct reader *reader, struct rp_checkpoint_config *config)
{
    const struct rp_architecture *architecture = config->architecture;
    struct rp_model_config *model = &config->model;
    double eps;
    enum rp_status status = read_size(reader, "num_hidden_layers", REQUIRED, &model->n_layers);
    if (status == RP_OK && model->n_layers > MAX_LAYERS)
        return FAIL(reader, rp_checkpoint_setting(reader->checkpoint, "num_hidden_layers"),
                    RP_ERR_UNSUPPORTED, "%zu layers, expected at most %d", model->n_layers,
                    MAX_LAYERS);
    if (status == RP_OK)
        status = read_size(reader, "hidden_size", REQUIRED, &model->hidden_size);
    if (status == RP_OK)
        status = read_widths(reader, config);
    if (status == RP_OK)
        status = read_size(reader, "vocab_size", REQUIRED, &model->vocab_size);
    if (status == RP_OK)
        status = read_size(reader, "num_attention_heads", REQUIRED, &model->n_heads);
    if (status == RP_OK)
        status = read_size(reader, "num_key_value_heads", model->n_heads, &model->n_kv_heads);
    if (status == RP_OK && architecture->form)
        status = read_size(reader, "qk_rope_head_dim", REQUIRED, &model->head_dim);
    else if (status == RP_OK)
        status =
            read_size(reader, "head_dim", model->hidden_size / model->n_heads, &model->head_dim);
    if (status == RP_OK)
        status = read_bool(reader, "tie_word_embeddings", &model->has_tied_embeddings);
    if (!rp_checkpoint_setting(reader->checkpoint, "tie_word_embeddings"))
        model->has_tied_embeddings = architecture->ties_embeddings;
    if (status == RP_OK)
        status = check_positive(reader, rp_checkpoint_setting(reader->checkpoint, "rms_norm_eps"),
                                "rms_norm_eps", &eps);
    if (status != RP_OK)
        return status;
    if (model->n_heads % model->n_kv_heads != 0 || model->head_dim == 0)
        return FAIL(reader, rp_checkpoint_setting(reader->checkpoint, "num_attention_heads"),
                    RP_ERR_MISMATCH,
                    "%zu heads, %zu KV heads, hidden_size %zu: heads do not divide evenly",
                    model->n_heads, model->n_kv_heads, model->hidden_size);
    model->rms_norm_eps = (float)eps;
    model->attention_scale = rp_attention_scale(architecture, model);
    return check_attention_scale(reader, model);
}

static enum rp_status read_rope_sections(const struct reader *reader,
                                         struct rp_checkpoint_config *config)
{
    const cJSON *sections = rope_setting(reader, "mrope_section"), *item;
    if (!sections)
        return RP_OK;
    if (!cJSON_IsArray(sections) || cJSON_GetArraySize(sections) > RP_MAX_ROPE_SECTIONS)
        return FAIL(reader, sections, RP_ERR_FORMAT,
                    "\"mrope_section\": expected an array of up to %d numbers",
                    RP_MAX_ROPE_SECTIONS);
    cJSON_ArrayForEach(item, sections)
    {
        long long number;
        if (!rp_json_int(item, 0, MAX_SIZE, &number))
            return FAIL(reader, item, RP_ERR_FORMAT, "\"mrope_section\": expected numbers");
        config->rope_sections[config->n_rope_sections++] = number;
    }
    return RP_OK;
}

static enum rp_status read_rope(const struct reader *reader, struct rp_checkpoint_config *config)
{
    struct rp_model_config *model = &config->model;
    const cJSON *theta_value = rope_setting(reader, "rope_theta");
    const cJSON *factor_value = rope_setting(reader, "partial_rotary_factor");
    double theta = 10000.0, factor = (double)config->architecture->partial_rotary_factor;
    enum rp_status status = RP_OK;
    if (reader->rope && !cJSON_IsObject(reader->rope))
        return FAIL(reader, reader->rope, RP_ERR_FORMAT, "expected rope's parameters, an object");
    if (theta_value)
        status = check_positive(reader, theta_value, "rope_theta", &theta);
    if (status == RP_OK && factor_value)
        status = check_positive(reader, factor_value, "partial_rotary_factor", &factor);
    if (status != RP_OK)
        return status;
    model->rope_theta = (float)theta;
    model->n_rot = (size_t)((double)model->head_dim * (factor < 1 ? factor : 1.0));
    if (model->n_rot == 0 || model->n_rot % 2 != 0)
        return FAIL(reader, factor_value, RP_ERR_UNSUPPORTED,
                    "%zu of a head's %zu values are rotated, expected an even number", model->n_rot,
                    model->head_dim);
    status = rp_checkpoint_rope_scaling_read(reader->checkpoint, reader->rope, config, reader->err);
    if (status == RP_OK)
        status = read_rope_sections(reader, config);
    return status;
}

/* Of one layer; text is of layer_types. */
static bool parse_layer_kind(const char *text, enum rp_layer_kind *kind)
{
    *kind = strcmp(text, "linear_attention") == 0    ? RP_LAYER_LINEAR_ATTENTION
            : strcmp(text, "sliding_attention") == 0 ? RP_LAYER_SLIDING_ATTENTION
                                                     : RP_LAYER_FULL_ATTENTION;
    return *kind != RP_LAYER_FULL_ATTENTION || strcmp(text, "full_attention") == 0;
}

/* kinds [n_layers] by the names of a list, one per layer. */
static enum rp_status read_named_kinds(const struct reader *reader, const cJSON *types,
                                       const struct rp_architecture *architecture,
                                       enum rp_layer_kind *kinds)
{
    const struct rp_layer_pattern *pattern = &architecture->pattern;
    const cJSON *item;
    size_t n = 0;
    cJSON_ArrayForEach(item, types)
    {
        const bool is_known =
            cJSON_IsString(item) && parse_layer_kind(item->valuestring, &kinds[n]);
        if (!is_known || architecture->plans[kinds[n]].n_steps == 0)
            return FAIL(reader, item, RP_ERR_UNSUPPORTED,
                        "layer %zu is of type %.40s, which %s does not compute", n,
                        cJSON_IsString(item) ? item->valuestring : "?", architecture->name);
        const bool is_nth = (n + 1) % (pattern->interval ? pattern->interval : 1) == 0;
        if (pattern->interval && !pattern->gguf_interval && !pattern->gguf_others &&
            is_nth != (kinds[n] == pattern->nth))
            return FAIL(reader, item, RP_ERR_UNSUPPORTED,
                        "layer %zu is of type %.40s; of a GGUF each %zuth layer is another", n,
                        item->valuestring, pattern->interval);
        n++;
    }
    return RP_OK;
}

/* The same by numbers, 0 for the pattern's `nth`. Where no key of a GGUF can say which those are, they have to
 * be the ones that its readers take. */
static enum rp_status read_numbered_kinds(const struct reader *reader, const cJSON *numbers,
                                          const struct rp_layer_pattern *pattern,
                                          enum rp_layer_kind *kinds)
{
    const cJSON *item;
    size_t n = 0;
    cJSON_ArrayForEach(item, numbers)
    {
        long long number;
        if (!rp_json_int(item, 0, 1, &number))
            return FAIL(reader, item, RP_ERR_FORMAT, "\"%s\": expected 0 or 1 for each layer",
                        pattern->hf_others);
        const bool is_nth = (n + 1) % pattern->interval == 0;
        if (!pattern->gguf_interval && !pattern->gguf_others && is_nth != (number == 0))
            return FAIL(reader, item, RP_ERR_UNSUPPORTED,
                        "\"%s\": layer %zu is %lld; a GGUF can have 0 at every %zuth layer alone",
                        pattern->hf_others, n, number, pattern->interval);
        kinds[n++] = number == 0 ? pattern->nth : pattern->others;
    }
    return RP_OK;
}

static enum rp_status read_layer_kinds(const struct reader *reader,
                                       struct rp_checkpoint_config *config)
{
    const struct rp_layer_pattern *pattern = &config->architecture->pattern;
    const char *key = pattern->hf_others ? pattern->hf_others : "layer_types";
    const cJSON *list = rp_checkpoint_setting(reader->checkpoint, key);
    const size_t n_layers = config->model.n_layers;
    size_t interval = pattern->interval;
    enum rp_layer_kind *kinds = calloc(n_layers, sizeof *kinds);
    config->layer_kinds = kinds;
    config->model.layer_kinds = kinds;
    if (!kinds)
        return FAIL(reader, NULL, RP_ERR_MEMORY, "no memory for %zu layers", n_layers);
    if (list && (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != n_layers))
        return FAIL(reader, list, RP_ERR_MISMATCH,
                    "\"%s\": expected an array of one per layer, %zu", key, n_layers);
    if (list)
        return pattern->hf_others ? read_numbered_kinds(reader, list, pattern, kinds)
                                  : read_named_kinds(reader, list, config->architecture, kinds);
    enum rp_status status = RP_OK;
    if (pattern->hf_interval)
        status = read_size(reader, pattern->hf_interval, interval, &interval);
    for (size_t i = 0; i < n_layers && status == RP_OK && interval > 0; i++)
        kinds[i] = (i + 1) % interval ? pattern->others : pattern->nth;
    return status;
}

/* Latent attention, as a converter writes it: absorbed, a single key that all heads read. n_rot is set. */
static enum rp_status read_latents(const struct reader *reader, struct rp_model_config *model)
{
    const cJSON *interleave = rp_checkpoint_setting(reader->checkpoint, "rope_interleave");
    const cJSON *q_rank = rp_checkpoint_setting(reader->checkpoint, "q_lora_rank");
    bool has_bias = false;
    enum rp_status status = read_size(reader, "kv_lora_rank", REQUIRED, &model->kv_lora_rank);
    if (status == RP_OK && q_rank)
        status = read_size(reader, "q_lora_rank", 0, &model->q_lora_rank);
    if (status == RP_OK)
        status = read_size(reader, "qk_nope_head_dim", REQUIRED, &model->nope_dim);
    if (status == RP_OK)
        status = read_size(reader, "v_head_dim", REQUIRED, &model->v_head_dim);
    if (status == RP_OK)
        status = read_bool(reader, "attention_bias", &has_bias);
    if (status != RP_OK)
        return status;
    if (has_bias)
        return FAIL(reader, rp_checkpoint_setting(reader->checkpoint, "attention_bias"),
                    RP_ERR_UNSUPPORTED, "biases of latent attention are not computed");
    if (interleave && cJSON_IsFalse(interleave))
        return FAIL(reader, interleave, RP_ERR_UNSUPPORTED,
                    "latent attention that rotates halves is not computed");
    model->is_absorbed = true;
    model->n_kv_heads = 1;
    model->head_dim = model->kv_lora_rank + model->n_rot;
    model->attention_scale = 1.0f / sqrtf((float)(model->nope_dim + model->n_rot));
    return RP_OK;
}

static enum rp_status read_delta_net(const struct reader *reader, struct rp_model_config *model)
{
    size_t value_dim = 0;
    struct {
        const char *key;
        size_t *out;
    } const keys[] = {{"linear_conv_kernel_dim", &model->conv_kernel},
                      {"linear_num_key_heads", &model->n_linear_k_heads},
                      {"linear_num_value_heads", &model->n_linear_v_heads},
                      {"linear_key_head_dim", &model->linear_head_dim},
                      {"linear_value_head_dim", &value_dim}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        enum rp_status status = read_size(reader, keys[i].key, REQUIRED, keys[i].out);
        if (status != RP_OK)
            return status;
    }
    if (value_dim != model->linear_head_dim)
        return FAIL(reader, rp_checkpoint_setting(reader->checkpoint, "linear_value_head_dim"),
                    RP_ERR_UNSUPPORTED,
                    "linear_value_head_dim is %zu, linear_key_head_dim %zu; only equal ones are "
                    "computed",
                    value_dim, model->linear_head_dim);
    if (model->n_linear_v_heads % model->n_linear_k_heads != 0)
        return FAIL(reader, rp_checkpoint_setting(reader->checkpoint, "linear_num_value_heads"),
                    RP_ERR_MISMATCH,
                    "%zu V heads, expected a multiple of linear_num_key_heads, %zu",
                    model->n_linear_v_heads, model->n_linear_k_heads);
    return RP_OK;
}

/* Of several names the first that there is. *found: which. */
static enum rp_status read_named_size(const struct reader *reader, const char *const *keys,
                                      const cJSON **found, size_t *out)
{
    char names[128] = "";
    for (size_t i = 0; keys[i]; i++) {
        const size_t used = strlen(names);
        *found = rp_checkpoint_setting(reader->checkpoint, keys[i]);
        if (*found)
            return read_size(reader, keys[i], REQUIRED, out);
        snprintf(names + used, sizeof names - used, "%s\"%s\"", i > 0 ? " or " : "", keys[i]);
    }
    return FAIL(reader, NULL, RP_ERR_MISSING, "%s is missing", names);
}

static enum rp_status read_scores(const struct reader *reader, struct rp_router *router)
{
    const cJSON *scores = rp_checkpoint_setting(reader->checkpoint, "scoring_func");
    if (!scores)
        return RP_OK;
    const bool is_sigmoid = cJSON_IsString(scores) && strcmp(scores->valuestring, "sigmoid") == 0;
    if (!is_sigmoid && !(cJSON_IsString(scores) && strcmp(scores->valuestring, "softmax") == 0))
        return FAIL(reader, scores, RP_ERR_UNSUPPORTED,
                    "\"scoring_func\": \"softmax\" and \"sigmoid\" are computed");
    router->scores = is_sigmoid ? RP_ROUTER_SIGMOID : RP_ROUTER_SOFTMAX;
    return RP_OK;
}

/* chosen: where n_chosen stands. */
static enum rp_status read_groups(const struct reader *reader, const cJSON *chosen,
                                  struct rp_router *router)
{
    const cJSON *method = rp_checkpoint_setting(reader->checkpoint, "topk_method");
    router->n_groups = router->n_chosen_groups = 1;
    const bool has_none = cJSON_IsString(method) && strcmp(method->valuestring, "greedy") == 0;
    enum rp_status status = RP_OK;
    if (!has_none)
        status = read_size(reader, "n_group", 1, &router->n_groups);
    if (status == RP_OK && !has_none)
        status = read_size(reader, "topk_group", 1, &router->n_chosen_groups);
    if (status != RP_OK)
        return status;
    const size_t n_most = router->n_experts / router->n_groups * router->n_chosen_groups;
    if (router->n_experts % router->n_groups != 0 || router->n_chosen_groups > router->n_groups)
        status =
            FAIL(reader, rp_checkpoint_setting(reader->checkpoint, "n_group"), RP_ERR_MISMATCH,
                 "%zu of %zu experts from %zu of %zu groups: they do not divide evenly",
                 router->n_chosen, router->n_experts, router->n_chosen_groups, router->n_groups);
    else if (router->n_chosen > n_most)
        status = FAIL(reader, chosen, RP_ERR_MISMATCH,
                      "%zu experts a token, expected at most the experts to choose from, %zu",
                      router->n_chosen, n_most);
    return status;
}

static enum rp_status read_router(const struct reader *reader, struct rp_router *router)
{
    static const char *const counts[] = {"num_experts", "num_local_experts", "n_routed_experts",
                                         NULL};
    static const char *const used[] = {"num_experts_per_tok", "experts_per_token", NULL};
    const cJSON *scale = rp_checkpoint_setting(reader->checkpoint, "routed_scaling_factor");
    const cJSON *chosen = NULL, *all;
    double factor = 1;
    enum rp_status status = read_named_size(reader, counts, &all, &router->n_experts);
    if (status == RP_OK)
        status = read_named_size(reader, used, &chosen, &router->n_chosen);
    if (status == RP_OK)
        status = read_scores(reader, router);
    if (status == RP_OK && rp_checkpoint_setting(reader->checkpoint, "norm_topk_prob"))
        status = read_bool(reader, "norm_topk_prob", &router->normalizes);
    if (status == RP_OK && scale)
        status = check_positive(reader, scale, "routed_scaling_factor", &factor);
    router->scale = (float)factor;
    if (status == RP_OK)
        status = read_groups(reader, chosen, router);
    router->group_score = rp_router_group_score(router);
    return status;
}

/* Layers without experts that are not the first ones have no key in a GGUF. */
static enum rp_status refuse_other_dense(const struct reader *reader)
{
    const cJSON *dense = rp_checkpoint_setting(reader->checkpoint, "mlp_only_layers");
    size_t step = 1;
    const enum rp_status status = read_size(reader, "decoder_sparse_step", 1, &step);
    if (status == RP_OK && (step != 1 || cJSON_GetArraySize(dense) > 0))
        return FAIL(reader, dense, RP_ERR_UNSUPPORTED,
                    "layers without experts among the others are not computed");
    return status;
}

static enum rp_status read_experts(const struct reader *reader,
                                   const struct rp_architecture *architecture,
                                   struct rp_model_config *model)
{
    size_t n_shared = 0;
    enum rp_status status = read_router(reader, &model->router);
    if (status == RP_OK)
        status = read_size(reader, "moe_intermediate_size",
                           model->intermediate_size > 0 ? model->intermediate_size : REQUIRED,
                           &model->expert_size);
    const bool has_shared = rp_architecture_has_shared_expert(architecture);
    if (status == RP_OK && has_shared)
        status = read_size(reader, "n_shared_experts", 0, &n_shared);
    if (status == RP_OK && has_shared)
        status = read_size(reader, "shared_expert_intermediate_size", n_shared * model->expert_size,
                           &model->shared_expert_size);
    if (status == RP_OK)
        status = refuse_other_dense(reader);
    const cJSON *first = rp_checkpoint_setting(reader->checkpoint, "first_k_dense_replace");
    long long n_dense = 0;
    if (status == RP_OK && first && !rp_json_int(first, 0, MAX_LAYERS, &n_dense))
        status = FAIL(reader, first, RP_ERR_FORMAT,
                      "\"first_k_dense_replace\": expected a number up to %d", MAX_LAYERS);
    model->n_dense_layers = (size_t)n_dense;
    return status;
}

/* Layers that attend to a window: how far they see, and their base of RoPE. */
static enum rp_status read_window(const struct reader *reader,
                                  const struct rp_architecture *architecture,
                                  struct rp_model_config *model)
{
    const cJSON *theta = rp_checkpoint_setting(reader->checkpoint, "rope_local_base_freq");
    const cJSON *scaling = cJSON_GetObjectItemCaseSensitive(reader->sliding_rope, "rope_type");
    double base = 10000.0;
    const bool may_have_none = architecture->plans[RP_LAYER_FULL_ATTENTION].n_steps > 0 &&
                               !architecture->window_has_own_rope;
    enum rp_status status =
        read_size(reader, "sliding_window", may_have_none ? 0 : REQUIRED, &model->window);
    if (!architecture->window_has_own_rope) {
        model->rope_theta_sliding = model->rope_theta;
        return status;
    }
    if (status == RP_OK && cJSON_IsString(scaling) && strcmp(scaling->valuestring, "default") != 0)
        status = FAIL(reader, scaling, RP_ERR_UNSUPPORTED,
                      "rope scaling %.40s of layers with a window is not computed",
                      scaling->valuestring);
    if (reader->sliding_rope)
        theta = cJSON_GetObjectItemCaseSensitive(reader->sliding_rope, "rope_theta");
    if (status == RP_OK && theta)
        status = check_positive(reader, theta, "rope_theta", &base);
    model->rope_theta_sliding = (float)base;
    return status;
}

/* A GGUF has no way to say that there is none, where the architecture has one. */
static enum rp_status read_softcap(const struct reader *reader, const char *key, float usual,
                                   float *cap)
{
    const cJSON *value = rp_checkpoint_setting(reader->checkpoint, key);
    double number = (double)usual;
    enum rp_status status = RP_OK;
    if (value && !(usual > 0))
        return FAIL(reader, value, RP_ERR_UNSUPPORTED, "\"%s\": a cap is computed of gemma2 alone",
                    key);
    if (value)
        status = check_positive(reader, value, key, &number);
    *cap = (float)number;
    return status;
}

static enum rp_status read_softcaps(const struct reader *reader,
                                    const struct rp_architecture *architecture,
                                    struct rp_model_config *model)
{
    const enum rp_status status =
        read_softcap(reader, "attn_logit_softcapping", architecture->attention_softcap,
                     &model->attention_softcap);
    if (status != RP_OK)
        return status;
    return read_softcap(reader, "final_logit_softcapping", architecture->logits_softcap,
                        &model->logits_softcap);
}

/* Where config.json has it, it has to be the one that is computed. */
static enum rp_status check_number(const struct reader *reader, const char *key, double expected)
{
    const cJSON *value = rp_checkpoint_setting(reader->checkpoint, key);
    if (!value || (cJSON_IsNumber(value) && fabs(value->valuedouble - expected) < 1e-6))
        return RP_OK;
    return FAIL(reader, value, RP_ERR_UNSUPPORTED, "\"%s\" is not %g, which alone is computed", key,
                expected);
}

static enum rp_status refuse_features(const struct reader *reader,
                                      const struct rp_architecture *architecture)
{
    const bool has_gelu = architecture->activation == RP_GELU_TANH;
    const char *key = has_gelu ? "hidden_activation" : "hidden_act";
    const char *expected = has_gelu ? "gelu_pytorch_tanh" : "silu";
    const cJSON *act = rp_checkpoint_setting(reader->checkpoint, key);
    const cJSON *window = rp_checkpoint_setting(reader->checkpoint, "sliding_window");
    const cJSON *use_window = rp_checkpoint_setting(reader->checkpoint, "use_sliding_window");
    enum rp_status status = RP_OK;
    if (architecture->activation == RP_CLAMPED_SWISH)
        status = check_number(reader, "swiglu_alpha", (double)RP_CLAMPED_ALPHA);
    if (status == RP_OK && architecture->activation == RP_CLAMPED_SWISH)
        status = check_number(reader, "swiglu_limit", (double)RP_CLAMP_LIMIT);
    if (status != RP_OK)
        return status;
    if (act && !(cJSON_IsString(act) && strcmp(act->valuestring, expected) == 0))
        return FAIL(reader, act, RP_ERR_UNSUPPORTED,
                    "\"%s\" is not \"%s\", which alone is computed", key, expected);
    if (!rp_architecture_has_window(architecture) && window &&
        !(use_window && cJSON_IsFalse(use_window)))
        return FAIL(reader, window, RP_ERR_UNSUPPORTED, "a sliding window is not computed");
    return RP_OK;
}

/* DeepSeek-V3's stand behind the decoder's, under the same names; transformers does not load them. */
static enum rp_status read_prediction_layers(const struct reader *reader,
                                             struct rp_model_config *model)
{
    const char key[] = "num_nextn_predict_layers";
    const cJSON *value = rp_checkpoint_setting(reader->checkpoint, key);
    long long n = 0;
    if (value && !rp_json_int(value, 0, MAX_LAYERS, &n))
        return FAIL(reader, value, RP_ERR_FORMAT, "\"%s\": expected a number up to %d", key,
                    MAX_LAYERS);
    model->n_prediction_layers = (size_t)n;
    return RP_OK;
}

enum rp_status rp_checkpoint_config_read(const struct rp_checkpoint *checkpoint,
                                         struct rp_checkpoint_config *out, struct rp_error *err)
{
    const cJSON *type = rp_checkpoint_setting(checkpoint, "model_type");
    struct reader reader = {.checkpoint = checkpoint, .err = err};
    char names[256];
    memset(out, 0, sizeof *out);
    if (cJSON_IsString(type))
        out->architecture = rp_architecture_of_hf(type->valuestring);
    if (!out->architecture)
        return FAIL(&reader, type, RP_ERR_UNSUPPORTED, "model_type %.40s; computed are: %s",
                    cJSON_IsString(type) ? type->valuestring : "is missing",
                    rp_architecture_hf_names(names, sizeof names));
    struct rp_model_config *model = &out->model;
    snprintf(model->architecture, sizeof model->architecture, "%s", out->architecture->name);
    model->rope_ordering = out->architecture->rope_ordering;
    model->is_interleaved_in_hf = out->architecture->is_interleaved_in_hf;
    model->has_attention_gate = out->architecture->has_attention_gate;
    model->norms_round_last = out->architecture->norms_round_last;
    model->activation = out->architecture->activation;
    model->router = out->architecture->router;
    model->router.normalizes = out->architecture->hf_normalizes;
    reader.rope = rp_checkpoint_setting(checkpoint, "rope_parameters");
    if (!reader.rope)
        reader.rope = rp_checkpoint_setting(checkpoint, "rope_scaling");
    const cJSON *full = cJSON_GetObjectItemCaseSensitive(reader.rope, "full_attention");
    if (full) { /* one for each kind of layer */
        reader.sliding_rope = cJSON_GetObjectItemCaseSensitive(reader.rope, "sliding_attention");
        reader.rope = full;
    }
    enum rp_status status = read_sizes(&reader, out);
    if (status == RP_OK)
        status = read_prediction_layers(&reader, model);
    if (status == RP_OK)
        status = read_size(&reader, "max_position_embeddings", 0, &out->context_length);
    if (status == RP_OK)
        status = read_rope(&reader, out);
    if (status == RP_OK && out->architecture->form) {
        status = read_latents(&reader, model);
        out->architecture = out->architecture->form(model);
    }
    if (status == RP_OK)
        status = read_layer_kinds(&reader, out);
    if (status == RP_OK && rp_architecture_is_hybrid(out->architecture))
        status = read_delta_net(&reader, model);
    if (status == RP_OK && rp_architecture_has_window(out->architecture))
        status = read_window(&reader, out->architecture, model);
    for (size_t i = 0; i < model->n_layers && status == RP_OK && model->window == 0; i++)
        if (out->layer_kinds[i] == RP_LAYER_SLIDING_ATTENTION)
            out->layer_kinds[i] = RP_LAYER_FULL_ATTENTION;
    if (status == RP_OK && rp_architecture_has_experts(out->architecture))
        status = read_experts(&reader, out->architecture, model);
    if (status == RP_OK)
        status = read_softcaps(&reader, out->architecture, model);
    if (status == RP_OK)
        status = refuse_features(&reader, out->architecture);
    return status;
}

void rp_checkpoint_config_put_in_one(struct rp_checkpoint_config *config)
{
    struct rp_model_config *model = &config->model;
    model->is_absorbed = false;
    model->n_kv_heads = model->n_heads;
    model->head_dim = model->nope_dim + model->n_rot;
    config->architecture = config->architecture->form(model);
}

void rp_checkpoint_config_free(struct rp_checkpoint_config *config)
{
    free(config->layer_kinds);
    free(config->intermediate_sizes);
    config->intermediate_sizes = NULL;
    free(config->short_rope_factors);
    free(config->long_rope_factors);
    config->short_rope_factors = NULL;
    config->long_rope_factors = NULL;
    config->layer_kinds = NULL;
}
