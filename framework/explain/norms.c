/* Hypotheses about the RMS norms: before attention, before the FFN, of Q and K, and the last one.
 * The DeltaNet's gated norm is in delta_net.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain/search.h"

enum option {
    MISSING,
    NO_WEIGHT,
    WEIGHT_OFFSET,
    OTHER_WEIGHT, /* `other` of change->weights */
    EPS,
    EPS_OUTSIDE, /* 1 / (rms + eps) */
    MEAN_SUBTRACTED,
    GROUPED, /* the mean over `value` values, where they are side by side */
    AFTER_ROPE,
    OTHER_INPUT /* of change->rows */
};

static bool is_here(const struct rp_change *change, enum rp_weight_id which)
{
    return change->which == which ||
           (change->which == RP_N_WEIGHTS && (which == RP_ATTN_Q_NORM || which == RP_ATTN_K_NORM));
}

/* y = x / sqrt(mean over `group` values of x^2 + eps) * weight; outside: / (sqrt(mean) + eps). */
static void own_norm(const struct rp_rms_norm *args, size_t group, bool is_eps_outside)
{
    size_t n = args->n_rows * args->dim;
    for (size_t at = 0; at + group <= n; at += group) {
        double sum = 0;
        for (size_t i = 0; i < group; i++)
            sum += (double)args->x[at + i] * (double)args->x[at + i];
        float mean = (float)(sum / (double)group);
        float scale = is_eps_outside ? 1 / (sqrtf(mean) + args->eps) : 1 / sqrtf(mean + args->eps);
        for (size_t i = 0; i < group; i++)
            args->y[at + i] = args->weight[(at + i) % args->dim] * (args->x[at + i] * scale);
    }
}

/* value; 0: all heads of a position. */
static size_t group_of(const struct rp_change *change, const struct rp_site *site,
                       const struct rp_rms_norm *args)
{
    return change->value > 0 ? (size_t)change->value : args->n_rows / site->n_positions * args->dim;
}

/* x [n_rows][dim] without each row's mean. */
static void subtract_mean(const struct rp_rms_norm *args, float *x)
{
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *from = args->x + row * args->dim;
        double sum = 0;
        for (size_t i = 0; i < args->dim; i++)
            sum += (double)from[i];
        float mean = (float)(sum / (double)args->dim);
        for (size_t i = 0; i < args->dim; i++)
            x[row * args->dim + i] = from[i] - mean;
    }
}

static enum rp_status run_on_copy(const struct rp_change *change, const struct rp_site *site,
                                  const struct rp_rms_norm *args)
{
    const struct rp_ops *below = change->overlay.below;
    struct rp_rms_norm wrong = *args;
    size_t n = change->option == MEAN_SUBTRACTED ? args->n_rows * args->dim : args->dim;
    float *copy = malloc((n + 1) * sizeof *copy);
    if (!copy)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu values", n);
    if (change->option == MEAN_SUBTRACTED) {
        subtract_mean(args, copy);
        wrong.x = copy;
    } else {
        for (size_t i = 0; i < n; i++)
            copy[i] = change->option == NO_WEIGHT ? 1 : args->weight[i] + (float)change->value;
        wrong.weight = copy;
    }
    enum rp_status status = below->rms_norm(below->context, site, &wrong);
    free(copy);
    return status;
}

/* The norm reads another slot's rows, position by position. */
static enum rp_status run_on_other(const struct rp_change *change, const struct rp_site *site,
                                   const struct rp_rms_norm *args)
{
    const struct rp_ops *below = change->overlay.below;
    float *x = malloc((args->n_rows * args->dim + 1) * sizeof *x);
    struct rp_rms_norm wrong = *args;
    if (!x)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a norm's input");
    memcpy(x, args->x, args->n_rows * args->dim * sizeof *x);
    for (size_t p = 0; p < args->n_rows && p < site->n_positions; p++) {
        size_t row = rp_row_of(change->positions, change->n_rows, site->positions[p]);
        if (row < change->n_rows)
            memcpy(x + p * args->dim, change->rows + row * args->dim, args->dim * sizeof *x);
    }
    wrong.x = x;
    enum rp_status status = below->rms_norm(below->context, site, &wrong);
    free(x);
    return status;
}

