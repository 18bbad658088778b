/* See operations/hypotheses.h: the table of families, and what they build candidates with. */
#include "operations/hypotheses.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

rp_collect_fn *const rp_families[] = {
    rp_collect_residual_add,   rp_collect_rope_scaling, rp_collect_rope,
    rp_collect_rope_on_nope,   rp_collect_rms_norm,     rp_collect_attention,
    rp_collect_ffn_activation, rp_collect_delta_net,    rp_collect_latents,
    rp_collect_experts,        rp_collect_linear,       rp_collect_embed,
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

float rp_round_mantissa(float x, int bits)
{
    int exponent;
    const double fraction = frexp((double)x, &exponent);
    return (float)ldexp(nearbyint(ldexp(fraction, bits + 1)), exponent - bits - 1);
}

void rp_change_rows(const struct rp_change *change, const struct rp_site *site, size_t dim,
                    float *x)
{
    for (size_t p = 0; p < site->n_positions; p++) {
        const size_t row = rp_row_of(change->positions, change->n_rows, site->positions[p]);
        if (row < change->n_rows)
            memcpy(x + p * dim, change->what.rows + row * dim, dim * sizeof *x);
    }
}

void rp_search_note(struct rp_search *search, enum rp_status status)
{
    if (search->status == RP_OK)
        search->status = status;
}

static void note_no_memory(struct rp_search *search)
{
    if (search->status == RP_OK)
        search->status = rp_fail(search->err, RP_ERR_MEMORY, NULL, -1,
                                 "no memory for %zu rows of %zu values", search->n, search->dim);
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

void rp_search_add(struct rp_search *search, struct rp_candidate candidate, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(candidate.text, sizeof candidate.text, fmt, args);
    va_end(args);
    if (search->status == RP_OK && search->n_candidates == search->candidates_capacity) {
        const size_t capacity = 2 * search->candidates_capacity + 64;
        struct rp_candidate *more = realloc(search->candidates, capacity * sizeof *more);
        if (!more)
            note_no_memory(search);
        else
            search->candidates_capacity = capacity;
        search->candidates = more ? more : search->candidates;
    }
    if (search->status == RP_OK)
        search->candidates[search->n_candidates++] = candidate;
}

struct rp_candidate rp_candidate_of(struct rp_hypothesis hypothesis,
                                    void (*install)(struct rp_ops *ops))
{
    struct rp_candidate candidate =
        rp_candidate_make(hypothesis.name, install, hypothesis.option, RP_N_WEIGHTS);
    candidate.reports_value = !isnan(hypothesis.value);
    candidate.value = candidate.reports_value ? hypothesis.value : 0;
    return candidate;
}

void rp_search_add_all(struct rp_search *search, enum rp_step_kind kind,
                       void (*install)(struct rp_ops *ops), const struct rp_hypothesis *hypotheses,
                       size_t n)
{
    for (size_t i = 0; i < n && rp_search_has_step(search, kind, RP_N_WEIGHTS); i++)
        rp_search_add(search, rp_candidate_of(hypotheses[i], install), "%s", hypotheses[i].text);
}

void rp_search_add_fit(struct rp_search *search, enum rp_step_kind kind,
                       void (*install)(struct rp_ops *ops), struct rp_hypothesis hypothesis,
                       const struct rp_fit *fit, double own)
{
    struct rp_candidate candidate = rp_candidate_of(hypothesis, install);
    candidate.phase = RP_PHASE_FIT;
    candidate.own = own;
    candidate.fit = fit;
    if (rp_search_has_step(search, kind, RP_N_WEIGHTS))
        rp_search_add(search, candidate, "%s", hypothesis.text);
}

static float *own_rows(struct rp_search *search, size_t dim)
{
    float **more = realloc(search->owned, (search->n_owned + 1) * sizeof *more);
    float *rows = NULL;
    if (more) {
        search->owned = more;
        rows = calloc(search->n * dim + 1, sizeof *rows);
    }
    if (rows)
        search->owned[search->n_owned++] = rows;
    else
        note_no_memory(search);
    return rows;
}

float *rp_search_new_rows(struct rp_search *search)
{
    return own_rows(search, search->dim);
}

const float *rp_search_slot_rows(struct rp_search *search, const char *slot, size_t dim)
{
    struct rp_error ignored;
    const struct rp_slot_info *info = rp_tensor_set_find(search->dump, slot);
    if (!info || info->error.code != RP_OK || info->dim != dim)
        return NULL;
    float *rows = own_rows(search, dim);
    if (!rows || search->read_dumped(search, slot, dim, rows, &ignored) == RP_OK)
        return rows;
    free(search->owned[--search->n_owned]);
    return NULL;
}

const float *rp_search_layer_input(struct rp_search *search, size_t dim)
{
    char name[RP_SLOT_NAME_SIZE];
    const int layer = search->slot.layer;
    const float *rows = rp_search_slot_rows(search, rp_slot_name(RP_PART_IN, layer, name), dim);
    if (rows)
        return rows;
    rp_slot_name(layer > 0 ? RP_PART_OUTPUT : RP_PART_EMB, layer > 0 ? layer - 1 : -1, name);
    return rp_search_slot_rows(search, name, dim);
}

const float *rp_search_base(struct rp_search *search)
{
    char name[RP_SLOT_NAME_SIZE];
    const float *rows = NULL;
    if (search->slot.part != RP_PART_OUTPUT && search->slot.part != RP_PART_POSTATTN)
        return NULL;
    rp_slot_name(RP_PART_POSTATTN, search->slot.layer, name);
    if (search->slot.part == RP_PART_OUTPUT)
        rows = rp_search_slot_rows(search, name, search->dim);
    return rows ? rows : rp_search_layer_input(search, search->dim);
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
        else if (step->kind == RP_STEP_EXPERTS_LINEAR)
            weights += (double)config->router.n_chosen *
                       (double)search->weights.weights[step->which].n_out *
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
