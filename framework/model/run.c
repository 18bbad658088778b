/* What stands before and after the layers, and the run over all of them.
 * A layer itself is in forward.c. */
#include <stdlib.h>

#include "weights/gguf_internal.h"
#include "model/model_internal.h"

#define OUTPUT_BLOCK_ROWS 1024 /* of the output matrix in memory at a time: 4 MiB at 1024 columns */
#define LOGITS_POSITIONS 64    /* in memory at a time: 39 MB with 150,000 tokens */

static const struct rp_ops *ops_of(const struct rp_forward *forward)
{
    return forward->ops ? forward->ops : rp_ops_default();
}

enum rp_status rp_model_embed(const struct rp_forward *forward, size_t n, const int64_t *positions,
                              const int32_t *tokens, float *hidden, struct rp_error *err)
{
    const struct rp_model *model = forward->model;
    const struct rp_ops *ops = ops_of(forward);
    struct rp_site site = rp_site_make(forward, -1, n, positions, err);
    struct rp_embed args = {.gguf = model->gguf,
                            .table = model->token_embd,
                            .tokens = tokens,
                            .scale = model->config.embedding_scale,
                            .y = hidden};
    for (size_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || (size_t)tokens[i] >= model->config.vocab_size)
            return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1,
                           "token %zu is %ld, outside the vocabulary of %zu", i, (long)tokens[i],
                           model->config.vocab_size);
    }
    enum rp_status status = ops->embed(ops->context, &site, &args);
    rp_gguf_forget_rows(model->gguf, args.table, 0, args.table->n_rows);
    if (status != RP_OK)
        return status;
    return rp_tap_emit(forward, RP_PART_EMB, -1, n, positions, model->config.hidden_size, hidden,
                       err);
}

