/* GGUF metadata -> struct rp_rope_scaling, under the keys that llama.cpp's converter writes and as its
 * llama-model.cpp and llama-context.cpp take them; where those and HF differ, as HF does. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/model_internal.h"
#include "operations/rope_scaling.h"

#define KEY_SIZE 128
#define MAX_CONTEXT (1 << 30) /* positions */
#define NOT_SAID (-1.0)

struct reader {
    const struct rp_gguf *gguf;
    const char *architecture;
    struct rp_error *err;
};

static const char *make_key(const struct reader *reader, const char *name, char *key)
{
    snprintf(key, KEY_SIZE, "%s.rope.%s", reader->architecture, name);
    return key;
}

/* A finite number from 0 on; leaves *out where the key is absent. Below 0 counts as absent, as llama.cpp's own
 * files have it. */
static enum rp_status read_number(const struct reader *reader, const char *name, double *out)
{
    char key[KEY_SIZE];
    double value;
    if (!rp_gguf_find_value(reader->gguf, make_key(reader, name, key)))
        return RP_OK;
    const enum rp_status status = rp_gguf_get_float(reader->gguf, key, &value, reader->err);
    if (status != RP_OK)
        return status;
    if (!isfinite(value) || !(value < 1e9))
        return rp_fail(reader->err, RP_ERR_FORMAT, rp_gguf_path(reader->gguf), -1,
                       "key '%s' is %g, expected a number from 0 to 1e9", key, value);
    if (value >= 0)
        *out = value;
    return RP_OK;
}

/* Without the key it is linear, whose factor may be absent, too. */
static enum rp_status read_type(const struct reader *reader, enum rp_rope_scaling_type *type)
{
    static const struct {
        const char *name;
        enum rp_rope_scaling_type type;
    } types[] = {{"none", RP_ROPE_NOT_SCALED},
                 {"linear", RP_ROPE_LINEAR},
                 {"yarn", RP_ROPE_YARN},
                 {"longrope", RP_ROPE_LONGROPE}};
    char key[KEY_SIZE];
    struct rp_gguf_string name;
    *type = RP_ROPE_LINEAR;
    if (!rp_gguf_find_value(reader->gguf, make_key(reader, "scaling.type", key)))
        return RP_OK;
    const enum rp_status status = rp_gguf_get_string(reader->gguf, key, &name, reader->err);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (name.length == strlen(types[i].name) &&
            memcmp(name.data, types[i].name, name.length) == 0) {
            *type = types[i].type;
            return RP_OK;
        }
    }
    return rp_fail(reader->err, RP_ERR_UNSUPPORTED, rp_gguf_path(reader->gguf), -1,
                   "key '%s': computed are none, linear, yarn and longrope", key);
}

static enum rp_status read_original_context(const struct reader *reader, size_t *out)
{
    char key[KEY_SIZE];
    int64_t value = 0;
    enum rp_status status = RP_OK;
    make_key(reader, "scaling.original_context_length", key);
    if (!rp_gguf_find_value(reader->gguf, key))
        snprintf(key, sizeof key, "%s.context_length", reader->architecture);
    status = rp_gguf_get_int(reader->gguf, key, 1, MAX_CONTEXT, &value, reader->err);
    *out = (size_t)value;
    return status;
}

/* HF's attention_factor is yarn_attn_factor, which llama.cpp reads and does not use. Of mscale and
 * mscale_all_dim a file has one, yarn_log_multiplier: a tenth of mscale_all_dim, which mscale then is, too,
 * where the architecture has attention's scale by it; else mscale_all_dim itself, and mscale is 1. */
static enum rp_status read_attention_factor(const struct reader *reader,
                                            const struct rp_architecture *architecture,
                                            struct rp_rope_scaling *scaling)
{
    double factor = NOT_SAID, multiplier = 0;
    enum rp_status status = read_number(reader, "scaling.yarn_attn_factor", &factor);
    if (status == RP_OK)
        status = read_number(reader, "scaling.yarn_log_multiplier", &multiplier);
    const bool by_tenths = architecture->yarn_scales_attention;
    const double all_dim = by_tenths ? multiplier / 0.1 : multiplier;
    if (by_tenths)
        scaling->mscale_all_dim = (float)all_dim;
    if (factor < 0)
        factor =
            rp_yarn_attention_factor((double)scaling->factor, by_tenths ? all_dim : 1, all_dim);
    scaling->attention_factor = (float)factor;
    return status;
}

