/* What stands outside the layers: emb from the tokens, post_norm from the last layer, logits from
 * post_norm. Rows do not depend on each other here, so there is nothing to force but the input. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/rounding.h"
#include "operations/operations.h"
#include "refparity/metrics.h"
#include "replay/dumped.h"
#include "replay/judge.h"
#include "replay/noise.h"
#include "replay/session.h"

/* The rows of one part that can be computed. */
struct part {
    struct rp_replay *replay;
    enum rp_slot_part part;
    struct rp_dumped dumped, source; /* source: what it is computed from; not that of emb */
    size_t n, dim;                   /* dim of the part */
    int64_t *positions;              /* [n], those of dumped */
    unsigned char *founded;          /* [n] */
    struct rp_row_error *errors;     /* [n] */
    double *bound;                   /* [n] relative */
};

static void part_close(struct part *part)
{
    rp_dumped_close(&part->dumped);
    rp_dumped_close(&part->source);
    free(part->positions);
    free(part->founded);
    free(part->errors);
    free(part->bound);
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

/* The weight that the part is computed with, where it cannot be decoded; else NULL. */
static const struct rp_gguf_tensor *undecodable(const struct part *part)
{
    const enum rp_weight_id which = part->part == RP_PART_EMB      ? RP_TOKEN_EMBD
                                    : part->part == RP_PART_LOGITS ? RP_OUTPUT
                                                                   : RP_N_WEIGHTS;
    return rp_model_undecodable(part->replay->model, 0, which);
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
    part->bound = calloc(n + 1, sizeof *part->bound);
    if (!part->positions || !part->founded || !part->errors || !part->bound) {
        part_close(part);
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
    }
    part->n = n;
    for (size_t i = 0; i < n; i++) {
        part->positions[i] = part->dumped.tensor.positions[i];
        part->founded[i] = undecodable(part) ? 0
                           : which == RP_PART_EMB
                               ? token_at(replay, part->positions[i]) >= 0
                               : rp_dumped_is_finite(&part->source, part->positions[i]);
    }
    return RP_OK;
}

/* ---- computing ---- */

/* The source's rows, as the last norm leaves them: rows [n][hidden_size]. */
static enum rp_status normed_rows(const struct part *part, const struct rp_forward *forward,
                                  float *rows, struct rp_error *err)
{
    const size_t width = rp_model_config(part->replay->model)->hidden_size;
    for (size_t i = 0; i < part->n; i++) {
        const void *row = rp_dumped_row(&part->source, part->positions[i]);
        if (row && part->founded[i])
            memcpy(rows + i * width, row, width * sizeof *rows);
    }
    if (strcmp(part->source.slot, "post_norm") == 0)
        return RP_OK;
    return rp_model_final_norm(forward, part->n, part->positions, rows, err);
}

/* The logits come in blocks of rows of the output matrix: what a row differs by, and the squares of its
 * bound, add up. */
struct logits {
    struct rp_overlay overlay; /* comes first */
    const struct part *part;
    double *square;               /* [n] of the bound, absolute */
    struct rp_row_pieces *pieces; /* [n] */
};

static enum rp_status bounded_linear(void *context, const struct rp_site *site,
                                     const struct rp_linear *args)
{
    const struct logits *logits = context;
    const struct rp_ops *below = logits->overlay.below;
    double *norm = calloc(site->n_positions + 1, sizeof *norm);
    enum rp_status status = below->linear(below->context, site, args);
    if (status == RP_OK && !norm)
        status = rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows",
                         site->n_positions);
    if (status == RP_OK)
        status = rp_sigma_norm_linear(site, args, norm);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++)
        logits->square[p] += RP_BOUND_SIGMAS * norm[p] * RP_BOUND_SIGMAS * norm[p];
    free(norm);
    return status;
}

/* Where post_norm is not dumped, the norm is computed here: what it may be off by is handed on, and
 * where the product rounds its input, values of the row may tip. Each moves the row by a step at most; the
 * output matrix is taken to be worth three times the mean in one column, and two tips are allowed. */
#define WORTH_OF_TIPS 6

static double of_carried_norm(const struct part *part, const float *normed, float *scratch)
{
    const struct rp_model *model = part->replay->model;
    const size_t width = rp_model_config(model)->hidden_size;
    const uint32_t format =
        rp_numerics_input_format(&part->replay->options.numerics, rp_model_output_type(model));
    double tip = 0;
    if (strcmp(part->source.slot, "post_norm") == 0)
        return 0;
    const double norm = rp_metrics_norm(normed, width);
    if (format != RP_GGML_F32 && norm > 0) {
        const uint32_t values = format == RP_GGML_Q8_1 ? RP_GGML_Q8_0 : format;
        rp_round_row(values, normed, width, scratch);
        rp_rounding_tip_largest(values, normed, width, NULL, scratch);
        for (size_t i = 0; i < width; i++)
            tip = fmax(tip, fabs((double)scratch[i] - (double)normed[i]));
    }
    return RP_BOUND_SIGMAS * rp_norm_error(width) + (norm > 0 ? WORTH_OF_TIPS * tip / norm : 0);
}

