/* Bugs in attention: scale, mask, heads, scores, the KV cache. See bugs.h. */
#include "bugs_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum rp_status other_scale(void *context, const struct rp_site *site,
                                  const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_attention wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.scale = (float)((double)args->scale * bug->choice.magnitude);
    return RP_BELOW(bug, attention, site, &wrong);
}

static enum rp_status not_causal(void *context, const struct rp_site *site,
                                 const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_attention wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.is_causal = false;
    return RP_BELOW(bug, attention, site, &wrong);
}

/* The keys that a position is to see, whose own is the n_visible'th. */
struct key_range {
    size_t from, to; /* exclusive */
};
typedef struct key_range visible_fn(const struct rp_bug_site *bug, size_t n_visible, size_t n_keys);

/* Attention, position by position, over the keys that visible gives. */
static enum rp_status attend_to(const struct rp_bug_site *bug, const struct rp_site *site,
                                const struct rp_attention *args, visible_fn *visible)
{
    const size_t width = args->n_heads * args->head_dim;
    const size_t kv_width = args->n_kv_heads * args->head_dim;
    size_t n_visible = 0;
    enum rp_status status = RP_OK;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, attention, site, args);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        struct rp_site here = *site;
        struct rp_attention one = *args;
        here.n_positions = 1;
        here.positions = site->positions + p;
        while (n_visible < args->n_keys && args->key_positions[n_visible] <= site->positions[p])
            n_visible++;
        struct key_range keys = visible(bug, n_visible, args->n_keys);
        one.is_causal = false;
        one.n_keys = keys.to - keys.from;
        one.keys += keys.from * kv_width;
        one.values += keys.from * kv_width;
        one.key_positions += keys.from;
        one.q += p * width;
        one.y += p * width;
        if (one.n_keys > 0)
            status = RP_BELOW(bug, attention, &here, &one);
        else
            memset(one.y, 0, width * sizeof *one.y);
    }
    return status;
}

static struct key_range and_the_next(const struct rp_bug_site *bug, size_t n_visible, size_t n_keys)
{
    (void)bug;
    return (struct key_range){0, n_visible + (n_visible < n_keys)};
}

static struct key_range but_the_last(const struct rp_bug_site *bug, size_t n_visible, size_t n_keys)
{
    (void)bug;
    (void)n_keys;
    return (struct key_range){0, n_visible > 1 ? n_visible - 1 : n_visible};
}

static struct key_range but_the_first(const struct rp_bug_site *bug, size_t n_visible,
                                      size_t n_keys)
{
    (void)bug;
    (void)n_keys;
    return (struct key_range){n_visible > 1, n_visible};
}

static struct key_range in_window(const struct rp_bug_site *bug, size_t n_visible, size_t n_keys)
{
    size_t window = (size_t)bug->choice.magnitude;
    (void)n_keys;
    return (struct key_range){n_visible > window ? n_visible - window : 0, n_visible};
}

#define ATTEND_TO(name, keys)                                             \
    static enum rp_status name(void *context, const struct rp_site *site, \
                               const struct rp_attention *args)           \
    {                                                                     \
        return attend_to(context, site, args, keys);                      \
    }
ATTEND_TO(next_one_seen, and_the_next)
ATTEND_TO(itself_unseen, but_the_last)
ATTEND_TO(first_unseen, but_the_first)
ATTEND_TO(windowed, in_window)

