/* See operations/attention_engine_test_util.h. */
#include "operations/attention_engine_test_util.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "formats/half.h"
#include "formats/rounding.h"

/* ---- the call ---- */

/* Near a normal distribution of variance 4/3; the bits are mixed, as a Hadamard matrix would find the
 * pattern of a linear congruence. */
static void fill(float *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (uint64_t k = 0; k < 4; k++) {
            uint64_t bits = ((seed << 40) + 4 * i + k + 1) * 0x9e3779b97f4a7c15u;
            bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
            bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
            sum += (float)(bits >> 40) / 8388608.0f - 1.0f;
        }
        x[i] = sum;
    }
}

void attention_call_make(struct attention_call *call, size_t n, unsigned seed,
                         const struct rp_numerics *numerics, enum rp_mode mode)
{
    static int64_t positions[CALL_POSITIONS];
    static float scores[CALL_POSITIONS];
    const struct rp_model_config config = {.head_dim = CALL_DIM};
    const struct rp_site site = {
        .config = &config, .mode = mode, .n_positions = n, .positions = positions};
    struct rp_emulation emulation;
    call->n = n;
    fill(call->q, n * CALL_WIDTH, 3 * seed + 1);
    fill(call->k, n * CALL_KV_WIDTH, 3 * seed + 2);
    fill(call->v, n * CALL_KV_WIDTH, 3 * seed + 3);
    fill(call->sinks, CALL_HEADS, 3 * seed + 4);
    for (size_t i = 0; i < n; i++)
        positions[i] = (int64_t)i;
    const struct rp_kv_store store = {.dim = CALL_KV_WIDTH,
                                      .k = call->k,
                                      .v = call->v,
                                      .keys = call->keys,
                                      .values = call->values};
    const struct rp_attention args = {.n_heads = CALL_HEADS,
                                      .n_kv_heads = CALL_KV_HEADS,
                                      .head_dim = CALL_DIM,
                                      .scale = CALL_SCALE,
                                      .softcap = call->softcap,
                                      .is_causal = true,
                                      .sinks = call->has_sinks ? call->sinks : NULL,
                                      .q = call->q,
                                      .n_keys = n,
                                      .keys = call->keys,
                                      .values = call->values,
                                      .key_positions = positions,
                                      .scores = scores,
                                      .y = call->y};
    rp_emulation_open(&emulation, numerics, NULL);
    assert_int_equal(emulation.overlay.ops.kv_store(&emulation, &site, &store), RP_OK);
    assert_int_equal(emulation.overlay.ops.attention(&emulation, &site, &args), RP_OK);
    assert_int_equal(
        rp_attention_bound(numerics, &site, &args, call->k, call->v, call->sigma, call->tips),
        RP_OK);
}

size_t attention_rows_over(const struct attention_call *call, const float *y, double share,
                           bool is_sigma_alone)
{
    size_t n_over = 0;
    for (size_t p = 0; p < call->n; p++) {
        double error = 0, sigma = 0;
        for (size_t i = p * CALL_WIDTH; i < (p + 1) * CALL_WIDTH; i++) {
            error += pow((double)y[i] - (double)call->y[i], 2);
            sigma += (double)call->sigma[i] * (double)call->sigma[i];
        }
        const double limit = 3 * sqrt(sigma) + (is_sigma_alone ? 0 : call->tips[p]);
        n_over += !(sqrt(error) <= share * limit);
    }
    return n_over;
}

/* ---- sums ---- */

static float sum_pairwise(const float *terms, size_t n)
{
    if (n < 2)
        return n ? terms[0] : 0;
    return sum_pairwise(terms, n / 2) + sum_pairwise(terms + n / 2, n - n / 2);
}

static float sum_of(enum sum_order order, const float *terms, size_t n)
{
    float sum = 0;
    double wide = 0;
    if (order == SUM_PAIRWISE)
        return sum_pairwise(terms, n);
    for (size_t i = 0; i < n; i++) {
        const float term = terms[order == SUM_REVERSE ? n - 1 - i : i];
        sum += term;
        wide += (double)term;
    }
    return order == SUM_DOUBLE ? (float)wide : sum;
}

/* ---- what a quantized cache stores ---- */

static bool is_odd(size_t bits)
{
    for (size_t shift = 4; shift > 0; shift /= 2) /* CALL_DIM is 2^6 */
        bits ^= bits >> shift;
    return bits & 1;
}

/* Heads of CALL_DIM times the Hadamard matrix, each value a sum of its own. */
static void turn(enum sum_order order, float *x, size_t n)
{
    float turned[CALL_DIM], terms[CALL_DIM];
    for (size_t first = 0; first < n; first += CALL_DIM) {
        for (size_t i = 0; i < CALL_DIM; i++) {
            for (size_t j = 0; j < CALL_DIM; j++)
                terms[j] = is_odd(i & j) ? -0.125f * x[first + j] : 0.125f * x[first + j];
            turned[i] = sum_of(order, terms, CALL_DIM);
        }
        memcpy(x + first, turned, sizeof turned);
    }
}

/* One step of a block's first 32 values is their largest over 127 or 8. */
static void move_by_a_step(unsigned format, float *head, size_t value)
{
    float largest = 0;
    for (size_t i = value / 32 * 32; i < value / 32 * 32 + 32; i++)
        largest = fmaxf(largest, fabsf(head[i]));
    head[value] += largest / (format == RP_GGML_Q4_0 ? 8.0f : 127.0f);
}

