/* Hypotheses about precision: the engine behaves like other numerics than it declares. */
#include <stdio.h>

#include "explain/search.h"

static void add(struct rp_search *search, const char *name, struct rp_numerics numerics,
                const char *key, const char *value, const char *declared)
{
    struct rp_slot_search *own = (struct rp_slot_search *)search;
    struct rp_candidate candidate = rp_candidate_make(name, NULL, 0, RP_N_WEIGHTS);
    if (own->n_numerics == sizeof own->numerics / sizeof *own->numerics)
        return;
    own->numerics[own->n_numerics] = numerics;
    candidate.numerics = &own->numerics[own->n_numerics++];
    candidate.phase = RP_PHASE_NUMERICS;
    rp_search_add(search, candidate, "behaves like \"%s\": \"%s\", and \"%s\" is declared", key,
                  value, declared);
}

static void collect_cache(struct rp_search *search)
{
    const struct rp_numerics declared = search->numerics;
    const char *cache = rp_kv_cache_name(declared.kv_cache);
    const bool is_flash = declared.attention == RP_ATTENTION_FLASH;
    struct rp_numerics other = declared;
    for (int i = RP_KV_CACHE_F32; i <= RP_KV_CACHE_Q4_0; i++) {
        other.kv_cache = (enum rp_kv_cache)i;
        if (other.kv_cache != declared.kv_cache)
            add(search, "numerics-kv-cache", other, "kv_cache", rp_kv_cache_name(other.kv_cache),
                cache);
    }
    other = declared;
    other.attention = is_flash ? RP_ATTENTION_PLAIN : RP_ATTENTION_FLASH;
    add(search, "numerics-attention", other, "attention", rp_attention_name(other.attention),
        rp_attention_name(declared.attention));
    other.kv_cache = RP_KV_CACHE_F16; /* the two often come together */
    if (declared.kv_cache != other.kv_cache)
        add(search, "numerics-kv-cache", other, "kv_cache\": \"f16\", \"attention",
            rp_attention_name(other.attention), cache);
}

void rp_collect_numerics(struct rp_search *search)
{
    const struct rp_numerics declared = search->numerics;
    if (rp_search_has_step(search, RP_STEP_ATTENTION, RP_N_WEIGHTS))
        collect_cache(search);
    for (int i = RP_ACTIVATIONS_F32; i <= RP_ACTIVATIONS_Q8_K; i++) {
        struct rp_numerics other = declared;
        other.activations = (enum rp_activations)i;
        if (other.activations != declared.activations &&
            rp_search_has_step(search, RP_STEP_LINEAR, RP_N_WEIGHTS))
            add(search, "numerics-activations", other, "activations",
                rp_activations_name(other.activations), rp_activations_name(declared.activations));
    }
}
