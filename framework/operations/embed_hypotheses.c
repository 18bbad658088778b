/* Hypotheses about which token's embedding a row is, and about a cap on the logits. */
#include <stdlib.h>
#include <string.h>

#include "operations/row_changes.h"

#define BLOCK_ROWS 256  /* of the embedding table in memory at a time */
#define MAX_REPLACED 64 /* failing rows whose token is looked for */

struct nearest {
    size_t row, token;
    double distance2;
};

static double distance2(const float *a, const float *b, size_t dim, double most)
{
    double sum = 0;
    for (size_t i = 0; i < dim && sum < most; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sum;
}

/* The token whose embedding is nearest to each of n failing rows. */
static enum rp_status find_tokens(const struct rp_search *search,
                                  const struct rp_gguf_tensor *table, struct nearest *nearest,
                                  size_t n, struct rp_error *err)
{
    const struct rp_gguf *gguf = search->gguf;
    const size_t dim = search->dim;
    enum rp_status status = RP_OK;
    float *block = malloc(BLOCK_ROWS * dim * sizeof *block);
    if (!block)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for rows of the embedding");
    for (size_t first = 0; first < table->n_rows && status == RP_OK; first += BLOCK_ROWS) {
        const size_t left = table->n_rows - first, n_rows = left < BLOCK_ROWS ? left : BLOCK_ROWS;
        status = rp_gguf_rows(gguf, table, first, n_rows, block, err);
        for (size_t at = 0; at < n * n_rows && status == RP_OK; at++) {
            struct nearest *of = &nearest[at / n_rows];
            const double here = distance2(block + at % n_rows * dim, search->dumped + of->row * dim,
                                          dim, of->distance2);
            if (here < of->distance2) {
                of->distance2 = here;
                of->token = first + at % n_rows;
            }
        }
    }
    free(block);
    return status;
}

static void collect_tokens(struct rp_search *search)
{
    const struct rp_gguf *gguf = search->gguf;
    const struct rp_gguf_tensor *table = rp_gguf_find_tensor(gguf, "token_embd.weight");
    struct nearest nearest[MAX_REPLACED];
    size_t n = 0;
    if (!table || table->dims[0] != search->dim)
        return;
    for (size_t row = 0; row < search->n && n < MAX_REPLACED; row++) {
        if (search->is_failing[row])
            nearest[n++] = (struct nearest){.row = row, .distance2 = HUGE_VAL};
    }
    enum rp_status status = find_tokens(search, table, nearest, n, search->err);
    rp_search_note(search, status);
    float *rows = status == RP_OK ? rp_search_new_rows(search) : NULL;
    if (!rows || n == 0)
        return;
    memcpy(rows, search->computed, search->n * search->dim * sizeof *rows);
    for (size_t i = 0; i < n && status == RP_OK; i++)
        status = rp_gguf_row(gguf, table, nearest[i].token, rows + nearest[i].row * search->dim,
                             search->err);
    rp_search_note(search, status);
    struct rp_candidate candidate =
        rp_candidate_of_rows("token-replaced", rp_rows_replace, (double)nearest[0].token, rows);
    candidate.phase = RP_PHASE_FIXED;
    candidate.reports_value = true;
    rp_search_add(search, candidate, "the embedding at position %lld is token %%v's",
                  (long long)search->slot.positions[nearest[0].row]);
}

static enum rp_status uncapped(void *context, const struct rp_site *site,
                               const struct rp_linear *args)
{
    const struct rp_change *change = context;
    struct rp_linear wrong = *args;
    wrong.softcap = 0;
    return RP_RUN_BELOW(change, linear, site, &wrong);
}

static void install_uncapped(struct rp_ops *ops)
{
    ops->linear = uncapped;
}

/* The logits before their cap, [n][dim]; NULL: that failed. */
static const float *uncapped_rows(struct rp_search *search, const struct rp_candidate *candidate)
{
    float *rows = rp_search_new_rows(search);
    double *error = calloc(search->n + 1, sizeof *error);
    if (!rows || !error) {
        free(error);
        return NULL;
    }
    const enum rp_status status = search->try_rows(search, candidate, error, search->err);
    rp_search_note(search, status);
    memcpy(rows, search->rows, search->n * search->dim * sizeof *rows);
    free(error);
    return status == RP_OK ? rows : NULL;
}

/* Of a model that caps its logits. */
static void collect_own_softcap(struct rp_search *search, double own, const struct rp_fit *fit)
{
    static const char name[] = "logits-softcap";
    const struct rp_candidate missing = rp_candidate_make(name, install_uncapped, 0, RP_OUTPUT);
    struct rp_candidate other = rp_candidate_of_rows(name, rp_rows_softcap, own, NULL);
    rp_search_add(search, missing, "the logits are not capped; the model's are, at %.6g", own);
    other.phase = RP_PHASE_FIT;
    other.fit = fit;
    other.own = own;
    other.reports_value = true;
    other.rows = uncapped_rows(search, &missing);
    if (other.rows)
        rp_search_add(search, other, "the logits capped at %%v; the model's at %.6g", own);
}

static void collect_softcap(struct rp_search *search)
{
    static const double caps[] = {10, 15, 20, 50, 100};
    static const struct rp_fit fit = RP_FIT(true, 1e-2, 1e6, caps);
    const double own = (double)search->config->logits_softcap;
    double share, alpha;
    if (own > 0) {
        collect_own_softcap(search, own, &fit);
        return;
    }
    float *cubes = rp_search_new_rows(search);
    if (!cubes)
        return;
    /* c tanh(x / c) is about x - x^3 / (3 c^2). */
    for (size_t i = 0; i < search->n * search->dim; i++)
        cubes[i] = search->computed[i] * search->computed[i] * search->computed[i];
    alpha = rp_rows_fit(search, cubes, &share);
    struct rp_candidate candidate = rp_candidate_of_rows(
        "logits-softcap", rp_rows_softcap, alpha < 0 ? 1 / sqrt(-3 * alpha) : 30, NULL);
    candidate.phase = RP_PHASE_FIT;
    candidate.fit = &fit;
    candidate.reports_value = true;
    rp_search_add(search, candidate, "the logits capped at %%v; the model's are not");
}

void rp_collect_embed(struct rp_search *search)
{
    if (search->slot.part == RP_PART_EMB)
        collect_tokens(search);
    if (search->slot.part == RP_PART_LOGITS)
        collect_softcap(search);
}
