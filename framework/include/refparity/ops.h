/* The operations that a transformer layer is made of, as a table of functions. Replace one of them
 * (a bug to inject, an engine's rounding to emulate, a hypothesis to test), and call the table that
 * you replaced it in for everything else:
 *
 *     static enum rp_status half_ffn(void *context, const struct rp_site *site,
 *                                    const struct rp_residual_add *args) …
 *     struct rp_ops ops = *rp_ops_default();
 *     ops.context = &mine;
 *     ops.residual_add = half_ffn;
 *
 * A replacement copies *args, changes what it wants changed, and passes the copy on.
 * Not for the order of the operations: that is architecture.c. */
#ifndef REFPARITY_OPS_H
#define REFPARITY_OPS_H

#include <stdbool.h>

#include "refparity/gguf.h"
#include "refparity/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Which way a rotation pairs the values of a head. */
enum rp_rope_ordering {
    RP_ROPE_NEOX,       /* i and i + n_rot/2: HF's rotate_half */
    RP_ROPE_INTERLEAVED /* 2i and 2i + 1: GGUF files of Llama, whose Q and K rows are permuted */
};

/* How RoPE's frequencies are scaled for more positions than a model was first trained on. Llama 3's scaling
 * is none of them: a GGUF has its factors as a tensor. */
enum rp_rope_scaling_type {
    RP_ROPE_NOT_SCALED,
    RP_ROPE_LINEAR, /* all by one factor */
    RP_ROPE_YARN, /* fast pairs not, slow ones by the factor, a ramp between them (arXiv 2309.00071) */
    RP_ROPE_LONGROPE /* each pair by its own, with two sets of them (arXiv 2402.13753) */
};

/* HF: modeling_rope_utils.py. See operations/rope_scaling.h. */
struct rp_rope_scaling {
    enum rp_rope_scaling_type type;
    bool spares_windows;    /* layers with a window are not scaled */
    float factor;           /* of linear and YaRN */
    float attention_factor; /* what cosine and sine are multiplied by; 0: nothing */
    /* Positions of the first training. YaRN's ramp is over the pairs that turn beta_fast to beta_slow times
     * in them; a longer sequence has longrope's long factors. */
    size_t original_context;
    float beta_fast, beta_slow;
    bool keeps_ramp_ends; /* the ramp's ends are not moved to whole pairs; HF: truncate false */
    /* Attention's scores are multiplied by the square of this one's rp_yarn_mscale (DeepSeek); 0: nothing. */
    float mscale_all_dim;
};

enum rp_mode {
    RP_MODE_PER_TOKEN, /* one position per call, through the KV cache */
    RP_MODE_BATCHED    /* many positions per call */
};

/* What the FFN's gate goes through. */
enum rp_activation_function {
    RP_SILU,
    RP_GELU_TANH, /* 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))): HF's gelu_pytorch_tanh */
    RP_CLAMPED_SWISH /* x sigmoid(1.702 x), x at most 7; up, within -7 and 7, plus 1 multiplies it: GptOssExperts */
};

/* What a mixture's experts are chosen by, and what their outputs are multiplied by, before any
 * normalisation. */
enum rp_router_scores {
    RP_ROUTER_SOFTMAX, /* of all logits. HF: Qwen3MoeTopKRouter, DeepseekV2TopkRouter */
    RP_ROUTER_SIGMOID, /* HF: DeepseekV3TopkRouter */
    RP_ROUTER_SOFTMAX_CHOSEN /* chosen by the logits; the softmax is of the chosen ones. HF: GptOssTopKRouter */
};

/* What a group of experts is chosen by. */
enum rp_group_score {
    RP_GROUP_MAX,     /* its best score. HF: DeepseekV2TopkRouter */
    RP_GROUP_BEST_TWO /* the sum of its two best ones. HF: DeepseekV3TopkRouter */
};

/* Which experts a position goes to. Scores plus the correction, where there is one, choose: first groups of
 * neighbouring experts, then experts of those. Their weights are the scores, without the correction. */