static enum rp_status read_yarn(const struct reader *reader,
                                const struct rp_architecture *architecture,
                                struct rp_rope_scaling *scaling)
{
    double extrapolation = 1, fast = (double)RP_YARN_BETA_FAST, slow = (double)RP_YARN_BETA_SLOW;
    enum rp_status status = read_original_context(reader, &scaling->original_context);
    if (status == RP_OK)
        status = read_attention_factor(reader, architecture, scaling);
    if (status == RP_OK)
        status = read_number(reader, "scaling.yarn_ext_factor", &extrapolation);
    if (status == RP_OK && extrapolation != 1)
        return rp_fail(reader->err, RP_ERR_UNSUPPORTED, rp_gguf_path(reader->gguf), -1,
                       "key '%s.rope.scaling.yarn_ext_factor' is %g; only 1 is computed",
                       reader->architecture, extrapolation);
    if (status == RP_OK)
        status = read_number(reader, "scaling.yarn_beta_fast", &fast);
    if (status == RP_OK)
        status = read_number(reader, "scaling.yarn_beta_slow", &slow);
    if (status == RP_OK && !(slow > 0 && fast > slow))
        return rp_fail(reader->err, RP_ERR_FORMAT, rp_gguf_path(reader->gguf), -1,
                       "YaRN's beta_fast is %g and beta_slow %g, expected more than 0 and the "
                       "first to be larger",
                       fast, slow);
    scaling->beta_fast = (float)fast;
    scaling->beta_slow = (float)slow;
    scaling->keeps_ramp_ends = architecture->yarn_keeps_ramp_ends;
    return status;
}

enum rp_status rp_config_read_rope_scaling(const struct rp_gguf *gguf,
                                           const struct rp_architecture *architecture,
                                           struct rp_model_config *config, struct rp_error *err)
{
    const struct reader reader = {gguf, architecture->name, err};
    struct rp_rope_scaling *scaling = &config->rope_scaling;
    double factor = 0, attention = 1;
    enum rp_status status = read_type(&reader, &scaling->type);
    scaling->spares_windows = architecture->window_has_own_rope;
    if (status == RP_OK)
        status = read_number(&reader, "scale_linear", &factor); /* of old files */
    if (status == RP_OK)
        status = read_number(&reader, "scaling.factor", &factor);
    if (status != RP_OK)
        return status;
    scaling->factor = factor > 0 ? (float)factor : 1;
    if (scaling->type == RP_ROPE_LINEAR && scaling->factor == 1)
        scaling->type = RP_ROPE_NOT_SCALED;
    if (scaling->type == RP_ROPE_NOT_SCALED && /* as Phi-3's converter leaves it */
        rp_gguf_find_tensor(gguf, "rope_factors_short.weight"))
        scaling->type = RP_ROPE_LONGROPE;
    if (scaling->type == RP_ROPE_YARN)
        status = read_yarn(&reader, architecture, scaling);
    if (scaling->type == RP_ROPE_LONGROPE)
        status = read_original_context(&reader, &scaling->original_context);
    if (status == RP_OK)
        status = read_number(&reader, "scaling.attn_factor", &attention);
    if (attention > 0 && attention != 1)
        scaling->attention_factor =
            (scaling->attention_factor > 0 ? scaling->attention_factor : 1) * (float)attention;
    if (scaling->attention_factor == 1)
        scaling->attention_factor = 0;
    const float mscale =
        (float)rp_yarn_mscale((double)scaling->factor, (double)scaling->mscale_all_dim);
    if (scaling->type == RP_ROPE_YARN && scaling->mscale_all_dim > 0)
        config->attention_scale *= mscale * mscale;
    return status;
}
