/* Hypotheses about matrix products: which weights they read, and what they multiply. A norm's weights
 * are among those of another layer; a norm with another norm's weight is in rms_norm.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operations/hypotheses.h"

#define SMALL 8          /* layers: up to here each is tried, beyond the likely ones */
#define SMALL_WIDTH 1024 /* and where one product alone is in question, up to that hidden size */

enum option {
    OTHER_LAYER, /* `which`, or all of them: RP_N_WEIGHTS */
    SWAPPED,     /* `which` and `other` */
    TRANSPOSED,
    WITHOUT_BIAS,
    ROUNDED,    /* to `value` bits of mantissa */
    OTHER_INPUT /* rows */
};

static bool is_here(const struct rp_change *change, enum rp_weight_id which)
{
    return change->what.which == which || change->what.which == RP_N_WEIGHTS;
}

static enum rp_status run_with_copy(const struct rp_change *change, const struct rp_site *site,
                                    const struct rp_linear *args)
{
    struct rp_linear wrong = *args;
    const size_t n = args->n_out * args->n_in;
    float *copy = malloc((n + 1) * sizeof *copy);
    if (!copy)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a copy of '%s'",
                       rp_weight_name(args->which));
    for (size_t i = 0; i < n; i++)
        copy[i] = change->what.option == TRANSPOSED
                      ? args->weight[i % args->n_in * args->n_in + i / args->n_in]
                      : rp_round_mantissa(args->weight[i], (int)change->what.value);
    wrong.weight = copy;
    const enum rp_status status = RP_RUN_BELOW(change, linear, site, &wrong);
    free(copy);
    return status;
}

static enum rp_status run_on_other(const struct rp_change *change, const struct rp_site *site,
                                   const struct rp_linear *args)
{
    struct rp_linear wrong = *args;
    float *x = malloc((site->n_positions * args->n_in + 1) * sizeof *x);
    if (!x)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a product's input");
    memcpy(x, args->x, site->n_positions * args->n_in * sizeof *x);
    rp_change_rows(change, site, args->n_in, x);
    wrong.x = x;
    const enum rp_status status = RP_RUN_BELOW(change, linear, site, &wrong);
    free(x);
    return status;
}

static enum rp_status linear(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    const struct rp_change *change = context;
    struct rp_linear wrong = *args;
    enum rp_weight_id from = args->which;
    if (change->what.option == SWAPPED && args->which == change->what.other)
        from = change->what.which;
    else if (!is_here(change, args->which))
        return RP_RUN_BELOW(change, linear, site, args);
    else if (change->what.option == SWAPPED)
        from = change->what.other;
    else if (change->what.option == OTHER_INPUT)
        return run_on_other(change, site, args);
    else if (change->what.option == WITHOUT_BIAS) {
        wrong.bias = NULL;
        return RP_RUN_BELOW(change, linear, site, &wrong);
    } else if (change->what.option != OTHER_LAYER)
        return run_with_copy(change, site, args);
    const enum rp_weight_id bias = rp_bias_of(from);
    const struct rp_weight *weight =
        from < RP_N_LAYER_WEIGHTS ? &change->weights->weights[from] : NULL;
    if (weight && weight->data && weight->n_out == args->n_out && weight->n_in == args->n_in) {
        wrong.weight = weight->data;
        wrong.type = weight->type;
        if (args->bias && bias < RP_N_LAYER_WEIGHTS)
            wrong.bias = change->weights->weights[bias].data;
    }
    return RP_RUN_BELOW(change, linear, site, &wrong);
}

/* The weight of another layer, where it is exchanged. */
static const float *other_weight(const struct rp_change *change, enum rp_weight_id which,
                                 const float *own)
{
    const struct rp_weight *weight =
        which < RP_N_LAYER_WEIGHTS ? &change->weights->weights[which] : NULL;
    return weight && is_here(change, which) && weight->data ? weight->data : own;
}

static enum rp_status rms_norm(void *context, const struct rp_site *site,
                               const struct rp_rms_norm *args)
{
    const struct rp_change *change = context;
    struct rp_rms_norm wrong = *args;
    wrong.weight = other_weight(change, args->which, args->weight);
    return RP_RUN_BELOW(change, rms_norm, site, &wrong);
}

