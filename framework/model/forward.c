/* One layer: runs the steps of its plan over some positions, through the operations.
 * The operations' arithmetic is in operations/, their order in architectures/. */
#include <math.h>
#include <stdlib.h>

#include "architectures/hf_order.h"
#include "model/pass.h"

#define L2_NORM_EPS 1e-6f /* HF's l2norm has it as a constant */

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

/* The tap may overwrite rows. */
enum rp_status rp_tap_emit(const struct rp_forward *forward, enum rp_slot_part part, int layer,
                           size_t n, const int64_t *positions, size_t dim,
                           float *rows, /* NOLINT(readability-non-const-parameter) */
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

/* The buffer as the slot: in HF's order, where its own is another. */
static enum rp_status run_tap(struct rp_pass *pass, const struct rp_step *step)
{
    const struct rp_site *site = &pass->site;
    const struct rp_model_config *config = site->config;
    const size_t n = site->n_positions, dim = rp_buffer_width(config, step->in);
    float *own = pass->buffers[step->in], *rows;
    if (!pass->forward->tap)
        return RP_OK;
    if (!rp_hf_order_differs(config, config->layer_kinds[site->layer], step->part))
        return rp_tap_emit(pass->forward, step->part, site->layer, n, site->positions, dim, own,
                           site->err);
    enum rp_status status = rp_float_alloc(n, dim, &rows, site->err);
    if (status != RP_OK)
        return status;
    rp_hf_order_from_own(config, step->part, n, dim, own, rows);
    status = rp_tap_emit(pass->forward, step->part, site->layer, n, site->positions, dim, rows,
                         site->err);
    rp_hf_order_to_own(config, step->part, n, dim, rows, own);
    free(rows);
    return status;
}

static enum rp_status run_rms_norm(struct rp_pass *pass, const struct rp_step *step)
{
    const struct rp_model_config *config = pass->site.config;
    const struct rp_weight *weight = &pass->layer->weights[step->which];
    struct rp_rms_norm args = {
        .which = step->which,
        .weight = weight->data,
        .eps = rp_norm_eps(config, step->which),
        .n_rows = pass->site.n_positions * (rp_buffer_width(config, step->in) / weight->n_in),
        .dim = weight->n_in,
        .x = pass->buffers[step->in],
        .y = pass->buffers[step->out],
    };
    return pass->ops->rms_norm(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_linear(struct rp_pass *pass, const struct rp_step *step)
{
    const struct rp_weight *weight = &pass->layer->weights[step->which];
    const enum rp_weight_id bias = step->has_bias ? rp_bias_of(step->which) : RP_N_WEIGHTS;
    struct rp_linear args = {
        .which = step->which,
        .type = weight->type,
        .weight = weight->data,
        .loaded = weight,
        .bias = bias < RP_N_LAYER_WEIGHTS ? pass->layer->weights[bias].data : NULL,
        .n_out = weight->n_out,
        .n_in = weight->n_in,
        .x = pass->buffers[step->in],
        .y = pass->buffers[step->out],
        .y_stride = weight->n_out,
    };
    return pass->ops->linear(pass->ops->context, &pass->site, &args);
}

/* Latent attention's one key is rotated whole. */
static size_t rope_head_dim(const struct rp_model_config *config, const struct rp_step *step)
{
    if (config->kv_lora_rank == 0)
        return config->head_dim;
    return step->in == RP_BUFFER_K_ROPE ? config->n_rot : config->nope_dim + config->n_rot;
}

static enum rp_status run_rope(struct rp_pass *pass, const struct rp_step *step)
{
    const struct rp_model_config *config = pass->site.config;
    const size_t head_dim = rope_head_dim(config, step);
    const size_t n = pass->site.n_positions;
    const size_t so_far = n > 0 ? (size_t)pass->site.positions[n - 1] + 1 : 0;
    const size_t length = pass->forward->sequence_length;
    struct rp_rope args = {
        .which = step->which,
        .ordering = config->rope_ordering,
        .theta = rp_site_rope_theta(&pass->site),
        .freq_factors =
            rp_model_rope_factors(pass->forward->model, config->layer_kinds[pass->site.layer],
                                  length > 0 ? length : so_far),
        .attention_factor = rp_site_attention_factor(&pass->site),
        .first = config->kv_lora_rank > 0 ? head_dim - config->n_rot : 0,
        .n_rot = config->n_rot,
        .n_heads = rp_buffer_width(config, step->in) / head_dim,
        .head_dim = head_dim,
        .positions = pass->site.positions,
        .x = pass->buffers[step->in],
    };
    return pass->ops->rope(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_kv_store(struct rp_pass *pass)
{
    struct rp_layer_state *state = pass->state;
    size_t first = state->n_used - pass->site.n_positions; /* this call's own are appended */
    struct rp_kv_store args = {
        .dim = state->kv_dim,
        .k = pass->buffers[RP_BUFFER_K],
        .v = pass->buffers[RP_BUFFER_V],
        .keys = state->keys + first * state->kv_dim,
        .values = state->values + first * state->kv_dim,
    };
    return pass->ops->kv_store(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_attention(struct rp_pass *pass, const struct rp_step *step)
{
    const struct rp_model_config *config = pass->site.config;
    struct rp_attention args = {
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .head_dim = config->head_dim,
        .scale = config->attention_scale,
        .softcap = config->attention_softcap,
        .is_causal = true,
        .sinks = step->which < RP_N_LAYER_WEIGHTS ? pass->layer->weights[step->which].data : NULL,
        .window = config->layer_kinds[pass->site.layer] == RP_LAYER_SLIDING_ATTENTION
                      ? config->window
                      : 0,
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

static enum rp_status run_split_gate(struct rp_pass *pass, const struct rp_step *step)
{
    struct rp_split_gate args = {
        .n_heads = pass->site.config->n_heads,
        .head_dim = pass->site.config->head_dim,
        .x = pass->buffers[step->in],
        .q = pass->buffers[step->out],
        .gate = pass->buffers[RP_BUFFER_HEADS_GATE],
    };
    return pass->ops->split_gate(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_attention_gate(struct rp_pass *pass, const struct rp_step *step)
{
    struct rp_attention_gate args = {
        .dim = rp_buffer_width(pass->site.config, step->out),
        .gate = pass->buffers[step->in],
        .y = pass->buffers[step->out],
    };
    return pass->ops->attention_gate(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_causal_conv1d(struct rp_pass *pass, const struct rp_step *step)
{
    const struct rp_weight *weight = &pass->layer->weights[step->which];
    struct rp_causal_conv1d args = {
        .n_channels = weight->n_out,
        .kernel = weight->n_in,
        .weight = weight->data,
        .has_silu = true,
        .state = pass->state->conv,
        .x = pass->buffers[step->in],
        .y = pass->buffers[step->out],
    };
    return pass->ops->causal_conv1d(pass->ops->context, &pass->site, &args);
}

/* The convolved row is Q, K and V side by side. */
static enum rp_status run_l2_norm(struct rp_pass *pass, const struct rp_step *step)
{
    const struct rp_model_config *config = pass->site.config;
    size_t k_dim = config->n_linear_k_heads * config->linear_head_dim;
    struct rp_l2_norm args = {
        .which = step->which,
        .eps = L2_NORM_EPS,
        .n_heads = config->n_linear_k_heads,
        .head_dim = config->linear_head_dim,
        .x = pass->buffers[step->in] + (step->which == RP_ATTN_Q ? 0 : k_dim),
        .x_stride = rp_buffer_width(config, step->in),
    };
    return pass->ops->l2_norm(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_delta_decay(struct rp_pass *pass, const struct rp_step *step)
{
    struct rp_delta_decay args = {
        .n_heads = pass->site.config->n_linear_v_heads,
        .dt = pass->layer->weights[RP_SSM_DT].data,
        .a = pass->layer->weights[RP_SSM_A].data,
        .y = pass->buffers[step->out],
    };
    return pass->ops->delta_decay(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_delta_beta(struct rp_pass *pass, const struct rp_step *step)
{
    struct rp_delta_beta args = {
        .n_heads = pass->site.config->n_linear_v_heads,
        .y = pass->buffers[step->out],
    };
    return pass->ops->delta_beta(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_delta_rule(struct rp_pass *pass, const struct rp_step *step)
{
    const struct rp_model_config *config = pass->site.config;
    size_t k_dim = config->n_linear_k_heads * config->linear_head_dim;
    const float *qkv = pass->buffers[step->in];
    struct rp_delta_rule args = {
        .n_k_heads = config->n_linear_k_heads,
        .n_v_heads = config->n_linear_v_heads,
        .head_dim = config->linear_head_dim,
        .scale = 1.0f / sqrtf((float)config->linear_head_dim),
        .q = qkv,
        .k = qkv + k_dim,
        .v = qkv + 2 * k_dim,
        .qkv_stride = rp_buffer_width(config, step->in),
        .decay = pass->buffers[RP_BUFFER_DECAY],
        .beta = pass->buffers[RP_BUFFER_BETA],
        .state = pass->state->recurrent,
        .y = pass->buffers[step->out],
    };
    return pass->ops->delta_rule(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_gated_norm(struct rp_pass *pass, const struct rp_step *step)
{
    const struct rp_model_config *config = pass->site.config;
    struct rp_gated_norm args = {
        .weight = pass->layer->weights[step->which].data,
        .eps = config->rms_norm_eps,
        .n_rows = pass->site.n_positions * config->n_linear_v_heads,
        .dim = config->linear_head_dim,
        .gate = pass->buffers[RP_BUFFER_DELTA_GATE],
        .x = pass->buffers[step->in],
        .y = pass->buffers[step->out],
    };
    return pass->ops->gated_norm(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_ffn_activation(struct rp_pass *pass, const struct rp_step *step)
{
    struct rp_ffn_activation args = {
        .function = pass->site.config->activation,
        .dim = rp_buffer_width(pass->site.config, step->in),
        .gate = pass->buffers[step->in],
        .up = pass->buffers[rp_up_of(step->in)],
        .y = pass->buffers[step->out],
    };
    return pass->ops->ffn_activation(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_residual_add(struct rp_pass *pass, const struct rp_step *step)
{
    struct rp_residual_add args = {
        .which = step->which,
        .dim = pass->site.config->hidden_size,
        .branch = pass->buffers[step->in],
        .hidden = pass->buffers[step->out],
    };
    return pass->ops->residual_add(pass->ops->context, &pass->site, &args);
}

static enum rp_status run_step(struct rp_pass *pass, const struct rp_step *step)
{
    switch (step->kind) {
    case RP_STEP_TAP: return run_tap(pass, step);
    case RP_STEP_RMS_NORM: return run_rms_norm(pass, step);
    case RP_STEP_LINEAR: return run_linear(pass, step);
    case RP_STEP_HEAD_LINEAR: return rp_run_head_linear(pass, step);
    case RP_STEP_SPLIT_LATENT: return rp_run_split_latent(pass);
    case RP_STEP_JOIN_QUERY: return rp_run_join_query(pass);
    case RP_STEP_JOIN_KEY: return rp_run_join_key(pass, step);
    case RP_STEP_NARROW_HEADS: return rp_run_narrow_heads(pass, step);
    case RP_STEP_ROPE: return run_rope(pass, step);
    case RP_STEP_KV_STORE: return run_kv_store(pass);
    case RP_STEP_ATTENTION: return run_attention(pass, step);
    case RP_STEP_SPLIT_GATE: return run_split_gate(pass, step);
    case RP_STEP_ATTENTION_GATE: return run_attention_gate(pass, step);
    case RP_STEP_CAUSAL_CONV1D: return run_causal_conv1d(pass, step);
    case RP_STEP_L2_NORM: return run_l2_norm(pass, step);
    case RP_STEP_DELTA_DECAY: return run_delta_decay(pass, step);
    case RP_STEP_DELTA_BETA: return run_delta_beta(pass, step);
    case RP_STEP_DELTA_RULE: return run_delta_rule(pass, step);
    case RP_STEP_GATED_NORM: return run_gated_norm(pass, step);
    case RP_STEP_FFN_ACTIVATION: return run_ffn_activation(pass, step);
    case RP_STEP_CHOOSE_EXPERTS: return rp_run_choose_experts(pass, step);
    case RP_STEP_WEIGH_EXPERTS: return rp_run_weigh_experts(pass, step);
    case RP_STEP_EXPERTS_LINEAR: return rp_run_experts_linear(pass, step);
    case RP_STEP_SUM_EXPERTS: return rp_run_sum_experts(pass, step);
    case RP_STEP_ADD_SHARED: return rp_run_add_shared(pass, step);
    case RP_STEP_RESIDUAL_ADD: return run_residual_add(pass, step);
    }
    return RP_OK;
}

/* The weights and the state may be another layer's, but not one of another kind. */
static enum rp_status check_kind(const struct rp_layer_plan *plan, enum rp_layer_kind kind,
                                 size_t layer, const struct rp_layer *weights,
                                 const struct rp_layer_state *state, struct rp_error *err)
{
    if (state->kind != kind)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "the state is not one of layer %zu's kind",
                       layer);
    for (unsigned i = 0; i < RP_N_LAYER_WEIGHTS; i++) {
        enum rp_weight_id which = (enum rp_weight_id)i;
        if (rp_layer_plan_uses(plan, which) && !weights->weights[i].data &&
            !weights->weights[i].stack && !rp_weight_is_optional(which))
            return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1,
                           "the weights have no '%s', which layer %zu needs", rp_weight_name(which),
                           layer);
    }
    return RP_OK;
}

enum rp_status rp_layer_forward(const struct rp_forward *forward, size_t layer,
                                const struct rp_layer *weights, struct rp_layer_state *state,
                                size_t n, const int64_t *positions, float *hidden,
                                struct rp_error *err)
{
    const struct rp_model_config own = rp_layer_config(&forward->model->config, layer);
    const struct rp_model_config *config = &own;
    const struct rp_layer_plan *plan;
    size_t width = 0;
    float *scratch = NULL;
    struct rp_pass pass = {.forward = forward,
                           .ops = forward->ops ? forward->ops : rp_ops_default(),
                           .layer = weights,
                           .state = state,
                           .site = rp_site_make(forward, (int)layer, n, positions, err)};
    enum rp_status status;
    if (layer >= config->n_layers)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "layer %zu of a model with %zu", layer,
                       config->n_layers);
    pass.site.config = config;
    plan = rp_layer_plan_of(forward->model, layer);
    status = check_kind(plan, config->layer_kinds[layer], layer, weights, state, err);
    if (status == RP_OK)
        status = rp_layer_state_check(state, n, positions, err);
    if (status != RP_OK)
        return status;
    for (unsigned i = RP_BUFFER_HIDDEN + 1; i < RP_N_BUFFERS; i++)
        width += rp_buffer_width(config, (enum rp_buffer)i);
    if (n <= SIZE_MAX / sizeof *scratch / (width + 1))
        scratch = malloc((n * width + 1) * sizeof *scratch); /* operations need no zeros */
    if (!scratch)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
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
    rp_layer_state_append(state, n, positions);
    for (size_t i = 0; i < plan->n_steps && status == RP_OK; i++) {
        pass.site.step = i;
        if (!forward->steps || forward->steps[i])
            status = run_step(&pass, &plan->steps[i]);
    }
done:
    free(pass.scores);
    free(scratch);
    return status;
}
