/* What a layer remembers of earlier positions: a KV cache, or the states of a gated DeltaNet.
 * The operations read and write it; this only makes it and guards its positions. */
#include <stdlib.h>
#include <string.h>

#include "model/model_internal.h"

static enum rp_status open_kv_cache(const struct rp_model_config *config,
                                    struct rp_layer_state *state, struct rp_error *err)
{
    state->kv_dim = config->n_kv_heads * config->head_dim;
    enum rp_status status = rp_float_alloc(state->capacity, state->kv_dim, &state->keys, err);
    if (status == RP_OK)
        status = rp_float_alloc(state->capacity, state->kv_dim, &state->values, err);
    return status;
}

static enum rp_status open_delta_net(const struct rp_model_config *config,
                                     struct rp_layer_state *state, struct rp_error *err)
{
    size_t n_channels = rp_buffer_width(config, RP_BUFFER_QKV);
    size_t n_rows = config->n_linear_v_heads * config->linear_head_dim;
    enum rp_status status = rp_float_alloc(config->conv_kernel - 1, n_channels, &state->conv, err);
    if (status == RP_OK)
        status = rp_float_alloc(n_rows, config->linear_head_dim, &state->recurrent, err);
    return status;
}

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
    state->kind = config->layer_kinds[layer];
    if (state->kind == RP_LAYER_LINEAR_ATTENTION)
        status = open_delta_net(config, state, err);
    else
        status = open_kv_cache(config, state, err);
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
    free(state->conv);
    free(state->recurrent);
    free(state);
}

enum rp_status rp_layer_state_check(const struct rp_layer_state *state, size_t n,
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

void rp_layer_state_append(struct rp_layer_state *state, size_t n, const int64_t *positions)
{
    memcpy(state->positions + state->n_used, positions, n * sizeof *positions);
    state->n_used += n;
}
