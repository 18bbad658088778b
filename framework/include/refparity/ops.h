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

enum rp_mode {
    RP_MODE_PER_TOKEN, /* one position per call, through the KV cache */
    RP_MODE_BATCHED    /* many positions per call */
};

/* A model's weights, named as in GGUF. The first RP_N_LAYER_WEIGHTS belong to a layer. */
enum rp_weight_id {
    RP_ATTN_NORM,   /* [hidden_size]: HF input_layernorm */
    RP_ATTN_Q,      /* [n_heads * head_dim][hidden_size] */
    RP_ATTN_K,      /* [n_kv_heads * head_dim][hidden_size] */
    RP_ATTN_V,      /* [n_kv_heads * head_dim][hidden_size] */
    RP_ATTN_Q_NORM, /* [head_dim] */
    RP_ATTN_K_NORM, /* [head_dim] */
    RP_ATTN_OUTPUT, /* [hidden_size][n_heads * head_dim] */
    RP_FFN_NORM,    /* [hidden_size]: HF post_attention_layernorm */
    RP_FFN_GATE,    /* [intermediate_size][hidden_size] */
    RP_FFN_UP,      /* [intermediate_size][hidden_size] */
    RP_FFN_DOWN,    /* [hidden_size][intermediate_size] */
    RP_N_LAYER_WEIGHTS,
    RP_TOKEN_EMBD = RP_N_LAYER_WEIGHTS, /* [vocab_size][hidden_size] */
    RP_OUTPUT_NORM,                     /* [hidden_size] */
    RP_OUTPUT,                          /* [vocab_size][hidden_size]; tied: RP_TOKEN_EMBD */
    RP_ROPE_FREQS,                      /* [n_rot / 2]: what llama3 scaling divides by */
    RP_N_WEIGHTS
};

struct rp_model_config {
    char architecture[32]; /* "qwen3", "llama" */
    size_t n_layers;
    size_t hidden_size;
    size_t intermediate_size;
    size_t n_heads;
    size_t n_kv_heads; /* divides n_heads */
    size_t head_dim;
    size_t n_rot; /* values of a head that are rotated; even */
    size_t vocab_size;
    float rms_norm_eps;
    float rope_theta;
    enum rp_rope_ordering rope_ordering;
    float attention_scale; /* 1 / sqrt(head_dim) */
    bool has_tied_embeddings;
};

/* Where an operation runs. */
struct rp_site {
    const struct rp_model_config *config;
    int layer; /* -1: outside the layers */
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

/* y = x weight^T. */
struct rp_linear {
    enum rp_weight_id which;
    uint32_t type;       /* ggml's, of the weight in the file */
    const float *weight; /* [n_out][n_in], decoded */
    size_t n_out, n_in;
    size_t
        first_out;  /* of RP_OUTPUT, which comes in blocks of rows: the first one's index; else 0 */
    const float *x; /* [n_positions][n_in] */
    float *y;       /* [n_positions][n_out], rows y_stride apart */
    size_t y_stride;
};

/* Rotates the first n_rot values of each head by positions * theta^(-2i/n_rot) / freq_factors[i],
 * computed in FP32 as HF does. RoFormer (arXiv 2104.09864); HF: apply_rotary_pos_emb. */
struct rp_rope {
    enum rp_weight_id which; /* RP_ATTN_Q or RP_ATTN_K */
    enum rp_rope_ordering ordering;
    float theta;
    const float *freq_factors; /* [n_rot / 2], or NULL for none */
    size_t n_rot;
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
 * head h reads KV head h / (n_heads / n_kv_heads). HF: eager_attention_forward. */
struct rp_attention {
    size_t n_heads, n_kv_heads, head_dim;
    float scale;
    bool is_causal;
    const float *q; /* [n_positions][n_heads][head_dim] */
    size_t n_keys;
    const float *keys;            /* [n_keys][n_kv_heads][head_dim] */
    const float *values;          /* [n_keys][n_kv_heads][head_dim] */
    const int64_t *key_positions; /* [n_keys], strictly ascending */
    float *scores;                /* [n_keys], scratch */
    float *y;                     /* [n_positions][n_heads][head_dim] */
};

/* y = silu(gate) * up. HF: Qwen3MLP, LlamaMLP. */
struct rp_ffn_activation {
    size_t dim;        /* intermediate_size */
    const float *gate; /* [n_positions][dim] */
    const float *up;   /* [n_positions][dim] */
    float *y;          /* [n_positions][dim]; may be gate */
};

/* hidden = hidden + branch. */
struct rp_residual_add {
    enum rp_weight_id which; /* the branch's last weight: RP_ATTN_OUTPUT or RP_FFN_DOWN */
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
    enum rp_status (*rope)(void *context, const struct rp_site *, const struct rp_rope *);
    enum rp_status (*kv_store)(void *context, const struct rp_site *, const struct rp_kv_store *);
    enum rp_status (*attention)(void *context, const struct rp_site *, const struct rp_attention *);
    enum rp_status (*ffn_activation)(void *context, const struct rp_site *,
                                     const struct rp_ffn_activation *);
    enum rp_status (*residual_add)(void *context, const struct rp_site *,
                                   const struct rp_residual_add *);
};

/* The reference's arithmetic, in FP32. Its functions ignore context, need no particular alignment
 * beyond float's, and fail only where rp_embed's table cannot be read. Never NULL. */
const struct rp_ops *rp_ops_default(void);

/* "attn_q", "token_embd", …: the GGUF name without "blk.N." and ".weight". Never NULL. */
const char *rp_weight_name(enum rp_weight_id which);

#ifdef __cplusplus
}
#endif
#endif
