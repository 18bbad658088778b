/* Hypotheses about precision: the engine behaves like other numerics than it declares. */
#include <math.h>
#include <stdio.h>

#include "explain/search.h"

static enum rp_status add(struct rp_search *search, const char *name, unsigned stages,
                          struct rp_numerics numerics, const char *key, const char *value,
                          const char *declared, struct rp_error *err)
{
    struct rp_candidate candidate = {.name = name,
                                     .phase = RP_PHASE_NUMERICS,
                                     .stages = stages,
                                     .from_layer = -1,
                                     .parameter = RP_NO_PARAMETER};
    if (search->n_numerics == sizeof search->numerics / sizeof *search->numerics)
        return RP_OK;
    search->numerics[search->n_numerics] = numerics;
    candidate.numerics = &search->numerics[search->n_numerics++];
    snprintf(candidate.text, sizeof candidate.text,
             "behaves like \"%s\": \"%s\", and \"%s\" is declared", key, value, declared);
    return rp_search_add(search, &candidate, err);
}

enum rp_status rp_collect_numerics(struct rp_search *search, struct rp_error *err)
{
    const struct rp_numerics declared = rp_replay_options(search->replay)->numerics;
    bool has_cache = search->kind == RP_LAYER_FULL_ATTENTION;
    enum rp_status status = RP_OK;
    if (!search->runs)
        return RP_OK;
    for (int i = RP_KV_CACHE_F32; has_cache && i <= RP_KV_CACHE_Q4_0 && status == RP_OK; i++) {
        struct rp_numerics other = declared;
        other.kv_cache = (enum rp_kv_cache)i;
        if (other.kv_cache != declared.kv_cache)
            status =
                add(search, "numerics-kv-cache", RP_STAGE_ATTENTION, other, "kv_cache",
                    rp_kv_cache_name(other.kv_cache), rp_kv_cache_name(declared.kv_cache), err);
    }
    if (has_cache && status == RP_OK) {
        struct rp_numerics other = declared;
        other.attention =
            declared.attention == RP_ATTENTION_FLASH ? RP_ATTENTION_PLAIN : RP_ATTENTION_FLASH;
        status =
            add(search, "numerics-attention", RP_STAGE_ATTENTION, other, "attention",
                rp_attention_name(other.attention), rp_attention_name(declared.attention), err);
        other.kv_cache = RP_KV_CACHE_F16; /* the two often come together */
        if (status == RP_OK && declared.kv_cache != other.kv_cache)
            status = add(search, "numerics-kv-cache", RP_STAGE_ATTENTION, other,
                         "kv_cache\": \"f16\", \"attention", rp_attention_name(other.attention),
                         rp_kv_cache_name(declared.kv_cache), err);
    }
    for (int i = RP_ACTIVATIONS_F32; i <= RP_ACTIVATIONS_Q8_K && status == RP_OK; i++) {
        struct rp_numerics other = declared;
        other.activations = (enum rp_activations)i;
        if (other.activations != declared.activations)
            status = add(search, "numerics-activations", RP_STAGE_ATTENTION | RP_STAGE_FFN, other,
                         "activations", rp_activations_name(other.activations),
                         rp_activations_name(declared.activations), err);
    }
    return status;
}
