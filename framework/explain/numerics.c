/* Hypotheses about precision: the engine behaves like other numerics than it declares. */
#include <stdio.h>

#include "explain/search.h"

/* "activations": "f16", "kv_cache": "f16" …, of that which differs from other. */
static void name(const struct rp_numerics *numerics, const struct rp_numerics *other, char text[96])
{
    const struct {
        const char *key, *value;
        bool differs;
    } keys[] = {
        {"activations", rp_activations_name(numerics->activations),
         numerics->activations != other->activations},
        {"kv_cache", rp_kv_cache_name(numerics->kv_cache), numerics->kv_cache != other->kv_cache},
        {"attention", rp_attention_name(numerics->attention),
         numerics->attention != other->attention}};
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i].differs)
            used += (size_t)snprintf(text + used, 96 - used, "%s\"%s\": \"%s\"", used ? ", " : "",
                                     keys[i].key, keys[i].value);
}

static void add(struct rp_search *search, struct rp_numerics numerics)
{
    struct rp_slot_search *own = (struct rp_slot_search *)search;
    const struct rp_numerics *declared = &search->numerics;
    const bool has_activations = numerics.activations != declared->activations,
               has_cache = numerics.kv_cache != declared->kv_cache,
               has_attention = numerics.attention != declared->attention;
    struct rp_candidate candidate = rp_candidate_make(has_activations ? "numerics-activations"
                                                      : has_cache     ? "numerics-kv-cache"
                                                                      : "numerics-attention",
                                                      NULL, 0, RP_N_WEIGHTS);
    char found[96], text[96];
    if (own->n_numerics == sizeof own->numerics / sizeof *own->numerics)
        return;
    own->numerics[own->n_numerics] = numerics;
    candidate.numerics = &own->numerics[own->n_numerics++];
    candidate.phase = has_activations && (has_cache || has_attention) ? RP_PHASE_NUMERICS_PAIR
                                                                      : RP_PHASE_NUMERICS;
    name(&numerics, declared, found);
    name(declared, &numerics, text);
    rp_search_add(search, candidate, "behaves like %s, and %s is declared", found, text);
}

/* The cache alone, the kernel alone, then both: of what fits alike the first is named. */
static void collect_cache(struct rp_search *search, struct rp_numerics numerics)
{
    const struct rp_numerics declared = search->numerics;
    const int n = RP_KV_CACHE_Q4_0 + 1;
    for (int kernel = 0; kernel < 2; kernel++) {
        for (int cache = 0; cache < n; cache++) {
            numerics.kv_cache = (enum rp_kv_cache)(((int)declared.kv_cache + cache) % n);
            numerics.attention = (declared.attention == RP_ATTENTION_FLASH) == (kernel == 0)
                                     ? RP_ATTENTION_FLASH
                                     : RP_ATTENTION_PLAIN;
            if (kernel > 0 || cache > 0)
                add(search, numerics);
        }
    }
}

void rp_collect_numerics(struct rp_search *search)
{
    const bool has_attention = rp_search_has_step(search, RP_STEP_ATTENTION, RP_N_WEIGHTS),
               has_product = rp_search_has_step(search, RP_STEP_LINEAR, RP_N_WEIGHTS);
    if (has_attention)
        collect_cache(search, search->numerics);
    for (int i = RP_ACTIVATIONS_F32; i <= RP_ACTIVATIONS_Q8_K && has_product; i++) {
        struct rp_numerics other = search->numerics;
        other.activations = (enum rp_activations)i;
        if (other.activations == search->numerics.activations)
            continue;
        add(search, other);
        if (has_attention)
            collect_cache(search, other);
    }
}
