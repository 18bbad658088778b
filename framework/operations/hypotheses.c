/* See operations/hypotheses.h: the table of families, and what they build candidates with. */
#include "operations/hypotheses.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

rp_collect_fn *const rp_families[] = {
    rp_collect_residual_add,   rp_collect_rope,      rp_collect_rms_norm, rp_collect_attention,
    rp_collect_ffn_activation, rp_collect_delta_net, rp_collect_linear,   rp_collect_embed,
};
const size_t rp_n_families = sizeof rp_families / sizeof *rp_families;

size_t rp_row_of(const int64_t *positions, size_t n, int64_t position)
{
    size_t low = 0, high = n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (positions[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && positions[low] == position ? low : n;
}

static enum rp_status no_memory(const struct rp_search *search, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows of %zu values", search->n,
                   search->dim);
}

bool rp_search_has_step(const struct rp_search *search, enum rp_step_kind kind,
                        enum rp_weight_id which)
{
    for (size_t i = 0; i < search->n_steps; i++) {
        if (search->steps[i].kind == kind &&
            (which == RP_N_WEIGHTS || search->steps[i].which == which))
            return true;
    }
    return false;
}

bool rp_search_reads(const struct rp_search *search, const char *slot)
{
    const size_t n = strlen(slot);
    for (const char *at = search->slot.from; (at = strstr(at, slot)); at += n) {
        const bool is_begin = at == search->slot.from || at[-1] == ' ';
        if (is_begin && (at[n] == '\0' || at[n] == ',')) /* "h1_q" is not in "h1_qrope, h1_k" */
            return true;
    }
    return false;
}

bool rp_search_is_just(const struct rp_search *search, enum rp_step_kind kind)
{
    return !search->slot.is_carried && rp_search_has_step(search, kind, RP_N_WEIGHTS);
}

bool rp_search_rounds(const struct rp_search *search)
{
    return search->n_steps > 0 && !rp_numerics_are_plain(&search->numerics);
}

struct rp_candidate rp_candidate_make(const char *name, void (*install)(struct rp_ops *ops),
                                      int option, enum rp_weight_id which)
{
    return (struct rp_candidate){.name = name,
                                 .phase = RP_PHASE_FIXED,
                                 .install = install,
                                 .option = option,
                                 .which = which,
                                 .other = RP_N_WEIGHTS,
                                 .from_layer = -1,
                                 .parameter = RP_NO_PARAMETER};
}

struct rp_candidate rp_candidate_of_rows(const char *name, rp_transform_fn *transform, double value,
                                         const float *rows)
{
    struct rp_candidate candidate = rp_candidate_make(name, NULL, 0, RP_N_WEIGHTS);
    candidate.phase = RP_PHASE_ROWS;
    candidate.transform = transform;
    candidate.value = value;
    candidate.rows = rows;
    return candidate;
}

enum rp_status rp_search_add(struct rp_search *search, struct rp_candidate candidate,
                             struct rp_error *err, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(candidate.text, sizeof candidate.text, fmt, args);
    va_end(args);
    if (search->n_candidates == search->candidates_capacity) {
        const size_t capacity = 2 * search->candidates_capacity + 64;
        struct rp_candidate *more = realloc(search->candidates, capacity * sizeof *more);
        if (!more)
            return no_memory(search, err);
        search->candidates = more;
        search->candidates_capacity = capacity;
    }
    search->candidates[search->n_candidates++] = candidate;
    return RP_OK;
}

static enum rp_status own_rows(struct rp_search *search, size_t dim, float **rows,
                               struct rp_error *err)
{
    float **more = realloc(search->owned, (search->n_owned + 1) * sizeof *more);
    *rows = NULL;
    if (more) {
        search->owned = more;
        *rows = calloc(search->n * dim + 1, sizeof **rows);
    }
    if (!*rows)
        return no_memory(search, err);
    search->owned[search->n_owned++] = *rows;
    return RP_OK;
}

enum rp_status rp_search_new_rows(struct rp_search *search, float **rows, struct rp_error *err)
{
    return own_rows(search, search->dim, rows, err);
}

enum rp_status rp_search_slot_rows(struct rp_search *search, const char *slot, size_t dim,
                                   const float **rows, struct rp_error *err)
{
    struct rp_error ignored;
    float *read;
    *rows = NULL;
    const struct rp_slot_info *info = rp_tensor_set_find(search->dump, slot);
    if (!info || info->error.code != RP_OK || info->dim != dim)
        return RP_OK;
    enum rp_status status = own_rows(search, dim, &read, err);
    if (status != RP_OK)
        return status;
    if (search->read_dumped(search, slot, dim, read, &ignored) == RP_OK)
        *rows = read;
    else
        free(search->owned[--search->n_owned]);
    return RP_OK;
}

enum rp_status rp_search_base(struct rp_search *search, const float **rows, struct rp_error *err)
{
    char name[RP_SLOT_NAME_SIZE];
    const int layer = search->slot.layer;
    const enum rp_slot_part part = search->slot.part;
    *rows = NULL;
    if (part != RP_PART_OUTPUT && part != RP_PART_POSTATTN)
        return RP_OK;
    if (part == RP_PART_OUTPUT) {
        rp_slot_name(RP_PART_POSTATTN, layer, name);
        const enum rp_status status = rp_search_slot_rows(search, name, search->dim, rows, err);
        if (status != RP_OK || *rows)
            return status;
    }
    rp_slot_name(RP_PART_IN, layer, name);
    const enum rp_status status = rp_search_slot_rows(search, name, search->dim, rows, err);
    if (status != RP_OK || *rows)
        return status;
    rp_slot_name(layer > 0 ? RP_PART_OUTPUT : RP_PART_EMB, layer > 0 ? layer - 1 : -1, name);
    return rp_search_slot_rows(search, name, search->dim, rows, err);
}

double rp_search_work(const struct rp_search *search)
{
    const struct rp_model_config *config = search->config;
    double weights = 0;
    for (size_t i = 0; i < search->n_steps; i++) {
        const struct rp_operation_step *step = &search->steps[i];
        if (step->kind == RP_STEP_LINEAR && step->which < RP_N_LAYER_WEIGHTS)
            weights += (double)search->weights.weights[step->which].n_out *
                       (double)search->weights.weights[step->which].n_in;
        else if (step->kind == RP_STEP_ATTENTION)
            weights += (double)search->n * (double)(config->n_heads * config->head_dim);
        else if (step->kind == RP_STEP_DELTA_RULE)
            weights += 3 * (double)(config->n_linear_v_heads * config->linear_head_dim *
                                    config->linear_head_dim);
        else
            weights += (double)search->dim;
    }
    return (double)search->n * weights;
}
