/* A DeltaNet whose positions from some point on were run before, from an earlier checkpoint, and are run
 * again: the convolution has the right inputs again, the recurrent state is what the first run left.
 * An engine that restores a checkpoint once, or only a part of it, does so. */
#include <stdlib.h>
#include <string.h>

#include "operations/delta_changes.h"

/* The first run's rows of the convolution differ where its kernel reaches behind `position`. */
static size_t n_of_first_run(const struct rp_change *change, size_t n_positions, size_t first)
{
    const size_t n = change->first_run_rows;
    return n_positions - first < n ? n_positions - first : n;
}

static enum rp_status causal_conv1d(void *context, const struct rp_site *site,
                                    const struct rp_causal_conv1d *args)
{
    struct rp_change *change = context;
    const size_t width = args->n_channels, n_before = args->kernel - 1;
    const size_t at = rp_row_of(site->positions, site->n_positions, change->what.position);
    const size_t from = rp_row_of(site->positions, site->n_positions, change->what.from_position);
    const enum rp_status status = RP_RUN_BELOW(change, causal_conv1d, site, args);
    if (status != RP_OK || at == site->n_positions || from == site->n_positions)
        return status;
    change->first_run_rows = n_before;
    const size_t n = n_of_first_run(change, site->n_positions, at);
    free(change->first_run);
    change->first_run = calloc((n_before + n) * width + 1, sizeof *change->first_run);
    if (!change->first_run)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a state");
    struct rp_site some = *site;
    struct rp_causal_conv1d first = *args;
    some.positions += at;
    some.n_positions = n;
    first.state = change->first_run + n * width;
    first.x += at * width;
    first.y = change->first_run;
    for (size_t i = 0; i < n_before && i < from; i++)
        memcpy(first.state + (n_before - 1 - i) * width, args->x + (from - 1 - i) * width,
               width * sizeof *first.state);
    return RP_RUN_BELOW(change, causal_conv1d, &some, &first);
}

static enum rp_status l2_norm(void *context, const struct rp_site *site,
                              const struct rp_l2_norm *args)
{
    const struct rp_change *change = context;
    const size_t at = rp_row_of(site->positions, site->n_positions, change->what.position);
    enum rp_status status = RP_RUN_BELOW(change, l2_norm, site, args);
    if (status != RP_OK || !change->first_run)
        return status;
    struct rp_site some = *site;
    struct rp_l2_norm first = *args;
    some.positions += at;
    some.n_positions = n_of_first_run(change, site->n_positions, at);
    first.x = change->first_run + (args->which == RP_ATTN_K ? args->n_heads * args->head_dim : 0);
    return RP_RUN_BELOW(change, l2_norm, &some, &first);
}

static enum rp_status run(const struct rp_change *change, const struct rp_site *site,
                          const struct rp_delta_rule *args, size_t first, size_t end)
{
    const struct rp_delta_rule part = rp_delta_rule_from(args, first);
    struct rp_site some = *site;
    some.positions += first;
    some.n_positions = end - first;
    return first < end ? RP_RUN_BELOW(change, delta_rule, &some, &part) : RP_OK;
}

/* The first run, on the state: its first rows are the remembered ones. */
static enum rp_status run_first(const struct rp_change *change, const struct rp_site *site,
                                const struct rp_delta_rule *args, size_t at)
{
    const size_t n = n_of_first_run(change, site->n_positions, at);
    const size_t k_dim = args->n_k_heads * args->head_dim;
    struct rp_delta_rule part = rp_delta_rule_from(args, at);
    struct rp_site some = *site;
    some.positions += at;
    some.n_positions = n;
    part.q = change->first_run;
    part.k = change->first_run + k_dim;
    part.v = change->first_run + 2 * k_dim;
    part.qkv_stride = 2 * k_dim + args->n_v_heads * args->head_dim;
    const enum rp_status status = RP_RUN_BELOW(change, delta_rule, &some, &part);
    return status == RP_OK ? run(change, site, args, at + n, site->n_positions) : status;
}

static enum rp_status delta_rule(void *context, const struct rp_site *site,
                                 const struct rp_delta_rule *args)
{
    struct rp_change *change = context;
    const size_t at = rp_row_of(site->positions, site->n_positions, change->what.position);
    const size_t from = rp_row_of(site->positions, site->n_positions, change->what.from_position);
    if (!change->first_run)
        return RP_RUN_BELOW(change, delta_rule, site, args);
    enum rp_status status = run(change, site, args, 0, from);
    if (status == RP_OK)
        status = run_first(change, site, args, at);
    /* What the positions before give does not depend on it: their outputs are made again. */
    const size_t n_state = args->n_v_heads * args->head_dim * args->head_dim;
    float *left = malloc((n_state + 1) * sizeof *left);
    if (status == RP_OK && !left)
        status = rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a state");
    if (status == RP_OK) {
        memcpy(left, args->state, n_state * sizeof *left);
        memset(args->state, 0, n_state * sizeof *left);
        status = run(change, site, args, 0, at);
        memcpy(args->state, left, n_state * sizeof *left);
    }
    if (status == RP_OK)
        status = run(change, site, args, at, site->n_positions);
    free(left);
    free(change->first_run);
    change->first_run = NULL;
    return status;
}

void rp_delta_rerun_install(struct rp_ops *ops)
{
    ops->causal_conv1d = causal_conv1d;
    ops->l2_norm = l2_norm;
    ops->delta_rule = delta_rule;
}
