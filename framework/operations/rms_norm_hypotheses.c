/* Hypotheses about the RMS norms: before attention, before the FFN, of Q and K, and the last one: the
 * weight, eps, what the mean is taken of. The DeltaNet's gated norm is in delta_net.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operations/row_changes.h"

#define NONE RP_NO_PARAMETER
#define MIN_WEIGHT_ROWS 4 /* a weight is not read off fewer */

enum option {
    MISSING,
    NO_WEIGHT,
    WEIGHT_OFFSET,
    WEIGHT_TWICE,
    WEIGHT_ROUNDED, /* to `value` bits of mantissa */
    OTHER_WEIGHT,   /* `other` of change->weights */
    EPS,
    EPS_OUTSIDE, /* 1 / (rms + eps) */
    MEAN_SUBTRACTED,
    GROUPED, /* the mean over `value` values, where they are side by side; 0: all heads */
    AFTER_ROPE,
    OTHER_INPUT,       /* rows */
    EVERY_NORM = 0x100 /* added to one of these: of all norms on the way, not of `which` alone */
};

static int option_of(const struct rp_candidate *what)
{
    return what->option & ~EVERY_NORM;
}

static bool is_here(const struct rp_change *change, enum rp_weight_id which)
{
    return (change->what.option & EVERY_NORM) || change->what.which == which ||
           (change->what.which == RP_N_WEIGHTS &&
            (which == RP_ATTN_Q_NORM || which == RP_ATTN_K_NORM));
}

/* y = x / sqrt(mean over `group` values of x^2 + eps) * weight; outside: / (sqrt(mean) + eps). */
static void own_norm(const struct rp_rms_norm *args, size_t group, bool is_eps_outside)
{
    const size_t n = args->n_rows * args->dim;
    for (size_t at = 0; at + group <= n; at += group) {
        double sum = 0;
        for (size_t i = at; i < at + group; i++)
            sum += (double)args->x[i] * (double)args->x[i];
        const float mean = (float)(sum / (double)group);
        const float scale =
            is_eps_outside ? 1 / (sqrtf(mean) + args->eps) : 1 / sqrtf(mean + args->eps);
        for (size_t i = at; i < at + group; i++)
            args->y[i] = args->weight[i % args->dim] * (args->x[i] * scale);
    }
}

/* x [n_rows][dim] without each row's mean. */
static void subtract_mean(const struct rp_rms_norm *args, float *x)
{
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *from = args->x + row * args->dim;
        double sum = 0;
        for (size_t i = 0; i < args->dim; i++)
            sum += (double)from[i];
        for (size_t i = 0; i < args->dim; i++)
            x[row * args->dim + i] = (float)((double)from[i] - sum / (double)args->dim);
    }
}

static float changed_weight(const struct rp_candidate *what, float weight)
{
    if (option_of(what) == WEIGHT_OFFSET)
        return weight + (float)what->value;
    if (option_of(what) == NO_WEIGHT)
        return 1;
    if (option_of(what) == WEIGHT_TWICE)
        return weight * weight;
    return rp_round_mantissa(weight, (int)what->value);
}

static enum rp_status run_on_copies(const struct rp_change *change, const struct rp_site *site,
                                    const struct rp_rms_norm *args)
{
    struct rp_rms_norm wrong = *args;
    float *x = malloc((args->n_rows * args->dim + 1) * sizeof *x);
    float *weight = malloc((args->dim + 1) * sizeof *weight);
    enum rp_status status = RP_OK;
    if (!x || !weight) {
        status = rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a norm's arguments");
    } else if (option_of(&change->what) == MEAN_SUBTRACTED) {
        subtract_mean(args, x);
        wrong.x = x;
    } else if (option_of(&change->what) == OTHER_INPUT) {
        memcpy(x, args->x, args->n_rows * args->dim * sizeof *x);
        rp_change_rows(change, site, args->dim, x);
        wrong.x = x;
    } else {
        for (size_t i = 0; i < args->dim; i++)
            weight[i] = changed_weight(&change->what, args->weight[i]);
        wrong.weight = weight;
    }
    if (status == RP_OK)
        status = RP_RUN_BELOW(change, rms_norm, site, &wrong);
    free(x);
    free(weight);
    return status;
}