static enum rp_status rms_norm(void *context, const struct rp_site *site,
                               const struct rp_rms_norm *args)
{
    struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    struct rp_rms_norm wrong = *args;
    if (!is_here(change, args->which))
        return below->rms_norm(below->context, site, args);
    switch (change->option) {
    case NO_WEIGHT:
    case WEIGHT_OFFSET:
    case MEAN_SUBTRACTED: return run_on_copy(change, site, args);
    case OTHER_WEIGHT: {
        enum rp_weight_id other = change->other;
        if (other == RP_N_WEIGHTS) /* Q's and K's exchanged */
            other = args->which == RP_ATTN_Q_NORM ? RP_ATTN_K_NORM : RP_ATTN_Q_NORM;
        if (change->weights->weights[other].n_in == args->dim)
            wrong.weight = change->weights->weights[other].data;
        break;
    }
    case EPS: wrong.eps = (float)change->value; break;
    case OTHER_INPUT: return run_on_other(change, site, args);
    case EPS_OUTSIDE: own_norm(args, args->dim, true); return RP_OK;
    case GROUPED: own_norm(args, group_of(change, site, args), false); return RP_OK;
    case AFTER_ROPE: change->norm[args->which == RP_ATTN_K_NORM] = *args; /* fall through */
    default: memmove(args->y, args->x, args->n_rows * args->dim * sizeof *args->x); return RP_OK;
    }
    return below->rms_norm(below->context, site, &wrong);
}

static void install(struct rp_ops *ops)
{
    ops->rms_norm = rms_norm;
}

static enum rp_status rope_then_norm(void *context, const struct rp_site *site,
                                     const struct rp_rope *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    struct rp_rms_norm norm = change->norm[args->which == RP_ATTN_K];
    enum rp_status status = below->rope(below->context, site, args);
    if (status != RP_OK || !norm.weight)
        return status;
    norm.n_rows = site->n_positions * args->n_heads;
    norm.x = args->x;
    norm.y = args->x;
    return below->rms_norm(below->context, site, &norm);
}

static void install_after_rope(struct rp_ops *ops)
{
    ops->rms_norm = rms_norm;
    ops->rope = rope_then_norm;
}

static const struct norm {
    enum rp_weight_id which;
    unsigned stage;
    const char *text;
} norms[] = {
    {RP_ATTN_NORM, RP_STAGE_ATTENTION, "the norm before attention"},
    {RP_FFN_NORM, RP_STAGE_FFN_NORM, "the norm before the FFN"},
    {RP_ATTN_Q_NORM, RP_STAGE_ATTENTION, "Q's norm"},
    {RP_ATTN_K_NORM, RP_STAGE_ATTENTION, "K's norm"},
    {RP_N_WEIGHTS, RP_STAGE_ATTENTION, "QK-norm"},
};
#define N_NORMS (sizeof norms / sizeof *norms)

static bool has_weight(const struct rp_search *search, enum rp_weight_id which)
{
    if (which == RP_N_WEIGHTS)
        which = RP_ATTN_Q_NORM;
    return search->weights.weights[which].data != NULL;
}

static struct rp_candidate make(const struct norm *norm, const char *name, enum option option)
{
    return (struct rp_candidate){.name = name,
                                 .phase = RP_PHASE_FIXED,
                                 .stages = norm->stage,
                                 .install = install,
                                 .option = (int)option,
                                 .which = norm->which,
                                 .from_layer = -1,
                                 .parameter = RP_NO_PARAMETER};
}

static enum rp_status collect_plain(struct rp_search *search, const struct norm *norm,
                                    struct rp_error *err)
{
    bool is_qk = norm->which != RP_ATTN_NORM && norm->which != RP_FFN_NORM;
    const struct {
        const char *name;
        enum option option;
        double value;
        const char *text;
    } plain[] = {
        {is_qk ? "qk-norm-missing" : "norm-missing", MISSING, 0, "left out"},
        {"norm-weight-missing", NO_WEIGHT, 0, "without its weight"},
        {"norm-weight-offset", WEIGHT_OFFSET, 1, "with 1 + w for its weight w"},
        {"norm-weight-offset", WEIGHT_OFFSET, -1, "with w - 1 for its weight w"},
        {"norm-mean-subtracted", MEAN_SUBTRACTED, 0, "with the mean subtracted, as LayerNorm does"},
        {"norm-eps-placement", EPS_OUTSIDE, 0, "with eps outside the square root"},
    };
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof plain / sizeof *plain && status == RP_OK; i++) {
        struct rp_candidate candidate = make(norm, plain[i].name, plain[i].option);
        candidate.value = plain[i].value;
        candidate.reports_value = plain[i].option == WEIGHT_OFFSET;
        snprintf(candidate.text, sizeof candidate.text, "%s %s", norm->text, plain[i].text);
        status = rp_search_add(search, &candidate, err);
    }
    return status;
}

