/* One file an operation: what it computes, and what another right engine's output may differ by. What
 * each takes is in refparity/ops.h.
 *
 * rp_op_X is the reference's arithmetic. rp_sigma_X gives the standard error of each value of its
 * output when FP32 sums are taken in another order: sigma [n_positions][width of the output], absolute.
 * It is called after the operation, on the same arguments. Three times that, as a row's L2 norm, is
 * the operation's bound: replay's limit. Not for which order operations run in: architectures. */
#ifndef REFPARITY_OPERATIONS_OPERATIONS_H
#define REFPARITY_OPERATIONS_OPERATIONS_H

#include <math.h>

#include "refparity/numerics.h"
#include "refparity/ops.h"

/* What a layer's plan is made of: struct rp_step, in architectures/architecture.h. */
enum rp_step_kind {
    RP_STEP_TAP, /* shows `in` as the slot `part` */
    RP_STEP_RMS_NORM,
    RP_STEP_LINEAR,
    RP_STEP_HEAD_LINEAR, /* of K_B from MLA_Q, else of LATENTS */
    RP_STEP_ROPE,
    RP_STEP_KV_STORE,       /* K and V to the cache */
    RP_STEP_ATTENTION,      /* Q and the cache to HEADS */
    RP_STEP_SPLIT_LATENT,   /* KV_A to KV_LATENT and K_ROPE */
    RP_STEP_JOIN_QUERY,     /* Q_ABSORBED and the rotated part of MLA_Q to Q */
    RP_STEP_JOIN_KEY,       /* KV_LATENT, or KV_B, and K_ROPE to K and V */
    RP_STEP_NARROW_HEADS,   /* HEADS without what V is padded by */
    RP_STEP_SPLIT_GATE,     /* Q_AND_GATE to Q and HEADS_GATE */
    RP_STEP_ATTENTION_GATE, /* HEADS_GATE on HEADS */
    RP_STEP_CAUSAL_CONV1D,
    RP_STEP_L2_NORM,        /* `which` of CONV_QKV */
    RP_STEP_DELTA_DECAY,    /* on DECAY */
    RP_STEP_DELTA_BETA,     /* on BETA */
    RP_STEP_DELTA_RULE,     /* CONV_QKV, DECAY and BETA to DELTA */
    RP_STEP_GATED_NORM,     /* DELTA_GATE on DELTA */
    RP_STEP_FFN_ACTIVATION, /* GATE and UP to GATE; of experts, and the shared one, theirs */
    RP_STEP_CHOOSE_EXPERTS, /* ROUTER to EXPERTS */
    RP_STEP_WEIGH_EXPERTS,  /* ROUTER and EXPERTS to EXPERT_WEIGHTS */
    RP_STEP_EXPERTS_LINEAR, /* a product with the matrix of each of EXPERTS */
    RP_STEP_SUM_EXPERTS,    /* EXPERTS_OUT and EXPERT_WEIGHTS to BRANCH */
    RP_STEP_ADD_SHARED,     /* SHARED_OUT on BRANCH; with a weight: gated by SHARED_ROUTER */
    RP_STEP_RESIDUAL_ADD    /* BRANCH to HIDDEN */
};

/* Each operation, as struct rp_ops has it. */
/* clang-format off */
#define RP_OPERATIONS(X) \
    X(embed) X(rms_norm) X(linear) X(head_linear) X(rope) X(kv_store) X(attention) \
    X(split_gate) X(attention_gate) X(causal_conv1d) X(l2_norm) X(delta_decay) \
    X(delta_beta) X(delta_rule) X(gated_norm) X(ffn_activation) X(choose_experts) \
    X(weigh_experts) X(sum_experts) X(add_shared_expert) X(residual_add)
/* clang-format on */

/* A row is over its bound when it is off by more than so many standard errors. */
#define RP_BOUND_SIGMAS 3.0
#define RP_UNIT_ROUNDOFF 0x1p-24 /* u: half the distance from 1 to the next float */
/* A running sum of n terms is rounded n times, each time by 0.42 u of what it has come to. Terms of
 * random sign bring it to sqrt(k) of their size, terms of one sign to k: 0.3 sqrt(n) u of a sum's usual
 * size, and 0.24 sqrt(n) u of the sum itself; with one large term early, 0.42 sqrt(n) u. */
#define RP_SUM_ERROR 0.42

#define RP_OPERATION(name)                                                                   \
    enum rp_status rp_op_##name(void *context, const struct rp_site *site,                   \
                                const struct rp_##name *args);                               \
    enum rp_status rp_sigma_##name(const struct rp_site *site, const struct rp_##name *args, \
                                   float *sigma);
RP_OPERATION(rms_norm)
RP_OPERATION(linear)
RP_OPERATION(head_linear)
RP_OPERATION(rope)
RP_OPERATION(attention_gate)
RP_OPERATION(causal_conv1d)
RP_OPERATION(delta_decay)
RP_OPERATION(delta_beta)
RP_OPERATION(delta_rule) /* of Q and K that were L2-normed, whose error is in it */
RP_OPERATION(gated_norm)
RP_OPERATION(ffn_activation)
RP_OPERATION(weigh_experts)
RP_OPERATION(sum_experts) /* not of the products that it sums */
RP_OPERATION(add_shared_expert)
RP_OPERATION(residual_add)
#undef RP_OPERATION

