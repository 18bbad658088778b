/* See replay/carried.h. */
#include "replay/carried.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/half.h"
#include "formats/rounding.h"
#include "refparity/metrics.h"
#include "replay/layer_run.h"
#include "replay/noise.h"
#include "replay/session.h"
#include "replay/tip_limits.h"

enum { N_RUNS = 3 };

/* In front of attention or the delta rule a tip changes Q, K and V together, and the column that counts
 * most in a product need not be the one that counts most behind them. Of 1044 right dumps of tiny models
 * (cases/bugs) the largest error was 1.9 times what one run shows. */
#define WORTH_BEHIND_MIXER 3.0

/* One row that is rounded, in the order of a run, which is the same in all runs. */
struct rounded_row {
    float *x;              /* [n] as it was in the first run; owned */
    size_t n, step, index; /* index: of its position in the plan */
    enum rp_weight_id which;
    enum rp_weight_id reads; /* products that read one row round it once */
    bool is_cache;
    uint32_t format;
    double tips;     /* to be expected, once compared */
    size_t previous; /* an earlier row of the list that is the same one; SIZE_MAX: none */
    size_t beside;   /* the row before it of the same position; SIZE_MAX: none */
};

enum watch_mode { WATCH_RECORD, WATCH_COMPARE, WATCH_TIP, WATCH_REDRAW };

struct watcher {
    const struct rp_replay_plan *plan;
    enum watch_mode mode;
    struct rounded_row *rows; /* [n_rows] */
    size_t *last;             /* [plan->n] of rows, the last one of each position; SIZE_MAX: none */
    size_t n_rows, capacity, at;
    float *followed; /* scratch of the row that is shown */
    size_t n_followed;
    uint64_t seed; /* of what is drawn */
    const struct rp_layer *weights;
    float *
        columns[RP_N_LAYER_WEIGHTS]; /* [n_in] norms of a weight's columns, once asked for; owned */
};

static void watcher_free(struct watcher *watcher)
{
    for (size_t i = 0; i < watcher->n_rows; i++)
        free(watcher->rows[i].x);
    free(watcher->rows);
    free(watcher->last);
    for (size_t i = 0; i < RP_N_LAYER_WEIGHTS; i++)
        free(watcher->columns[i]);
    free(watcher->followed);
}

/* What a change of each value of a product's input is worth; NULL: nothing is known. */
static const float *column_norms(struct watcher *watcher, enum rp_weight_id which, size_t n)
{
    const struct rp_weight *weight = &watcher->weights->weights[which];
    float *norms = watcher->columns[which];
    if (norms || !weight->data || weight->n_in != n)
        return norms;
    norms = watcher->columns[which] = calloc(n + 1, sizeof *norms);
    for (size_t row = 0; norms && row < weight->n_out; row++)
        for (size_t i = 0; i < n; i++)
            norms[i] += weight->data[row * n + i] * weight->data[row * n + i];
    for (size_t i = 0; norms && i < n; i++)
        norms[i] = sqrtf(norms[i]);
    return norms;
}

/* Products that read a norm's output read one row. */
static enum rp_weight_id row_read_by(enum rp_weight_id product)
{
    switch (product) {
    case RP_ATTN_K:
    case RP_ATTN_V:
    case RP_ATTN_Q_A:
    case RP_ATTN_KV_A:
    case RP_ATTN_QKV:
    case RP_ATTN_GATE:
    case RP_SSM_ALPHA:
    case RP_SSM_BETA: return RP_ATTN_Q;
    case RP_FFN_UP:
    case RP_ROUTER:
    case RP_EXPERTS_GATE:
    case RP_EXPERTS_UP:
    case RP_SHARED_ROUTER:
    case RP_SHARED_GATE:
    case RP_SHARED_UP: return RP_FFN_GATE;
    case RP_ATTN_K_B:
    case RP_ATTN_V_B: return RP_N_WEIGHTS; /* a row a head */
    default: return product;
    }
}

