/* The architectures as data: which operations a layer runs, on which weights, in which order, for
 * each kind of layer.
 * A new architecture is a file with its tables beside llama.c and a row in architecture.c's list, and a
 * file in operations/ for each operation that is new. Not for running them: that is model/forward.c. */
#ifndef REFPARITY_ARCHITECTURES_ARCHITECTURE_H
#define REFPARITY_ARCHITECTURES_ARCHITECTURE_H

#include "operations/operations.h"
#include "refparity/tensor_set.h"

/* Where a step reads and writes; each is [n_positions][rp_buffer_width]. */
enum rp_buffer {
    RP_BUFFER_HIDDEN, /* the residual stream */
    RP_BUFFER_NORMED,
    RP_BUFFER_Q,
    RP_BUFFER_K,
    RP_BUFFER_V,
    RP_BUFFER_Q_AND_GATE, /* attn_q's output, where attention is gated */
    RP_BUFFER_HEADS_GATE, /* what gates HEADS */
    RP_BUFFER_HEADS,      /* attention's output, before attn_output */
    RP_BUFFER_Q_A,        /* latent attention: what q_b_proj reads */
    RP_BUFFER_MLA_Q,     /* its query, where attention reads another: [n_heads][nope_dim + n_rot] */
    RP_BUFFER_KV_A,      /* latent and key that is to be rotated, side by side */
    RP_BUFFER_KV_LATENT, /* [kv_lora_rank] */
    RP_BUFFER_K_ROPE,    /* [n_rot] */
    RP_BUFFER_KV_B,      /* [n_heads][nope_dim + v_head_dim] */
    RP_BUFFER_Q_ABSORBED, /* [n_heads][kv_lora_rank] */
    RP_BUFFER_LATENTS,    /* attention's output, absorbed: [n_heads][kv_lora_rank] */
    RP_BUFFER_VALUES,     /* [n_heads][v_head_dim], before attn_output */
    RP_BUFFER_QKV,        /* the DeltaNet's Q, K and V, side by side */
    RP_BUFFER_CONV_QKV,   /* the same after the convolution */
    RP_BUFFER_DECAY,      /* HF's a, then the decay's logarithm */
    RP_BUFFER_BETA,       /* HF's b, then beta */
    RP_BUFFER_DELTA_GATE, /* HF's z */
    RP_BUFFER_DELTA,      /* the delta rule's output, before ssm_out */
    RP_BUFFER_BRANCH,     /* what is added to the residual stream */
    RP_BUFFER_GATE,
    RP_BUFFER_UP,
    RP_BUFFER_ROUTER,         /* the router's logits */
    RP_BUFFER_EXPERTS,        /* numbers of the chosen ones */
    RP_BUFFER_EXPERT_WEIGHTS, /* of the chosen ones */
    RP_BUFFER_EXPERTS_GATE,   /* of the chosen ones, side by side */
    RP_BUFFER_EXPERTS_UP,
    RP_BUFFER_EXPERTS_OUT, /* before they are weighted and summed */
    RP_BUFFER_SHARED_ROUTER,
    RP_BUFFER_SHARED_GATE,
    RP_BUFFER_SHARED_UP,
    RP_BUFFER_SHARED_OUT,
    RP_BUFFER_CACHE, /* the layer's state; it has no width of its own */
    RP_N_BUFFERS
};

struct rp_step {
    enum rp_step_kind kind;
    enum rp_weight_id which;
    enum rp_buffer in, out;
    enum rp_slot_part part;
    bool has_bias; /* of a product: rp_bias_of(which) is added to it */
};

/* What a step reads and writes. Row p of what it writes needs row p of what it reads; where reads_all,
 * also the rows of all earlier positions. */
struct rp_step_flow {
    enum rp_buffer reads[4], writes[2];
    size_t n_reads, n_writes;
    bool reads_all;
    /* Whether it is an operation whose output may differ. Others copy, or are one with the operation
     * that reads them: splitting a gate off, storing in the cache, the L2 norm before the delta rule. */
    bool is_operation;
};
struct rp_step_flow rp_step_flow(const struct rp_step *step);
/* The buffer that an activation multiplies `gate`'s by. */
enum rp_buffer rp_up_of(enum rp_buffer gate);