/* Runs each head's product as one of its own, whose rows of y are all heads' apart. */
typedef enum rp_status rp_linear_fn(void *context, const struct rp_site *site,
                                    const struct rp_linear *args);
enum rp_status rp_by_head(const struct rp_site *site, const struct rp_head_linear *args,
                          rp_linear_fn *run, void *context);

/* norm [n_positions]: the L2 norm of each row of rp_sigma_linear, or a little more (the root of a sum of
 * squares is no more than the sum of the roots); in a fraction of the time. */
enum rp_status rp_sigma_norm_linear(const struct rp_site *site, const struct rp_linear *args,
                                    double *norm);

/* They copy, or have their error in the operation that reads them; attention's is in
 * operations/attention_bound.h. */
enum rp_status rp_op_embed(void *context, const struct rp_site *site, const struct rp_embed *args);
enum rp_status rp_op_kv_store(void *context, const struct rp_site *site,
                              const struct rp_kv_store *args);
enum rp_status rp_op_attention(void *context, const struct rp_site *site,
                               const struct rp_attention *args);
enum rp_status rp_op_split_gate(void *context, const struct rp_site *site,
                                const struct rp_split_gate *args);
enum rp_status rp_op_l2_norm(void *context, const struct rp_site *site,
                             const struct rp_l2_norm *args);
/* What it may be off by is operations/router.h's. */
enum rp_status rp_op_choose_experts(void *context, const struct rp_site *site,
                                    const struct rp_choose_experts *args);

/* A norm's eps: HF's q_a_layernorm and kv_a_layernorm have theirs whatever config.json says. */
static inline float rp_norm_eps(const struct rp_model_config *config, enum rp_weight_id which)
{
    return which == RP_ATTN_Q_A_NORM || which == RP_ATTN_KV_A_NORM ? 1e-6f : config->rms_norm_eps;
}

/* RoPE's base in a layer of that kind. */
static inline float rp_rope_theta(const struct rp_model_config *config, enum rp_layer_kind kind)
{
    return kind == RP_LAYER_SLIDING_ATTENTION ? config->rope_theta_sliding : config->rope_theta;
}
static inline float rp_site_rope_theta(const struct rp_site *site)
{
    return rp_rope_theta(site->config, site->layer >= 0 ? site->config->layer_kinds[site->layer]
                                                        : RP_LAYER_FULL_ATTENTION);
}

/* The score that a head's softmax has beside its keys'; -INFINITY, whose exponential is 0: none. */
static inline float rp_attention_sink(const struct rp_attention *args, size_t head)
{
    return args->sinks ? args->sinks[head] : -INFINITY;
}

/* x, or cap tanh(x / cap) where there is a cap. HF: modeling_gemma2. */
static inline float rp_softcap(float x, float cap)
{
    return cap > 0 ? cap * tanhf(x / cap) : x;
}
/* By how much the capped value moves with x: y = rp_softcap(x, cap) alone says it. */
static inline float rp_softcap_slope(float y, float cap)
{
    const float t = cap > 0 ? y / cap : 0;
    return (1 - t) * (1 + t);
}
/* What the cap itself rounds, sigma, in u: relative to x, where 1 / cap and the product with it are rounded; and to y.
 * Three of tanh's are 4.5 u, as a polynomial may be off by 2 units in the last place; the product is rounded. */
#define RP_SOFTCAP_INPUT_ERROR 1.0
#define RP_TANH_ERROR 1.5
#define RP_SOFTCAP_ERROR 1.66

/* What cosine and sine are multiplied by, in a layer of that kind; 0: nothing. */
static inline float rp_attention_factor(const struct rp_model_config *config,
                                        enum rp_layer_kind kind)
{
    const struct rp_rope_scaling *scaling = &config->rope_scaling;
    return kind == RP_LAYER_SLIDING_ATTENTION && scaling->spares_windows
               ? 0
               : scaling->attention_factor;
}
static inline float rp_site_attention_factor(const struct rp_site *site)
{
    return rp_attention_factor(site->config, site->layer >= 0
                                                 ? site->config->layer_kinds[site->layer]
                                                 : RP_LAYER_FULL_ATTENTION);
}
static inline float rp_rope_scale(const struct rp_rope *args)
{
    return args->attention_factor > 0 ? args->attention_factor : 1;
}

/* The keys that row p of the call sees: from *first on, up to *end. */
void rp_attention_visible(const struct rp_site *site, const struct rp_attention *args, size_t p,
                          size_t *first, size_t *end);
/* Row p of the call alone: *one and *seen are its site and arguments, without a window and with the keys that it
 * sees; the first of these is returned. */
size_t rp_attention_one_row(const struct rp_site *site, const struct rp_attention *args, size_t p,
                            struct rp_site *one, struct rp_attention *seen);

/* The weight that a product with `which` adds where it has a bias; RP_N_WEIGHTS: there is none such. */
enum rp_weight_id rp_bias_of(enum rp_weight_id which);

/* y += bias, where there is one: for whoever computes the product in another way. */
void rp_linear_add_bias(const struct rp_site *site, const struct rp_linear *args);
/* The same of the softcap, which comes last. */
void rp_linear_cap(const struct rp_site *site, const struct rp_linear *args);

/* How far a norm over dim values may be off, relative to its row: the sum of squares errs by
 * RP_SUM_ERROR / 2 u sqrt(dim), and the root halves it; division, root and rounding of the mean add
 * the rest. */
double rp_norm_error(size_t dim);

#endif