static enum rp_status collect_eps(struct rp_search *search, const struct norm *norm,
                                  struct rp_error *err)
{
    static const double known[] = {1e-5, 1e-6, 1e-8, 1e-12, 1e-3, 1e-4, 0};
    static const double grid[] = {1e-10, 1e-7, 1e-4, 1e-2, 1, 100};
    static const struct rp_fit fit = {.is_log = true,
                                      .low = 1e-20,
                                      .high = 1e4,
                                      .starts = grid,
                                      .n_starts = sizeof grid / sizeof *grid};
    double own = (double)search->config->rms_norm_eps;
    size_t dim = norm->which == RP_ATTN_NORM || norm->which == RP_FFN_NORM
                     ? search->config->hidden_size
                     : search->config->head_dim;
    enum rp_status status = RP_OK;
    for (size_t i = 0; i <= sizeof known / sizeof *known && status == RP_OK; i++) {
        bool is_fit = i == sizeof known / sizeof *known;
        struct rp_candidate candidate = make(norm, "norm-eps", EPS);
        candidate.value = is_fit ? own : known[i];
        if (!is_fit && fabs(known[i] - own) < 1e-3 * own)
            continue;
        candidate.phase = is_fit ? RP_PHASE_FIT : RP_PHASE_FIXED;
        candidate.fit = is_fit ? &fit : NULL;
        candidate.reports_value = true;
        snprintf(candidate.text, sizeof candidate.text, "%s with eps %%v; the model's is %.6g",
                 norm->text, own);
        status = rp_search_add(search, &candidate, err);
    }
    for (int i = 0; i < 2 && status == RP_OK; i++) {
        struct rp_candidate candidate = make(norm, "norm-eps-placement", EPS);
        candidate.value = i == 0 ? own / (double)dim : own * (double)dim;
        snprintf(candidate.text, sizeof candidate.text, "%s with eps %s the mean is taken",
                 norm->text, i == 0 ? "added before" : "counted once per value when");
        status = rp_search_add(search, &candidate, err);
    }
    return status;
}

/* A constant added to the weight that is no whole 1. */
static enum rp_status collect_offset(struct rp_search *search, const struct norm *norm,
                                     struct rp_error *err)
{
    static const double starts[] = {-0.5, 0.5};
    static const struct rp_fit fit = {
        .is_log = false, .low = -100, .high = 100, .starts = starts, .n_starts = 2};
    struct rp_candidate candidate = make(norm, "norm-weight-offset", WEIGHT_OFFSET);
    candidate.phase = RP_PHASE_FIT;
    candidate.fit = &fit;
    candidate.reports_value = true;
    snprintf(candidate.text, sizeof candidate.text, "%s with %%v added to its weight", norm->text);
    return rp_search_add(search, &candidate, err);
}

static enum rp_status add_other_weight(struct rp_search *search, const struct norm *norm,
                                       enum rp_weight_id other, int layer, struct rp_error *err)
{
    struct rp_candidate candidate = make(norm, "norm-weight-swapped", OTHER_WEIGHT);
    candidate.other = other;
    candidate.from_layer = layer;
    if (layer < 0)
        snprintf(candidate.text, sizeof candidate.text, "%s with %s's weight", norm->text,
                 rp_weight_name(other));
    else
        snprintf(candidate.text, sizeof candidate.text, "%s with %s's weight of layer %d",
                 norm->text, rp_weight_name(other), layer);
    return rp_search_add(search, &candidate, err);
}

/* The same weight of another layer is one of weights.c's, here it is another one of any layer. */
static enum rp_status collect_swapped(struct rp_search *search, const struct norm *norm,
                                      struct rp_error *err)
{
    static const struct {
        enum rp_weight_id which, other;
    } pairs[] = {{RP_ATTN_NORM, RP_FFN_NORM},
                 {RP_FFN_NORM, RP_ATTN_NORM},
                 {RP_ATTN_Q_NORM, RP_ATTN_K_NORM},
                 {RP_ATTN_K_NORM, RP_ATTN_Q_NORM}};
    enum rp_status status = RP_OK;
    if (norm->which == RP_N_WEIGHTS) {
        struct rp_candidate candidate = make(norm, "norm-weight-swapped", OTHER_WEIGHT);
        candidate.other = RP_N_WEIGHTS;
        snprintf(candidate.text, sizeof candidate.text, "the weights of Q's and K's norm swapped");
        return rp_search_add(search, &candidate, err);
    }
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs && status == RP_OK; i++) {
        if (pairs[i].which != norm->which)
            continue;
        status = add_other_weight(search, norm, pairs[i].other, -1, err);
        for (int delta = -1; delta <= 1 && status == RP_OK; delta += 2) {
            int layer = (int)search->layer + delta;
            if (layer >= 0 && (size_t)layer < search->config->n_layers &&
                search->config->layer_kinds[layer] == search->kind)
                status = add_other_weight(search, norm, pairs[i].other, layer, err);
        }
    }
    return status;
}

