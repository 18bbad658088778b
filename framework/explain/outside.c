/* Hypotheses about what stands outside the layers: the embedding's tokens, the last norm, the logits.
 * They are closed forms: nothing is run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain/rows.h"

#define BLOCK_ROWS 256  /* of the embedding table in memory at a time */
#define MAX_REPLACED 64 /* failing rows whose token is looked for */

enum option { MISSING, NO_WEIGHT, WEIGHT_OFFSET, EPS, MEAN_SUBTRACTED };

/* The last norm, changed: rows from change->rows, the last layer's output, and more_rows [dim], the
 * norm's weight. */
static enum rp_status final_norm(struct rp_change *change, const struct rp_site *site, size_t dim,
                                 float *rows)
{
    double eps = change->option == EPS ? change->value : (double)site->config->rms_norm_eps;
    for (size_t p = 0; p < site->n_positions; p++) {
        size_t row = rp_row_of(change->positions, change->n_rows, site->positions[p]);
        const float *x = change->rows + row * dim;
        double sum = 0, mean = 0;
        if (row == change->n_rows)
            continue;
        for (size_t i = 0; change->option == MEAN_SUBTRACTED && i < dim; i++)
            mean += (double)x[i] / (double)dim;
        for (size_t i = 0; i < dim; i++)
            sum += ((double)x[i] - mean) * ((double)x[i] - mean);
        double scale = change->option == MISSING ? 1 : 1 / sqrt(sum / (double)dim + eps);
        for (size_t i = 0; i < dim; i++) {
            double weight = (double)change->more_rows[i];
            if (change->option == MISSING || change->option == NO_WEIGHT)
                weight = 1;
            else if (change->option == WEIGHT_OFFSET)
                weight += change->value;
            rows[p * dim + i] = (float)(weight * (((double)x[i] - mean) * scale));
        }
    }
    return RP_OK;
}

static enum rp_status collect_norm(struct rp_search *search, struct rp_error *err)
{
    static const struct {
        const char *name;
        enum option option;
        double value;
        const char *text;
    } plain[] = {
        {"norm-missing", MISSING, 0, "the last norm left out"},
        {"norm-weight-missing", NO_WEIGHT, 0, "the last norm without its weight"},
        {"norm-weight-offset", WEIGHT_OFFSET, 1, "the last norm with 1 + w for its weight w"},
        {"norm-weight-offset", WEIGHT_OFFSET, -1, "the last norm with w - 1 for its weight w"},
        {"norm-mean-subtracted", MEAN_SUBTRACTED, 0,
         "the last norm with the mean subtracted, as LayerNorm does"},
        {"norm-eps", EPS, 1e-5, "the last norm with eps %v"},
        {"norm-eps", EPS, 1e-6, "the last norm with eps %v"},
        {"norm-eps", EPS, 1e-12, "the last norm with eps %v"},
        {"norm-eps", EPS, -1, "the last norm with eps %v"}, /* fitted, as is the next */
        {"norm-weight-offset", WEIGHT_OFFSET, 0, "the last norm with %v added to its weight"},
    };
    static const double grid[] = {1e-8, 1e-4, 1e-2, 1};
    static const struct rp_fit fit = {
        .is_log = true, .low = 1e-20, .high = 1e4, .starts = grid, .n_starts = 4};
    static const struct rp_fit offset_fit = {.is_log = false, .low = -100, .high = 100};
    const struct rp_gguf *gguf = rp_model_gguf(rp_replay_model(search->replay));
    const struct rp_gguf_tensor *tensor = rp_gguf_find_tensor(gguf, "output_norm.weight");
    const float *input;
    float *weight = NULL;
    enum rp_status status = rp_search_slot_rows(search, search->slot->from, &input, err);
    if (status != RP_OK || !input || !tensor || tensor->dims[0] != search->dim)
        return status;
    status = rp_search_new_rows(search, &weight, err);
    if (status == RP_OK)
        status = rp_gguf_row(gguf, tensor, 0, weight, err);
    for (size_t i = 0; i < sizeof plain / sizeof *plain && status == RP_OK; i++) {
        bool is_eps_fit = plain[i].value < 0 && plain[i].option == EPS;
        bool is_fit = is_eps_fit || (plain[i].value == 0 && plain[i].option == WEIGHT_OFFSET);
        struct rp_candidate candidate = {.name = plain[i].name,
                                         .phase = is_fit ? RP_PHASE_FIT : RP_PHASE_FIXED,
                                         .stages = RP_STAGE_POST_NORM,
                                         .transform = final_norm,
                                         .option = (int)plain[i].option,
                                         .which = RP_OUTPUT_NORM,
                                         .value = plain[i].value,
                                         .rows = input,
                                         .more_rows = weight,
                                         .fit = is_eps_fit ? &fit
                                                : is_fit   ? &offset_fit
                                                           : NULL,
                                         .from_layer = -1,
                                         .parameter = RP_NO_PARAMETER};
        if (is_eps_fit)
            candidate.value = (double)search->config->rms_norm_eps;
        candidate.reports_value = plain[i].option == EPS || plain[i].option == WEIGHT_OFFSET;
        snprintf(candidate.text, sizeof candidate.text, "%s", plain[i].text);
        status = rp_search_add(search, &candidate, err);
    }
    return status;
}