struct rp_router {
    size_t n_experts; /* 0: the model has none */
    size_t n_chosen;
    enum rp_router_scores scores;
    size_t n_groups, n_chosen_groups; /* n_groups divides n_experts; 1, 1: there are none */
    enum rp_group_score group_score;
    bool normalizes; /* the weights are divided by their sum */
    float scale;     /* what they are multiplied by then */
};

/* What mixes the positions of a layer. */
enum rp_layer_kind {
    RP_LAYER_FULL_ATTENTION,
    RP_LAYER_LINEAR_ATTENTION,  /* gated DeltaNet */
    RP_LAYER_NOPE_ATTENTION,    /* full attention whose Q and K are not rotated */
    RP_LAYER_SLIDING_ATTENTION, /* of the last `window` positions, with a base of RoPE of its own */
    RP_N_LAYER_KINDS
};

/* A model's weights, named as in GGUF. The first RP_N_LAYER_WEIGHTS belong to a layer.
 * n_conv is the channels of the DeltaNet's convolution: Q, K and V, see struct rp_model_config. */
enum rp_weight_id {
    RP_ATTN_NORM,        /* [hidden_size]: HF input_layernorm */
    RP_ATTN_Q,           /* [n_heads * head_dim][hidden_size]; gated: [n_heads][2][head_dim] rows */
    RP_ATTN_K,           /* [n_kv_heads * head_dim][hidden_size] */
    RP_ATTN_V,           /* [n_kv_heads * head_dim][hidden_size] */
    RP_ATTN_Q_BIAS,      /* [n_heads * head_dim] */
    RP_ATTN_K_BIAS,      /* [n_kv_heads * head_dim] */
    RP_ATTN_V_BIAS,      /* [n_kv_heads * head_dim] */
    RP_ATTN_Q_NORM,      /* [head_dim] */
    RP_ATTN_K_NORM,      /* [head_dim] */
    RP_ATTN_OUTPUT,      /* [hidden_size][n_heads * head_dim] */
    RP_ATTN_OUTPUT_BIAS, /* [hidden_size] */
    RP_ATTN_SINKS,       /* [n_heads]: HF self_attn.sinks */
    RP_ATTN_QKV,         /* [n_conv][hidden_size]: HF linear_attn.in_proj_qkv */
    RP_ATTN_GATE,        /* [n_linear_v_heads * linear_head_dim][hidden_size]: HF in_proj_z */
    RP_SSM_CONV1D,       /* [n_conv][conv_kernel] */
    RP_SSM_ALPHA,        /* [n_linear_v_heads][hidden_size]: HF in_proj_a */
    RP_SSM_BETA,         /* [n_linear_v_heads][hidden_size]: HF in_proj_b */
    RP_SSM_DT,           /* [n_linear_v_heads]: HF dt_bias */
    RP_SSM_A,            /* [n_linear_v_heads]: -exp(HF A_log) */
    RP_SSM_NORM,         /* [linear_head_dim]: HF linear_attn.norm */
    RP_SSM_OUT,          /* [hidden_size][n_linear_v_heads * linear_head_dim]: HF out_proj */
    RP_FFN_NORM,         /* [hidden_size]: HF post_attention_layernorm */
    RP_FFN_GATE,         /* [intermediate_size][hidden_size] */
    RP_FFN_UP,           /* [intermediate_size][hidden_size] */
    RP_FFN_DOWN,         /* [hidden_size][intermediate_size] */
    RP_ATTN_Q_A,         /* [q_lora_rank][hidden_size]: HF q_a_proj */
    RP_ATTN_Q_A_NORM,    /* [q_lora_rank] */
    RP_ATTN_Q_B,         /* [n_heads * (nope_dim + n_rot)][q_lora_rank]: HF q_b_proj */
    RP_ATTN_KV_A,        /* [kv_lora_rank + n_rot][hidden_size]: HF kv_a_proj_with_mqa */
    RP_ATTN_KV_A_NORM,   /* [kv_lora_rank] */
    RP_ATTN_KV_B,        /* [n_heads * (nope_dim + v_head_dim)][kv_lora_rank]: HF kv_b_proj */
    RP_ATTN_K_B, /* [n_heads * kv_lora_rank][nope_dim]: the keys' rows of it, transposed by head */
    RP_ATTN_V_B, /* [n_heads * v_head_dim][kv_lora_rank]: the values' rows of it */
    RP_ATTN_POST_NORM,    /* [hidden_size]: of attention's output, before it is added */
    RP_FFN_POST_NORM,     /* [hidden_size]: of the FFN's output, before it is added */
    RP_ROUTER,            /* [n_experts][hidden_size]: HF mlp.gate */
    RP_ROUTER_BIAS,       /* [n_experts], of that product */
    RP_ROUTER_CORRECTION, /* [n_experts], of the scores that choose: HF e_score_correction_bias */
    RP_EXPERTS_GATE,      /* [n_experts][expert_size][hidden_size] */
    RP_EXPERTS_UP,        /* [n_experts][expert_size][hidden_size] */
    RP_EXPERTS_DOWN,      /* [n_experts][hidden_size][expert_size] */
    RP_EXPERTS_GATE_BIAS, /* [n_experts][expert_size] */
    RP_EXPERTS_UP_BIAS,   /* [n_experts][expert_size] */
    RP_EXPERTS_DOWN_BIAS, /* [n_experts][hidden_size] */
    RP_SHARED_ROUTER,     /* [hidden_size]: HF shared_expert_gate */
    RP_SHARED_GATE,       /* [shared_expert_size][hidden_size] */
    RP_SHARED_UP,         /* [shared_expert_size][hidden_size] */
    RP_SHARED_DOWN,       /* [hidden_size][shared_expert_size] */
    RP_N_LAYER_WEIGHTS,
    RP_TOKEN_EMBD = RP_N_LAYER_WEIGHTS, /* [vocab_size][hidden_size] */
    RP_OUTPUT_NORM,                     /* [hidden_size] */
    RP_OUTPUT,                          /* [vocab_size][hidden_size]; tied: RP_TOKEN_EMBD */
    RP_ROPE_FREQS,                      /* [n_rot / 2]: what llama3 scaling divides by */
    RP_ROPE_FACTORS_SHORT, /* [n_rot / 2]: the same of longrope, where a sequence … */
    RP_ROPE_FACTORS_LONG,  /* … is up to, and is longer than, the original context */
    RP_N_WEIGHTS
};