/* Whether it multiplies by matrices. */
bool rp_step_is_product(const struct rp_step *step);

/* What a layer of one kind computes. */
struct rp_layer_plan {
    const struct rp_step *steps; /* [n_steps] */
    size_t n_steps;              /* 0: the architecture has no such layers */
};

/* Which layers are of which kind: those with (index + 1) % interval == 0 are `nth`, the rest `others`. interval
 * 0: all are RP_LAYER_FULL_ATTENTION. Keys are NULL where there is none such. */
struct rp_layer_pattern {
    size_t interval; /* where no key says otherwise */
    enum rp_layer_kind others, nth;
    const char *gguf_interval,
        *gguf_others; /* behind the architecture's name; bools: which are `others` */
    const char *hf_interval;
    const char *hf_others; /* numbers, not 0: of `others`; NULL: "layer_types" has names of kinds */
};

/* What the converter does to a tensor's values. */
enum rp_value_change {
    RP_CHANGE_NONE,
    RP_CHANGE_PLUS_ONE,  /* a norm that HF multiplies by 1 + weight */
    RP_CHANGE_MINUS_EXP, /* -exp(x) */
    /* Of all experts' tensor, as gpt_oss_experts.h has it: its rows 0, 2, 4 …; 1, 3, 5 …; all of them. */
    RP_CHANGE_EVEN_OF_EXPERTS,
    RP_CHANGE_ODD_OF_EXPERTS,
    RP_CHANGE_ALL_OF_EXPERTS
};

/* How a weight is made from the checkpoint's tensor. */
struct rp_source {
    const char *name; /* HF's, behind "model.layers.N." or "model." */
    enum rp_weight_id which;
    enum rp_value_change change;
    enum rp_slot_part rows,
        columns; /* whose order they are in; RP_PART_OTHER: as in the checkpoint */
};

/* Weights that a file keeps in one tensor, one below the other. */
struct rp_fused {
    const char *name; /* as rp_weight_name's */
    enum rp_weight_id parts[3];
    size_t n_parts; /* 0: none */
};

struct rp_architecture {
    const char *name;     /* general.architecture */
    const char *ffn_norm; /* RP_FFN_NORM's name in the file */
    enum rp_rope_ordering rope_ordering;
    bool may_have_rope_freqs;
    bool has_attention_gate;
    bool is_interleaved_in_hf;  /* see struct rp_model_config */
    bool norms_round_last;      /* see struct rp_model_config */
    bool window_has_own_rope;   /* layers with a window: a base of their own, which is not scaled */
    bool yarn_keeps_ramp_ends;  /* see struct rp_rope_scaling; no key of a GGUF says it */
    bool yarn_scales_attention; /* by the square of mscale_all_dim's rp_yarn_mscale */
    bool scales_embeddings;     /* by sqrt(hidden_size) */
    bool ties_embeddings;       /* where config.json does not say */
    enum rp_activation_function activation;
    /* Caps of attention's scores and of the logits, where no key says otherwise; 0: the architecture has none. */
    float attention_softcap, logits_softcap;
    /* A model of so many layers scales attention by 1 / sqrt(hidden_size / n_heads), which no key of a GGUF
     * says; 0: none does. */
    size_t layers_scaled_by_width;
    struct rp_layer_plan plans[RP_N_LAYER_KINDS];
    struct rp_layer_plan dense_plans[RP_N_LAYER_KINDS]; /* of the first layers, without experts */
    struct rp_router router; /* scores, normalizes: where no key of the file says otherwise */
    bool hf_normalizes;      /* the same where config.json does not say */
    struct rp_layer_pattern pattern;
    struct rp_fused fused[2];
    const char *const *hf_names;     /* model_type in config.json, up to a NULL */
    const struct rp_source *sources; /* [n_sources]; RP_OUTPUT and RP_ROPE_FREQS have none */
    size_t n_sources;
    float partial_rotary_factor; /* where config.json has none */
    /* Latent attention: which of the forms of it config's sizes say, each an architecture with plans of its
     * own; NULL: the architecture has no latent attention. */
    const struct rp_architecture *(*form)(const struct rp_model_config *config);
};

