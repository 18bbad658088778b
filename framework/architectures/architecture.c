/* See architectures/architecture.h. */
#include "architectures/architecture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct rp_architecture *const architectures[] = {
    &rp_architecture_deepseek2, &rp_architecture_deepseek3,
    &rp_architecture_gemma2,    &rp_architecture_gemma3,
    &rp_architecture_gpt_oss,   &rp_architecture_llama,
    &rp_architecture_phi3,      &rp_architecture_qwen2,
    &rp_architecture_qwen3,     &rp_architecture_qwen35,
    &rp_architecture_qwen35moe, &rp_architecture_qwen3moe,
    &rp_architecture_smollm3,   NULL,
};

const struct rp_architecture *rp_architecture_find(struct rp_gguf_string name)
{
    for (size_t i = 0; architectures[i]; i++) {
        const char *known = architectures[i]->name;
        if (strlen(known) == name.length && memcmp(known, name.data, name.length) == 0)
            return architectures[i];
    }
    return NULL;
}

const struct rp_architecture *rp_architecture_of_hf(const char *model_type)
{
    for (size_t i = 0; architectures[i]; i++)
        for (const char *const *known = architectures[i]->hf_names; *known; known++)
            if (strcmp(*known, model_type) == 0)
                return architectures[i];
    return NULL;
}

/* Adds name behind those that text has. */
static void add_name(char *text, size_t size, const char *name)
{
    const size_t used = strlen(text);
    snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "", name);
}

const char *rp_architecture_names(char *text, size_t size)
{
    text[0] = '\0';
    for (size_t i = 0; architectures[i]; i++)
        if (i == 0 || strcmp(architectures[i]->name, architectures[i - 1]->name) != 0)
            add_name(text, size, architectures[i]->name);
    return text;
}

const char *rp_architecture_hf_names(char *text, size_t size)
{
    text[0] = '\0';
    for (size_t i = 0; architectures[i]; i++)
        for (const char *const *name = architectures[i]->hf_names; *name; name++)
            add_name(text, size, *name);
    return text;
}

enum rp_buffer rp_up_of(enum rp_buffer gate)
{
    return gate == RP_BUFFER_EXPERTS_GATE  ? RP_BUFFER_EXPERTS_UP
           : gate == RP_BUFFER_SHARED_GATE ? RP_BUFFER_SHARED_UP
                                           : RP_BUFFER_UP;
}