enum rp_status rp_model_final_norm(const struct rp_forward *forward, size_t n,
                                   const int64_t *positions, float *hidden, struct rp_error *err)
{
    const struct rp_model *model = forward->model;
    const struct rp_ops *ops = ops_of(forward);
    struct rp_site site = rp_site_make(forward, -1, n, positions, err);
    struct rp_rms_norm args = {.which = RP_OUTPUT_NORM,
                               .weight = model->output_norm,
                               .eps = model->config.rms_norm_eps,
                               .n_rows = n,
                               .dim = model->config.hidden_size,
                               .x = hidden,
                               .y = hidden};
    enum rp_status status = ops->rms_norm(ops->context, &site, &args);
    if (status != RP_OK)
        return status;
    return rp_tap_emit(forward, RP_PART_POST_NORM, -1, n, positions, args.dim, hidden, err);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Some rows of the output matrix, and what they are read for. */
struct output_block {
    const struct rp_forward *forward;
    size_t n;                 /* positions */
    const int64_t *positions; /* [n] */
    size_t chunk;             /* positions per call */
    const float *normed;      /* [n][hidden_size] */
    float *weight;            /* [OUTPUT_BLOCK_ROWS][hidden_size], owned; then their minima */
    size_t first, n_rows;     /* those in weight */
};

static enum rp_status open_block(struct output_block *block, struct rp_error *err)
{
    const struct rp_model_config *config = &block->forward->model->config;
    if (block->chunk == 0)
        block->chunk = block->n;
    return rp_float_alloc(smaller(OUTPUT_BLOCK_ROWS, config->vocab_size),
                          config->hidden_size + config->hidden_size / 32, &block->weight, err);
}

/* y [n][n_rows], rows y_stride apart, from rows first .. first + n_rows - 1 of the output matrix. */
static enum rp_status run_block(struct output_block *block, size_t first,
                                float *y, /* NOLINT(readability-non-const-parameter) */
                                size_t y_stride, struct rp_error *err)
{
    const struct rp_model *model = block->forward->model;
    const struct rp_ops *ops = ops_of(block->forward);
    const size_t dim = model->config.hidden_size;
    block->first = first;
    block->n_rows = smaller(OUTPUT_BLOCK_ROWS, model->config.vocab_size - first);
    float *minima =
        rp_gguf_type_has_minima(model->output->type) ? block->weight + block->n_rows * dim : NULL;
    const struct rp_weight loaded = {.data = block->weight,
                                     .n_out = block->n_rows,
                                     .n_in = dim,
                                     .type = model->output->type,
                                     .minima = minima};
    enum rp_status status =
        rp_gguf_rows(model->gguf, model->output, first, block->n_rows, block->weight, err);
    if (status == RP_OK && minima)
        rp_gguf_minima(model->output, first, block->n_rows, minima);
    rp_gguf_forget_rows(model->gguf, model->output, first, block->n_rows);
    for (size_t p = 0; p < block->n && status == RP_OK; p += block->chunk) {
        struct rp_site site = rp_site_make(block->forward, -1, smaller(block->chunk, block->n - p),
                                           block->positions + p, err);
        struct rp_linear args = {.which = RP_OUTPUT,
                                 .type = loaded.type,
                                 .weight = loaded.data,
                                 .loaded = &loaded,
                                 .n_out = block->n_rows,
                                 .n_in = dim,
                                 .first_out = first,
                                 .softcap = model->config.logits_softcap,
                                 .x = block->normed + p * dim,
                                 .y = y + p * y_stride,
                                 .y_stride = y_stride};
        status = ops->linear(ops->context, &site, &args);
    }
    return status;
}

enum rp_status rp_model_logits(const struct rp_forward *forward, size_t n, const int64_t *positions,
                               size_t chunk, const float *normed, float *logits,
                               struct rp_error *err)
{
    const size_t vocab = forward->model->config.vocab_size;
    struct output_block block = {
        .forward = forward, .n = n, .positions = positions, .chunk = chunk, .normed = normed};
    enum rp_status status = open_block(&block, err);
    for (size_t row = 0; row < vocab && status == RP_OK; row += block.n_rows)
        status = run_block(&block, row, logits + row, vocab, err);
    for (size_t p = 0; p < n && status == RP_OK; p += block.chunk)
        status = rp_tap_emit(forward, RP_PART_LOGITS, -1, smaller(block.chunk, n - p),
                             positions + p, vocab, logits + p * vocab, err);
    free(block.weight);
    return status;
}

enum rp_status rp_model_logits_by_block(const struct rp_forward *forward, size_t n,
                                        const int64_t *positions, const float *normed,
                                        rp_logits_block_fn *take, void *context,
                                        struct rp_error *err)
{
    const size_t vocab = forward->model->config.vocab_size;
    struct output_block block = {
        .forward = forward, .n = n, .positions = positions, .normed = normed};
    float *y = NULL;
    enum rp_status status = open_block(&block, err);
    if (status == RP_OK)
        status = rp_float_alloc(n, smaller(OUTPUT_BLOCK_ROWS, vocab), &y, err);
    for (size_t row = 0; row < vocab && status == RP_OK; row += block.n_rows) {
        status = run_block(&block, row, y, smaller(OUTPUT_BLOCK_ROWS, vocab - row), err);
        if (status == RP_OK)
            take(context, row, block.n_rows, y);
    }
    free(y);
    free(block.weight);
    return status;
}

static enum rp_status run_layer(const struct rp_forward *forward, size_t layer, size_t n,
                                const int64_t *positions, size_t chunk, float *hidden,
                                struct rp_error *err)
{
    size_t dim = forward->model->config.hidden_size;
    struct rp_layer weights = {.owned = NULL};
    struct rp_layer_state *state = NULL;
    enum rp_status status = rp_layer_check_decodable(forward->model, layer, err);
    if (status == RP_OK)
        status = rp_layer_load(forward->model, layer, &weights, err);
    if (status == RP_OK)
        status = rp_layer_state_open(forward->model, layer, n, &state, err);
    for (size_t p = 0; p < n && status == RP_OK; p += chunk)
        status = rp_layer_forward(forward, layer, &weights, state, smaller(chunk, n - p),
                                  positions + p, hidden + p * dim, err);
    rp_layer_state_close(state);
    rp_layer_free(&weights);
    return status;
}

/* hidden [n][hidden_size], already normed; all of it, LOGITS_POSITIONS at a time, which is a
 * multiple of chunk where chunk is smaller. */
static enum rp_status run_logits(const struct rp_forward *forward, size_t n,
                                 const int64_t *positions, size_t chunk, const float *normed,
                                 struct rp_error *err)
{
    const struct rp_model_config *config = &forward->model->config;
    size_t group = chunk < LOGITS_POSITIONS ? LOGITS_POSITIONS / chunk * chunk : LOGITS_POSITIONS;
    float *logits;
    enum rp_status status = rp_float_alloc(smaller(group, n), config->vocab_size, &logits, err);
    for (size_t p = 0; p < n && status == RP_OK; p += group)
        status = rp_model_logits(forward, smaller(group, n - p), positions + p, chunk,
                                 normed + p * config->hidden_size, logits, err);
    free(logits);
    return status;
}

enum rp_status rp_model_run(const struct rp_model *model, const struct rp_run *run,
                            struct rp_error *err)
{
    size_t n = run->n_tokens, dim = model->config.hidden_size;
    size_t chunk = run->mode == RP_MODE_PER_TOKEN ? 1 : run->chunk ? smaller(run->chunk, n) : n;
    struct rp_forward forward = {.model = model,
                                 .ops = run->ops,
                                 .mode = run->mode,
                                 .sequence_length = (size_t)run->first_position + n,
                                 .tap = run->tap,
                                 .tap_context = run->tap_context};
    int64_t *positions = NULL;
    float *hidden = NULL;
    if (n == 0)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "there are no tokens to run");
    enum rp_status status = rp_float_alloc(n, dim, &hidden, err);
    if (status != RP_OK)
        return status;
    positions = calloc(n, sizeof *positions);
    if (!positions) {
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
        goto done;
    }
    for (size_t i = 0; i < n; i++)
        positions[i] = run->first_position + (int64_t)i;
    for (size_t p = 0; p < n && status == RP_OK; p += chunk)
        status = rp_model_embed(&forward, smaller(chunk, n - p), positions + p, run->tokens + p,
                                hidden + p * dim, err);
    for (size_t layer = 0; layer < model->config.n_layers && status == RP_OK; layer++)
        status = run_layer(&forward, layer, n, positions, chunk, hidden, err);
    for (size_t p = 0; p < n && status == RP_OK; p += chunk)
        status = rp_model_final_norm(&forward, smaller(chunk, n - p), positions + p,
                                     hidden + p * dim, err);
    if (status == RP_OK)
        status = run_logits(&forward, n, positions, chunk, hidden, err);
done:
    free(positions);
    free(hidden);
    return status;
}