struct rp_model_config {
    char architecture[32]; /* "qwen3", "llama", "qwen35" */
    size_t n_layers;
    size_t n_prediction_layers;            /* behind these in the file, which are not computed */
    const enum rp_layer_kind *layer_kinds; /* [n_layers] */
    size_t hidden_size;
    size_t intermediate_size;         /* of the layer, see rp_layer_config; the largest of all */
    const size_t *intermediate_sizes; /* [n_layers]; NULL: all layers have the one above */
    size_t n_heads;
    size_t n_kv_heads; /* divides n_heads */
    size_t head_dim;
    size_t n_rot; /* values of a head that are rotated; even */
    size_t vocab_size;
    float rms_norm_eps;
    float rope_theta;
    float rope_theta_sliding; /* of RP_LAYER_SLIDING_ATTENTION; 0: there are none */
    struct rp_rope_scaling rope_scaling;
    size_t window;         /* positions that those see, their own among them; 0: there are none */
    float embedding_scale; /* what embeddings are multiplied by; 0: nothing */
    float attention_softcap, logits_softcap; /* see rp_softcap; 0: there is none */
    enum rp_activation_function activation;
    enum rp_rope_ordering rope_ordering;
    float attention_scale; /* 1 / sqrt(head_dim), but of a few models: rp_attention_scale */
    bool has_tied_embeddings;
    bool has_attention_gate; /* full attention's output is gated, and attn_q has the gate's rows */
    /* Where values are kept in 16 bits: an RMS norm multiplies by its weight in FP32, and rounds then
     * (HF: Qwen3_5RMSNorm). Else it rounds before, too (Qwen3RMSNorm, LlamaRMSNorm). */
    bool norms_round_last;
    /* HF rotates neighbouring values, too: the file's order is HF's. */
    bool is_interleaved_in_hf;
    /* Multi-head latent attention; all 0 where the model has none. n_heads, n_kv_heads and head_dim are
     * what attention runs on: absorbed, one key of kv_lora_rank + n_rot values, that all heads read; else
     * a key of nope_dim + n_rot values a head. */
    size_t kv_lora_rank;
    size_t q_lora_rank; /* 0: Q is projected from the hidden state */
    size_t nope_dim;    /* values of a query that are not rotated; n_rot that are follow */
    size_t v_head_dim;
    bool is_absorbed; /* attn_k_b and attn_v_b, attention over the latents; else attn_kv_b */
    struct rp_router router;
    size_t expert_size;        /* values of an expert's gate and up */
    size_t shared_expert_size; /* of the shared one's; 0: there is none */
    size_t n_dense_layers;     /* the first ones, which have no experts */
    /* Gated DeltaNet; all 0 where no layer has it. The V heads are in GGUF's order: V head h reads
     * K head h % n_linear_k_heads (HF: h / (n_linear_v_heads / n_linear_k_heads)). */
    size_t n_linear_k_heads; /* divides n_linear_v_heads */
    size_t n_linear_v_heads;
    size_t linear_head_dim; /* of Q, K and V */
    size_t conv_kernel;     /* positions that the convolution sees, the current one among them */
};