struct rp_step_flow rp_step_flow(const struct rp_step *step)
{
    struct rp_step_flow flow = {.reads = {step->in},
                                .n_reads = 1,
                                .writes = {step->out},
                                .n_writes = 1,
                                .is_operation = true};
    switch (step->kind) {
    case RP_STEP_TAP: flow.is_operation = false; break;
    case RP_STEP_RMS_NORM:
    case RP_STEP_LINEAR:
    case RP_STEP_HEAD_LINEAR:
    case RP_STEP_ROPE:
    case RP_STEP_DELTA_DECAY:
    case RP_STEP_DELTA_BETA: break;
    case RP_STEP_CAUSAL_CONV1D: flow.reads_all = true; break;
    case RP_STEP_KV_STORE:
        flow = (struct rp_step_flow){.reads = {RP_BUFFER_K, RP_BUFFER_V},
                                     .n_reads = 2,
                                     .writes = {RP_BUFFER_CACHE},
                                     .n_writes = 1};
        break;
    case RP_STEP_ATTENTION:
        flow.reads[flow.n_reads++] = RP_BUFFER_CACHE;
        flow.reads_all = true;
        break;
    case RP_STEP_SPLIT_LATENT:
        flow.writes[flow.n_writes++] = RP_BUFFER_K_ROPE;
        flow.is_operation = false;
        break;
    case RP_STEP_JOIN_QUERY:
        flow.reads[flow.n_reads++] = RP_BUFFER_MLA_Q;
        flow.is_operation = false;
        break;
    case RP_STEP_JOIN_KEY:
        flow.reads[flow.n_reads++] = RP_BUFFER_K_ROPE;
        flow.writes[flow.n_writes++] = RP_BUFFER_V;
        flow.is_operation = false;
        break;
    case RP_STEP_NARROW_HEADS: flow.is_operation = false; break;
    case RP_STEP_SPLIT_GATE:
        flow.writes[flow.n_writes++] = RP_BUFFER_HEADS_GATE;
        flow.is_operation = false;
        break;
    case RP_STEP_L2_NORM: flow.is_operation = false; break;
    case RP_STEP_DELTA_RULE:
        flow.reads[flow.n_reads++] = RP_BUFFER_DECAY;
        flow.reads[flow.n_reads++] = RP_BUFFER_BETA;
        flow.reads_all = true;
        break;
    case RP_STEP_ATTENTION_GATE:
    case RP_STEP_RESIDUAL_ADD: flow.reads[flow.n_reads++] = step->out; break;
    case RP_STEP_GATED_NORM: flow.reads[flow.n_reads++] = RP_BUFFER_DELTA_GATE; break;
    case RP_STEP_FFN_ACTIVATION: flow.reads[flow.n_reads++] = rp_up_of(step->in); break;
    case RP_STEP_CHOOSE_EXPERTS: break;
    case RP_STEP_WEIGH_EXPERTS: flow.reads[flow.n_reads++] = RP_BUFFER_EXPERTS; break;
    case RP_STEP_EXPERTS_LINEAR:
        flow.reads[flow.n_reads++] = RP_BUFFER_EXPERTS;
        flow.is_operation = step->out != RP_BUFFER_EXPERTS_OUT; /* it is one with the sum */
        break;
    case RP_STEP_SUM_EXPERTS: flow.reads[flow.n_reads++] = RP_BUFFER_EXPERT_WEIGHTS; break;
    case RP_STEP_ADD_SHARED:
        flow.reads[flow.n_reads++] = step->out;
        if (step->which == RP_SHARED_ROUTER)
            flow.reads[flow.n_reads++] = RP_BUFFER_SHARED_ROUTER;
        break;
    }
    return flow;
}

bool rp_step_is_product(const struct rp_step *step)
{
    return step->kind == RP_STEP_LINEAR || step->kind == RP_STEP_HEAD_LINEAR ||
           step->kind == RP_STEP_EXPERTS_LINEAR;
}

bool rp_architecture_is_hybrid(const struct rp_architecture *architecture)
{
    return architecture->plans[RP_LAYER_LINEAR_ATTENTION].n_steps > 0;
}

bool rp_architecture_has_window(const struct rp_architecture *architecture)
{
    return architecture->plans[RP_LAYER_SLIDING_ATTENTION].n_steps > 0;
}

float rp_attention_scale(const struct rp_architecture *architecture,
                         const struct rp_model_config *config)
{
    const bool is_by_width = config->n_layers == architecture->layers_scaled_by_width;
    const size_t dim = is_by_width ? config->hidden_size / config->n_heads : config->head_dim;
    return 1.0f / sqrtf((float)dim);
}

/* Weights that a step reads beside its `which`. */
static bool reads_gate_vectors(const struct rp_step *step, enum rp_weight_id which)
{
    return step->kind == RP_STEP_DELTA_DECAY && (which == RP_SSM_DT || which == RP_SSM_A);
}

static bool has_weight(enum rp_step_kind kind)
{
    return kind == RP_STEP_RMS_NORM || kind == RP_STEP_LINEAR || kind == RP_STEP_HEAD_LINEAR ||
           kind == RP_STEP_CAUSAL_CONV1D || kind == RP_STEP_GATED_NORM ||
           kind == RP_STEP_EXPERTS_LINEAR || kind == RP_STEP_ATTENTION ||
           kind == RP_STEP_CHOOSE_EXPERTS;
}

bool rp_weight_is_optional(enum rp_weight_id which)
{
    return which == RP_ROUTER_CORRECTION;
}

