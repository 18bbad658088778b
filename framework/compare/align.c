/* See align.h. Positions are strictly ascending on both sides: one merge walk pairs them. */
#include "compare/align.h"

#include <string.h>

/* Is position asked for? Walks comparison->positions along with the caller's ascending ones. */
static int is_wanted(const struct rp_comparison *comparison, size_t *next, int64_t position)
{
    if (!comparison->positions)
        return 1;
    while (*next < comparison->n_positions && comparison->positions[*next] < position)
        (*next)++;
    return *next < comparison->n_positions && comparison->positions[*next] == position;
}

static void count_unpaired(const struct rp_comparison *comparison, struct rp_alignment *a)
{
    size_t i = 0, j = 0, wanted = 0;
    a->first_missing = -1;
    while (i < a->ref.n_positions || j < a->engine.n_positions) {
        const int ref_left = i < a->ref.n_positions, engine_left = j < a->engine.n_positions;
        if (ref_left && (!engine_left || a->ref.positions[i] < a->engine.positions[j])) {
            if (is_wanted(comparison, &wanted, a->ref.positions[i])) {
                if (a->n_missing++ == 0)
                    a->first_missing = a->ref.positions[i];
            }
            i++;
        } else if (engine_left && (!ref_left || a->engine.positions[j] < a->ref.positions[i])) {
            a->n_extra++;
            j++;
        } else {
            i++;
            j++;
        }
    }
}

enum rp_status rp_alignment_open(const struct rp_comparison *comparison, const char *slot,
                                 struct rp_alignment *alignment, struct rp_error *err)
{
    memset(alignment, 0, sizeof *alignment);
    const struct rp_slot_info *ref = rp_tensor_set_find(comparison->reference, slot);
    const struct rp_slot_info *engine = rp_tensor_set_find(comparison->engine, slot);
    /* Before anything is loaded: a file of another width may take all the memory that there is. */
    alignment->widths_differ =
        ref && engine && !ref->error.code && !engine->error.code && ref->dim != engine->dim;
    if (alignment->widths_differ)
        return rp_fail(err, RP_ERR_MISMATCH, rp_tensor_set_path(comparison->engine), -1,
                       "%s has %zu values per position, the reference has %zu", slot, engine->dim,
                       ref->dim);
    enum rp_status status = rp_tensor_load(comparison->reference, slot, &alignment->ref, err);
    if (status)
        return status;
    status = rp_tensor_load(comparison->engine, slot, &alignment->engine, err);
    if (status)
        return status;
    alignment->dim = alignment->ref.dim;
    count_unpaired(comparison, alignment);
    return RP_OK;
}

void rp_alignment_close(struct rp_alignment *alignment)
{
    rp_tensor_release(&alignment->ref);
    rp_tensor_release(&alignment->engine);
}

int rp_alignment_next(const struct rp_comparison *comparison, struct rp_alignment *alignment,
                      struct rp_row_pair *pair)
{
    const struct rp_tensor *ref = &alignment->ref, *engine = &alignment->engine;
    while (alignment->next_ref < ref->n_positions && alignment->next_engine < engine->n_positions) {
        const int64_t r = ref->positions[alignment->next_ref];
        const int64_t e = engine->positions[alignment->next_engine];
        if (r < e) {
            alignment->next_ref++;
        } else if (e < r) {
            alignment->next_engine++;
        } else {
            const size_t row_bytes = alignment->dim * sizeof(float);
            pair->position = r;
            pair->ref = (const char *)ref->data + alignment->next_ref++ * row_bytes;
            pair->engine = (const char *)engine->data + alignment->next_engine++ * row_bytes;
            if (is_wanted(comparison, &alignment->next_wanted, r))
                return 1;
        }
    }
    return 0;
}