struct rp_weight {
    const float *
        data; /* [n_out][n_in]; a norm's is [1][n_in]; NULL: the layer has none, or one an expert */
    size_t n_out, n_in; /* 0: the layer has none */
    uint32_t type;      /* ggml's, of the weight in the file */
    const float
        *minima; /* [n_out][n_in / 32], those that blocks of Q4_1 and Q5_1 store; else NULL */
    /* Of experts, each with a matrix of its own, which is decoded when it is used: stack has n_experts * n_out
     * rows. NULL: data is all. */
    const struct rp_gguf *gguf;
    const struct rp_gguf_tensor *stack;
};

/* A layer's weights, decoded. The caller may exchange entries, as long as the shapes stay. */
struct rp_layer {
    struct rp_weight weights[RP_N_LAYER_WEIGHTS];
    float *owned; /* private: the memory behind the weights as loaded */
};

/* Where an operation runs. */
struct rp_site {
    const struct rp_model_config *config;
    int layer; /* -1: outside the layers */
    size_t
        step; /* of the layer's plan that runs: see architectures/architecture.h; 0 outside the layers */
    enum rp_mode mode;
    size_t n_positions;
    const int64_t *positions; /* [n_positions], strictly ascending */
    struct rp_error *err;     /* for rp_fail; may be NULL */
};

/* y = row of the table, for each token. */
struct rp_embed {
    const struct rp_gguf *gguf;
    const struct rp_gguf_tensor *table; /* [vocab_size][hidden_size], encoded */
    const int32_t *tokens;              /* [n_positions], each below vocab_size */
    float scale;                        /* what its rows are multiplied by; 0: nothing */
    float *y;                           /* [n_positions][hidden_size] */
};

/* y = x / sqrt(mean(x^2) + eps) * weight, for each row. HF: Qwen3RMSNorm, LlamaRMSNorm. */
struct rp_rms_norm {
    enum rp_weight_id which;
    const float *weight; /* [dim] */
    float eps;
    size_t n_rows; /* n_positions, or n_positions * heads for a norm of Q or K */
    size_t dim;
    const float *x; /* [n_rows][dim] */
    float *y;       /* [n_rows][dim]; may be x */
};

/* Of a product of one expert: the rows of the call that go to it. */
struct rp_expert_rows {
    size_t expert;
    bool is_first; /* of the step's experts */
    size_t n_chosen;
    const size_t *
        at; /* [n_positions] where each row of y belongs: position's index * n_chosen + place in the choice */
};

/* y = x weight^T. */
struct rp_linear {
    enum rp_weight_id which;
    uint32_t type;                  /* ggml's, of the weight in the file */
    const float *weight;            /* [n_out][n_in], decoded */
    const struct rp_weight *loaded; /* where weight is from; NULL, or with other data: not known */
    const float *bias;              /* [n_out], added to the product; NULL: none */
    float softcap;                  /* of RP_OUTPUT: y = softcap tanh(y / softcap) then; 0: none */
    size_t n_out, n_in;
    size_t
        first_out; /* of RP_OUTPUT, which comes in blocks of rows: the first one's index; else 0 */
    const struct rp_expert_rows *expert; /* NULL: it is not an expert's */
    const float *x;                      /* [n_positions][n_in] */
    float *y;                            /* [n_positions][n_out], rows y_stride apart */
    size_t y_stride;
};

