/* What stands outside the layers: emb from the tokens, post_norm from the last layer, logits from
 * post_norm. Rows do not depend on each other here, so there is nothing to force but the input. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "replay/jitter.h"
#include "replay/judge.h"
#include "replay/session.h"

#define LOGITS_ROWS 64 /* in memory at a time: 39 MB with 150,000 tokens */

/* The rows of one part that can be computed. */
struct part {
    struct rp_replay *replay;
    enum rp_slot_part part;
    struct rp_dumped dumped, source; /* source: what it is computed from; not that of emb */
    size_t n, dim;                   /* dim of the part */
    int64_t *positions;              /* [n], those of dumped */
    unsigned char *founded;          /* [n] */
    struct rp_row_error *errors;     /* [n] */
    double *floor;                   /* [n] */
};

static void part_close(struct part *part)
{
    rp_dumped_close(&part->dumped);
    rp_dumped_close(&part->source);
    free(part->positions);
    free(part->founded);
    free(part->errors);
    free(part->floor);
}

/* The token at position, or -1. */
static int64_t token_at(const struct rp_replay *replay, int64_t position)
{
    const int64_t at = position - replay->first_position;
    if (!replay->tokens || replay->first_position < 0 || at < 0 || at >= (int64_t)replay->n_tokens)
        return -1;
    const int64_t token = replay->tokens[at];
    return token < (int64_t)rp_model_config(replay->model)->vocab_size ? token : -1;
}

static enum rp_status part_open(struct part *part, struct rp_replay *replay,
                                enum rp_slot_part which, struct rp_error *err)
{
    const struct rp_model_config *config = rp_model_config(replay->model);
    const int last = (int)config->n_layers - 1;
    *part = (struct part){.replay = replay, .part = which, .dim = config->hidden_size};
    rp_dumped_open(&part->dumped, replay->dump, which, -1);
    if (which == RP_PART_LOGITS) {
        part->dim = config->vocab_size;
        rp_dumped_open(&part->source, replay->dump, RP_PART_POST_NORM, -1);
    }
    if (which == RP_PART_POST_NORM ||
        (which == RP_PART_LOGITS && part->source.tensor.n_positions == 0)) {
        rp_dumped_close(&part->source);
        rp_dumped_open(&part->source, replay->dump, RP_PART_OUTPUT, last);
    }
    const size_t n = part->dumped.tensor.n_positions;
    part->positions = calloc(n + 1, sizeof *part->positions);
    part->founded = calloc(n + 1, 1);
    part->errors = calloc(n + 1, sizeof *part->errors);
    part->floor = calloc(n + 1, sizeof *part->floor);
    if (!part->positions || !part->founded || !part->errors || !part->floor) {
        part_close(part);
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
    }
    part->n = n;
    for (size_t i = 0; i < n; i++) {
        part->positions[i] = part->dumped.tensor.positions[i];
        part->founded[i] = which == RP_PART_EMB
                               ? token_at(replay, part->positions[i]) >= 0
                               : rp_dumped_is_finite(&part->source, part->positions[i]);
    }
    return RP_OK;
}

/* ---- computing ---- */

/* Beside the logits, how much of each row's square another order of summation may add. */
struct logits_noise {
    struct rp_overlay overlay; /* comes first */
    double *square;            /* [n_positions] of the call */
};

static enum rp_status noisy_linear(void *context, const struct rp_site *site,
                                   const struct rp_linear *args)
{
    struct logits_noise *noise = context;
    const struct rp_ops *below = noise->overlay.below;
    struct rp_product_profile profile = {.weight = NULL};
    enum rp_status status = below->linear(below->context, site, args);
    if (status == RP_OK)
        status = rp_product_profile_make(&profile, args, site->err);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        const float *y = args->y + p * args->y_stride;
        const double size = rp_product_size(&profile, args->x + p * args->n_in, args->n_in);
        for (size_t i = 0; i < args->n_out; i++) {
            const double error = rp_product_error(&profile, size, args->n_in, i, y[i]);
            noise->square[p] += error * error;
        }
    }
    rp_product_profile_free(&profile);
    return status;
}

/* Rows first .. first + n - 1 of the source, as the last norm leaves them. */
static enum rp_status normed_rows(const struct part *part, const struct rp_forward *forward,
                                  size_t first, size_t n, float *rows, struct rp_error *err)
{
    const size_t width = rp_model_config(part->replay->model)->hidden_size;
    for (size_t i = 0; i < n; i++) {
        const void *row = rp_dumped_row(&part->source, part->positions[first + i]);
        if (row && part->founded[first + i])
            memcpy(rows + i * width, row, width * sizeof *rows);
    }
    if (strcmp(part->source.slot, "post_norm") == 0)
        return RP_OK;
    return rp_model_final_norm(forward, n, part->positions + first, rows, err);
}

static double row_norm(const float *row, size_t dim)
{
    double sum = 0;
    for (size_t i = 0; i < dim; i++)
        sum += (double)row[i] * (double)row[i];
    return sqrt(sum);
}

/* The floor is the product's expected error in closed form: its input is the engine's own, or that
 * of a norm, so three runs over the output matrix would measure what is known. */