struct rp_model_config rp_layer_config(const struct rp_model_config *config, size_t layer)
{
    struct rp_model_config own = *config;
    if (config->intermediate_sizes && layer < config->n_layers)
        own.intermediate_size = config->intermediate_sizes[layer];
    return own;
}

const struct rp_layer_plan *rp_architecture_plan(const struct rp_architecture *architecture,
                                                 const struct rp_model_config *config, size_t layer)
{
    const enum rp_layer_kind kind = config->layer_kinds[layer];
    return layer < config->n_dense_layers ? &architecture->dense_plans[kind]
                                          : &architecture->plans[kind];
}

size_t rp_weight_n_stacked(const struct rp_model_config *config, enum rp_weight_id which)
{
    return which == RP_EXPERTS_GATE || which == RP_EXPERTS_UP || which == RP_EXPERTS_DOWN
               ? config->router.n_experts
               : 0;
}

bool rp_layer_plan_uses(const struct rp_layer_plan *plan, enum rp_weight_id which)
{
    for (size_t i = 0; i < plan->n_steps; i++) {
        const struct rp_step *step = &plan->steps[i];
        if ((has_weight(step->kind) && step->which == which) || reads_gate_vectors(step, which) ||
            (step->has_bias && rp_bias_of(step->which) == which))
            return true;
    }
    return false;
}

bool rp_architecture_has_experts(const struct rp_architecture *architecture)
{
    for (size_t kind = 0; kind < RP_N_LAYER_KINDS; kind++)
        if (rp_layer_plan_uses(&architecture->plans[kind], RP_ROUTER))
            return true;
    return false;
}

bool rp_architecture_has_shared_expert(const struct rp_architecture *architecture)
{
    for (size_t kind = 0; kind < RP_N_LAYER_KINDS; kind++)
        if (rp_layer_plan_uses(&architecture->plans[kind], RP_SHARED_UP))
            return true;
    return false;
}

/* Q, K and V of the DeltaNet. */
static size_t conv_channels(const struct rp_model_config *config)
{
    return (2 * config->n_linear_k_heads + config->n_linear_v_heads) * config->linear_head_dim;
}

/* Of latent attention: all heads' queries. */
static size_t query_width(const struct rp_model_config *config)
{
    return config->n_heads * (config->nope_dim + config->n_rot);
}

size_t rp_buffer_width(const struct rp_model_config *config, enum rp_buffer buffer)
{
    size_t heads_width = config->n_heads * config->head_dim;
    switch (buffer) {
    case RP_BUFFER_Q:
    case RP_BUFFER_HEADS: return heads_width;
    case RP_BUFFER_Q_AND_GATE: return config->has_attention_gate ? 2 * heads_width : 0;
    case RP_BUFFER_HEADS_GATE: return config->has_attention_gate ? heads_width : 0;
    case RP_BUFFER_K:
    case RP_BUFFER_V: return config->n_kv_heads * config->head_dim;
    case RP_BUFFER_Q_A: return config->q_lora_rank;
    case RP_BUFFER_MLA_Q: return config->is_absorbed ? query_width(config) : 0;
    case RP_BUFFER_KV_A: return config->kv_lora_rank ? config->kv_lora_rank + config->n_rot : 0;
    case RP_BUFFER_KV_LATENT: return config->kv_lora_rank;
    case RP_BUFFER_K_ROPE: return config->kv_lora_rank ? config->n_rot : 0;
    case RP_BUFFER_KV_B:
        return config->is_absorbed ? 0 : config->n_heads * (config->nope_dim + config->v_head_dim);
    case RP_BUFFER_Q_ABSORBED:
    case RP_BUFFER_LATENTS: return config->is_absorbed ? config->n_heads * config->kv_lora_rank : 0;
    case RP_BUFFER_VALUES: return config->n_heads * config->v_head_dim;
    case RP_BUFFER_QKV:
    case RP_BUFFER_CONV_QKV: return conv_channels(config);
    case RP_BUFFER_DECAY:
    case RP_BUFFER_BETA: return config->n_linear_v_heads;
    case RP_BUFFER_DELTA_GATE:
    case RP_BUFFER_DELTA: return config->n_linear_v_heads * config->linear_head_dim;
    case RP_BUFFER_GATE:
    case RP_BUFFER_UP: return config->intermediate_size;
    case RP_BUFFER_ROUTER: return config->router.n_experts;
    case RP_BUFFER_EXPERTS:
    case RP_BUFFER_EXPERT_WEIGHTS: return config->router.n_chosen;
    case RP_BUFFER_EXPERTS_GATE:
    case RP_BUFFER_EXPERTS_UP: return config->router.n_chosen * config->expert_size;
    case RP_BUFFER_EXPERTS_OUT: return config->router.n_chosen * config->hidden_size;
    case RP_BUFFER_SHARED_ROUTER: return config->shared_expert_size > 0 ? 1 : 0;
    case RP_BUFFER_SHARED_GATE:
    case RP_BUFFER_SHARED_UP: return config->shared_expert_size;
    case RP_BUFFER_SHARED_OUT: return config->shared_expert_size > 0 ? config->hidden_size : 0;
    case RP_BUFFER_CACHE: return 0;
    default: return config->hidden_size;
    }
}

