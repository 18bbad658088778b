/* One layer: runs the steps of its architecture over some positions, through the operations.
 * The operations' arithmetic is in ops.c, their order in architecture.c. */
#include <stdlib.h>
#include <string.h>

#include "model/model_internal.h"

struct rp_layer_state {
    size_t capacity, n_used;
    size_t dim;         /* n_kv_heads * head_dim */
    int64_t *positions; /* [capacity], the first n_used are set */
    float *keys;        /* [capacity][dim] */
    float *values;      /* [capacity][dim] */
};

/* One call of rp_layer_forward. */
struct pass {
    const struct rp_forward *forward;
    const struct rp_ops *ops;
    const struct rp_layer *layer;
    struct rp_layer_state *state;
    struct rp_site site;
    float *buffers[RP_N_BUFFERS]; /* [n_positions][rp_buffer_width] each */
    float *scores;                /* [n_used + n_positions] */
};

enum rp_status rp_layer_state_open(const struct rp_model *model, size_t layer, size_t capacity,
                                   struct rp_layer_state **out, struct rp_error *err)
{
    const struct rp_model_config *config = &model->config;
    enum rp_status status;
    if (layer >= config->n_layers)
        return rp_fail(err, RP_ERR_ARGUMENT, rp_gguf_path(model->gguf), -1,
                       "layer %zu of a model with %zu", layer, config->n_layers);
    struct rp_layer_state *state = calloc(1, sizeof *state);
    if (!state)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for a layer's state");
    state->capacity = capacity;
    state->dim = config->n_kv_heads * config->head_dim;
    status = rp_float_alloc(capacity, state->dim, &state->keys, err);
    if (status == RP_OK)
        status = rp_float_alloc(capacity, state->dim, &state->values, err);
    if (status == RP_OK) {
        state->positions = calloc(capacity + 1, sizeof *state->positions);
        if (!state->positions)
            status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", capacity);
    }
    if (status == RP_OK)
        *out = state;
    else
        rp_layer_state_close(state);
    return status;
}

void rp_layer_state_close(struct rp_layer_state *state)
{
    if (!state)
        return;
    free(state->positions);
    free(state->values);
    free(state->keys);
    free(state);
}

struct rp_site rp_site_make(const struct rp_forward *forward, int layer, size_t n,
                            const int64_t *positions, struct rp_error *err)
{
    return (struct rp_site){.config = &forward->model->config,
                            .layer = layer,
                            .mode = forward->mode,
                            .n_positions = n,
                            .positions = positions,
                            .err = err};
}

enum rp_status rp_tap_emit(const struct rp_forward *forward, enum rp_slot_part part, int layer,
                           size_t n, const int64_t *positions, size_t dim, const float *rows,
                           struct rp_error *err)
{
    char slot[RP_SLOT_NAME_SIZE];
    struct rp_tap tap = {.slot = slot,
                         .part = part,
                         .layer = layer,
                         .n_positions = n,
                         .positions = positions,
                         .dim = dim,
                         .rows = rows};
    if (!forward->tap)
        return RP_OK;
    rp_slot_name(part, layer, slot);
    return forward->tap(forward->tap_context, &tap, err);
}