static enum rp_status head_linear(void *context, const struct rp_site *site,
                                  const struct rp_head_linear *args)
{
    const struct rp_change *change = context;
    struct rp_head_linear wrong = *args;
    wrong.weight = other_weight(change, args->which, args->weight);
    return RP_RUN_BELOW(change, head_linear, site, &wrong);
}

static enum rp_status causal_conv1d(void *context, const struct rp_site *site,
                                    const struct rp_causal_conv1d *args)
{
    const struct rp_change *change = context;
    struct rp_causal_conv1d wrong = *args;
    wrong.weight = other_weight(change, RP_SSM_CONV1D, args->weight);
    return RP_RUN_BELOW(change, causal_conv1d, site, &wrong);
}

static enum rp_status delta_decay(void *context, const struct rp_site *site,
                                  const struct rp_delta_decay *args)
{
    const struct rp_change *change = context;
    struct rp_delta_decay wrong = *args;
    wrong.dt = other_weight(change, RP_SSM_DT, args->dt);
    wrong.a = other_weight(change, RP_SSM_A, args->a);
    return RP_RUN_BELOW(change, delta_decay, site, &wrong);
}

static enum rp_status gated_norm(void *context, const struct rp_site *site,
                                 const struct rp_gated_norm *args)
{
    const struct rp_change *change = context;
    struct rp_gated_norm wrong = *args;
    wrong.weight = other_weight(change, RP_SSM_NORM, args->weight);
    return RP_RUN_BELOW(change, gated_norm, site, &wrong);
}

static enum rp_status attention(void *context, const struct rp_site *site,
                                const struct rp_attention *args)
{
    const struct rp_change *change = context;
    struct rp_attention wrong = *args;
    if (args->sinks)
        wrong.sinks = other_weight(change, RP_ATTN_SINKS, args->sinks);
    return RP_RUN_BELOW(change, attention, site, &wrong);
}

static void install(struct rp_ops *ops)
{
    ops->linear = linear;
}

static void install_all(struct rp_ops *ops)
{
    ops->linear = linear;
    ops->head_linear = head_linear;
    ops->rms_norm = rms_norm;
    ops->causal_conv1d = causal_conv1d;
    ops->delta_decay = delta_decay;
    ops->gated_norm = gated_norm;
    ops->attention = attention;
}

/* A candidate about weights: one engine reads one file, so it is at work everywhere. */
static struct rp_candidate make(const char *name, enum option option, enum rp_weight_id which)
{
    struct rp_candidate candidate = rp_candidate_make(name, install, (int)option, which);
    candidate.is_everywhere = true;
    return candidate;
}

static void collect_swapped(struct rp_search *search, enum rp_weight_id which)
{
    const struct rp_weight *own = &search->weights.weights[which];
    for (unsigned i = 0; i < RP_N_LAYER_WEIGHTS; i++) {
        const struct rp_weight *weight = &search->weights.weights[i];
        const enum rp_weight_id other = (enum rp_weight_id)i;
        const bool is_pair_again =
            other < which && rp_search_has_step(search, RP_STEP_LINEAR, other);
        if (other == which || is_pair_again || !weight->data || weight->n_out != own->n_out ||
            weight->n_in != own->n_in)
            continue;
        struct rp_candidate candidate = make("weights-swapped", SWAPPED, which);
        candidate.other = other;
        rp_search_add(search, candidate, "%s and %s swapped", rp_weight_name(which),
                      rp_weight_name(other));
    }
}

/* Slots of the layer that are as wide as the product's input. */
static void collect_inputs(struct rp_search *search, enum rp_weight_id which)
{
    const size_t n_in = search->weights.weights[which].n_in;
    for (int part = RP_PART_IN; part < (int)search->slot.part; part++) {
        char name[RP_SLOT_NAME_SIZE];
        rp_slot_name((enum rp_slot_part)part, search->slot.layer, name);
        if (rp_search_reads(search, name))
            continue;
        struct rp_candidate candidate = make("input-replaced", OTHER_INPUT, which);
        candidate.rows = rp_search_slot_rows(search, name, n_in);
        if (candidate.rows)
            rp_search_add(search, candidate, "%s multiplies %s; the model's %s",
                          rp_weight_name(which), name, search->slot.from);
    }
}

/* Also of experts: each without its own. */
static void collect_bias(struct rp_search *search, enum rp_weight_id which)
{
    const enum rp_weight_id bias = rp_bias_of(which);
    if (bias < RP_N_LAYER_WEIGHTS && search->weights.weights[bias].data)
        rp_search_add(search, make("bias-missing", WITHOUT_BIAS, which), "%s without its bias",
                      rp_weight_name(which));
}