/* What is multiplied: with a quantized cache, turned. */
struct operands {
    float q[CALL_POSITIONS * CALL_WIDTH];
    float keys[CALL_POSITIONS * CALL_KV_WIDTH], values[CALL_POSITIONS * CALL_KV_WIDTH];
};

static void round_rows(unsigned format, float *x, size_t n, size_t width)
{
    for (size_t p = 0; p < n; p++)
        rp_round_row(format, x + p * width, width, x + p * width);
}

static void prepare(const struct attention_engine *engine, const struct attention_call *call,
                    struct operands *to)
{
    const size_t n_q = call->n * CALL_WIDTH, n_kv = call->n * CALL_KV_WIDTH;
    memcpy(to->q, call->q, n_q * sizeof *to->q);
    memcpy(to->keys, engine->cache_format ? call->k : call->keys, n_kv * sizeof *to->keys);
    memcpy(to->values, engine->cache_format ? call->v : call->values, n_kv * sizeof *to->values);
    if (engine->q_in_f16)
        round_rows(RP_GGML_F16, to->q, call->n, CALL_WIDTH);
    if (!engine->cache_format)
        return;
    turn(engine->order, to->q, n_q);
    turn(engine->order, to->keys, n_kv);
    turn(engine->order, to->values, n_kv);
    if (!engine->keeps_q)
        round_rows(RP_GGML_Q8_0, to->q, call->n, CALL_WIDTH);
    round_rows(engine->cache_format, to->keys, call->n, CALL_KV_WIDTH);
    round_rows(engine->cache_format, to->values, call->n, CALL_KV_WIDTH);
    for (size_t p = 0; p < call->n && engine->moved_k > 0; p++)
        move_by_a_step(engine->cache_format, to->keys + p * CALL_KV_WIDTH, engine->moved_k - 1);
}

/* ---- one head of one position ---- */

static float round_sum(const struct attention_engine *engine, float x)
{
    return engine->sums_in_f16 ? rp_round_f16(x) : x;
}

static void one_pass(const struct attention_engine *engine, const float *scores,
                     const float *values, size_t n, float sink, float *y)
{
    float max = -INFINITY, sum = 0;
    memset(y, 0, CALL_DIM * sizeof *y);
    for (size_t key = 0; key < n; key++) {
        const float grown = fmaxf(max, scores[key]), rescale = expf(max - grown);
        const float weight = expf(scores[key] - grown);
        for (size_t i = 0; i < CALL_DIM && grown > max; i++)
            y[i] = round_sum(engine, y[i] * rescale);
        for (size_t i = 0; i < CALL_DIM; i++)
            y[i] = round_sum(engine, fmaf(weight, values[key * CALL_KV_WIDTH + i], y[i]));
        sum = sum * rescale + weight;
        max = grown;
    }
    sum += expf(sink - max);
    for (size_t i = 0; i < CALL_DIM; i++)
        y[i] /= sum;
}

static void two_passes(const struct attention_engine *engine, float *scores, const float *values,
                       size_t n, float sink, float *y)
{
    float max = sink, terms[CALL_POSITIONS];
    for (size_t key = 0; key < n; key++)
        max = fmaxf(max, scores[key]);
    for (size_t key = 0; key < n; key++)
        scores[key] = expf(scores[key] - max);
    const float sum = sum_of(engine->order, scores, n) + expf(sink - max);
    for (size_t key = 0; key < n; key++) {
        scores[key] /= sum;
        if (engine->weights_in_f16)
            scores[key] = rp_round_f16(scores[key]);
        if (engine->weights_in_bf16)
            scores[key] = rp_round_bf16(scores[key]);
    }
    for (size_t i = 0; i < CALL_DIM; i++) {
        for (size_t key = 0; key < n; key++)
            terms[key] = scores[key] * values[key * CALL_KV_WIDTH + i];
        y[i] = sum_of(engine->order, terms, n);
    }
}

void attention_engine_run(const struct attention_engine *engine, const struct attention_call *call,
                          float *y)
{
    static struct operands from;
    const float scale = (float)((double)CALL_SCALE * (1 + engine->scale_off));
    const float cap =
        engine->leaves_cap_out ? 0 : (float)((double)call->softcap * (1 + engine->cap_off));
    prepare(engine, call, &from);
    for (size_t row = 0; row < call->n * CALL_HEADS; row++) {
        const size_t p = row / CALL_HEADS, head = row % CALL_HEADS;
        const size_t kv_at = head / (CALL_HEADS / CALL_KV_HEADS) * CALL_DIM;
        const bool has_sink = call->has_sinks && engine->without_sink != head + 1;
        const float sink = has_sink ? call->sinks[head] : -INFINITY;
        float scores[CALL_POSITIONS], terms[CALL_DIM];
        for (size_t key = 0; key <= p; key++) {
            for (size_t i = 0; i < CALL_DIM; i++)
                terms[i] = from.q[row * CALL_DIM + i] * from.keys[key * CALL_KV_WIDTH + kv_at + i];
            scores[key] = sum_of(engine->order, terms, CALL_DIM) * scale;
            if (cap > 0) /* as ggml: times 1 / cap */
                scores[key] = tanhf(scores[key] * (1 / cap)) * cap;
        }
        if (engine->masks_first_key && p > 0)
            scores[0] = -INFINITY;
        if (engine->is_one_pass || engine->sums_in_f16)
            one_pass(engine, scores, from.values + kv_at, p + 1, sink, y + row * CALL_DIM);
        else
            two_passes(engine, scores, from.values + kv_at, p + 1, sink, y + row * CALL_DIM);
    }
    if (engine->cache_format)
        turn(engine->order, y, call->n * CALL_WIDTH);
}
