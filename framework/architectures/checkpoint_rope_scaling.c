/* See architectures/checkpoint_rope_scaling.h. */
#include "architectures/checkpoint_rope_scaling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operations/rope_scaling.h"

struct reader {
    const struct rp_checkpoint *checkpoint;
    const cJSON *rope;
    struct rp_error *err;
};

/* rp_fail's value is code, which the compiler cannot know. */
#define FAIL(reader, value, code, ...) \
    (rp_checkpoint_fail((reader)->checkpoint, value, (reader)->err, code, __VA_ARGS__), (code))

/* NULL: it is missing, or null. */
static const cJSON *find(const struct reader *reader, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(reader->rope, key);
    return cJSON_IsNull(value) ? NULL : value;
}

static enum rp_status read_positive(const struct reader *reader, const cJSON *value,
                                    const char *key, double *out)
{
    if (!value)
        return FAIL(reader, reader->rope, RP_ERR_MISSING, "\"%s\" is missing", key);
    if (!cJSON_IsNumber(value) || !(value->valuedouble > 0 && value->valuedouble < 1e9))
        return FAIL(reader, value, RP_ERR_FORMAT, "\"%s\": expected a number above 0, up to 1e9",
                    key);
    *out = value->valuedouble;
    return RP_OK;
}

/* Leaves *out where there is none. */
static enum rp_status read_optional(const struct reader *reader, const char *key, double *out)
{
    const cJSON *value = find(reader, key);
    return value ? read_positive(reader, value, key, out) : RP_OK;
}

static enum rp_status read_llama3(const struct reader *reader, struct rp_checkpoint_config *config)
{
    struct {
        const char *key;
        double *out;
    } const keys[] = {{"factor", &config->rope_factor},
                      {"low_freq_factor", &config->rope_low_freq_factor},
                      {"high_freq_factor", &config->rope_high_freq_factor},
                      {"original_max_position_embeddings", &config->rope_original_context}};
    config->has_llama3_rope = true;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        enum rp_status status =
            read_positive(reader, find(reader, keys[i].key), keys[i].key, keys[i].out);
        if (status != RP_OK)
            return status;
    }
    if (!(config->rope_high_freq_factor > config->rope_low_freq_factor))
        return FAIL(reader, reader->rope, RP_ERR_FORMAT,
                    "high_freq_factor is %g, expected more than low_freq_factor, %g",
                    config->rope_high_freq_factor, config->rope_low_freq_factor);
    return RP_OK;
}

/* Beside the parameters, as Phi-3 has it, it takes precedence; without any it is the whole context. */
static enum rp_status read_original_context(const struct reader *reader,
                                            struct rp_checkpoint_config *config)
{
    static const char key[] = "original_max_position_embeddings";
    const cJSON *value = rp_checkpoint_setting(reader->checkpoint, key);
    double context = (double)config->context_length;
    enum rp_status status =
        value ? read_positive(reader, value, key, &context) : read_optional(reader, key, &context);
    if (status == RP_OK && context < 2)
        status = FAIL(reader, value, RP_ERR_MISSING, "\"%s\": expected at least 2 positions", key);
    config->model.rope_scaling.original_context = (size_t)context;
    return status;
}

/* How much longer the context is than the first one, where no factor says so. */
static enum rp_status read_factor(const struct reader *reader, struct rp_checkpoint_config *config,
                                  double *factor)
{
    *factor = (double)config->context_length / (double)config->model.rope_scaling.original_context;
    return read_optional(reader, "factor", factor);
}

/* Whether the ramp's ends are moved is said by no key of a GGUF: it has to be as the architecture's. */
static enum rp_status check_truncate(const struct reader *reader, bool keeps_ramp_ends)
{
    const cJSON *truncate = find(reader, "truncate");
    const bool keeps = truncate && cJSON_IsFalse(truncate);
    if (truncate && !cJSON_IsBool(truncate))
        return FAIL(reader, truncate, RP_ERR_FORMAT, "\"truncate\": expected true or false");
    if (keeps != keeps_ramp_ends)
        return FAIL(reader, truncate ? truncate : reader->rope, RP_ERR_UNSUPPORTED,
                    "\"truncate\" is %s; a GGUF's readers take the architecture for %s",
                    keeps ? "false" : "true", keeps_ramp_ends ? "false" : "true");
    return RP_OK;
}

static enum rp_status read_yarn(const struct reader *reader, struct rp_checkpoint_config *config)
{
    struct rp_rope_scaling *scaling = &config->model.rope_scaling;
    double factor = 1, fast = (double)RP_YARN_BETA_FAST, slow = (double)RP_YARN_BETA_SLOW;
    double mscale = 0, mscale_all_dim = 0;
    enum rp_status status = read_original_context(reader, config);
    if (status == RP_OK)
        status = read_factor(reader, config, &factor);
    if (status == RP_OK)
        status = read_optional(reader, "beta_fast", &fast);
    if (status == RP_OK)
        status = read_optional(reader, "beta_slow", &slow);
    if (status == RP_OK)
        status = read_optional(reader, "mscale", &mscale);
    if (status == RP_OK)
        status = read_optional(reader, "mscale_all_dim", &mscale_all_dim);
    double attention = rp_yarn_attention_factor(factor, mscale, mscale_all_dim);
    if (status == RP_OK)
        status = read_optional(reader, "attention_factor", &attention);
    if (status == RP_OK)
        status = check_truncate(reader, config->architecture->yarn_keeps_ramp_ends);
    if (status == RP_OK && !(fast > slow))
        status = FAIL(reader, reader->rope, RP_ERR_FORMAT,
                      "beta_fast is %g, expected more than beta_slow, %g", fast, slow);
    scaling->factor = (float)factor;
    scaling->attention_factor = (float)attention;
    scaling->beta_fast = (float)fast;
    scaling->beta_slow = (float)slow;
    scaling->keeps_ramp_ends = config->architecture->yarn_keeps_ramp_ends;
    if (config->architecture->yarn_scales_attention)
        scaling->mscale_all_dim = (float)mscale_all_dim;
    return status;
}