/* y = x weight^T for each head, with a matrix of its own. HF has the two of latent attention in one,
 * kv_b_proj, and in another order: q (k_b latent) = (q k_b) latent. */
struct rp_head_linear {
    enum rp_weight_id which;        /* RP_ATTN_K_B or RP_ATTN_V_B */
    uint32_t type;                  /* ggml's, of the weight in the file */
    const float *weight;            /* [n_heads][n_out][n_in], decoded */
    const struct rp_weight *loaded; /* as in struct rp_linear */
    size_t n_heads, n_out, n_in;
    const float *x;       /* [n_positions][n_heads][n_in], heads x_head_stride apart */
    size_t x_head_stride; /* in floats; rows are n_heads times that apart */
    float *y;             /* [n_positions][n_heads][n_out] */
};

/* Rotates n_rot values of each head, from value `first` on, by positions * theta^(-2i/n_rot) / freq_factors[i], and
 * multiplies them by attention_factor, computed in FP32 as HF does. RoFormer (arXiv 2104.09864); HF: apply_rotary_pos_emb. */
struct rp_rope {
    enum rp_weight_id which; /* RP_ATTN_Q or RP_ATTN_K */
    enum rp_rope_ordering ordering;
    float theta;
    const float *freq_factors; /* [n_rot / 2], or NULL for none */
    float attention_factor;    /* what cosine and sine are multiplied by; 0: nothing */
    size_t first;              /* 0 but in latent attention's queries */
    size_t n_rot;              /* first + n_rot is head_dim at most */
    size_t n_heads;
    size_t head_dim;
    const int64_t *positions; /* [n_positions] */
    float *x;                 /* [n_positions][n_heads][head_dim], in place */
};

/* Appends the rotated K, and V, to the layer's cache. */
struct rp_kv_store {
    size_t dim;     /* n_kv_heads * head_dim */
    const float *k; /* [n_positions][dim] */
    const float *v; /* [n_positions][dim] */
    float *keys;    /* [n_positions][dim]: where K goes */
    float *values;  /* [n_positions][dim]: where V goes */
};

/* y = softmax(scale * q keys^T, over keys that are not later than q) values, for each head; query
 * head h reads KV head h / (n_heads / n_kv_heads). HF: eager_attention_forward. With sinks the softmax is
 * taken over one more score, sinks[h], which has no value. HF: modeling_gpt_oss. With a softcap a scaled score s
 * is softcap tanh(s / softcap). HF: modeling_gemma2. */
struct rp_attention {
    size_t n_heads, n_kv_heads, head_dim;
    float scale;
    float softcap; /* 0: none */
    bool is_causal;
    size_t window; /* of positions that one sees, its own among them; 0: all that are not later */
    const float *sinks; /* [n_heads]; NULL: none */
    const float *q;     /* [n_positions][n_heads][head_dim] */
    size_t n_keys;
    const float *keys;            /* [n_keys][n_kv_heads][head_dim] */
    const float *values;          /* [n_keys][n_kv_heads][head_dim] */
    const int64_t *key_positions; /* [n_keys], strictly ascending */
    float *scores;                /* [n_keys], scratch */
    float *y;                     /* [n_positions][n_heads][head_dim] */
};

/* Splits the rows of a gated attn_q, which has Q and gate side by side in each head.
 * HF: Qwen3_5Attention, torch.chunk of q_proj's output. */
struct rp_split_gate {
    size_t n_heads, head_dim;
    const float *x; /* [n_positions][n_heads][2][head_dim] */
    float *q;       /* [n_positions][n_heads][head_dim] */
    float *gate;    /* [n_positions][n_heads][head_dim] */
};

/* y = y * sigmoid(gate), on attention's output. HF: Qwen3_5Attention. */
struct rp_attention_gate {
    size_t dim;        /* n_heads * head_dim */
    const float *gate; /* [n_positions][dim] */
    float *y;          /* [n_positions][dim], in place */
};