/* QK-norm over all heads at once, or any norm over half of its values. */
static enum rp_status collect_grouped(struct rp_search *search, const struct norm *norm,
                                      struct rp_error *err)
{
    const struct rp_model_config *config = search->config;
    bool is_q = norm->which == RP_ATTN_Q_NORM, is_k = norm->which == RP_ATTN_K_NORM;
    size_t dim = is_q || is_k ? config->head_dim : config->hidden_size;
    size_t n_heads = is_q ? config->n_heads : is_k ? config->n_kv_heads : 1;
    const size_t groups[] = {n_heads * dim, dim / 2};
    enum rp_status status = RP_OK;
    if (norm->which == RP_N_WEIGHTS) {
        struct rp_candidate candidate = make(norm, "norm-grouping", GROUPED);
        snprintf(candidate.text, sizeof candidate.text,
                 "%s over all heads at once; the model's is over %zu values", norm->text,
                 config->head_dim);
        return rp_search_add(search, &candidate, err);
    }
    for (size_t i = 0; i < 2 && status == RP_OK; i++) {
        struct rp_candidate candidate = make(norm, "norm-grouping", GROUPED);
        candidate.value = (double)groups[i];
        candidate.reports_value = true;
        snprintf(candidate.text, sizeof candidate.text,
                 "%s over %%v values at a time; the model's is over %zu", norm->text, dim);
        if (groups[i] != dim && groups[i] > 0 && dim % 2 == 0)
            status = rp_search_add(search, &candidate, err);
    }
    return status;
}

static enum rp_status collect_order(struct rp_search *search, const struct norm *norm,
                                    struct rp_error *err)
{
    struct rp_candidate candidate = make(norm, "qk-norm-order", AFTER_ROPE);
    if (norm->which == RP_ATTN_NORM || norm->which == RP_FFN_NORM)
        return RP_OK;
    candidate.install = install_after_rope;
    snprintf(candidate.text, sizeof candidate.text, "%s after RoPE; the model's is before it",
             norm->text);
    return rp_search_add(search, &candidate, err);
}

/* The FFN beside attention, not after it. */
static enum rp_status collect_parallel(struct rp_search *search, struct rp_error *err)
{
    char name[RP_SLOT_NAME_SIZE];
    int layer = (int)search->layer;
    const float *input;
    struct rp_candidate candidate = make(&norms[1], "residual-replaced", OTHER_INPUT);
    if (!(search->stages & RP_STAGE_FFN_NORM))
        return RP_OK;
    enum rp_status status =
        rp_search_slot_rows(search, rp_slot_name(RP_PART_IN, layer, name), &input, err);
    if (status == RP_OK && !input)
        status = rp_search_slot_rows(search,
                                     rp_slot_name(layer > 0 ? RP_PART_OUTPUT : RP_PART_EMB,
                                                  layer > 0 ? layer - 1 : -1, name),
                                     &input, err);
    candidate.rows = input;
    snprintf(candidate.text, sizeof candidate.text,
             "the FFN reads the layer's input, not attention's sum");
    return status == RP_OK && input ? rp_search_add(search, &candidate, err) : status;
}

enum rp_status rp_collect_norms(struct rp_search *search, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < N_NORMS && status == RP_OK; i++) {
        const struct norm *norm = &norms[i];
        if (!search->runs || !has_weight(search, norm->which))
            continue;
        status = collect_plain(search, norm, err);
        if (status == RP_OK)
            status = collect_eps(search, norm, err);
        if (status == RP_OK)
            status = collect_offset(search, norm, err);
        if (status == RP_OK)
            status = collect_swapped(search, norm, err);
        if (status == RP_OK)
            status = collect_grouped(search, norm, err);
        if (status == RP_OK)
            status = collect_order(search, norm, err);
    }
    if (status == RP_OK && search->runs)
        status = collect_parallel(search, err);
    return status;
}