static enum rp_status run_rms_norm(struct pass *pass, const struct rp_step *step)
{
    const struct rp_model_config *config = pass->site.config;
    const struct rp_weight *weight = &pass->layer->weights[step->which];
    struct rp_rms_norm args = {
        .which = step->which,
        .weight = weight->data,
        .eps = config->rms_norm_eps,
        .n_rows = pass->site.n_positions * (rp_buffer_width(config, step->in) / weight->n_in),
        .dim = weight->n_in,
        .x = pass->buffers[step->in],
        .y = pass->buffers[step->out],
    };
    return pass->ops->rms_norm(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_linear(struct pass *pass, const struct rp_step *step)
{
    const struct rp_weight *weight = &pass->layer->weights[step->which];
    struct rp_linear args = {
        .which = step->which,
        .type = weight->type,
        .weight = weight->data,
        .n_out = weight->n_out,
        .n_in = weight->n_in,
        .x = pass->buffers[step->in],
        .y = pass->buffers[step->out],
        .y_stride = weight->n_out,
    };
    return pass->ops->linear(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_rope(struct pass *pass, const struct rp_step *step)
{
    const struct rp_model_config *config = pass->site.config;
    struct rp_rope args = {
        .which = step->which,
        .ordering = config->rope_ordering,
        .theta = config->rope_theta,
        .freq_factors = pass->forward->model->rope_freqs,
        .n_rot = config->n_rot,
        .n_heads = rp_buffer_width(config, step->in) / config->head_dim,
        .head_dim = config->head_dim,
        .positions = pass->site.positions,
        .x = pass->buffers[step->in],
    };
    return pass->ops->rope(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_kv_store(struct pass *pass)
{
    struct rp_layer_state *state = pass->state;
    size_t n = pass->site.n_positions;
    struct rp_kv_store args = {
        .dim = state->dim,
        .k = pass->buffers[RP_BUFFER_K],
        .v = pass->buffers[RP_BUFFER_V],
        .keys = state->keys + state->n_used * state->dim,
        .values = state->values + state->n_used * state->dim,
    };
    memcpy(state->positions + state->n_used, pass->site.positions, n * sizeof *state->positions);
    state->n_used += n;
    return pass->ops->kv_store(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_attention(struct pass *pass, const struct rp_step *step)
{
    const struct rp_model_config *config = pass->site.config;
    struct rp_attention args = {
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .head_dim = config->head_dim,
        .scale = config->attention_scale,
        .is_causal = true,
        .q = pass->buffers[step->in],
        .n_keys = pass->state->n_used,
        .keys = pass->state->keys,
        .values = pass->state->values,
        .key_positions = pass->state->positions,
        .scores = pass->scores,
        .y = pass->buffers[step->out],
    };
    return pass->ops->attention(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_ffn_activation(struct pass *pass, const struct rp_step *step)
{
    struct rp_ffn_activation args = {
        .dim = pass->site.config->intermediate_size,
        .gate = pass->buffers[RP_BUFFER_GATE],
        .up = pass->buffers[RP_BUFFER_UP],
        .y = pass->buffers[step->out],
    };
    return pass->ops->ffn_activation(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_residual_add(struct pass *pass, const struct rp_step *step)
{
    struct rp_residual_add args = {
        .which = step->which,
        .dim = pass->site.config->hidden_size,
        .branch = pass->buffers[step->in],
        .hidden = pass->buffers[step->out],
    };
    return pass->ops->residual_add(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_step(struct pass *pass, const struct rp_step *step)
{
    const struct rp_site *site = &pass->site;
    switch (step->kind) {
    case RP_STEP_TAP:
        return rp_tap_emit(pass->forward, step->part, site->layer, site->n_positions,
                           site->positions, rp_buffer_width(site->config, step->in),
                           pass->buffers[step->in], site->err);
    case RP_STEP_RMS_NORM: return run_rms_norm(pass, step);
    case RP_STEP_LINEAR: return run_linear(pass, step);
    case RP_STEP_ROPE: return run_rope(pass, step);
    case RP_STEP_KV_STORE: return run_kv_store(pass);
    case RP_STEP_ATTENTION: return run_attention(pass, step);
    case RP_STEP_FFN_ACTIVATION: return run_ffn_activation(pass, step);
    case RP_STEP_RESIDUAL_ADD: return run_residual_add(pass, step);
    }
    return RP_OK;
}

static enum rp_status check_positions(const struct rp_layer_state *state, size_t n,
                                      const int64_t *positions, struct rp_error *err)
{
    if (n == 0 || n > state->capacity - state->n_used)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1,
                       "%zu positions for a state that holds %zu of %zu", n, state->n_used,
                       state->capacity);
    for (size_t i = 0; i < n; i++) {
        bool has_before = i > 0 || state->n_used > 0;
        int64_t before = i > 0 ? positions[i - 1] : state->positions[state->n_used - has_before];
        if (positions[i] < 0 || (has_before && positions[i] <= before))
            return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1,
                           "position %lld does not follow the one before it",
                           (long long)positions[i]);
    }
    return RP_OK;
}

enum rp_status rp_layer_forward(const struct rp_forward *forward, size_t layer,
                                const struct rp_layer *weights, struct rp_layer_state *state,
                                size_t n, const int64_t *positions, float *hidden,
                                struct rp_error *err)
{
    const struct rp_model_config *config = &forward->model->config;
    const struct rp_architecture *architecture = forward->model->architecture;
    size_t width = 0;
    float *scratch = NULL;
    struct pass pass = {.forward = forward,
                        .ops = forward->ops ? forward->ops : rp_ops_default(),
                        .layer = weights,
                        .state = state,
                        .site = rp_site_make(forward, (int)layer, n, positions, err)};
    enum rp_status status = check_positions(state, n, positions, err);
    if (status != RP_OK)
        return status;
    for (unsigned i = RP_BUFFER_HIDDEN + 1; i < RP_N_BUFFERS; i++)
        width += rp_buffer_width(config, (enum rp_buffer)i);
    status = rp_float_alloc(n, width, &scratch, err);
    if (status == RP_OK)
        status = rp_float_alloc(1, state->n_used + n, &pass.scores, err);
    if (status != RP_OK)
        goto done;
    pass.buffers[RP_BUFFER_HIDDEN] = hidden;
    float *at = scratch;
    for (unsigned i = RP_BUFFER_HIDDEN + 1; i < RP_N_BUFFERS; i++) {
        pass.buffers[i] = at;
        at += n * rp_buffer_width(config, (enum rp_buffer)i);
    }
    for (size_t i = 0; i < architecture->n_steps && status == RP_OK; i++)
        status = run_step(&pass, &architecture->steps[i]);
done:
    free(pass.scores);
    free(scratch);
    return status;
}