static enum rp_status rms_norm(void *context, const struct rp_site *site,
                               const struct rp_rms_norm *args)
{
    struct rp_change *change = context;
    struct rp_rms_norm wrong = *args;
    size_t group = (size_t)change->what.value;
    if (!is_here(change, args->which))
        return RP_RUN_BELOW(change, rms_norm, site, args);
    switch (option_of(&change->what)) {
    case NO_WEIGHT:
    case WEIGHT_OFFSET:
    case WEIGHT_TWICE:
    case WEIGHT_ROUNDED:
    case OTHER_INPUT:
    case MEAN_SUBTRACTED: return run_on_copies(change, site, args);
    case OTHER_WEIGHT: {
        enum rp_weight_id other = change->what.other;
        if (other == RP_N_WEIGHTS) /* Q's and K's exchanged */
            other = args->which == RP_ATTN_Q_NORM ? RP_ATTN_K_NORM : RP_ATTN_Q_NORM;
        if (change->weights->weights[other].n_in == args->dim)
            wrong.weight = change->weights->weights[other].data;
        break;
    }
    case EPS: wrong.eps = (float)change->what.value; break;
    case EPS_OUTSIDE: own_norm(args, args->dim, true); return RP_OK;
    case GROUPED:
        own_norm(args, group > 0 ? group : args->n_rows / site->n_positions * args->dim, false);
        return RP_OK;
    case AFTER_ROPE: change->norm[args->which == RP_ATTN_K_NORM] = *args; /* fall through */
    default: memmove(args->y, args->x, args->n_rows * args->dim * sizeof *args->x); return RP_OK;
    }
    return RP_RUN_BELOW(change, rms_norm, site, &wrong);
}

static void install(struct rp_ops *ops)
{
    ops->rms_norm = rms_norm;
}

static enum rp_status rope_then_norm(void *context, const struct rp_site *site,
                                     const struct rp_rope *args)
{
    const struct rp_change *change = context;
    struct rp_rms_norm norm = change->norm[args->which == RP_ATTN_K];
    const enum rp_status status = RP_RUN_BELOW(change, rope, site, args);
    if (status != RP_OK || !norm.weight)
        return status;
    norm.n_rows = site->n_positions * args->n_heads;
    norm.x = args->x;
    norm.y = args->x;
    return RP_RUN_BELOW(change, rms_norm, site, &norm);
}

static void install_after_rope(struct rp_ops *ops)
{
    ops->rms_norm = rms_norm;
    ops->rope = rope_then_norm;
}

/* ---- what is tried ---- */

struct norm {
    enum rp_weight_id which; /* RP_N_WEIGHTS: Q's and K's */
    int every;               /* EVERY_NORM or 0 */
    const char *text;
    size_t dim, n_heads;
};

static bool is_qk(const struct norm *norm)
{
    return !norm->every && (norm->which == RP_ATTN_Q_NORM || norm->which == RP_ATTN_K_NORM ||
                            norm->which == RP_N_WEIGHTS);
}

static struct rp_candidate make(const struct norm *norm, const char *name, enum option option)
{
    return rp_candidate_make(name, install, (int)option | norm->every, norm->which);
}

static void collect_fixed(struct rp_search *search, const struct norm *norm)
{
    const struct rp_hypothesis fixed[] = {
        {is_qk(norm) ? "qk-norm-missing" : "norm-missing", MISSING, NONE, "left out"},
        {"norm-weight-missing", NO_WEIGHT, NONE, "without its weight"},
        {"norm-weight-offset", WEIGHT_OFFSET, 1, "with 1 + w for its weight w"},
        {"norm-weight-offset", WEIGHT_OFFSET, -1, "with w - 1 for its weight w"},
        {"norm-weight-replaced", WEIGHT_TWICE, NONE, "multiplied by its weight twice"},
        {"norm-mean-subtracted", MEAN_SUBTRACTED, NONE,
         "with the mean subtracted, as LayerNorm does"},
        {"norm-eps-placement", EPS_OUTSIDE, NONE, "with eps outside the square root"},
        {"weights-rounded", WEIGHT_ROUNDED, 7, "with its weight rounded to BF16"},
        {"weights-rounded", WEIGHT_ROUNDED, 10, "with its weight rounded to F16"},
    };
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        struct rp_candidate candidate = rp_candidate_of(fixed[i], install);
        candidate.which = norm->which;
        candidate.option |= norm->every;
        rp_search_add(search, candidate, "%s %s", norm->text, fixed[i].text);
    }
}