static enum rp_status compute_logits(const struct part *part, const struct rp_forward *forward,
                                     size_t first, size_t n, float *rows, struct rp_error *err)
{
    const size_t width = rp_model_config(part->replay->model)->hidden_size;
    const bool is_normed_here = strcmp(part->source.slot, "post_norm") != 0;
    const double of_norm = is_normed_here ? rp_norm_error(width) : 0;
    struct logits_noise noise;
    struct rp_forward noisy = *forward;
    float *normed = calloc(n * width + 1, sizeof *normed);
    noise.square = calloc(n + 1, sizeof *noise.square);
    enum rp_status status = RP_OK;
    if (!normed || !noise.square)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", n);
    if (status == RP_OK)
        status = normed_rows(part, forward, first, n, normed, err);
    if (status == RP_OK) {
        rp_overlay_open(&noise.overlay, forward->ops);
        noise.overlay.ops.linear = noisy_linear;
        noisy.ops = &noise.overlay.ops;
        status = rp_model_logits(&noisy, n, part->positions + first, 0, normed, rows, err);
    }
    for (size_t i = 0; i < n && status == RP_OK; i++)
        part->floor[first + i] =
            sqrt(noise.square[i]) / row_norm(rows + i * part->dim, part->dim) + of_norm;
    free(normed);
    free(noise.square);
    return status;
}

static enum rp_status compute_emb(const struct part *part, const struct rp_forward *forward,
                                  size_t first, size_t n, float *rows, struct rp_error *err)
{
    int32_t *tokens = calloc(n + 1, sizeof *tokens);
    if (!tokens)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu tokens", n);
    for (size_t i = 0; i < n; i++) {
        if (part->founded[first + i])
            tokens[i] = (int32_t)token_at(part->replay, part->positions[first + i]);
    }
    const enum rp_status status =
        rp_model_embed(forward, n, part->positions + first, tokens, rows, err);
    free(tokens);
    return status;
}

/* Rows first .. first + n - 1 of the part, rows [n][dim] zeroed; sets their floors. */
static enum rp_status compute(const struct part *part, size_t first, size_t n, float *rows,
                              struct rp_error *err)
{
    const struct rp_numerics *numerics = &part->replay->options.numerics;
    struct rp_emulation emulation;
    struct rp_forward forward = {.model = part->replay->model, .mode = part->replay->options.mode};
    enum rp_status status;
    rp_emulation_open(&emulation, numerics, NULL);
    if (!rp_numerics_are_plain(numerics))
        forward.ops = &emulation.overlay.ops;
    if (part->part == RP_PART_EMB)
        status = compute_emb(part, &forward, first, n, rows, err);
    else if (part->part == RP_PART_LOGITS)
        status = compute_logits(part, &forward, first, n, rows, err);
    else
        status = normed_rows(part, &forward, first, n, rows, err);
    rp_emulation_close(&emulation);
    for (size_t i = 0; i < n && part->part == RP_PART_POST_NORM; i++)
        part->floor[first + i] = rp_norm_error(part->dim);
    return status;
}

/* ---- public ---- */

static const char *why_left_out(const struct part *part)
{
    if (part->part != RP_PART_EMB)
        return "what they are computed from is not dumped, or not finite";
    if (!part->replay->tokens)
        return "the tokens are not known";
    return "no token is known for them";
}

static enum rp_status judge(struct part *part, struct rp_replay_layer *result, struct rp_error *err)
{
    const struct rp_replayed replayed = {.part = part->part,
                                         .layer = -1,
                                         .from = part->part == RP_PART_EMB ? "tokens"
                                                                           : part->source.slot,
                                         .dumped = &part->dumped,
                                         .n = part->n,
                                         .positions = part->positions,
                                         .errors = part->errors,
                                         .founded = part->founded,
                                         .floor = part->floor,
                                         .left_out = why_left_out(part)};
    const enum rp_status status = rp_replay_judge(&replayed, &result->slots[0], err);
    if (status != RP_OK)
        return status;
    result->n_slots = 1;
    rp_replay_conclude(result);
    return RP_OK;
}

enum rp_status rp_replay_run_part(struct rp_replay *replay, enum rp_slot_part part,
                                  struct rp_replay_layer *result, struct rp_error *err)
{
    struct part of;
    float *rows = NULL;
    *result = (struct rp_replay_layer){.layer = -1, .verdict = RP_SKIP};
    if (part != RP_PART_EMB && part != RP_PART_POST_NORM && part != RP_PART_LOGITS)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1,
                       "only emb, post_norm and logits stand "
                       "outside the layers");
    enum rp_status status = part_open(&of, replay, part, err);
    if (status != RP_OK)
        return status;
    const size_t group = of.n < LOGITS_ROWS ? of.n : LOGITS_ROWS;
    rows = calloc(group * of.dim + 1, sizeof *rows);
    if (!rows)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", group);
    for (size_t first = 0; first < of.n && status == RP_OK; first += group) {
        const size_t n = of.n - first < group ? of.n - first : group;
        memset(rows, 0, n * of.dim * sizeof *rows);
        status = compute(&of, first, n, rows, err);
        for (size_t i = 0; i < n && status == RP_OK; i++)
            of.errors[first + i] = rp_row_error_of(
                rows + i * of.dim, rp_dumped_row(&of.dumped, of.positions[first + i]), of.dim);
    }
    if (status == RP_OK && of.dumped.info)
        status = judge(&of, result, err);
    free(rows);
    part_close(&of);
    return status;
}

enum rp_status rp_replay_part_rows(struct rp_replay *replay, const struct rp_replay_slot *slot,
                                   float **computed, float **dumped, size_t *dim,
                                   struct rp_error *err)
{
    struct part part;
    enum rp_status status = part_open(&part, replay, slot->part, err);
    if (status != RP_OK)
        return status;
    float *rows = part.n <= SIZE_MAX / sizeof(float) / part.dim - 1
                      ? calloc(part.n * part.dim + 1, sizeof *rows)
                      : NULL;
    *dim = part.dim;
    if (!rows)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", part.n);
    if (status == RP_OK && part.n > 0)
        status = compute(&part, 0, part.n, rows, err);
    if (status == RP_OK)
        status = rp_replay_copy_rows(slot, &part.dumped, part.n, part.positions, rows, part.dim,
                                     computed, dumped, err);
    free(rows);
    part_close(&part);
    return status;
}
