/* DeepSeek V2 and V3: latent attention. Of K and V a latent is kept, and one rotated key, which all heads read.
 * HF makes keys and values of the latent (kv_b_proj); engines, and the GGUF files that converters write, multiply
 * queries and attention's output instead (attn_k_b, attn_v_b: absorbed). Older files have attn_kv_b. */
#include "architectures/sources.h"
#include "architectures/steps.h"

/* clang-format off */
#define QUERY_BY_LATENT(to)                                     \
    PROJECT(RP_ATTN_Q_A, RP_PART_QA, RP_BUFFER_Q_A),            \
    RMS_NORM(RP_ATTN_Q_A_NORM, RP_BUFFER_Q_A, RP_BUFFER_Q_A),   \
    TAP(RP_PART_QANORM, RP_BUFFER_Q_A),                         \
    LINEAR(RP_ATTN_Q_B, RP_BUFFER_Q_A, to),                     \
    TAP(RP_PART_Q, to)
#define QUERY(to) PROJECT(RP_ATTN_Q, RP_PART_Q, to)
#define LATENT                                                              \
    PROJECT(RP_ATTN_KV_A, RP_PART_KVA, RP_BUFFER_KV_A),                     \
    STEP(RP_STEP_SPLIT_LATENT, RP_N_WEIGHTS, RP_BUFFER_KV_A, RP_BUFFER_KV_LATENT), \
    RMS_NORM(RP_ATTN_KV_A_NORM, RP_BUFFER_KV_LATENT, RP_BUFFER_KV_LATENT),  \
    TAP(RP_PART_KVANORM, RP_BUFFER_KV_LATENT)
#define ROTATE_BOTH(query)                          \
    ROTATE(RP_ATTN_Q, RP_PART_QROPE, query),        \
    ROTATE(RP_ATTN_K, RP_PART_KROPE, RP_BUFFER_K_ROPE)
#define JOIN_KEY(from) STEP(RP_STEP_JOIN_KEY, RP_N_WEIGHTS, from, RP_BUFFER_K)
#define NARROW_HEADS(to) STEP(RP_STEP_NARROW_HEADS, RP_N_WEIGHTS, RP_BUFFER_HEADS, to)
#define ABSORBED                                                        \
    LATENT,                                                             \
    ROTATE_BOTH(RP_BUFFER_MLA_Q),                                       \
    HEAD_LINEAR(RP_ATTN_K_B, RP_BUFFER_MLA_Q, RP_BUFFER_Q_ABSORBED),    \
    TAP(RP_PART_QABSORBED, RP_BUFFER_Q_ABSORBED),                       \
    STEP(RP_STEP_JOIN_QUERY, RP_N_WEIGHTS, RP_BUFFER_Q_ABSORBED, RP_BUFFER_Q), \
    JOIN_KEY(RP_BUFFER_KV_LATENT),                                      \
    KV_STORE,                                                           \
    ATTENTION,                                                          \
    NARROW_HEADS(RP_BUFFER_LATENTS),                                    \
    TAP(RP_PART_LATENT, RP_BUFFER_LATENTS),                             \
    HEAD_LINEAR(RP_ATTN_V_B, RP_BUFFER_LATENTS, RP_BUFFER_VALUES),      \
    TAP(RP_PART_ATTN, RP_BUFFER_VALUES),                                \
    MIXER_OUT(RP_ATTN_OUTPUT, RP_BUFFER_VALUES)
#define NOT_ABSORBED                                                    \
    LATENT,                                                             \
    LINEAR(RP_ATTN_KV_B, RP_BUFFER_KV_LATENT, RP_BUFFER_KV_B),          \
    TAP(RP_PART_KVB, RP_BUFFER_KV_B),                                   \
    ROTATE_BOTH(RP_BUFFER_Q),                                           \
    JOIN_KEY(RP_BUFFER_KV_B),                                           \
    KV_STORE,                                                           \
    ATTENTION,                                                          \
    NARROW_HEADS(RP_BUFFER_VALUES),                                     \
    TAP(RP_PART_ATTN, RP_BUFFER_VALUES),                                \
    MIXER_OUT(RP_ATTN_OUTPUT, RP_BUFFER_VALUES)
/* clang-format on */

/* HF: DeepseekV2DecoderLayer, DeepseekV3DecoderLayer with q_lora_rank and without; the first layers have no
 * experts. DeepSeek V3 corrects the scores that choose. */
#define MIXTURE EXPERTS_AND_SHARED(RP_ROUTER_CORRECTION)
static const struct rp_step by_latent_absorbed[] = {BEGIN, QUERY_BY_LATENT(RP_BUFFER_MLA_Q),
                                                    ABSORBED, MIXTURE};
static const struct rp_step by_latent_absorbed_dense[] = {BEGIN, QUERY_BY_LATENT(RP_BUFFER_MLA_Q),
                                                          ABSORBED, FFN};