static void collect_eps(struct rp_search *search, const struct norm *norm)
{
    static const double known[] = {1e-5, 1e-6, 1e-8, 1e-12, 1e-3, 1e-4, 0};
    static const double grid[] = {1e-10, 1e-7, 1e-4, 1e-2, 1, 100};
    static const struct rp_fit fit = RP_FIT(true, 1e-20, 1e4, grid);
    const double own = (double)rp_norm_eps(search->config, norm->which);
    struct rp_candidate candidate = make(norm, "norm-eps-placement", EPS);
    if (!norm->every) { /* they have more than one dim */
        candidate.value = own / (double)norm->dim;
        rp_search_add(search, candidate, "%s with eps added before the mean is taken", norm->text);
        candidate.value = own * (double)norm->dim;
        rp_search_add(search, candidate,
                      "%s with eps counted once per value when the mean is taken", norm->text);
    }
    candidate.name = "norm-eps";
    candidate.reports_value = true;
    for (size_t i = 0; i <= sizeof known / sizeof *known; i++) {
        const bool is_fit = i == sizeof known / sizeof *known;
        candidate.value = is_fit ? own : known[i];
        candidate.own = is_fit ? own : 0;
        candidate.phase = is_fit ? RP_PHASE_FIT : RP_PHASE_FIXED;
        candidate.fit = is_fit ? &fit : NULL;
        if (is_fit || fabs(known[i] - own) > 1e-3 * own)
            rp_search_add(search, candidate, "%s with eps %%v; the model's is %.6g", norm->text,
                          own);
    }
}

/* A constant added to the weight that is no whole 1. */
static void collect_offset(struct rp_search *search, const struct norm *norm)
{
    static const double starts[] = {-0.5, 0.5};
    static const struct rp_fit fit = RP_FIT(false, -100, 100, starts);
    struct rp_candidate candidate = make(norm, "norm-weight-offset", WEIGHT_OFFSET);
    candidate.phase = RP_PHASE_FIT;
    candidate.fit = &fit;
    candidate.reports_value = true;
    rp_search_add(search, candidate, "%s with %%v added to its weight", norm->text);
}

/* Another norm's weight, of this layer or a neighbour; the same norm of another layer is linear.c's. */
static void collect_swapped(struct rp_search *search, const struct norm *norm)
{
    static const enum rp_weight_id pairs[][2] = {{RP_ATTN_NORM, RP_FFN_NORM},
                                                 {RP_FFN_NORM, RP_ATTN_NORM},
                                                 {RP_ATTN_Q_NORM, RP_ATTN_K_NORM},
                                                 {RP_ATTN_K_NORM, RP_ATTN_Q_NORM}};
    struct rp_candidate candidate = make(norm, "norm-weight-swapped", OTHER_WEIGHT);
    const int layer = search->slot.layer, n_layers = (int)search->config->n_layers;
    if (norm->which == RP_N_WEIGHTS)
        rp_search_add(search, candidate, "the weights of Q's and K's norm swapped");
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (pairs[i][0] != norm->which)
            continue;
        candidate.other = pairs[i][1];
        rp_search_add(search, candidate, "%s with %s's weight", norm->text,
                      rp_weight_name(candidate.other));
        for (int at = layer - 1; at <= layer + 1; at += 2) {
            if (at < 0 || at >= n_layers || search->config->layer_kinds[at] != search->kind)
                continue;
            candidate.from_layer = at;
            rp_search_add(search, candidate, "%s with %s's weight of layer %d", norm->text,
                          rp_weight_name(candidate.other), at);
        }
    }
}

/* QK-norm over all heads at once, or any norm over half of its values. */
static void collect_grouped(struct rp_search *search, const struct norm *norm)
{
    const size_t groups[] = {norm->n_heads * norm->dim, norm->dim / 2};
    struct rp_candidate candidate = make(norm, "norm-grouping", GROUPED);
    if (norm->which == RP_N_WEIGHTS) {
        rp_search_add(search, candidate,
                      "%s over all heads at once; the model's is over %zu values", norm->text,
                      norm->dim);
        return;
    }
    candidate.reports_value = true;
    for (size_t i = 0; i < 2; i++) {
        candidate.value = (double)groups[i];
        if (groups[i] != norm->dim && groups[i] > 0 && norm->dim % 2 == 0)
            rp_search_add(search, candidate,
                          "%s over %%v values at a time; the model's is over %zu", norm->text,
                          norm->dim);
    }
}

static void collect_order(struct rp_search *search, const struct norm *norm)
{
    struct rp_candidate candidate = make(norm, "qk-norm-order", AFTER_ROPE);
    candidate.install = install_after_rope;
    candidate.remembers = true;
    if (is_qk(norm) && rp_search_has_step(search, RP_STEP_ROPE, RP_N_WEIGHTS))
        rp_search_add(search, candidate, "%s after RoPE; the model's is before it", norm->text);
}

