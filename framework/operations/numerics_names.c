/* The names of refparity/numerics.h's values. */
#include <stdio.h>
#include <string.h>

#include "base/numbers.h"
#include "refparity/numerics.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *const activation_names[] = {
    [RP_ACTIVATIONS_F32] = "f32",   [RP_ACTIVATIONS_BY_WEIGHT] = "by_weight",
    [RP_ACTIVATIONS_F16] = "f16",   [RP_ACTIVATIONS_BF16] = "bf16",
    [RP_ACTIVATIONS_Q8_0] = "q8_0", [RP_ACTIVATIONS_Q8_K] = "q8_K",
};
static const char *const kv_caches[] = {
    [RP_KV_CACHE_F32] = "f32",
    [RP_KV_CACHE_F16] = "f16",
    [RP_KV_CACHE_Q8_0] = "q8_0",
    [RP_KV_CACHE_Q4_0] = "q4_0",
};
static const char *const kernels[] = {
    [RP_ATTENTION_PLAIN] = "plain",
    [RP_ATTENTION_FLASH] = "flash",
};

static const char *const states[] = {
    [RP_STATE_F32] = "f32",
    [RP_STATE_BF16] = "bf16",
    [RP_STATE_F16] = "f16",
};

/* *index of name; the error lists what there is. */
static enum rp_status find(const char *what, const char *const *names, size_t n, const char *name,
                           size_t *index, struct rp_error *err)
{
    char list[128] = "";
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i], name) == 0) {
            *index = i;
            return RP_OK;
        }
        used +=
            (size_t)snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "%s '%s' is none of %s", what, name, list);
}

enum rp_status rp_activations_parse(const char *name, enum rp_activations *out,
                                    struct rp_error *err)
{
    size_t index = 0;
    enum rp_status status =
        find("activations", activation_names, COUNT(activation_names), name, &index, err);
    if (status == RP_OK)
        *out = (enum rp_activations)index;
    return status;
}

enum rp_status rp_kv_cache_parse(const char *name, enum rp_kv_cache *out, struct rp_error *err)
{
    size_t index = 0;
    enum rp_status status = find("KV cache", kv_caches, COUNT(kv_caches), name, &index, err);
    if (status == RP_OK)
        *out = (enum rp_kv_cache)index;
    return status;
}

enum rp_status rp_attention_parse(const char *name, enum rp_attention_kernel *out,
                                  struct rp_error *err)
{
    size_t index = 0;
    enum rp_status status = find("attention", kernels, COUNT(kernels), name, &index, err);
    if (status == RP_OK)
        *out = (enum rp_attention_kernel)index;
    return status;
}

enum rp_status rp_state_parse(const char *name, enum rp_state *out, struct rp_error *err)
{
    size_t index = 0;
    enum rp_status status = find("state", states, COUNT(states), name, &index, err);
    if (status == RP_OK)
        *out = (enum rp_state)index;
    return status;
}

const char *rp_state_name(enum rp_state state)
{
    return (size_t)state < COUNT(states) ? states[state] : "unknown";
}

const char *rp_activations_name(enum rp_activations activations)
{
    return (size_t)activations < COUNT(activation_names) ? activation_names[activations]
                                                         : "unknown";
}

const char *rp_kv_cache_name(enum rp_kv_cache kv_cache)
{
    return (size_t)kv_cache < COUNT(kv_caches) ? kv_caches[kv_cache] : "unknown";
}

const char *rp_attention_name(enum rp_attention_kernel attention)
{
    return (size_t)attention < COUNT(kernels) ? kernels[attention] : "unknown";
}

bool rp_batch_of_mode(const char *mode, size_t *batch)
{
    static const struct {
        const char *prefix;
        bool has_neighbours;
    } sized[] = {{"batched:", false}, {"parallel:", true}, {"parallel-streams:", true}};
    *batch = strcmp(mode, "per-token") == 0;
    if (*batch == 1 || strcmp(mode, "batched") == 0)
        return true;
    for (size_t i = 0; i < COUNT(sized); i++) {
        const size_t length = strlen(sized[i].prefix);
        int64_t n = 0;
        if (strncmp(mode, sized[i].prefix, length) != 0)
            continue;
        const size_t n_digits =
            rp_number_parse(mode + length, strlen(mode + length), INT32_MAX, &n);
        if (n_digits == 0 || mode[length + n_digits] || n < 1)
            return false;
        *batch = sized[i].has_neighbours ? RP_BATCH_UNKNOWN : (size_t)n;
        return true;
    }
    return false;
}