/* Of a weight that latent attention has otherwise than attention; false: it has not. */
static bool latent_shape(const struct rp_model_config *config, enum rp_weight_id which,
                         size_t *n_out, size_t *n_in)
{
    switch (which) {
    case RP_ATTN_Q: *n_out = query_width(config); return true;
    case RP_ATTN_Q_A: *n_out = config->q_lora_rank; return true;
    case RP_ATTN_Q_A_NORM: *n_in = config->q_lora_rank; return true;
    case RP_ATTN_Q_B:
        *n_out = query_width(config);
        *n_in = config->q_lora_rank;
        return true;
    case RP_ATTN_KV_A: *n_out = config->kv_lora_rank + config->n_rot; return true;
    case RP_ATTN_KV_A_NORM: *n_in = config->kv_lora_rank; return true;
    case RP_ATTN_KV_B:
        *n_out = config->n_heads * (config->nope_dim + config->v_head_dim);
        *n_in = config->kv_lora_rank;
        return true;
    case RP_ATTN_K_B:
        *n_out = config->n_heads * config->kv_lora_rank;
        *n_in = config->nope_dim;
        return true;
    case RP_ATTN_V_B:
        *n_out = config->n_heads * config->v_head_dim;
        *n_in = config->kv_lora_rank;
        return true;
    case RP_ATTN_OUTPUT:
        *n_out = config->hidden_size;
        *n_in = config->n_heads * config->v_head_dim;
        return true;
    default: return false;
    }
}