static const struct rp_step by_latent[] = {BEGIN, QUERY_BY_LATENT(RP_BUFFER_Q), NOT_ABSORBED,
                                           MIXTURE};
static const struct rp_step by_latent_dense[] = {BEGIN, QUERY_BY_LATENT(RP_BUFFER_Q), NOT_ABSORBED,
                                                 FFN};
static const struct rp_step plain_absorbed[] = {BEGIN, QUERY(RP_BUFFER_MLA_Q), ABSORBED, MIXTURE};
static const struct rp_step plain_absorbed_dense[] = {BEGIN, QUERY(RP_BUFFER_MLA_Q), ABSORBED, FFN};
static const struct rp_step plain[] = {BEGIN, QUERY(RP_BUFFER_Q), NOT_ABSORBED, MIXTURE};
static const struct rp_step plain_dense[] = {BEGIN, QUERY(RP_BUFFER_Q), NOT_ABSORBED, FFN};

static const struct rp_source deepseek2_sources[] = {
    EMBEDDING_SOURCES,
    NORM_SOURCES(RP_CHANGE_NONE),
    AS_IT_IS(RP_ATTN_Q, "self_attn.q_proj.weight"),
    AS_IT_IS(RP_ATTN_Q_A, "self_attn.q_a_proj.weight"),
    AS_IT_IS(RP_ATTN_Q_A_NORM, "self_attn.q_a_layernorm.weight"),
    AS_IT_IS(RP_ATTN_Q_B, "self_attn.q_b_proj.weight"),
    AS_IT_IS(RP_ATTN_KV_A, "self_attn.kv_a_proj_with_mqa.weight"),
    AS_IT_IS(RP_ATTN_KV_A_NORM, "self_attn.kv_a_layernorm.weight"),
    AS_IT_IS(RP_ATTN_KV_B, "self_attn.kv_b_proj.weight"),
    AS_IT_IS(RP_ATTN_K_B, "self_attn.kv_b_proj.weight"),
    AS_IT_IS(RP_ATTN_V_B, "self_attn.kv_b_proj.weight"),
    AS_IT_IS(RP_ATTN_OUTPUT, "self_attn.o_proj.weight"),
    FFN_SOURCES,
    EXPERTS_SOURCES,
    AS_IT_IS(RP_ROUTER_CORRECTION, "mlp.gate.e_score_correction_bias"),
    SHARED_EXPERT_SOURCES("shared_experts"),
};

static const char *const deepseek2_hf_names[] = {"deepseek_v2", NULL};
static const char *const deepseek3_hf_names[] = {"deepseek_v3", NULL};

static const struct rp_architecture *form_of(const struct rp_model_config *config);

/* V2 and V3 are one architecture in a GGUF, which says how scores are made. HF's V3 has sigmoids whatever
 * config.json says, and does not write that there. */
/* clang-format off */
#define FORM(steps, dense_steps, model_types, function)                       \
    {                                                                         \
        .name = "deepseek2",                                                  \
        .ffn_norm = "ffn_norm",                                               \
        .rope_ordering = RP_ROPE_INTERLEAVED,                                 \
        .is_interleaved_in_hf = true,                                         \
        .yarn_scales_attention = true,                                        \
        .plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(steps)},                   \
        .dense_plans = {[RP_LAYER_FULL_ATTENTION] = PLAN(dense_steps)},       \
        .router = {.scores = (function)},                                     \
        .hf_normalizes = (function) == RP_ROUTER_SIGMOID,                     \
        .hf_names = (model_types),                                            \
        SOURCES(deepseek2_sources),                                           \
        .partial_rotary_factor = 1.0f,                                        \
        .form = form_of                                                       \
    }
/* clang-format on */

const struct rp_architecture rp_architecture_deepseek2 =
    FORM(by_latent_absorbed, by_latent_absorbed_dense, deepseek2_hf_names, RP_ROUTER_SOFTMAX);
const struct rp_architecture rp_architecture_deepseek3 =
    FORM(by_latent_absorbed, by_latent_absorbed_dense, deepseek3_hf_names, RP_ROUTER_SIGMOID);
static const struct rp_architecture deepseek2_by_latent =
                                        FORM(by_latent, by_latent_dense, deepseek2_hf_names,
                                             RP_ROUTER_SOFTMAX),
                                    deepseek2_plain_absorbed =
                                        FORM(plain_absorbed, plain_absorbed_dense,
                                             deepseek2_hf_names, RP_ROUTER_SOFTMAX),
                                    deepseek2_plain = FORM(plain, plain_dense, deepseek2_hf_names,
                                                           RP_ROUTER_SOFTMAX);

static const struct rp_architecture *form_of(const struct rp_model_config *config)
{
    if (config->q_lora_rank > 0)
        return config->is_absorbed ? &rp_architecture_deepseek2 : &deepseek2_by_latent;
    return config->is_absorbed ? &deepseek2_plain_absorbed : &deepseek2_plain;
}