extern const struct rp_architecture rp_architecture_deepseek2, rp_architecture_deepseek3,
    rp_architecture_llama, rp_architecture_phi3, rp_architecture_qwen3, rp_architecture_gemma2,
    rp_architecture_gemma3, rp_architecture_gpt_oss, rp_architecture_qwen2, rp_architecture_qwen35,
    rp_architecture_qwen35moe, rp_architecture_qwen3moe, rp_architecture_smollm3;

/* Their names, for a message: "llama, qwen3"; those of config.json's model_type. */
const char *rp_architecture_names(char *text, size_t size);
const char *rp_architecture_hf_names(char *text, size_t size);

/* NULL when it is not known. */
const struct rp_architecture *rp_architecture_find(struct rp_gguf_string name);

const struct rp_architecture *rp_architecture_of_hf(const char *model_type);

/* Whether it has layers of both kinds, and hence a gated DeltaNet to configure. */
bool rp_architecture_is_hybrid(const struct rp_architecture *architecture);

/* Whether it may have layers that attend to a window of positions. */
bool rp_architecture_has_window(const struct rp_architecture *architecture);

/* What a router with those scores chooses groups by. */
static inline enum rp_group_score rp_router_group_score(const struct rp_router *router)
{
    return router->scores == RP_ROUTER_SIGMOID ? RP_GROUP_BEST_TWO : RP_GROUP_MAX;
}

/* Whether it has layers with experts. */
bool rp_architecture_has_experts(const struct rp_architecture *architecture);
/* Whether one of them is an expert that all positions go to. */
bool rp_architecture_has_shared_expert(const struct rp_architecture *architecture);

/* What attention's scores are multiplied by; config's sizes are set. */
float rp_attention_scale(const struct rp_architecture *architecture,
                         const struct rp_model_config *config);

/* config as that layer has it: of sizes that differ from layer to layer its own. */
struct rp_model_config rp_layer_config(const struct rp_model_config *config, size_t layer);

/* What that layer computes; config's layer_kinds and n_dense_layers are set. */
const struct rp_layer_plan *rp_architecture_plan(const struct rp_architecture *architecture,
                                                 const struct rp_model_config *config,
                                                 size_t layer);

/* Whether some models of an architecture that has this weight are without it. */
bool rp_weight_is_optional(enum rp_weight_id which);

/* How many matrices of rp_weight_shape lie in it, one an expert; 0: it is no such stack. */
size_t rp_weight_n_stacked(const struct rp_model_config *config, enum rp_weight_id which);

/* Whether a layer of that kind has this weight. */
bool rp_layer_plan_uses(const struct rp_layer_plan *plan, enum rp_weight_id which);

/* A weight's whole name in the file; layer is ignored for those outside the layers. */
void rp_weight_full_name(const struct rp_architecture *architecture, enum rp_weight_id which,
                         size_t layer, char name[RP_GGUF_NAME_SIZE]);

/* Which rows of its tensor are the weight's, of one whose rp_weight_n_stacked is 0: n from `first` on, of n_all. */
struct rp_weight_rows {
    size_t first, n, n_all;
};
struct rp_weight_rows rp_weight_rows(const struct rp_architecture *architecture,
                                     const struct rp_model_config *config, enum rp_weight_id which);

/* 0 for what the configuration does not have; config is the layer's, here and in what takes it below. */
size_t rp_buffer_width(const struct rp_model_config *config, enum rp_buffer buffer);

/* Rows and columns of a weight; a norm's *n_out is 1. */
void rp_weight_shape(const struct rp_model_config *config, enum rp_weight_id which, size_t *n_out,
                     size_t *n_in);

#endif
