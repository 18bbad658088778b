/* Hypotheses about which weights a layer reads: another layer's, two of them swapped, transposed, or
 * rounded. A norm with another norm's weight is in norms.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain/search.h"

#define SMALL 8 /* layers: up to here each is tried, beyond the likely ones */

enum option {
    OTHER_LAYER, /* `which`, or all of them: RP_N_WEIGHTS */
    SWAPPED,     /* `which` and `other` */
    TRANSPOSED,
    ROUNDED /* to `value` bits of mantissa */
};

static bool is_here(const struct rp_change *change, enum rp_weight_id which)
{
    return change->which == which || change->which == RP_N_WEIGHTS;
}

/* To nearest, ties to even, with `bits` of mantissa after the first one; F16's and BF16's range is
 * not minded. */
static float rounded(float x, int bits)
{
    int exponent;
    double fraction = frexp((double)x, &exponent);
    return (float)ldexp(nearbyint(ldexp(fraction, bits + 1)), exponent - bits - 1);
}

static enum rp_status run_with_copy(const struct rp_change *change, const struct rp_site *site,
                                    const struct rp_linear *args)
{
    const struct rp_ops *below = change->overlay.below;
    struct rp_linear wrong = *args;
    size_t n = args->n_out * args->n_in;
    float *copy = malloc((n + 1) * sizeof *copy);
    if (!copy)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a copy of '%s'",
                       rp_weight_name(args->which));
    for (size_t i = 0; i < n; i++)
        copy[i] = change->option == TRANSPOSED
                      ? args->weight[i % args->n_in * args->n_in + i / args->n_in]
                      : rounded(args->weight[i], (int)change->value);
    wrong.weight = copy;
    enum rp_status status = below->linear(below->context, site, &wrong);
    free(copy);
    return status;
}

static enum rp_status linear(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    struct rp_linear wrong = *args;
    enum rp_weight_id from = args->which;
    if (change->option == SWAPPED)
        from = args->which == change->which   ? change->other
               : args->which == change->other ? change->which
                                              : args->which;
    else if (!is_here(change, args->which))
        return below->linear(below->context, site, args);
    else if (change->option != OTHER_LAYER)
        return run_with_copy(change, site, args);
    const struct rp_weight *weight = &change->weights->weights[from];
    if (weight->data && weight->n_out == args->n_out && weight->n_in == args->n_in) {
        wrong.weight = weight->data;
        wrong.type = weight->type;
    }
    return below->linear(below->context, site, &wrong);
}

static enum rp_status rms_norm(void *context, const struct rp_site *site,
                               const struct rp_rms_norm *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    struct rp_rms_norm wrong = *args;
    const struct rp_weight *weight = &change->weights->weights[args->which];
    if (is_here(change, args->which) && weight->data)
        wrong.weight = weight->data;
    return below->rms_norm(below->context, site, &wrong);
}

static enum rp_status causal_conv1d(void *context, const struct rp_site *site,
                                    const struct rp_causal_conv1d *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    struct rp_causal_conv1d wrong = *args;
    if (is_here(change, RP_SSM_CONV1D) && change->weights->weights[RP_SSM_CONV1D].data)
        wrong.weight = change->weights->weights[RP_SSM_CONV1D].data;
    return below->causal_conv1d(below->context, site, &wrong);
}

static enum rp_status delta_decay(void *context, const struct rp_site *site,
                                  const struct rp_delta_decay *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    struct rp_delta_decay wrong = *args;
    if (is_here(change, RP_SSM_DT) && change->weights->weights[RP_SSM_DT].data)
        wrong.dt = change->weights->weights[RP_SSM_DT].data;
    if (is_here(change, RP_SSM_A) && change->weights->weights[RP_SSM_A].data)
        wrong.a = change->weights->weights[RP_SSM_A].data;
    return below->delta_decay(below->context, site, &wrong);
}

static enum rp_status gated_norm(void *context, const struct rp_site *site,
                                 const struct rp_gated_norm *args)
{
    const struct rp_change *change = context;
    const struct rp_ops *below = change->overlay.below;
    struct rp_gated_norm wrong = *args;
    if (is_here(change, RP_SSM_NORM) && change->weights->weights[RP_SSM_NORM].data)
        wrong.weight = change->weights->weights[RP_SSM_NORM].data;
    return below->gated_norm(below->context, site, &wrong);
}

static void install(struct rp_ops *ops)
{
    ops->linear = linear;
    ops->rms_norm = rms_norm;
    ops->causal_conv1d = causal_conv1d;
    ops->delta_decay = delta_decay;
    ops->gated_norm = gated_norm;
}

static void install_linear(struct rp_ops *ops)
{
    ops->linear = linear;
}

static unsigned stage_of(enum rp_weight_id which)
{
    return which == RP_FFN_NORM  ? RP_STAGE_FFN_NORM
           : which > RP_FFN_NORM ? RP_STAGE_FFN
                                 : RP_STAGE_ATTENTION;
}

static struct rp_candidate make(const char *name, enum option option, enum rp_weight_id which)
{
    return (struct rp_candidate){.name = name,
                                 .phase = RP_PHASE_FIXED,
                                 .stages = stage_of(which),
                                 .install = install_linear,
                                 .option = (int)option,
                                 .which = which,
                                 .from_layer = -1,
                                 .parameter = RP_NO_PARAMETER};
}