/* y[p] = silu(sum over k of weight[k] * x[p - kernel + 1 + k]), for each channel. Rows before the
 * first are the state's, which then becomes the last rows. HF: causal_conv1d_fn, _update. */
struct rp_causal_conv1d {
    size_t n_channels, kernel;
    const float *weight; /* [n_channels][kernel] */
    bool has_silu;
    float *state;   /* [kernel - 1][n_channels], oldest first; zeros before position 0 */
    const float *x; /* [n_positions][n_channels] */
    float *y;       /* [n_positions][n_channels]; not x */
};

/* x = x / sqrt(sum(x^2) + eps), for each head. HF: l2norm. */
struct rp_l2_norm {
    enum rp_weight_id which; /* RP_ATTN_Q or RP_ATTN_K: what is normed */
    float eps;
    size_t n_heads, head_dim;
    float *x;        /* [n_positions][n_heads][head_dim], rows x_stride apart, in place */
    size_t x_stride; /* in floats */
};

/* y = a * softplus(y + dt), for each head: the logarithm of the decay. HF: Qwen3_5GatedDeltaNet, g. */
struct rp_delta_decay {
    size_t n_heads;
    const float *dt; /* [n_heads] */
    const float *a;  /* [n_heads], below 0 */
    float *y;        /* [n_positions][n_heads], in place */
};

/* y = sigmoid(y), for each head. HF: Qwen3_5GatedDeltaNet, beta. */
struct rp_delta_beta {
    size_t n_heads;
    float *y; /* [n_positions][n_heads], in place */
};

/* For each V head h, with K head h % n_k_heads, position by position:
 *     state = exp(decay) * state
 *     state = state + k (beta * (v - state^T k))^T
 *     y = scale * state^T q
 * Gated Delta Networks (arXiv 2412.06464); HF: torch_recurrent_gated_delta_rule. */
struct rp_delta_rule {
    size_t n_k_heads, n_v_heads, head_dim;
    float scale;        /* 1 / sqrt(head_dim) */
    const float *q;     /* [n_positions][n_k_heads][head_dim], rows qkv_stride apart */
    const float *k;     /* [n_positions][n_k_heads][head_dim], rows qkv_stride apart */
    const float *v;     /* [n_positions][n_v_heads][head_dim], rows qkv_stride apart */
    size_t qkv_stride;  /* in floats */
    const float *decay; /* [n_positions][n_v_heads], its logarithm */
    const float *beta;  /* [n_positions][n_v_heads] */
    float *state;       /* [n_v_heads][head_dim of K][head_dim of V]; zeros before position 0 */
    float *y;           /* [n_positions][n_v_heads][head_dim] */
};

/* y = rms_norm(x) * weight * silu(gate), for each row. HF: Qwen3_5RMSNormGated. */
struct rp_gated_norm {
    const float *weight; /* [dim] */
    float eps;
    size_t n_rows; /* n_positions * n_linear_v_heads */
    size_t dim;
    const float *gate; /* [n_rows][dim] */
    const float *x;    /* [n_rows][dim] */
    float *y;          /* [n_rows][dim]; may be x */
};

/* y = function(gate) * up. HF: Qwen3MLP, LlamaMLP; Gemma3MLP; GptOssExperts. */
struct rp_ffn_activation {
    enum rp_activation_function function;
    size_t dim;        /* intermediate_size; of experts, their number times their size */
    const float *gate; /* [n_positions][dim] */
    const float *up;   /* [n_positions][dim] */
    float *y;          /* [n_positions][dim]; may be gate */
};

/* The numbers of the experts that each position goes to, those of the highest scores first. HF: the TopKRouters. */
struct rp_choose_experts {
    const struct rp_router *router;
    const float *correction; /* [n_experts], or NULL */
    const float *logits;     /* [n_positions][n_experts] */
    float *experts;          /* [n_positions][n_chosen], whole numbers */
};

/* What the chosen experts' outputs are multiplied by. */
struct rp_weigh_experts {
    const struct rp_router *router;
    const float *logits; /* [n_positions][n_experts] */
    const float
        *experts;   /* [n_positions][n_chosen]; a number that is no expert's: its weight is NaN */
    float *weights; /* [n_positions][n_chosen] */
};

