/* See limits.h. */
#include "exact/limits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

#define PATH_SIZE 4096
#define FILE_NAME "rounding.json"

struct rp_exact_limits {
    struct rp_limits limits;
    struct rp_slot_limit *slots; /* [limits.n_slots] */
    struct rp_json *json;        /* holds the slots' names */
};

/* End to end on the tiny models: F16 1e-3, BF16 7e-3, 8-bit blocks 0.035; twice that and more. */
static double coarse_limit(const struct rp_numerics *numerics)
{
    static const double of_activations[] = {
        [RP_ACTIVATIONS_F32] = RP_EXACT_F32, [RP_ACTIVATIONS_BY_WEIGHT] = 0.1,
        [RP_ACTIVATIONS_F16] = 5e-3,         [RP_ACTIVATIONS_BF16] = 0.02,
        [RP_ACTIVATIONS_Q8_0] = 0.1,         [RP_ACTIVATIONS_Q8_K] = 0.1};
    static const double of_kv_cache[] = {[RP_KV_CACHE_F32] = RP_EXACT_F32,
                                         [RP_KV_CACHE_F16] = 5e-3,
                                         [RP_KV_CACHE_Q8_0] = 0.1,
                                         [RP_KV_CACHE_Q4_0] = 0.4};
    static const double of_state[] = {
        [RP_STATE_F32] = RP_EXACT_F32, [RP_STATE_BF16] = 0.05, [RP_STATE_F16] = 0.01};
    const double of_attention = numerics->attention == RP_ATTENTION_FLASH ? 5e-3 : RP_EXACT_F32;
    return fmax(fmax(of_attention, of_state[numerics->state]),
                fmax(of_activations[numerics->activations], of_kv_cache[numerics->kv_cache]));
}

static enum rp_status read_slots(struct rp_exact_limits *limits, const char *path,
                                 struct rp_error *err)
{
    enum rp_status status = rp_json_parse_file(path, &limits->json, err);
    if (status)
        return status;
    const cJSON *slots = cJSON_GetObjectItemCaseSensitive(rp_json_root(limits->json), "l2_rel");
    const cJSON *slot;
    if (!cJSON_IsObject(slots))
        return rp_json_fail(limits->json, rp_json_root(limits->json), err, RP_ERR_FORMAT,
                            "expected an object \"l2_rel\"");
    limits->slots = calloc((size_t)cJSON_GetArraySize(slots) + 1, sizeof *limits->slots);
    if (!limits->slots)
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory");
    limits->limits.slots = limits->slots;
    cJSON_ArrayForEach(slot, slots)
    {
        if (!cJSON_IsNumber(slot) || !(slot->valuedouble >= 0))
            return rp_json_fail(limits->json, slot, err, RP_ERR_FORMAT, "expected a number");
        limits->slots[limits->limits.n_slots++] = (struct rp_slot_limit){
            .slot = slot->string,
            .l2_rel = fmax(RP_EXACT_F32, RP_EXACT_ROUNDING * slot->valuedouble)};
    }
    return RP_OK;
}

enum rp_status rp_exact_limits_open(const char *path, const struct rp_numerics *numerics,
                                    struct rp_exact_limits **out, struct rp_error *err)
{
    char file[PATH_SIZE];
    enum rp_status status = rp_path_join(file, sizeof file, path, FILE_NAME, err);
    if (status)
        return status;
    struct rp_exact_limits *limits = calloc(1, sizeof *limits);
    if (!limits)
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory");
    limits->limits.l2_rel = RP_EXACT_F32;
    if (!rp_numerics_are_plain(numerics)) {
        if (rp_path_exists(file))
            status = read_slots(limits, file, err);
        else
            limits->limits.l2_rel = coarse_limit(numerics);
    }
    if (status)
        rp_exact_limits_close(limits);
    else
        *out = limits;
    return status;
}

void rp_exact_limits_close(struct rp_exact_limits *limits)
{
    if (!limits)
        return;
    rp_json_free(limits->json);
    free(limits->slots);
    free(limits);
}

const struct rp_limits *rp_exact_limits_of(const struct rp_exact_limits *limits)
{
    return &limits->limits;
}

enum rp_status rp_exact_rounding_write(const char *folder, const struct rp_rounding *roundings,
                                       size_t n, struct rp_error *err)
{
    char path[PATH_SIZE];
    enum rp_status status = rp_path_join(path, sizeof path, folder, FILE_NAME, err);
    if (status)
        return status;
    cJSON *root = cJSON_CreateObject();
    cJSON *slots = cJSON_AddObjectToObject(root, "l2_rel");
    for (size_t i = 0; i < n; i++)
        cJSON_AddNumberToObject(slots, roundings[i].slot, roundings[i].l2_rel);
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    status = text ? rp_file_write_atomic(path, text, strlen(text), err)
                  : rp_fail(err, RP_ERR_MEMORY, path, -1, "not enough memory to write it");
    free(text);
    return status;
}