static enum rp_status collect_swapped(struct rp_search *search, struct rp_error *err)
{
    static const enum rp_weight_id pairs[][2] = {{RP_ATTN_Q, RP_ATTN_K},
                                                 {RP_ATTN_K, RP_ATTN_V},
                                                 {RP_ATTN_Q, RP_ATTN_V},
                                                 {RP_ATTN_Q, RP_ATTN_OUTPUT},
                                                 {RP_SSM_ALPHA, RP_SSM_BETA}};
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs && status == RP_OK; i++) {
        const struct rp_weight *a = &search->weights.weights[pairs[i][0]];
        const struct rp_weight *b = &search->weights.weights[pairs[i][1]];
        struct rp_candidate candidate = make("weights-swapped", SWAPPED, pairs[i][0]);
        if (!a->data || !b->data || a->n_out != b->n_out || a->n_in != b->n_in)
            continue;
        candidate.other = pairs[i][1];
        snprintf(candidate.text, sizeof candidate.text, "%s and %s swapped",
                 rp_weight_name(pairs[i][0]), rp_weight_name(pairs[i][1]));
        status = rp_search_add(search, &candidate, err);
    }
    return status;
}

static enum rp_status collect_transposed(struct rp_search *search, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    for (unsigned i = 0; i < RP_N_LAYER_WEIGHTS && status == RP_OK; i++) {
        const struct rp_weight *weight = &search->weights.weights[i];
        struct rp_candidate candidate =
            make("weights-transposed", TRANSPOSED, (enum rp_weight_id)i);
        snprintf(candidate.text, sizeof candidate.text, "%s transposed",
                 rp_weight_name((enum rp_weight_id)i));
        if (weight->data && weight->n_out == weight->n_in && i != RP_SSM_CONV1D)
            status = rp_search_add(search, &candidate, err);
    }
    return status;
}

static enum rp_status collect_rounded(struct rp_search *search, struct rp_error *err)
{
    static const struct {
        int bits;
        const char *type;
    } types[] = {{7, "BF16"}, {10, "F16"}};
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < 2; i++) {
        struct rp_candidate candidate = make("weights-rounded", ROUNDED, RP_N_WEIGHTS);
        candidate.stages = RP_STAGE_ATTENTION | RP_STAGE_FFN;
        candidate.value = types[i].bits;
        candidate.reports_value = true;
        snprintf(candidate.text, sizeof candidate.text, "the matrices rounded to %s",
                 types[i].type);
        if (status == RP_OK)
            status = rp_search_add(search, &candidate, err);
    }
    return status;
}

/* All weights of that layer; of a neighbour, and in a small model, also each alone. */
static enum rp_status collect_layer(struct rp_search *search, size_t layer, bool with_each,
                                    struct rp_error *err)
{
    struct rp_candidate candidate = make("weights-other-layer", OTHER_LAYER, RP_N_WEIGHTS);
    candidate.stages = RP_STAGE_ATTENTION | RP_STAGE_FFN_NORM | RP_STAGE_FFN;
    candidate.install = install;
    candidate.from_layer = (int)layer;
    candidate.value = (double)layer;
    candidate.reports_value = true;
    snprintf(candidate.text, sizeof candidate.text, "the weights of layer %zu", layer);
    enum rp_status status = rp_search_add(search, &candidate, err);
    for (unsigned i = 0; with_each && i < RP_N_LAYER_WEIGHTS && status == RP_OK; i++) {
        if (!search->weights.weights[i].data)
            continue;
        candidate.which = (enum rp_weight_id)i;
        candidate.stages = stage_of(candidate.which);
        snprintf(candidate.text, sizeof candidate.text, "%s of layer %zu",
                 rp_weight_name(candidate.which), layer);
        status = rp_search_add(search, &candidate, err);
    }
    return status;
}

/* Neighbours, the first and the last: every one of a small model. */
static bool is_likely(const struct rp_search *search, size_t layer)
{
    size_t n = search->config->n_layers;
    size_t distance = layer > search->layer ? layer - search->layer : search->layer - layer;
    return distance > 0 && search->config->layer_kinds[layer] == search->kind &&
           (n <= SMALL || distance <= 4 || layer == 0 || layer + 1 == n);
}

enum rp_status rp_collect_weights(struct rp_search *search, struct rp_error *err)
{
    bool is_small = search->config->n_layers <= SMALL;
    enum rp_status status = RP_OK;
    if (!search->runs)
        return RP_OK;
    status = collect_swapped(search, err);
    if (status == RP_OK)
        status = collect_transposed(search, err);
    if (status == RP_OK)
        status = collect_rounded(search, err);
    for (size_t distance = 1; distance < search->config->n_layers && status == RP_OK; distance++) {
        size_t before = search->layer - distance, after = search->layer + distance;
        if (distance <= search->layer && is_likely(search, before))
            status = collect_layer(search, before, distance == 1 || is_small, err);
        if (status == RP_OK && after < search->config->n_layers && is_likely(search, after))
            status = collect_layer(search, after, distance == 1 || is_small, err);
    }
    return status;
}