void rp_weight_shape(const struct rp_model_config *config, enum rp_weight_id which, size_t *n_out,
                     size_t *n_in)
{
    size_t heads_width = config->n_heads * config->head_dim;
    *n_out = 1;
    *n_in = config->hidden_size;
    if (config->kv_lora_rank > 0 && latent_shape(config, which, n_out, n_in))
        return;
    switch (which) {
    case RP_ATTN_Q: *n_out = config->has_attention_gate ? 2 * heads_width : heads_width; break;
    case RP_ATTN_K:
    case RP_ATTN_V: *n_out = config->n_kv_heads * config->head_dim; break;
    case RP_ATTN_Q_BIAS: *n_in = heads_width; break;
    case RP_ATTN_K_BIAS:
    case RP_ATTN_V_BIAS: *n_in = config->n_kv_heads * config->head_dim; break;
    case RP_ATTN_Q_NORM:
    case RP_ATTN_K_NORM: *n_in = config->head_dim; break;
    case RP_ATTN_OUTPUT:
        *n_out = config->hidden_size;
        *n_in = heads_width;
        break;
    case RP_ATTN_SINKS: *n_in = config->n_heads; break;
    case RP_ATTN_QKV: *n_out = conv_channels(config); break;
    case RP_ATTN_GATE: *n_out = config->n_linear_v_heads * config->linear_head_dim; break;
    case RP_SSM_CONV1D:
        *n_out = conv_channels(config);
        *n_in = config->conv_kernel;
        break;
    case RP_SSM_ALPHA:
    case RP_SSM_BETA: *n_out = config->n_linear_v_heads; break;
    case RP_SSM_DT:
    case RP_SSM_A: *n_in = config->n_linear_v_heads; break;
    case RP_SSM_NORM: *n_in = config->linear_head_dim; break;
    case RP_SSM_OUT:
        *n_out = config->hidden_size;
        *n_in = config->n_linear_v_heads * config->linear_head_dim;
        break;
    case RP_FFN_GATE:
    case RP_FFN_UP: *n_out = config->intermediate_size; break;
    case RP_FFN_DOWN:
        *n_out = config->hidden_size;
        *n_in = config->intermediate_size;
        break;
    case RP_ROUTER: *n_out = config->router.n_experts; break;
    case RP_ROUTER_BIAS:
    case RP_ROUTER_CORRECTION: *n_in = config->router.n_experts; break;
    case RP_EXPERTS_GATE:
    case RP_EXPERTS_UP: *n_out = config->expert_size; break;
    case RP_EXPERTS_DOWN:
        *n_in = config->expert_size;
        *n_out = config->hidden_size;
        break;
    case RP_EXPERTS_GATE_BIAS:
    case RP_EXPERTS_UP_BIAS:
        *n_out = config->router.n_experts;
        *n_in = config->expert_size;
        break;
    case RP_EXPERTS_DOWN_BIAS: *n_out = config->router.n_experts; break;
    case RP_SHARED_GATE:
    case RP_SHARED_UP: *n_out = config->shared_expert_size; break;
    case RP_SHARED_DOWN:
        *n_in = config->shared_expert_size;
        *n_out = config->hidden_size;
        break;
    case RP_TOKEN_EMBD:
    case RP_OUTPUT: *n_out = config->vocab_size; break;
    case RP_ROPE_FREQS:
    case RP_ROPE_FACTORS_SHORT:
    case RP_ROPE_FACTORS_LONG: *n_in = config->n_rot / 2; break;
    default: break;
    }
}

