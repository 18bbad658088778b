/* The hypothesis that an engine rotates Q and K in a layer that has no RoPE. */
#include <stdlib.h>
#include <string.h>

#include "operations/hypotheses.h"

/* Of a layer that has no RoPE: a copy of x [n_positions][n_heads * head_dim], rotated; freed by the caller. */
static enum rp_status rotated_copy(const struct rp_change *change, const struct rp_site *site,
                                   enum rp_weight_id which, size_t n_heads, const float *x,
                                   float **copy)
{
    const struct rp_model_config *config = site->config;
    const size_t n = site->n_positions * n_heads * config->head_dim;
    *copy = malloc((n + 1) * sizeof **copy);
    if (!*copy)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for rotated rows");
    memcpy(*copy, x, n * sizeof **copy);
    const struct rp_rope rotated = {.which = which,
                                    .ordering = config->rope_ordering,
                                    .theta = config->rope_theta,
                                    .freq_factors = change->what.rows,
                                    .attention_factor = rp_site_attention_factor(site),
                                    .n_rot = config->n_rot,
                                    .n_heads = n_heads,
                                    .head_dim = config->head_dim,
                                    .positions = site->positions,
                                    .x = *copy};
    return RP_RUN_BELOW(change, rope, site, &rotated);
}

static enum rp_status store_rotated_k(void *context, const struct rp_site *site,
                                      const struct rp_kv_store *args)
{
    const struct rp_change *change = context;
    struct rp_kv_store wrong = *args;
    float *k;
    enum rp_status status =
        rotated_copy(change, site, RP_ATTN_K, site->config->n_kv_heads, args->k, &k);
    wrong.k = k;
    if (status == RP_OK)
        status = RP_RUN_BELOW(change, kv_store, site, &wrong);
    free(k);
    return status;
}

static enum rp_status attend_with_rotated_q(void *context, const struct rp_site *site,
                                            const struct rp_attention *args)
{
    const struct rp_change *change = context;
    struct rp_attention wrong = *args;
    float *q;
    enum rp_status status = rotated_copy(change, site, RP_ATTN_Q, args->n_heads, args->q, &q);
    wrong.q = q;
    if (status == RP_OK)
        status = RP_RUN_BELOW(change, attention, site, &wrong);
    free(q);
    return status;
}

static void install_on_nope(struct rp_ops *ops)
{
    ops->kv_store = store_rotated_k;
    ops->attention = attend_with_rotated_q;
}

/* what.rows [n][dim] in the place of the slot's. */
static enum rp_status take_rows(const struct rp_change *change, size_t n, size_t dim, float *rows,
                                struct rp_error *err)
{
    (void)err;
    memcpy(rows, change->what.rows, n * dim * sizeof *rows);
    return RP_OK;
}

static double norm_of(const float *x, size_t n)
{
    double square = 0;
    for (size_t i = 0; i < n; i++)
        square += (double)x[i] * (double)x[i];
    return sqrt(square);
}

/* [n] relative to the rotated rows, after rp_op_rope; NULL: no memory. */
static const float *bound_of_rope(struct rp_search *search, const struct rp_site *site,
                                  const struct rp_rope *rotated)
{
    float *sigma = rp_search_new_rows(search), *bound = rp_search_new_rows(search);
    if (!sigma || !bound)
        return NULL;
    rp_search_note(search, rp_sigma_rope(site, rotated, sigma));
    for (size_t row = 0; row < search->n; row++) {
        const size_t at = row * search->dim;
        const double norm = norm_of(rotated->x + at, search->dim);
        if (norm > 0)
            bound[row] = (float)(RP_BOUND_SIGMAS * norm_of(sigma + at, search->dim) / norm);
    }
    return bound;
}

/* In a layer whose Q and K are not to be rotated: what attention reads of them, or attention itself. */
void rp_collect_rope_on_nope(struct rp_search *search)
{
    static const char name[] = "rope-on-nope-layer",
                      text[] = "Q and K are rotated; the model has no RoPE in this layer";
    const struct rp_model_config *config = search->config;
    if (search->kind != RP_LAYER_NOPE_ATTENTION)
        return;
    if (rp_search_has_step(search, RP_STEP_ATTENTION, RP_N_WEIGHTS)) {
        struct rp_candidate candidate = rp_candidate_make(name, install_on_nope, 0, RP_N_WEIGHTS);
        candidate.rows = search->rope_freqs;
        rp_search_add(search, candidate, "%s", text);
    }
    if ((search->slot.part != RP_PART_QROPE && search->slot.part != RP_PART_KROPE) ||
        search->dim % config->head_dim != 0)
        return;
    float *rows = rp_search_new_rows(search);
    if (!rows)
        return;
    memcpy(rows, search->computed, search->n * search->dim * sizeof *rows);
    const struct rp_site site = {
        .config = config, .n_positions = search->n, .positions = search->slot.positions};
    const struct rp_rope rotated = {.ordering = RP_ROPE_NEOX, /* slots are in HF's order */
                                    .theta = config->rope_theta,
                                    .freq_factors = search->rope_freqs,
                                    .attention_factor = config->rope_scaling.attention_factor,
                                    .n_rot = config->n_rot,
                                    .n_heads = search->dim / config->head_dim,
                                    .head_dim = config->head_dim,
                                    .positions = search->slot.positions,
                                    .x = rows};
    rp_search_note(search, rp_op_rope(NULL, &site, &rotated));
    struct rp_candidate candidate = rp_candidate_of_rows(name, take_rows, RP_NO_PARAMETER, rows);
    candidate.bound = bound_of_rope(search, &site, &rotated);
    rp_search_add(search, candidate, "%s", text);
}