/* The FFN beside attention, not after it. */
static void collect_parallel(struct rp_search *search, const struct norm *norm)
{
    struct rp_candidate candidate = make(norm, "residual-replaced", OTHER_INPUT);
    if (norm->which != RP_FFN_NORM)
        return;
    candidate.rows = rp_search_layer_input(search, norm->dim);
    if (candidate.rows)
        rp_search_add(search, candidate, "the FFN reads the layer's input, not attention's sum");
}

/* The weight that the rows have been multiplied with, relative to the model's, channel by channel:
 * where the norm's own output is dumped. */
static void collect_read_off(struct rp_search *search, const struct norm *norm)
{
    if (!rp_search_is_just(search, RP_STEP_RMS_NORM) || search->n_failing < MIN_WEIGHT_ROWS)
        return;
    float *ratio = rp_search_new_rows(search);
    if (!ratio)
        return;
    for (size_t i = 0; i < norm->dim; i++) {
        double top = 0, bottom = 0;
        for (size_t at = i; at < search->n * search->dim; at += norm->dim) {
            const bool counts = search->is_failing[at / search->dim];
            const double computed = (double)search->computed[at];
            top += counts ? (double)search->dumped[at] * computed : 0;
            bottom += counts ? computed * computed : 0;
        }
        for (size_t at = i; at < search->n * search->dim; at += norm->dim)
            ratio[at] = bottom > 0 ? (float)(top / bottom) : 1;
    }
    struct rp_candidate candidate =
        rp_candidate_of_rows("norm-weight-replaced", rp_rows_multiply, 0, ratio);
    candidate.phase = RP_PHASE_BIAS;
    rp_search_add(search, candidate,
                  "%s with a weight of no known tensor: %.4g, %.4g, %.4g … times the "
                  "model's",
                  norm->text, (double)ratio[0], (double)ratio[1], (double)ratio[2]);
}

static size_t n_norms(const struct rp_search *search)
{
    size_t n = 0;
    for (size_t i = 0; i < search->n_steps; i++)
        n += search->steps[i].kind == RP_STEP_RMS_NORM;
    return n;
}

/* An engine has one function for all of its norms. */
static void collect_every(struct rp_search *search)
{
    const struct norm every = {RP_N_WEIGHTS, EVERY_NORM, "each norm", search->config->hidden_size,
                               1};
    if (n_norms(search) < 2)
        return;
    collect_fixed(search, &every);
    collect_eps(search, &every);
}

void rp_collect_rms_norm(struct rp_search *search)
{
    const struct rp_model_config *config = search->config;
    const struct norm norms[] = {
        {RP_ATTN_NORM, 0, "the norm before attention", config->hidden_size, 1},
        {RP_FFN_NORM, 0, "the norm before the FFN", config->hidden_size, 1},
        {RP_ATTN_POST_NORM, 0, "the norm of attention's output", config->hidden_size, 1},
        {RP_FFN_POST_NORM, 0, "the norm of the FFN's output", config->hidden_size, 1},
        {RP_OUTPUT_NORM, 0, "the last norm", config->hidden_size, 1},
        {RP_ATTN_Q_A_NORM, 0, "the norm of Q's latent", config->q_lora_rank, 1},
        {RP_ATTN_KV_A_NORM, 0, "the latent's norm", config->kv_lora_rank, 1},
        {RP_N_WEIGHTS, 0, "QK-norm", config->head_dim, config->n_heads},
        {RP_ATTN_Q_NORM, 0, "Q's norm", config->head_dim, config->n_heads},
        {RP_ATTN_K_NORM, 0, "K's norm", config->head_dim, config->n_kv_heads},
    };
    static void (*const kinds[])(struct rp_search *, const struct norm *) = {
        collect_fixed,   collect_eps,   collect_offset,   collect_swapped,
        collect_grouped, collect_order, collect_parallel, collect_read_off};
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++) {
        const bool is_both = norms[i].which == RP_N_WEIGHTS;
        const bool has_it = is_both
                                ? rp_search_has_step(search, RP_STEP_RMS_NORM, RP_ATTN_Q_NORM) &&
                                      rp_search_has_step(search, RP_STEP_RMS_NORM, RP_ATTN_K_NORM)
                                : rp_search_has_step(search, RP_STEP_RMS_NORM, norms[i].which);
        for (size_t k = 0; has_it && k < sizeof kinds / sizeof *kinds; k++)
            kinds[k](search, &norms[i]);
    }
    collect_every(search);
}