/* The token whose embedding the engine has, for up to MAX_REPLACED failing rows. */
struct nearest {
    size_t row, token;
    double distance2;
};

static enum rp_status find_tokens(const struct rp_search *search,
                                  const struct rp_gguf_tensor *table, struct nearest *nearest,
                                  size_t n, struct rp_error *err)
{
    const struct rp_gguf *gguf = rp_model_gguf(rp_replay_model(search->replay));
    size_t dim = search->dim;
    enum rp_status status = RP_OK;
    float *block = malloc(BLOCK_ROWS * dim * sizeof *block);
    if (!block)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for rows of the embedding");
    for (size_t first = 0; first < table->n_rows && status == RP_OK; first += BLOCK_ROWS) {
        size_t n_rows = table->n_rows - first < BLOCK_ROWS ? table->n_rows - first : BLOCK_ROWS;
        status = rp_gguf_rows(gguf, table, first, n_rows, block, err);
        for (size_t i = 0; i < n && status == RP_OK; i++) {
            const float *dumped = search->dumped + nearest[i].row * dim;
            for (size_t token = 0; token < n_rows; token++) {
                const float *row = block + token * dim;
                double sum = 0;
                for (size_t j = 0; j < dim && sum < nearest[i].distance2; j++)
                    sum +=
                        ((double)row[j] - (double)dumped[j]) * ((double)row[j] - (double)dumped[j]);
                if (sum < nearest[i].distance2) {
                    nearest[i].distance2 = sum;
                    nearest[i].token = first + token;
                }
            }
        }
    }
    free(block);
    return status;
}

static enum rp_status collect_tokens(struct rp_search *search, struct rp_error *err)
{
    const struct rp_gguf *gguf = rp_model_gguf(rp_replay_model(search->replay));
    const struct rp_gguf_tensor *table = rp_gguf_find_tensor(gguf, "token_embd.weight");
    struct nearest nearest[MAX_REPLACED];
    size_t n = 0;
    float *rows = NULL;
    if (!table || table->dims[0] != search->dim)
        return RP_OK;
    for (size_t row = 0; row < search->n && n < MAX_REPLACED; row++) {
        if (search->is_failing[row])
            nearest[n++] = (struct nearest){.row = row, .distance2 = HUGE_VAL};
    }
    enum rp_status status = find_tokens(search, table, nearest, n, err);
    if (status == RP_OK)
        status = rp_search_new_rows(search, &rows, err);
    if (status != RP_OK || n == 0)
        return status;
    memcpy(rows, search->computed, search->n * search->dim * sizeof *rows);
    for (size_t i = 0; i < n && status == RP_OK; i++)
        status =
            rp_gguf_row(gguf, table, nearest[i].token, rows + nearest[i].row * search->dim, err);
    struct rp_candidate candidate = {.name = "token-replaced",
                                     .phase = RP_PHASE_FIXED,
                                     .stages = RP_STAGE_EMB,
                                     .transform = rp_rows_replace,
                                     .which = RP_N_WEIGHTS,
                                     .value = (double)nearest[0].token,
                                     .rows = rows,
                                     .reports_value = true,
                                     .from_layer = -1,
                                     .parameter = RP_NO_PARAMETER};
    snprintf(candidate.text, sizeof candidate.text, "the embedding at position %lld is token %%v's",
             (long long)search->slot->positions[nearest[0].row]);
    return status == RP_OK ? rp_search_add(search, &candidate, err) : status;
}

static enum rp_status collect_softcap(struct rp_search *search, struct rp_error *err)
{
    static const double caps[] = {10, 15, 20, 50, 100};
    static const struct rp_fit fit = {
        .is_log = true, .low = 1e-2, .high = 1e6, .starts = caps, .n_starts = 5};
    struct rp_candidate candidate = {.name = "logits-softcap",
                                     .phase = RP_PHASE_FIT,
                                     .stages = RP_STAGE_LOGITS,
                                     .transform = rp_rows_softcap,
                                     .which = RP_N_WEIGHTS,
                                     .value = 30, /* Gemma's */
                                     .fit = &fit,
                                     .reports_value = true,
                                     .from_layer = -1,
                                     .parameter = RP_NO_PARAMETER};
    snprintf(candidate.text, sizeof candidate.text, "the logits capped at %%v");
    return rp_search_add(search, &candidate, err);
}

enum rp_status rp_collect_outside(struct rp_search *search, struct rp_error *err)
{
    switch (search->slot->part) {
    case RP_PART_EMB: return collect_tokens(search, err);
    case RP_PART_POST_NORM: return collect_norm(search, err);
    case RP_PART_LOGITS: return collect_softcap(search, err);
    default: return RP_OK;
    }
}