/* Query head `head` alone, with the keys of KV head kv_head. */
static enum rp_status attend_head(const struct rp_bug_site *bug, const struct rp_site *site,
                                  const struct rp_attention *args, size_t head, size_t kv_head)
{
    const size_t dim = args->head_dim, n = site->n_positions;
    float *q = NULL, *keys = NULL, *values = NULL, *y = NULL;
    struct rp_attention one = *args;
    enum rp_status status = rp_bug_floats(site, n * dim, NULL, &q);
    if (status == RP_OK)
        status = rp_bug_floats(site, n * dim, NULL, &y);
    if (status == RP_OK)
        status = rp_bug_floats(site, args->n_keys * dim, NULL, &keys);
    if (status == RP_OK)
        status = rp_bug_floats(site, args->n_keys * dim, NULL, &values);
    if (status != RP_OK)
        goto done;
    for (size_t p = 0; p < n; p++)
        memcpy(q + p * dim, args->q + (p * args->n_heads + head) * dim, dim * sizeof *q);
    for (size_t key = 0; key < args->n_keys; key++) {
        size_t at = (key * args->n_kv_heads + kv_head) * dim;
        memcpy(keys + key * dim, args->keys + at, dim * sizeof *keys);
        memcpy(values + key * dim, args->values + at, dim * sizeof *values);
    }
    one.n_heads = one.n_kv_heads = 1;
    one.q = q;
    one.keys = keys;
    one.values = values;
    one.y = y;
    status = RP_BELOW(bug, attention, site, &one);
    for (size_t p = 0; p < n; p++)
        memcpy(args->y + (p * args->n_heads + head) * dim, y + p * dim, dim * sizeof *y);
done:
    free(q);
    free(keys);
    free(values);
    free(y);
    return status;
}

static enum rp_status other_kv_heads(void *context, const struct rp_site *site,
                                     const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_OK;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, attention, site, args);
    for (size_t head = 0; head < args->n_heads && status == RP_OK; head++)
        status = attend_head(bug, site, args, head, head % args->n_kv_heads);
    return status;
}

/* What becomes of a score, distance positions after its key, before the softmax. */
typedef double score_fn(double score, double distance, double magnitude);

/* One head of one position in plain FP32, with scores changed and sink in the softmax's sum. */
static void attend_scored(const struct rp_attention *args, const float *q, const float *keys,
                          const float *values, int64_t position, size_t n_visible, score_fn *change,
                          double magnitude, double sink, float *y)
{
    const size_t dim = args->head_dim, kv_width = args->n_kv_heads * dim;
    double max = -(double)INFINITY, sum = 0;
    for (size_t key = 0; key < n_visible; key++) {
        float dot = 0;
        for (size_t i = 0; i < dim; i++)
            dot += q[i] * keys[key * kv_width + i];
        double score = (double)(dot * args->scale);
        if (args->softcap > 0)
            score = (double)args->softcap * tanh(score / (double)args->softcap);
        args->scores[key] =
            (float)change(score, (double)(position - args->key_positions[key]), magnitude);
        max = fmax(max, (double)args->scores[key]);
    }
    for (size_t key = 0; key < n_visible; key++) {
        args->scores[key] = expf(args->scores[key] - (float)max);
        sum += (double)args->scores[key];
    }
    sum += exp(sink - max);
    memset(y, 0, dim * sizeof *y);
    for (size_t key = 0; key < n_visible; key++) {
        for (size_t i = 0; i < dim; i++)
            y[i] += (float)((double)args->scores[key] / sum) * values[key * kv_width + i];
    }
}

static void attend_all_scored(const struct rp_site *site, const struct rp_attention *args,
                              score_fn *change, double magnitude, double sink)
{
    const size_t group = args->n_heads / args->n_kv_heads, dim = args->head_dim;
    size_t n_visible = 0;
    for (size_t p = 0; p < site->n_positions; p++) {
        while (n_visible < args->n_keys &&
               (!args->is_causal || args->key_positions[n_visible] <= site->positions[p]))
            n_visible++;
        for (size_t head = 0; head < args->n_heads; head++) {
            size_t at = (p * args->n_heads + head) * dim;
            attend_scored(args, args->q + at, args->keys + head / group * dim,
                          args->values + head / group * dim, site->positions[p], n_visible, change,
                          magnitude, sink, args->y + at);
        }
    }
}

static double unchanged(double score, double distance, double magnitude)
{
    (void)distance;
    (void)magnitude;
    return score;
}

static double biased(double score, double distance, double magnitude)
{
    return score - magnitude * distance;
}

