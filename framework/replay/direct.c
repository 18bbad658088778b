/* See replay/direct.h. A flipped value is a column of the weight times what the value changes by; a
 * flipped scale is its block's part of the product times what the scale changes by. */
#include "replay/direct.h"

#include <math.h>
#include <stdlib.h>

#include "numerics/half.h"
#include "numerics/rounding.h"
#include "replay/frozen.h"

#define BLOCK 32 /* values that share a scale in F16 */
#define K_BLOCK 256
#define Q8_PEAK 127      /* the scale's multiple that the largest of them is */
#define F16_STEP 0x1p-10 /* of a value, at most */

bool rp_direct_is(const struct rp_trial *trial, const struct rp_trial_task *task,
                  const struct rp_tie *tie)
{
    const int last = rp_recall_last_product(tie->which);
    const size_t attention = rp_forced_index(RP_PART_POSTATTN),
                 ffn = rp_forced_index(RP_PART_FFNOUT);
    if (last == RP_NOT_LAST || !trial->recall.last_in[last] || tie->format == RP_GGML_Q8_1)
        return false;
    return last == RP_LAST_OF_ATTENTION ? task->part == attention : task->part >= ffn;
}

static double norm_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* What a row was, x [n], and what it was rounded to, y [n]. */
struct rounded {
    const float *x;
    const float *y;
    size_t n;
    double norm;
};

static void value_effect(const struct rp_trial *trial, const struct rp_weight *weight,
                         const struct rounded *row, const struct rp_tie *tie, float *effect)
{
    const size_t dim = trial->search->forced->dim, i = tie->index;
    const double change = copysign(tie->step * row->norm, (double)row->x[i] - (double)row->y[i]);
    for (size_t k = 0; k < trial->width; k++)
        effect[k] =
            (float)((double)weight->data[k * dim / trial->width * weight->n_in + i] * change);
}

/* The product of values first .. to - 1, times change. */
static void block_effect(const struct rp_trial *trial, const struct rp_weight *weight,
                         const float *y, size_t first, size_t to, double change, float *effect)
{
    const size_t dim = trial->search->forced->dim;
    for (size_t k = 0; k < trial->width; k++) {
        const float *w = weight->data + k * dim / trial->width * weight->n_in;
        double sum = 0;
        for (size_t i = first; i < to; i++)
            sum += (double)w[i] * (double)y[i];
        effect[k] = (float)(sum * change);
    }
}

static void scale_effect(const struct rp_trial *trial, const struct rp_weight *weight,
                         const struct rounded *row, const struct rp_tie *tie, float *effect)
{
    const bool is_rounded = tie->format != RP_GGML_Q8_K;
    const size_t block = is_rounded ? BLOCK : K_BLOCK, first = tie->index * block;
    if (first >= row->n)
        return;
    const size_t to = row->n - first < block ? row->n : first + block;
    double change = tie->step;
    if (is_rounded) {
        float peak = 0;
        for (size_t i = first; i < to; i++)
            peak = fmaxf(peak, fabsf(row->x[i]));
        const float scale = peak / Q8_PEAK, stored = rp_round_f16(scale);
        if (!(stored > 0))
            return;
        change = copysign(tie->step * row->norm / Q8_PEAK, (double)scale - (double)stored) /
                 (double)stored;
    }
    block_effect(trial, weight, row->y, first, to, change, effect);
}

void rp_direct_add_scales(struct rp_trial *trial, struct rp_trial_task *task)
{
    const struct rp_flip_search *search = trial->search;
    const struct rp_numerics *numerics = &search->emulation->numerics;
    const struct rp_weight *weight = &search->weights->weights[RP_ATTN_OUTPUT];
    struct rp_tie tie = {.position = search->forced->positions[task->row],
                         .which = RP_ATTN_OUTPUT,
                         .format = RP_GGML_Q8_K,
                         .kind = RP_TIE_SCALE,
                         .step = F16_STEP};
    if (!rp_direct_is(trial, task, &tie) || !rp_has_f16_attention(numerics) ||
        !rp_moves_scale(numerics, weight->type))
        return;
    for (; tie.index * K_BLOCK < weight->n_in && task->direct.n < task->direct.capacity;
         tie.index++) {
        if (!rp_tie_is_among(&tie, task->accepted, task->n_accepted))
            task->direct.ties[task->direct.n++] = tie;
    }
}

enum rp_status rp_direct_effects(const struct rp_trial *trial, const struct rp_trial_task *task,
                                 float *effects, struct rp_error *err)
{
    const struct rp_tie *ties = task->direct.ties;
    float *y = NULL;
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < task->direct.n && status == RP_OK; i++) {
        const int last = rp_recall_last_product(ties[i].which);
        const struct rp_weight *weight = &trial->search->weights->weights[ties[i].which];
        struct rounded row = {.n = trial->recall.last_width[last]};
        row.x = trial->recall.last_in[last] + task->row * row.n;
        if (!weight->data || weight->n_in != row.n || ties[i].index >= row.n)
            continue;
        if (!y) {
            y = calloc(row.n + 1, sizeof *y);
            if (!y)
                return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for a row of %zu values",
                               row.n);
            status = rp_round_row(ties[i].format, row.x, row.n, y, NULL, err);
        }
        row.y = y;
        row.norm = norm_of(row.x, row.n);
        if (status != RP_OK)
            break;
        if (ties[i].kind == RP_TIE_VALUE)
            value_effect(trial, weight, &row, &ties[i], effects + i * trial->width);
        else
            scale_effect(trial, weight, &row, &ties[i], effects + i * trial->width);
    }
    free(y);
    return status;
}
