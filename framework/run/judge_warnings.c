/* The warnings of a pair (compare/warnings.h), with what the engine's file says about its weights. */
#include <stdio.h>
#include <string.h>

#include "compare/warnings.h"
#include "refparity/gguf.h"
#include "run/judge_internal.h"
#include "run/reference.h"

/* Are there matrices in the pair's model file, or is there a KV cache, that keep fewer than 8 bits a value? An
 * engine without such a file reads the checkpoint. */
static bool is_coarse(const struct rp_judge *judge)
{
    char path[RP_PATH_SIZE];
    struct rp_gguf *file;
    const struct rp_entry *entry = judge->pair->entry;
    struct rp_error err;
    bool found = false;
    if (entry->numerics.kv_cache == RP_KV_CACHE_Q4_0)
        return true;
    if (!entry->engine_gguf ||
        rp_entry_gguf(judge->context->matrix, entry, judge->context->models_dir, path, sizeof path,
                      &err) != RP_OK ||
        rp_gguf_open(path, &file, &err) != RP_OK)
        return false;
    for (size_t i = 0; i < rp_gguf_n_tensors(file) && !found; i++) {
        const struct rp_gguf_tensor *tensor = rp_gguf_tensor(file, i);
        found = tensor->n_dims > 1 && tensor->row_bytes < tensor->dims[0];
    }
    rp_gguf_close(file);
    return found;
}

/* A reference of fewer than 8 bits is as far off as an engine of these. */
static bool has_coarse_reference(const struct rp_judge *judge)
{
    struct rp_reference_origin origin;
    return judge->pair->entry->reference.engine && judge->comparison.reference &&
           rp_reference_origin_read(judge->comparison.reference, &origin, NULL) == RP_OK &&
           origin.is_coarse;
}

/* By its name in the matrix, or by its program as the matrix writes it. */
static bool is_own_reference(const struct rp_entry *entry)
{
    const struct rp_engine *reference = entry->reference.engine;
    return reference && (reference == entry->engine ||
                         (strpbrk(reference->argv[0], "/{") &&
                          strcmp(reference->argv[0], entry->engine->argv[0]) == 0));
}

static void add_own_reference(struct rp_warnings *warnings)
{
    struct rp_warning *warning = &warnings->list[warnings->n++];
    warning->kind = RP_WARNING_OWN_REFERENCE;
    snprintf(warning->slot, sizeof warning->slot, "logits");
    snprintf(warning->message, sizeof warning->message,
             "the engine is its own reference: what it does wrong with both files is equal, and "
             "not seen here");
}

void rp_judge_warnings(const struct rp_judge *judge, struct rp_verdicts *verdicts)
{
    verdicts->warnings.n = 0;
    if (verdicts->verdict != RP_PASS && verdicts->verdict != RP_MARGINAL)
        return;
    /* Two modes have the same weights: those explain no distance between them. */
    const bool is_explained = !judge->pair->against && rp_pair_is_far(&verdicts->pair) &&
                              (is_coarse(judge) || has_coarse_reference(judge));
    rp_warn_pair(&verdicts->pair, is_explained, &verdicts->warnings);
    if (!judge->pair->against && is_own_reference(judge->pair->entry))
        add_own_reference(&verdicts->warnings);
}