/* *factors [n_rot / 2] */
static enum rp_status read_factors(const struct reader *reader, const char *key, size_t n,
                                   float **factors)
{
    const cJSON *list = find(reader, key), *item;
    double factor = 0;
    enum rp_status status = RP_OK;
    if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != n)
        return FAIL(reader, list ? list : reader->rope, RP_ERR_MISMATCH,
                    "\"%s\": expected an array of one for each rotated pair, %zu", key, n);
    *factors = calloc(n + 1, sizeof **factors);
    if (!*factors)
        return FAIL(reader, list, RP_ERR_MEMORY, "no memory for %zu rope factors", n);
    n = 0;
    cJSON_ArrayForEach(item, list)
    {
        status = read_positive(reader, item, key, &factor);
        if (status != RP_OK)
            return status;
        (*factors)[n++] = (float)factor;
    }
    return RP_OK;
}

static enum rp_status read_longrope(const struct reader *reader,
                                    struct rp_checkpoint_config *config)
{
    struct rp_rope_scaling *scaling = &config->model.rope_scaling;
    const size_t n_pairs = config->model.n_rot / 2;
    double factor = 1;
    enum rp_status status = read_original_context(reader, config);
    if (status == RP_OK)
        status = read_factor(reader, config, &factor);
    double attention = rp_longrope_attention_factor(factor, (double)scaling->original_context);
    if (status == RP_OK)
        status = read_optional(reader, "attention_factor", &attention);
    if (status == RP_OK)
        status = read_factors(reader, "short_factor", n_pairs, &config->short_rope_factors);
    if (status == RP_OK)
        status = read_factors(reader, "long_factor", n_pairs, &config->long_rope_factors);
    scaling->attention_factor = (float)attention;
    return status;
}

enum rp_status rp_checkpoint_rope_scaling_read(const struct rp_checkpoint *checkpoint,
                                               const cJSON *rope,
                                               struct rp_checkpoint_config *config,
                                               struct rp_error *err)
{
    const struct reader reader = {checkpoint, rope, err};
    struct rp_rope_scaling *scaling = &config->model.rope_scaling;
    const cJSON *type = find(&reader, "rope_type");
    double factor = 1;
    enum rp_status status = RP_OK;
    if (!type)
        type = find(&reader, "type");
    const char *name = !type ? "default" : cJSON_IsString(type) ? type->valuestring : "?";
    if (strcmp(name, "default") == 0 || strcmp(name, "mrope") == 0)
        return RP_OK;
    if (strcmp(name, "llama3") == 0 && config->architecture->may_have_rope_freqs)
        return read_llama3(&reader, config);
    if (strcmp(name, "linear") == 0) {
        scaling->type = RP_ROPE_LINEAR;
        status = read_positive(&reader, find(&reader, "factor"), "factor", &factor);
        scaling->factor = (float)factor;
        return status;
    }
    if (strcmp(name, "yarn") == 0) {
        scaling->type = RP_ROPE_YARN;
        return read_yarn(&reader, config);
    }
    if (strcmp(name, "longrope") == 0 || strcmp(name, "su") == 0) {
        scaling->type = RP_ROPE_LONGROPE;
        return read_longrope(&reader, config);
    }
    return FAIL(
        &reader, type, RP_ERR_UNSUPPORTED,
        "rope scaling %.40s; \"default\", \"linear\", \"yarn\", \"longrope\" and, of Llama, "
        "\"llama3\" are computed",
        name);
}

void rp_llama3_rope_factors(const struct rp_checkpoint_config *config, float *factors)
{
    const size_t n_rot = config->model.n_rot;
    const float factor = (float)config->rope_factor, low = (float)config->rope_low_freq_factor,
                high = (float)config->rope_high_freq_factor,
                context = (float)config->rope_original_context;
    for (size_t i = 0; i < n_rot / 2; i++) {
        const float exponent = (float)(2 * i) / (float)n_rot;
        const float plain = 1.0f / powf(config->model.rope_theta, exponent);
        const float length = (float)(2 * 3.14159265358979323846) / plain;
        float scaled = plain;
        if (length > context / low) {
            scaled = plain / factor;
        } else if (!(length < context / high)) {
            const float smooth = (context / length - low) / (high - low);
            scaled = (1.0f - smooth) * plain / factor + smooth * plain;
        }
        factors[i] = plain / scaled;
    }
}