#define ATTEND_SCORED(name, change, sink)                                   \
    static enum rp_status name(void *context, const struct rp_site *site,   \
                               const struct rp_attention *args)             \
    {                                                                       \
        const struct rp_bug_site *bug = context;                            \
        if (!rp_bug_is_here(bug, site))                                     \
            return RP_BELOW(bug, attention, site, args);                    \
        attend_all_scored(site, args, change, bug->choice.magnitude, sink); \
        return RP_OK;                                                       \
    }
ATTEND_SCORED(with_sink, unchanged, bug->choice.magnitude)
ATTEND_SCORED(with_linear_bias, biased, -(double)INFINITY)

static enum rp_status softcapped(void *context, const struct rp_site *site,
                                 const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_attention wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.softcap = (float)bug->choice.magnitude;
    return RP_BELOW(bug, attention, site, &wrong);
}

static enum rp_status not_softcapped(void *context, const struct rp_site *site,
                                     const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_attention wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.softcap = 0;
    return RP_BELOW(bug, attention, site, &wrong);
}

/* scale cap tanh(q . key / cap), which is the scaled scores with the cap scale cap. */
static enum rp_status capped_before_scale(void *context, const struct rp_site *site,
                                          const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_attention wrong = *args;
    if (rp_bug_is_here(bug, site))
        wrong.softcap = args->softcap * args->scale;
    return RP_BELOW(bug, attention, site, &wrong);
}

/* tanh(s / cap), not times the cap again. */
static enum rp_status cap_not_multiplied(void *context, const struct rp_site *site,
                                         const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    struct rp_attention wrong = *args;
    if (rp_bug_is_here(bug, site) && args->softcap > 0) {
        wrong.scale = args->scale / args->softcap;
        wrong.softcap = 1;
    }
    return RP_BELOW(bug, attention, site, &wrong);
}

/* Keys that the mask hides have the score -cap for -infinity. */
static enum rp_status capped_after_mask(void *context, const struct rp_site *site,
                                        const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    const size_t group = args->n_heads / args->n_kv_heads, dim = args->head_dim;
    const size_t kv_width = args->n_kv_heads * dim;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, attention, site, args);
    for (size_t at = 0; at < site->n_positions * args->n_heads; at++) {
        const size_t p = at / args->n_heads, kv_at = at % args->n_heads / group * dim;
        const int64_t own = site->positions[p];
        float *y = args->y + at * dim;
        float sum = 0;
        memset(y, 0, dim * sizeof *y);
        for (size_t key = 0; key < args->n_keys; key++) {
            const int64_t distance = own - args->key_positions[key];
            const bool is_hidden =
                distance < 0 || (args->window > 0 && distance >= (int64_t)args->window);
            float score = -args->softcap, dot = 0;
            for (size_t i = 0; i < dim; i++)
                dot += args->q[at * dim + i] * args->keys[key * kv_width + kv_at + i];
            if (!is_hidden)
                score = args->softcap * tanhf(dot * args->scale / args->softcap);
            const float weight = expf(score);
            sum += weight;
            for (size_t i = 0; i < dim; i++)
                y[i] += weight * args->values[key * kv_width + kv_at + i];
        }
        for (size_t i = 0; i < dim; i++)
            y[i] /= sum;
    }
    return RP_OK;
}

/* Each key's values are those of the key before it. */
static enum rp_status values_shifted(void *context, const struct rp_site *site,
                                     const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    const size_t width = args->n_kv_heads * args->head_dim;
    struct rp_attention wrong = *args;
    float *values;
    enum rp_status status;
    if (!rp_bug_is_here(bug, site))
        return RP_BELOW(bug, attention, site, args);
    status = rp_bug_floats(site, args->n_keys * width, args->values, &values);
    if (status != RP_OK)
        return status;
    memcpy(values + width, args->values, (args->n_keys - 1) * width * sizeof *values);
    wrong.values = values;
    status = RP_BELOW(bug, attention, site, &wrong);
    free(values);
    return status;
}

static enum rp_status second_head_zero(void *context, const struct rp_site *site,
                                       const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    enum rp_status status = RP_BELOW(bug, attention, site, args);
    if (status != RP_OK || !rp_bug_is_here(bug, site))
        return status;
    for (size_t p = 0; p < site->n_positions; p++)
        memset(args->y + (p * args->n_heads + 1) * args->head_dim, 0,
               args->head_dim * sizeof *args->y);
    return RP_OK;
}