static void take_block(void *context, size_t first, size_t n_out, const float *y)
{
    const struct logits *logits = context;
    const struct part *part = logits->part;
    for (size_t i = 0; i < part->n; i++) {
        const unsigned char *row = rp_dumped_row(&part->dumped, part->positions[i]);
        rp_row_piece_add(&part->replay->options.numerics, &logits->pieces[i], first, y + i * n_out,
                         row + first * sizeof(float), n_out);
    }
}

/* Sets the errors and bounds of all rows; what a cap rounds inside may tip. */
static enum rp_status measure_logits(const struct part *part, const struct rp_forward *forward,
                                     struct rp_emulation *emulation, struct rp_error *err)
{
    const size_t n = part->n, width = rp_model_config(part->replay->model)->hidden_size;
    struct logits logits = {.part = part};
    struct rp_forward bounded = *forward;
    float *normed = calloc(n * width + 1, sizeof *normed);
    float *scratch = calloc(width + 1, sizeof *scratch);
    double *tips = calloc(n + 1, sizeof *tips);
    logits.square = calloc(n + 1, sizeof *logits.square);
    logits.pieces = calloc(n + 1, sizeof *logits.pieces);
    enum rp_status status = RP_OK;
    if (!normed || !scratch || !tips || !logits.square || !logits.pieces)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", n);
    if (status == RP_OK)
        status = normed_rows(part, forward, normed, err);
    if (status == RP_OK) {
        /* Over the emulation: the terms are as large without the rounding. */
        rp_overlay_open(&logits.overlay, forward->ops);
        logits.overlay.ops.linear = bounded_linear;
        bounded.ops = &logits.overlay.ops;
        emulation->tips = tips;
        emulation->n_tips = n;
        status = rp_model_logits_by_block(&bounded, n, part->positions, normed, take_block, &logits,
                                          err);
        emulation->tips = NULL;
    }
    for (size_t i = 0; i < n && status == RP_OK; i++) {
        part->errors[i] = rp_row_error_of_pieces(&logits.pieces[i]);
        part->bound[i] = (sqrt(logits.square[i]) + sqrt(tips[i])) / part->errors[i].norm +
                         of_carried_norm(part, normed + i * width, scratch);
    }
    free(tips);
    free(scratch);
    free(normed);
    free(logits.square);
    free(logits.pieces);
    return status;
}

static enum rp_status compute_logits(const struct part *part, const struct rp_forward *forward,
                                     float *rows, struct rp_error *err)
{
    const size_t width = rp_model_config(part->replay->model)->hidden_size;
    float *normed = calloc(part->n * width + 1, sizeof *normed);
    if (!normed)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", part->n);
    enum rp_status status = normed_rows(part, forward, normed, err);
    if (status == RP_OK)
        status = rp_model_logits(forward, part->n, part->positions, 0, normed, rows, err);
    free(normed);
    return status;
}

/* The norm's bound is noise.c's: of what the norm rounds inside, too. */
static enum rp_status compute_post_norm(const struct part *part, const struct rp_forward *forward,
                                        const struct rp_numerics *numerics,
                                        struct rp_emulation *emulation, float *rows,
                                        struct rp_error *err)
{
    struct rp_noise noise;
    struct rp_forward bounded = *forward;
    enum rp_status status = rp_noise_open(&noise, numerics, forward->ops, part->n, err);
    if (status != RP_OK)
        return status;
    emulation->tips = noise.tips;
    emulation->n_tips = part->n;
    bounded.ops = &noise.overlay.ops;
    status = normed_rows(part, &bounded, rows, err);
    for (size_t i = 0; i < part->n && status == RP_OK; i++) {
        const double norm = rp_metrics_norm(rows + i * part->dim, part->dim);
        part->bound[i] = norm > 0 ? noise.bound[i] / norm : 0;
    }
    emulation->tips = NULL;
    rp_noise_close(&noise);
    return status;
}

static enum rp_status compute_emb(const struct part *part, const struct rp_forward *forward,
                                  float *rows, struct rp_error *err)
{
    int32_t *tokens = calloc(part->n + 1, sizeof *tokens);
    if (!tokens)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu tokens", part->n);
    for (size_t i = 0; i < part->n; i++) {
        if (part->founded[i])
            tokens[i] = (int32_t)token_at(part->replay, part->positions[i]);
    }
    const enum rp_status status =
        rp_model_embed(forward, part->n, part->positions, tokens, rows, err);
    free(tokens);
    return status;
}

/* What the part's rows are computed with. */
struct setting {
    struct rp_numerics numerics;
    struct rp_emulation emulation;
    struct rp_forward forward;
};

static void set_up(const struct part *part, const struct rp_replay_variant *variant,
                   struct setting *setting)
{
    setting->numerics = variant->numerics ? *variant->numerics : rp_replay_numerics(part->replay);
    setting->forward = (struct rp_forward){
        .model = part->replay->model,
        .mode = part->replay->options.mode,
        .ops = rp_replay_stack(&setting->numerics, &setting->emulation, variant->overlay)};
}