const char *rp_weight_name(enum rp_weight_id which)
{
    static const char *const names[RP_N_WEIGHTS] = {
        [RP_ATTN_NORM] = "attn_norm",
        [RP_ATTN_Q] = "attn_q",
        [RP_ATTN_K] = "attn_k",
        [RP_ATTN_V] = "attn_v",
        [RP_ATTN_Q_BIAS] = "attn_q.bias",
        [RP_ATTN_K_BIAS] = "attn_k.bias",
        [RP_ATTN_V_BIAS] = "attn_v.bias",
        [RP_ATTN_Q_NORM] = "attn_q_norm",
        [RP_ATTN_K_NORM] = "attn_k_norm",
        [RP_ATTN_OUTPUT] = "attn_output",
        [RP_ATTN_OUTPUT_BIAS] = "attn_output.bias",
        [RP_ATTN_SINKS] = "attn_sinks",
        [RP_ATTN_QKV] = "attn_qkv",
        [RP_ATTN_GATE] = "attn_gate",
        [RP_SSM_CONV1D] = "ssm_conv1d",
        [RP_SSM_ALPHA] = "ssm_alpha",
        [RP_SSM_BETA] = "ssm_beta",
        [RP_SSM_DT] = "ssm_dt",
        [RP_SSM_A] = "ssm_a",
        [RP_SSM_NORM] = "ssm_norm",
        [RP_SSM_OUT] = "ssm_out",
        [RP_FFN_NORM] = "ffn_norm",
        [RP_FFN_GATE] = "ffn_gate",
        [RP_FFN_UP] = "ffn_up",
        [RP_FFN_DOWN] = "ffn_down",
        [RP_ATTN_Q_A] = "attn_q_a",
        [RP_ATTN_Q_A_NORM] = "attn_q_a_norm",
        [RP_ATTN_Q_B] = "attn_q_b",
        [RP_ATTN_KV_A] = "attn_kv_a_mqa",
        [RP_ATTN_KV_A_NORM] = "attn_kv_a_norm",
        [RP_ATTN_KV_B] = "attn_kv_b",
        [RP_ATTN_K_B] = "attn_k_b",
        [RP_ATTN_V_B] = "attn_v_b",
        [RP_ATTN_POST_NORM] = "post_attention_norm",
        [RP_FFN_POST_NORM] = "post_ffw_norm",
        [RP_ROUTER] = "ffn_gate_inp",
        [RP_ROUTER_BIAS] = "ffn_gate_inp.bias",
        [RP_ROUTER_CORRECTION] = "exp_probs_b.bias",
        [RP_EXPERTS_GATE] = "ffn_gate_exps",
        [RP_EXPERTS_UP] = "ffn_up_exps",
        [RP_EXPERTS_DOWN] = "ffn_down_exps",
        [RP_EXPERTS_GATE_BIAS] = "ffn_gate_exps.bias",
        [RP_EXPERTS_UP_BIAS] = "ffn_up_exps.bias",
        [RP_EXPERTS_DOWN_BIAS] = "ffn_down_exps.bias",
        [RP_SHARED_ROUTER] = "ffn_gate_inp_shexp",
        [RP_SHARED_GATE] = "ffn_gate_shexp",
        [RP_SHARED_UP] = "ffn_up_shexp",
        [RP_SHARED_DOWN] = "ffn_down_shexp",
        [RP_TOKEN_EMBD] = "token_embd",
        [RP_OUTPUT_NORM] = "output_norm",
        [RP_OUTPUT] = "output",
        [RP_ROPE_FREQS] = "rope_freqs",
        [RP_ROPE_FACTORS_SHORT] = "rope_factors_short",
        [RP_ROPE_FACTORS_LONG] = "rope_factors_long",
    };
    return (unsigned)which < RP_N_WEIGHTS ? names[which] : "unknown";
}

/* The tensor that has the weight and others; NULL: it has its own. */
static const struct rp_fused *fused_of(const struct rp_architecture *architecture,
                                       enum rp_weight_id which)
{
    for (size_t i = 0; i < sizeof architecture->fused / sizeof *architecture->fused; i++)
        for (size_t k = 0; k < architecture->fused[i].n_parts; k++)
            if (architecture->fused[i].parts[k] == which)
                return &architecture->fused[i];
    return NULL;
}

struct rp_weight_rows rp_weight_rows(const struct rp_architecture *architecture,
                                     const struct rp_model_config *config, enum rp_weight_id which)
{
    const struct rp_fused *fused = fused_of(architecture, which);
    struct rp_weight_rows rows = {.first = 0};
    size_t n_in;
    rp_weight_shape(config, which, &rows.n, &n_in);
    rows.n_all = fused ? 0 : rows.n;
    for (size_t k = 0; fused && k < fused->n_parts; k++) {
        size_t n_out;
        rp_weight_shape(config, fused->parts[k], &n_out, &n_in);
        if (fused->parts[k] == which)
            rows.first = rows.n_all;
        rows.n_all += n_out;
    }
    return rows;
}

void rp_weight_full_name(const struct rp_architecture *architecture, enum rp_weight_id which,
                         size_t layer, char name[RP_GGUF_NAME_SIZE])
{
    const struct rp_fused *fused = fused_of(architecture, which);
    const char *base = fused                  ? fused->name
                       : which == RP_FFN_NORM ? architecture->ffn_norm
                                              : rp_weight_name(which);
    const char *suffix = which == RP_SSM_A || strstr(base, ".bias") ? ""
                         : which == RP_SSM_DT                       ? ".bias"
                                                                    : ".weight";
    if (which < RP_N_LAYER_WEIGHTS)
        snprintf(name, RP_GGUF_NAME_SIZE, "blk.%zu.%s%s", layer, base, suffix);
    else
        snprintf(name, RP_GGUF_NAME_SIZE, "%s%s", base, suffix);
}
