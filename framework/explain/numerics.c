/* Hypotheses about precision: the engine behaves like other numerics than it declares. */
#include <stdio.h>

#include "explain/search.h"

static enum rp_status add(struct rp_search *search, const char *name, struct rp_numerics numerics,
                          const char *key, const char *value, const char *declared,
                          struct rp_error *err)
{
    struct rp_slot_search *own = (struct rp_slot_search *)search;
    struct rp_candidate candidate = rp_candidate_make(name, NULL, 0, RP_N_WEIGHTS);
    if (own->n_numerics == sizeof own->numerics / sizeof *own->numerics)
        return RP_OK;
    own->numerics[own->n_numerics] = numerics;
    candidate.numerics = &own->numerics[own->n_numerics++];
    candidate.phase = RP_PHASE_NUMERICS;
    return rp_search_add(search, candidate, err,
                         "behaves like \"%s\": \"%s\", and \"%s\" is declared", key, value,
                         declared);
}

static enum rp_status collect_cache(struct rp_search *search, struct rp_error *err)
{
    const struct rp_numerics declared = search->numerics;
    const char *cache = rp_kv_cache_name(declared.kv_cache);
    const bool is_flash = declared.attention == RP_ATTENTION_FLASH;
    struct rp_numerics other = declared;
    enum rp_status status = RP_OK;
    for (int i = RP_KV_CACHE_F32; i <= RP_KV_CACHE_Q4_0 && status == RP_OK; i++) {
        other.kv_cache = (enum rp_kv_cache)i;
        if (other.kv_cache != declared.kv_cache)
            status = add(search, "numerics-kv-cache", other, "kv_cache",
                         rp_kv_cache_name(other.kv_cache), cache, err);
    }
    other = declared;
    other.attention = is_flash ? RP_ATTENTION_PLAIN : RP_ATTENTION_FLASH;
    if (status == RP_OK)
        status =
            add(search, "numerics-attention", other, "attention",
                rp_attention_name(other.attention), rp_attention_name(declared.attention), err);
    other.kv_cache = RP_KV_CACHE_F16; /* the two often come together */
    if (status == RP_OK && declared.kv_cache != other.kv_cache)
        status = add(search, "numerics-kv-cache", other, "kv_cache\": \"f16\", \"attention",
                     rp_attention_name(other.attention), cache, err);
    return status;
}

enum rp_status rp_collect_numerics(struct rp_search *search, struct rp_error *err)
{
    const struct rp_numerics declared = search->numerics;
    enum rp_status status = RP_OK;
    if (rp_search_has_step(search, RP_STEP_ATTENTION, RP_N_WEIGHTS))
        status = collect_cache(search, err);
    for (int i = RP_ACTIVATIONS_F32; i <= RP_ACTIVATIONS_Q8_K && status == RP_OK; i++) {
        struct rp_numerics other = declared;
        other.activations = (enum rp_activations)i;
        if (other.activations != declared.activations &&
            rp_search_has_step(search, RP_STEP_LINEAR, RP_N_WEIGHTS))
            status = add(search, "numerics-activations", other, "activations",
                         rp_activations_name(other.activations),
                         rp_activations_name(declared.activations), err);
    }
    return status;
}