/* What operations read is known by its values alone. */
static bool is_same_row(const struct rounded_row *one, const struct rounded_row *other)
{
    return (one->reads != RP_N_WEIGHTS && one->reads != RP_EXPERTS_DOWN) ||
           (one->n == other->n && memcmp(one->x, other->x, one->n * sizeof *one->x) == 0);
}

static size_t index_of(const struct rp_replay_plan *plan, int64_t position)
{
    size_t low = 0, high = plan->n;
    while (low + 1 < high) {
        const size_t middle = low + (high - low) / 2;
        if (plan->positions[middle] <= position)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Of the rows of one position there are as many as a layer rounds. */
static void link_row(struct watcher *watcher, struct rounded_row *row)
{
    row->beside = watcher->last[row->index];
    row->previous = row->beside;
    while (row->previous != SIZE_MAX) {
        const struct rounded_row *other = &watcher->rows[row->previous];
        if (other->reads == row->reads && other->is_cache == row->is_cache &&
            other->format == row->format && is_same_row(other, row))
            break;
        row->previous = other->beside;
    }
    watcher->last[row->index] = watcher->n_rows;
}

static bool record(struct watcher *watcher, const struct rp_site *site, enum rp_weight_id which,
                   bool is_cache, int64_t position, uint32_t format, const float *x, size_t n)
{
    if (watcher->n_rows == watcher->capacity) {
        const size_t capacity = watcher->capacity ? 2 * watcher->capacity : 256;
        struct rounded_row *rows = realloc(watcher->rows, capacity * sizeof *rows);
        if (!rows)
            return false;
        watcher->rows = rows;
        watcher->capacity = capacity;
    }
    struct rounded_row row = {.x = malloc((n + 1) * sizeof(float)),
                              .n = n,
                              .step = site->step,
                              .index = index_of(watcher->plan, position),
                              .which = which,
                              .reads = is_cache ? which : row_read_by(which),
                              .is_cache = is_cache,
                              .format = format};
    if (!row.x)
        return false;
    memcpy(row.x, x, n * sizeof *x);
    link_row(watcher, &row);
    watcher->rows[watcher->n_rows++] = row;
    return true;
}

static bool follow(struct watcher *watcher, size_t n)
{
    if (watcher->n_followed >= n)
        return true;
    float *followed = realloc(watcher->followed, n * sizeof *followed);
    if (!followed)
        return false;
    watcher->followed = followed;
    watcher->n_followed = n;
    return true;
}

/* Each value that is not one of the state's is moved by up to half a step, so that it falls to either of
 * its neighbours, to the nearer one more often. */
static const float *redraw(struct watcher *watcher, uint32_t format, const float *x, size_t n)
{
    if (!follow(watcher, n))
        return NULL;
    rp_round_row(format, x, n, watcher->followed);
    for (size_t i = 0; i < n; i++) {
        const double step = format == RP_GGML_BF16 ? rp_step_bf16(x[i]) : rp_step_f16(x[i]);
        if (watcher->followed[i] == x[i] || !isfinite(x[i]))
            continue;
        watcher->seed = watcher->seed * 6364136223846793005u + 1442695040888963407u;
        const double draw = (double)(watcher->seed >> 40) * 0x1p-24 - 0.5;
        watcher->followed[i] = (float)((double)x[i] + draw * step);
    }
    return watcher->followed;
}

static const float *before(void *context, const struct rp_site *site, enum rp_weight_id which,
                           bool is_cache, int64_t position, uint32_t format, const float *x,
                           size_t n)
{
    struct watcher *watcher = context;
    if (watcher->mode == WATCH_RECORD)
        return record(watcher, site, which, is_cache, position, format, x, n) ? x : NULL;
    if (watcher->mode == WATCH_REDRAW)
        return which == RP_N_WEIGHTS ? redraw(watcher, format, x, n) : x;
    if (watcher->at >= watcher->n_rows || watcher->rows[watcher->at].n != n)
        return NULL;
    struct rounded_row *row = &watcher->rows[watcher->at++];
    if (watcher->mode == WATCH_COMPARE)
        row->tips += rp_rounding_tips(format, row->x, x, n) / N_RUNS;
    if (!follow(watcher, n))
        return NULL;
    rp_rounding_follow(format, row->x, x, n, watcher->followed);
    return watcher->followed;
}

static void after(void *context, uint32_t format, const float *x, size_t n, float *rounded)
{
    struct watcher *watcher = context;
    if (watcher->mode != WATCH_TIP)
        return;
    const struct rounded_row *row = &watcher->rows[watcher->at - 1];
    const float *gain = row->is_cache ? NULL : column_norms(watcher, row->which, n);
    if (row->tips > 0)
        rp_rounding_tip_largest(format, x, n, gain, rounded);
}

/* ---- what each run makes of the carried slots ---- */

struct comparison {
    struct rp_carried *carried;
    const struct rp_replay_plan *plan;
    float **plain;   /* [n_slots][n][dim] */
    bool is_redrawn; /* the state is in 16 bits */
    int run; /* -1: the first; then N_RUNS with noise; then the one with tips, or N_RUNS redrawn */
};

static enum rp_status see(void *context, const struct rp_planned_slot *slot, const float *rows,
                          struct rp_error *err)
{
    struct comparison *comparison = context;
    struct rp_carried *carried = comparison->carried;
    const size_t n = comparison->plan->n;
    size_t k = 0;
    (void)err;
    while (k < carried->n_slots && carried->slots[k].slot != slot)
        k++;
    if (k == carried->n_slots)
        return RP_OK;
    struct rp_carried_slot *of = &carried->slots[k];
    if (comparison->run < 0) {
        memcpy(comparison->plain[k], rows, n * slot->dim * sizeof *rows);
        return RP_OK;
    }
    for (size_t i = 0; i < n; i++) {
        const size_t at = i * slot->dim;
        const double distance =
            rp_metrics_row(comparison->plain[k] + at, rows + at, slot->dim).l2_rel;
        if (comparison->run < N_RUNS)
            of->bound[i] += distance * distance / N_RUNS;
        else if (comparison->is_redrawn)
            of->worth[i] += isfinite(distance) ? distance * distance / N_RUNS : 0;
        else
            of->worth[i] = isfinite(distance) ? distance : 0;
    }
    return RP_OK;
}

/* ---- tips, by position ---- */

/* Whether a product before this one, among these steps, rounds the same row. */
static bool is_read_again(const struct watcher *watcher, const unsigned char *steps,
                          const struct rounded_row *row)
{
    for (; row->previous != SIZE_MAX; row = &watcher->rows[row->previous]) {
        if (steps[watcher->rows[row->previous].step])
            return true;
    }
    return false;
}

static void count_tips(struct rp_carried_slot *of, const struct watcher *watcher)
{
    const struct rp_planned_slot *slot = of->slot;
    const size_t n = watcher->plan->n;
    for (size_t i = 0; i < watcher->n_rows; i++) {
        const struct rounded_row *row = &watcher->rows[i];
        if (!slot->steps[row->step] || !(row->tips > 0))
            continue;
        of->has_tips = true;
        if (!is_read_again(watcher, slot->steps, row))
            of->own[row->index] += row->tips;
        if (row->index + 1 < n && slot->earlier[row->step] &&
            !is_read_again(watcher, slot->earlier, row))
            of->earlier[row->index + 1] += row->tips;
    }
    for (size_t i = 1; i < n; i++)
        of->earlier[i] += of->earlier[i - 1];
}

/* Where the state is in 16 bits, what one tip changes makes the next ones: a position with one may be off
 * by all that is rounded on the way, drawn anew. rp_tips_limit multiplies by the number of tips. */
static void limit_to_redrawn(struct rp_carried_slot *of, size_t n)
{
    for (size_t i = 0; i < n; i++)
        of->worth[i] = RP_BOUND_SIGMAS * sqrt(of->worth[i]) / rp_tips_limit(1, of->own[i]);
}

/* Three times what the runs moved a logit by, and what tips may: the row's L2 norm is more than one value's. */
static enum rp_status note_router(struct rp_carried *carried, const struct rp_carried_slot *of,
                                  const float *logits, size_t n, struct rp_error *err)
{
    carried->router_noise = calloc(n + 1, sizeof *carried->router_noise);
    if (!carried->router_noise)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
    for (size_t i = 0; i < n; i++) {
        const double norm = rp_metrics_norm(logits + i * of->slot->dim, of->slot->dim);
        const double tips = of->has_tips ? rp_tips_limit(of->worth[i], of->own[i]) : 0;
        carried->router_noise[i] = norm * (of->bound[i] + tips);
    }
    return RP_OK;
}

/* ---- the runs ---- */

static enum rp_status list_slots(struct rp_carried *carried, const struct rp_replay_plan *plan,
                                 struct rp_error *err)
{
    const bool has_carried_choice = rp_replay_plan_has_choice(plan);
    for (size_t k = 0; k < plan->n_slots; k++) {
        const struct rp_planned_slot *slot = &plan->slots[k];
        /* A router's logits say which choice may be another, whether or not they are dumped. */
        const bool is_choice = slot->part == RP_PART_ROUTER && !slot->is_own && has_carried_choice;
        if ((slot->is_direct || slot->dumped.tensor.n_positions == 0) && !is_choice)
            continue;
        struct rp_carried_slot *of = &carried->slots[carried->n_slots++];
        *of = (struct rp_carried_slot){.slot = slot,
                                       .bound = calloc(plan->n + 1, sizeof *of->bound),
                                       .worth = calloc(plan->n + 1, sizeof *of->worth),
                                       .own = calloc(plan->n + 1, sizeof *of->own),
                                       .earlier = calloc(plan->n + 1, sizeof *of->earlier)};
        if (!of->bound || !of->worth || !of->own || !of->earlier)
            return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", plan->n);
    }
    return RP_OK;
}

static bool reads_earlier(const struct rp_replay_plan *plan, const struct rp_planned_slot *slot)
{
    for (size_t i = 0; i < plan->n_steps; i++)
        if (slot->steps[i] && slot->earlier[i])
            return true;
    return false;
}

/* The steps that any carried slot needs. */
static void mark_steps(const struct rp_carried *carried, unsigned char *steps, size_t n_steps)
{
    for (size_t k = 0; k < carried->n_slots; k++) {
        const struct rp_planned_slot *slot = carried->slots[k].slot;
        for (size_t i = 0; i < n_steps; i++)
            steps[i] |= slot->steps[i] || i == slot->tap;
    }
}

static enum rp_status open_plain(const struct rp_carried *carried, size_t n, float ***plain,
                                 struct rp_error *err)
{
    *plain = calloc(carried->n_slots + 1, sizeof **plain);
    bool has_memory = *plain != NULL;
    for (size_t k = 0; k < carried->n_slots && has_memory; k++) {
        (*plain)[k] = calloc(n * carried->slots[k].slot->dim + 1, sizeof ***plain);
        has_memory = (*plain)[k] != NULL;
    }
    return has_memory ? RP_OK
                      : rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
}

enum rp_status rp_carried_measure(struct rp_carried *carried, const struct rp_replay_plan *plan,
                                  const struct rp_layer *weights,
                                  const struct rp_numerics *numerics, enum rp_mode mode,
                                  struct rp_error *err)
{
    struct watcher watcher = {.plan = plan, .weights = weights};
    const struct rp_rounding_watch watch = {&watcher, before, after};
    struct comparison comparison = {
        .carried = carried, .plan = plan, .is_redrawn = numerics->state != RP_STATE_F32, .run = -1};
    const int n_runs = comparison.is_redrawn ? 2 * N_RUNS : N_RUNS + 1;
    struct rp_emulation emulation;
    struct rp_noise noise = {.bound = NULL};
    unsigned char *steps = calloc(plan->n_steps + 1, 1);
    float *choice = NULL;
    *carried = (struct rp_carried){.n_slots = 0};
    enum rp_status status = list_slots(carried, plan, err);
    if (status != RP_OK || carried->n_slots == 0)
        goto done;
    status = open_plain(carried, plan->n, &comparison.plain, err);
    watcher.last = malloc((plan->n + 1) * sizeof *watcher.last);
    if (status == RP_OK && !watcher.last)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", plan->n);
    for (size_t i = 0; watcher.last && i < plan->n; i++)
        watcher.last[i] = SIZE_MAX;
    if (status == RP_OK && !steps)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu steps", plan->n_steps);
    if (status != RP_OK)
        goto done;
    mark_steps(carried, steps, plan->n_steps);
    choice = calloc(plan->n * rp_model_config(plan->model)->router.n_chosen + 1, sizeof *choice);
    if (!choice) {
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", plan->n);
        goto done;
    }
    struct rp_layer_run run = {.mode = mode,
                               .weights = weights,
                               .steps = steps,
                               .see = see,
                               .context = &comparison,
                               .choice = choice};
    const struct rp_ops *plain = rp_replay_stack(numerics, &emulation, NULL);
    emulation.watch = &watch;
    status = rp_noise_open(&noise, numerics, plain, plan->n, err);
    noise.draws = true;
    emulation.tips = noise.tips;
    emulation.n_tips = plan->n;
    for (; comparison.run < n_runs && status == RP_OK; comparison.run++) {
        const bool is_noisy = comparison.run >= 0 && comparison.run < N_RUNS;
        if (comparison.run == N_RUNS && watcher.n_rows == 0)
            break;
        watcher.mode = comparison.run < 0      ? WATCH_RECORD
                       : is_noisy              ? WATCH_COMPARE
                       : comparison.is_redrawn ? WATCH_REDRAW
                                               : WATCH_TIP;
        watcher.at = 0;
        watcher.seed = 1000 * plan->layer + (uint64_t)(comparison.run + 1);
        noise.seed = 1000 * plan->layer + (uint64_t)(comparison.run + 1);
        run.has_choice = comparison.run >= 0;
        run.ops = is_noisy ? &noise.overlay.ops : plain;
        status = rp_replay_layer_run(plan, &run, err);
    }
    for (size_t k = 0; k < carried->n_slots && status == RP_OK; k++) {
        struct rp_carried_slot *of = &carried->slots[k];
        const double factor = reads_earlier(plan, of->slot) ? WORTH_BEHIND_MIXER : 1;
        for (size_t i = 0; i < plan->n; i++) {
            of->bound[i] = RP_BOUND_SIGMAS * sqrt(of->bound[i]);
            of->worth[i] *= factor;
        }
        count_tips(of, &watcher);
        if (comparison.is_redrawn)
            limit_to_redrawn(of, plan->n);
        if (of->slot->part == RP_PART_ROUTER)
            status = note_router(carried, of, comparison.plain[k], plan->n, err);
    }
done:
    for (size_t k = 0; comparison.plain && k < carried->n_slots; k++)
        free(comparison.plain[k]);
    free(comparison.plain);
    rp_noise_close(&noise);
    watcher_free(&watcher);
    free(steps);
    free(choice);
    return status;
}

void rp_carried_close(struct rp_carried *carried)
{
    for (size_t k = 0; k < carried->n_slots; k++) {
        free(carried->slots[k].bound);
        free(carried->slots[k].worth);
        free(carried->slots[k].own);
        free(carried->slots[k].earlier);
    }
    free(carried->router_noise);
    *carried = (struct rp_carried){.n_slots = 0};
}

const struct rp_carried_slot *rp_carried_find(const struct rp_carried *carried,
                                              enum rp_slot_part part)
{
    for (size_t k = 0; k < carried->n_slots; k++) {
        if (carried->slots[k].slot->part == part)
            return &carried->slots[k];
    }
    return NULL;
}