/* The part's rows [n][dim], zeroed; sets the bound of post_norm's. */
static enum rp_status compute(const struct part *part, const struct rp_replay_variant *variant,
                              float *rows, struct rp_error *err)
{
    struct setting setting;
    set_up(part, variant, &setting);
    if (part->part == RP_PART_EMB)
        return compute_emb(part, &setting.forward, rows, err);
    if (part->part == RP_PART_LOGITS)
        return compute_logits(part, &setting.forward, rows, err);
    return compute_post_norm(part, &setting.forward, &setting.numerics, &setting.emulation, rows,
                             err);
}

static float *new_rows(const struct part *part, struct rp_error *err)
{
    float *rows = part->n <= SIZE_MAX / sizeof(float) / part->dim - 1
                      ? calloc(part->n * part->dim + 1, sizeof *rows)
                      : NULL;
    if (!rows)
        rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", part->n);
    return rows;
}

/* Sets the errors and bounds of all rows. */
static enum rp_status measure(const struct part *part, struct rp_error *err)
{
    static const struct rp_replay_variant none = {.overlay = NULL};
    struct setting setting;
    if (part->part == RP_PART_LOGITS) {
        set_up(part, &none, &setting);
        return measure_logits(part, &setting.forward, &setting.emulation, err);
    }
    float *rows = new_rows(part, err);
    enum rp_status status = rows ? compute(part, &none, rows, err) : RP_ERR_MEMORY;
    for (size_t i = 0; i < part->n && status == RP_OK; i++) {
        const float *row = rows + i * part->dim;
        const double bound = part->bound[i] * rp_metrics_norm(row, part->dim);
        part->errors[i] =
            rp_row_error_of(&part->replay->options.numerics, row,
                            rp_dumped_row(&part->dumped, part->positions[i]), part->dim, bound);
    }
    free(rows);
    return status;
}

/* ---- public ---- */

static const char *why_left_out(const struct part *part, char *text, size_t size)
{
    const struct rp_gguf_tensor *tensor = undecodable(part);
    if (tensor) {
        snprintf(text, size, "weights of type %s cannot be decoded (%s)",
                 rp_ggml_type_name(tensor->type), tensor->name);
        return text;
    }
    if (part->part != RP_PART_EMB && !part->source.info)
        return "the last layer's output is not dumped";
    if (part->part != RP_PART_EMB)
        return "what they are computed from is not dumped there, or not finite";
    if (!part->replay->tokens)
        return "the tokens are not known";
    return "no token is known for them";
}

static enum rp_status judge(struct part *part, struct rp_replay_layer *result, struct rp_error *err)
{
    char reason[128];
    const bool is_carried =
        part->part == RP_PART_LOGITS && strcmp(part->source.slot, "post_norm") != 0;
    const struct rp_replayed replayed = {
        .part = part->part,
        .layer = -1,
        .operation = part->part == RP_PART_EMB         ? "the embedding"
                     : part->part == RP_PART_POST_NORM ? "the RMS norm output_norm"
                                                       : "the product with output",
        .from = part->part == RP_PART_EMB ? "tokens" : part->source.slot,
        .between = is_carried ? "post_norm" : "",
        .dumped = &part->dumped,
        .n = part->n,
        .positions = part->positions,
        .state = part->replay->options.numerics.state,
        .errors = part->errors,
        .founded = part->founded,
        .bound = part->bound,
        .left_out = why_left_out(part, reason, sizeof reason)};
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
    *result = (struct rp_replay_layer){.layer = -1, .verdict = RP_SKIP};
    if (part != RP_PART_EMB && part != RP_PART_POST_NORM && part != RP_PART_LOGITS)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1,
                       "only emb, post_norm and logits stand outside the layers");
    enum rp_status status = part_open(&of, replay, part, err);
    if (status != RP_OK)
        return status;
    if (of.n > 0 && !undecodable(&of))
        status = measure(&of, err);
    if (status == RP_OK && of.dumped.info)
        status = judge(&of, result, err);
    part_close(&of);
    return status;
}

enum rp_status rp_replay_part_rows(struct rp_replay *replay, const struct rp_replay_slot *slot,
                                   const struct rp_replay_variant *variant, float *rows,
                                   struct rp_error *err)
{
    struct part part;
    enum rp_status status = part_open(&part, replay, slot->part, err);
    if (status != RP_OK)
        return status;
    if (part.dumped.err.code != RP_OK) { /* it was read before, and is not the same any more */
        *err = part.dumped.err;
        part_close(&part);
        return err->code;
    }
    float *all = new_rows(&part, err);
    status = !all ? RP_ERR_MEMORY : part.n > 0 ? compute(&part, variant, all, err) : RP_OK;
    for (size_t i = 0, row = 0; i < slot->n_positions && status == RP_OK; i++) {
        while (row + 1 < part.n && part.positions[row] < slot->positions[i])
            row++;
        memcpy(rows + i * part.dim, all + row * part.dim, part.dim * sizeof *rows);
    }
    free(all);
    part_close(&part);
    return status;
}