/* y = sum of weights[k] * x[k], of the chosen experts. HF: Qwen3MoeExperts. */
struct rp_sum_experts {
    size_t n_chosen, dim;
    const float *weights; /* [n_positions][n_chosen] */
    const float *x;       /* [n_positions][n_chosen][dim] */
    float *y;             /* [n_positions][dim] */
};

/* y = y + sigmoid(gate) * shared. HF: Qwen3_5MoeSparseMoeBlock, DeepseekV3MoE. */
struct rp_add_shared_expert {
    size_t dim;
    const float *gate;   /* [n_positions][1]; NULL: the factor is 1 */
    const float *shared; /* [n_positions][dim] */
    float *y;            /* [n_positions][dim], in place */
};

/* hidden = hidden + branch. */
struct rp_residual_add {
    enum rp_weight_id which; /* the branch's last weight: RP_ATTN_OUTPUT, RP_SSM_OUT, RP_FFN_DOWN */
    size_t dim;              /* hidden_size */
    const float *branch;     /* [n_positions][dim] */
    float *hidden;           /* [n_positions][dim], in place */
};

/* context is passed on to each function. All may run on buffers that are not zeroed. */
struct rp_ops {
    void *context;
    enum rp_status (*embed)(void *context, const struct rp_site *, const struct rp_embed *);
    enum rp_status (*rms_norm)(void *context, const struct rp_site *, const struct rp_rms_norm *);
    enum rp_status (*linear)(void *context, const struct rp_site *, const struct rp_linear *);
    enum rp_status (*head_linear)(void *context, const struct rp_site *,
                                  const struct rp_head_linear *);
    enum rp_status (*rope)(void *context, const struct rp_site *, const struct rp_rope *);
    enum rp_status (*kv_store)(void *context, const struct rp_site *, const struct rp_kv_store *);
    enum rp_status (*attention)(void *context, const struct rp_site *, const struct rp_attention *);
    enum rp_status (*split_gate)(void *context, const struct rp_site *,
                                 const struct rp_split_gate *);
    enum rp_status (*attention_gate)(void *context, const struct rp_site *,
                                     const struct rp_attention_gate *);
    enum rp_status (*causal_conv1d)(void *context, const struct rp_site *,
                                    const struct rp_causal_conv1d *);
    enum rp_status (*l2_norm)(void *context, const struct rp_site *, const struct rp_l2_norm *);
    enum rp_status (*delta_decay)(void *context, const struct rp_site *,
                                  const struct rp_delta_decay *);
    enum rp_status (*delta_beta)(void *context, const struct rp_site *,
                                 const struct rp_delta_beta *);
    enum rp_status (*delta_rule)(void *context, const struct rp_site *,
                                 const struct rp_delta_rule *);
    enum rp_status (*gated_norm)(void *context, const struct rp_site *,
                                 const struct rp_gated_norm *);
    enum rp_status (*ffn_activation)(void *context, const struct rp_site *,
                                     const struct rp_ffn_activation *);
    enum rp_status (*choose_experts)(void *context, const struct rp_site *,
                                     const struct rp_choose_experts *);
    enum rp_status (*weigh_experts)(void *context, const struct rp_site *,
                                    const struct rp_weigh_experts *);
    enum rp_status (*sum_experts)(void *context, const struct rp_site *,
                                  const struct rp_sum_experts *);
    enum rp_status (*add_shared_expert)(void *context, const struct rp_site *,
                                        const struct rp_add_shared_expert *);
    enum rp_status (*residual_add)(void *context, const struct rp_site *,
                                   const struct rp_residual_add *);
};

/* The reference's arithmetic, in FP32. Its functions ignore context, need no particular alignment
 * beyond float's, and fail only where rp_embed's table cannot be read. Never NULL. */
const struct rp_ops *rp_ops_default(void);

/* "attn_q", "token_embd", …: the GGUF name without "blk.N.", ".weight" and ".bias"; of RP_FFN_NORM
 * the usual one, "ffn_norm". Never NULL. */
const char *rp_weight_name(enum rp_weight_id which);

#ifdef __cplusplus
}
#endif
#endif