/* The heads' output as [head_dim][n_heads]. */
static enum rp_status heads_transposed(void *context, const struct rp_site *site,
                                       const struct rp_attention *args)
{
    const struct rp_bug_site *bug = context;
    const size_t width = args->n_heads * args->head_dim;
    float *right;
    enum rp_status status = RP_BELOW(bug, attention, site, args);
    if (status != RP_OK || !rp_bug_is_here(bug, site))
        return status;
    status = rp_bug_floats(site, site->n_positions * width, args->y, &right);
    if (status != RP_OK)
        return status;
    for (size_t i = 0; i < site->n_positions * width; i++) {
        size_t head = i % width / args->head_dim, channel = i % args->head_dim;
        args->y[i - i % width + channel * args->n_heads + head] = right[i];
    }
    free(right);
    return RP_OK;
}

#define ATTENTION_BUG                                               \
    .layers = RP_BUG_IN_FULL_ATTENTION, .first_part = RP_PART_ATTN, \
    .architectures = RP_EVERY_ARCHITECTURE
#define SOFTCAP_BUG                                                                       \
    .layers = RP_BUG_IN_ANY_LAYER, .first_part = RP_PART_ATTN, .architectures = "gemma2", \
    RP_BOTH_MODES
static const struct rp_bug bugs[] = {
    {
        .name = "attention-scale",
        .description = "scores times a factor; 4 is no scale at all with heads of 16",
        .provenance = "github.com/ollama/ollama pull 13893 (scale of another dimension); "
                      "github.com/mlc-ai/mlc-llm pull 3426 (none)",
        ATTENTION_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .ops = {.attention = other_scale},
        RP_FACTORS(4),
        .at_position = true,
        .in_head = true,
        .names = "attention-scale",
    },
    {
        .name = "attention-not-causal",
        .description = "the batched path sees later positions",
        .provenance = "github.com/lablup/mlxcel pull 998 (prefill without its mask); "
                      "github.com/Mikyx-1/TinyLLM issue 17",
        ATTENTION_BUG,
        .in_batched = true,
        .ops = {.attention = not_causal},
        .at_position = true,
        .names = "attention-mask",
    },
    {
        .name = "attention-sees-next",
        .description = "each position also sees the one after it",
        .provenance = "github.com/ml-explore/mlx-lm pull 390 (a mask with one position too many)",
        ATTENTION_BUG,
        .in_batched = true,
        .ops = {.attention = next_one_seen},
        .names = "attention-mask",
    },
    {
        .name = "attention-misses-itself",
        .description = "no position but the first sees itself",
        .provenance = "github.com/vllm-project/vllm issue 3385 (whether a position counts itself)",
        ATTENTION_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .ops = {.attention = itself_unseen},
        .names = "attention-mask",
    },
    {
        .name = "attention-misses-first",
        .description = "the first key is not seen by later positions",
        .provenance = "github.com/huggingface/transformers issue 29623 (a window of one less)",
        ATTENTION_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .ops = {.attention = first_unseen},
        .names = "attention-mask,attention-window,-",
    },
    {
        .name = "attention-window",
        .description = "only so many positions are seen, where the model sees all",
        .provenance = "github.com/EricLBuehler/mistral.rs issue 2094 (window and full attention "
                      "mixed up); github.com/huggingface/transformers issue 39408 (off by one)",
        ATTENTION_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .ops = {.attention = windowed},
        RP_MAGNITUDES(2, 4, 8, 16, 24, 4096),
        .names = "attention-window",
    },
    {
        .name = "kv-head-mapping",
        .description = "query head h reads KV head h % n for h / (heads / n)",
        .provenance = "github.com/ekzhang/jax-js pull 180 (tile for repeat); "
                      "github.com/PSAL-POSTECH/ONNXim pull 34",
        ATTENTION_BUG,
        RP_BOTH_MODES,
        .ops = {.attention = other_kv_heads},
        .at_position = true,
        .in_head = true,
        .names = "attention-head-mapping",
    },
    {
        .name = "attention-softcap",
        .description = "scores are capped as in Gemma 2, which the model does not do",
        .provenance = "github.com/sgl-project/sglang issue 33915 (the cap dropped, the other way "
                      "round)",
        ATTENTION_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .ops = {.attention = softcapped},
        RP_MAGNITUDES(1, 5, 20, 50, 200, 1000, 30000),
        .names = "attention-softcap",
    },
    {
        .name = "softcap-missing",
        .description = "Gemma 2's scores are not capped",
        .provenance = "github.com/sgl-project/sglang issue 33915 (the cap dropped)",
        SOFTCAP_BUG,
        .ops = {.attention = not_softcapped},
        .names = "attention-softcap",
    },
    {
        .name = "softcap-before-scale",
        .description = "Gemma 2's scores are capped before they are scaled",
        .provenance = "github.com/ggml-org/llama.cpp pull 8197 (where the cap and the scale stand)",
        SOFTCAP_BUG,
        .ops = {.attention = capped_before_scale},
        .names = "attention-softcap",
    },
    {
        .name = "softcap-not-multiplied",
        .description = "Gemma 2's scores are tanh(s / cap), without the product with the cap",
        .provenance = "github.com/ggml-org/llama.cpp pull 8197 (three steps of the graph)",
        SOFTCAP_BUG,
        .ops = {.attention = cap_not_multiplied},
        .names = "attention-softcap",
    },
    {
        .name = "softcap-after-mask",
        .description = "the mask is set before the cap, which makes -infinity a score",
        .provenance = "github.com/ggml-org/llama.cpp pull 8197 (where the cap and the mask stand)",
        SOFTCAP_BUG,
        .ops = {.attention = capped_after_mask},
        .names = "attention-softcap",
    },
    {
        .name = "attention-sink",
        .description = "a further logit in the softmax's sum",
        .provenance = "github.com/vllm-project/vllm-metal pull 550 (sinks and none mixed up); "
                      "github.com/karpathy/llama2.c issue 59",
        ATTENTION_BUG,
        RP_BOTH_MODES,
        .ops = {.attention = with_sink},
        RP_MAGNITUDES(1, -2, -5, -8, -11, -14, -18),
        .names = "attention-sink",
    },
    {
        .name = "attention-linear-bias",
        .description = "ALiBi's bias on top of RoPE",
        .provenance = "github.com/paiml/aprender pull 2143 (slopes off); "
                      "github.com/vllm-project/vllm pull 945",
        ATTENTION_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .ops = {.attention = with_linear_bias},
        RP_MAGNITUDES(0.5, 0.05, 5e-3, 5e-4, 5e-5, 5e-6, 1e-8),
        .names = "-",
    },
    {
        .name = "kv-values-shifted",
        .description = "V is read one slot of the cache too early",
        .provenance = "github.com/vllm-project/vllm issue 54498 (KV slots addressed wrongly)",
        ATTENTION_BUG,
        RP_BOTH_MODES,
        .spares_position_0 = true,
        .ops = {.attention = values_shifted},
        .names = "kv-shifted",
    },
    {
        .name = "attention-head-zero",
        .description = "one head's output is zero",
        .provenance = "github.com/vllm-project/vllm-ascend issue 3571 (attention's output zero)",
        ATTENTION_BUG,
        RP_BOTH_MODES,
        .ops = {.attention = second_head_zero},
        .at_position = true,
        .names = "attention-head",
    },
    {
        .name = "attention-heads-transposed",
        .description = "the heads' output is laid out [head_dim][n_heads]",
        .provenance = "github.com/flexflow/flexflow-train pull 715 (W_out read in another layout)",
        ATTENTION_BUG,
        RP_BOTH_MODES,
        .ops = {.attention = heads_transposed},
        .names = "-,channels-swapped,attention-head",
    },
};

const struct rp_bug_family rp_attention_bugs = RP_FAMILY(bugs);