static void collect_product(struct rp_search *search, enum rp_weight_id which)
{
    const struct rp_weight *weight = &search->weights.weights[which];
    collect_bias(search, which);
    collect_swapped(search, which);
    if (weight->n_out == weight->n_in)
        rp_search_add(search, make("weights-transposed", TRANSPOSED, which), "%s transposed",
                      rp_weight_name(which));
    if (rp_search_is_just(search, RP_STEP_LINEAR))
        collect_inputs(search, which);
}

static void collect_rounded(struct rp_search *search)
{
    static const struct {
        int bits;
        const char *type;
    } types[] = {{7, "BF16"}, {10, "F16"}};
    for (size_t i = 0; i < 2; i++) {
        struct rp_candidate candidate = make("weights-rounded", ROUNDED, RP_N_WEIGHTS);
        candidate.value = types[i].bits;
        candidate.reports_value = true;
        rp_search_add(search, candidate, "the matrices rounded to %s", types[i].type);
    }
}

/* The weights that lead to the slot. */
static bool is_on_the_way(const struct rp_search *search, enum rp_weight_id which)
{
    if (which == RP_SSM_DT || which == RP_SSM_A)
        return rp_search_has_step(search, RP_STEP_DELTA_DECAY, RP_N_WEIGHTS);
    return rp_search_has_step(search, RP_STEP_LINEAR, which) ||
           rp_search_has_step(search, RP_STEP_HEAD_LINEAR, which) ||
           rp_search_has_step(search, RP_STEP_RMS_NORM, which) ||
           rp_search_has_step(search, RP_STEP_CAUSAL_CONV1D, which) ||
           rp_search_has_step(search, RP_STEP_GATED_NORM, which) ||
           rp_search_has_step(search, RP_STEP_ATTENTION, which);
}

/* All weights of that layer; of a neighbour, and in a small model, also each alone. */
static void collect_layer(struct rp_search *search, int layer, bool with_each)
{
    struct rp_candidate candidate = make("weights-other-layer", OTHER_LAYER, RP_N_WEIGHTS);
    candidate.install = install_all;
    candidate.from_layer = layer;
    candidate.value = layer;
    candidate.reports_value = true;
    size_t n = 0;
    for (unsigned i = 0; i < RP_N_LAYER_WEIGHTS; i++)
        n += is_on_the_way(search, (enum rp_weight_id)i);
    if (n > 1)
        rp_search_add(search, candidate, "the weights of layer %d", layer);
    for (unsigned i = 0; (with_each || n == 1) && i < RP_N_LAYER_WEIGHTS; i++) {
        candidate.which = (enum rp_weight_id)i;
        if (is_on_the_way(search, candidate.which))
            rp_search_add(search, candidate, "%s of layer %d", rp_weight_name(candidate.which),
                          layer);
    }
}

/* Neighbours, the first and the last; every one where that is quick. */
static void collect_layers(struct rp_search *search)
{
    const int n = (int)search->config->n_layers, own = search->slot.layer;
    const bool is_small = n <= SMALL;
    for (int at = 2; at < 2 * n; at++) {
        const int distance = at / 2, layer = own + (at % 2 ? distance : -distance);
        const bool is_likely =
            is_small || !search->slot.is_carried || distance <= 4 || layer == 0 || layer == n - 1;
        if (layer >= 0 && layer < n && is_likely &&
            search->config->layer_kinds[layer] == search->kind)
            collect_layer(search, layer, is_small || distance == 1);
    }
}

void rp_collect_linear(struct rp_search *search)
{
    const bool has_product = rp_search_has_step(search, RP_STEP_LINEAR, RP_N_WEIGHTS);
    if (has_product)
        collect_rounded(search);
    for (unsigned i = 0; i < RP_N_LAYER_WEIGHTS; i++) {
        if (rp_search_has_step(search, RP_STEP_LINEAR, (enum rp_weight_id)i))
            collect_product(search, (enum rp_weight_id)i);
        if (rp_search_has_step(search, RP_STEP_EXPERTS_LINEAR, (enum rp_weight_id)i))
            collect_bias(search, (enum rp_weight_id)i);
    }
    if (search->slot.layer >= 0)
        collect_layers(search);
}
