/* See operations/attention_row.h, and README.md for the derivation. */
#include "operations/attention_row.h"

#include <math.h>
#include <string.h>

#include "base/avx2.h"
#include "formats/half.h"
#include "operations/tips.h"

/* Three of these are 4.5 u: exp by a polynomial may be off by 2 units in the last place. */
#define EXP_ERROR 1.5
/* Square of what is rounded once: the sum's inverse, the product with it, the result. */
#define LAST_ROUNDINGS (3 * RP_SCORE_ERROR * RP_SCORE_ERROR)
/* E|error| of a normal distribution, over its sigma. */
#define MEAN_SIZE 0.8
#define F16_STEP 0x1p-10     /* at most, relative */
#define F16_SMALLEST 0x1p-24 /* step of subnormals */
#define LANES 8

/* ---- scores ---- */

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

/* Pair by pair. */
RP_LOOP float sum_of(const lanes *all)
{
    const float *lane = (const float *)all;
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* dots [n] = q . key, squares [n] the sum of the terms' squares, of each key; keys are kv_dim apart. */
RP_LOOP void products_loop(const float *restrict q, const float *restrict keys, size_t n,
                           size_t dim, size_t kv_dim, float *restrict dots, float *restrict squares)
{
    for (size_t key = 0; key < n; key++, keys += kv_dim) {
        lanes sums = {0}, of_squares = {0}, a, b;
        size_t i = 0;
        for (; i + LANES <= dim; i += LANES) {
            memcpy(&a, q + i, sizeof a);
            memcpy(&b, keys + i, sizeof b);
            a *= b;
            sums += a;
            of_squares += a * a;
        }
        dots[key] = sum_of(&sums);
        squares[key] = sum_of(&of_squares);
        for (; i < dim; i++) {
            const float term = q[i] * keys[i];
            dots[key] += term;
            squares[key] += term * term;
        }
    }
}
RP_COMPILE_TWICE(static, products,
                 (const float *restrict q, const float *restrict keys, size_t n, size_t dim,
                  size_t kv_dim, float *restrict dots, float *restrict squares),
                 (q, keys, n, dim, kv_dim, dots, squares))

/* A score that goes through the cap: what it was off by shrinks by tanh's slope, and the cap's own roundings are
 * added. square: of sigma, in u. */
static float capped(float score, float cap, float *square)
{
    const float y = rp_softcap(score, cap), slope = rp_softcap_slope(y, cap);
    const float of_input = (float)RP_SOFTCAP_INPUT_ERROR * score;
    const float of_output = (float)RP_SOFTCAP_ERROR * y;
    *square = slope * slope * (*square + of_input * of_input) + of_output * of_output;
    return y;
}

/* The score is a sum, scaled, and capped where the model does that; the maximum is taken from it, and that goes through
 * exp. Where Q and K were turned, the terms are of one size. Of n_common keys the sums stand there already. */
void rp_attention_row_fill(const struct rp_attention_row *row, size_t n_common)
{
    const size_t dim = row->args->head_dim;
    const float scale = row->args->scale, c = (float)(RP_SCORE_ERROR * RP_SCORE_ERROR);
    const float of_terms = c * (float)dim * scale * scale;
    const float q_norm = row->key_norms ? (float)rp_square_of(row->q, dim) : 0.0f;
    const float sink = rp_attention_sink(row->args, row->head);
    float max = sink;
    double sum = 0;
    products(row->q, row->keys + n_common * row->kv_dim, row->n_visible - n_common, dim,
             row->kv_dim, row->scores + n_common, row->errors + n_common);
    for (size_t key = 0; key < row->n_visible; key++) {
        float square = row->errors[key];
        const float dot = row->scores[key];
        row->scores[key] = dot * scale;
        if (row->key_norms)
            square += q_norm * row->key_norms[key * row->args->n_kv_heads] / (float)dim;
        row->errors[key] =
            of_terms * (square + dot * dot / 3.0f) + c * row->scores[key] * row->scores[key];
        if (row->args->softcap > 0)
            row->scores[key] = capped(row->scores[key], row->args->softcap, &row->errors[key]);
        max = row->scores[key] > max ? row->scores[key] : max;
    }
    for (size_t key = 0; key < row->n_visible; key++) {
        const float below = max - row->scores[key];
        row->errors[key] =
            sqrtf(row->errors[key] + c * below * below + (float)(EXP_ERROR * EXP_ERROR));
        row->weights[key] = expf(-below);
        sum += (double)row->weights[key];
    }
    row->sink[0] = row->sink[1] = 0.0f;
    if (row->args->sinks) {
        const float below = max - sink, weight = expf(-below);
        sum += (double)weight;
        row->sink[0] = (float)((double)weight / sum);
        row->sink[1] = sqrtf(c * below * below + (float)(EXP_ERROR * EXP_ERROR));
    }
    for (size_t key = 0; key < row->n_visible; key++)
        row->weights[key] = (float)((double)row->weights[key] / sum);
}

/* ---- sums in FP32 ---- */

/* sum [dim]: adds of each key its by_weight times (value - y)^2 and its by_sum times value^2, where
 * by_weight is (weight error)^2, 0 where errors is NULL, and by_sum is of_sum weight^2; values are kv_dim
 * apart. */
RP_LOOP void add_value_squares_loop(const float *restrict values, const float *restrict weights,
                                    const float *restrict errors, size_t n, size_t kv_dim,
                                    const float *restrict y, size_t dim, float of_sum,
                                    float *restrict sum)
{
    for (size_t key = 0; key < n; key++, values += kv_dim) {
        const float weight = weights[key], error = errors ? weight * errors[key] : 0.0f;
        const float by_weight = error * error, by_sum = weight * weight * of_sum;
        for (size_t i = 0; i < dim; i++) {
            const float away = values[i] - y[i];
            sum[i] += by_weight * away * away + by_sum * values[i] * values[i];
        }
    }
}
RP_COMPILE_TWICE(static, add_value_squares,
                 (const float *restrict values, const float *restrict weights,
                  const float *restrict errors, size_t n, size_t kv_dim, const float *restrict y,
                  size_t dim, float of_sum, float *restrict sum),
                 (values, weights, errors, n, kv_dim, y, dim, of_sum, sum))

double rp_attention_row_of_sum(const struct rp_attention_row *row)
{
    return RP_SCORE_ERROR * RP_SCORE_ERROR * (double)row->n_visible;
}

void rp_attention_row_sums(const struct rp_attention_row *row, bool passes_weights, size_t n_common,
                           float *sum, float *sigma)
{
    const size_t dim = row->args->head_dim;
    add_value_squares(row->values + n_common * row->kv_dim, row->weights + n_common,
                      passes_weights ? row->errors + n_common : NULL, row->n_visible - n_common,
                      row->kv_dim, row->y, dim, (float)rp_attention_row_of_sum(row), sum);
    /* The sum over values and, where weights are passed on, the sum of the weights: terms of one sign. The
     * sink's value is 0, so that its error is one of weight times y. */
    const double of_sink = passes_weights ? (double)row->sink[0] * (double)row->sink[1] : 0;
    const double of_y = rp_attention_row_of_sum(row) * (passes_weights ? 2 : 1) / 3 +
                        LAST_ROUNDINGS + of_sink * of_sink;
    for (size_t i = 0; i < dim; i++)
        sigma[i] = (float)(RP_UNIT_ROUNDOFF *
                           sqrt((double)sum[i] + of_y * (double)row->y[i] * (double)row->y[i]));
}

void rp_attention_row_turned_back(const float *y, size_t dim, size_t size, float *sigma)
{
    for (size_t first = 0; size > 0 && first < dim; first += size) {
        const double square =
            pow(RP_SCORE_ERROR * RP_UNIT_ROUNDOFF, 2) * rp_square_of(y + first, size);
        for (size_t i = first; i < first + size; i++)
            sigma[i] = (float)sqrt((double)sigma[i] * (double)sigma[i] + square);
    }
}

/* ---- softmax weights in F16 ---- */

double rp_attention_row_weights_tip(const struct rp_attention_row *row)
{
    double of_others = RP_SCORE_ERROR * RP_SCORE_ERROR * (double)row->n_visible / 3 +
                       LAST_ROUNDINGS + pow((double)row->sink[0] * (double)row->sink[1], 2),
           sum = 0;
    for (size_t key = 0; key < row->n_visible; key++)
        of_others += pow((double)row->weights[key] * (double)row->errors[key], 2);
    for (size_t key = 0; key < row->n_visible; key++) {
        const double weight = (double)row->weights[key], error = (double)row->errors[key];
        const float rounded = rp_round_f16(row->weights[key]);
        const float other = rp_other_f16(row->weights[key], rounded);
        const double reach = RP_TIP_REACH * RP_UNIT_ROUNDOFF * weight *
                             sqrt(error * error * fmax(0, 1 - 2 * weight) + of_others);
        const double distance = other == rounded
                                    ? weight * F16_STEP / 4
                                    : fabs(weight - 0.5 * ((double)rounded + (double)other));
        if (reach < distance)
            continue;
        const double step = fmax(fabs((double)other - (double)rounded), reach);
        sum += step * sqrt(rp_square_of(row->values + key * row->kv_dim, row->args->head_dim));
    }
    return sum;
}

/* ---- sums in F16 ---- */

/* What an FP32 error e does to a rounding with step s: it tips with probability |e| / s, so that the
 * expected square is |e| s. A tip keeps its size in steps, and shrinks in the mean as the sum is scaled
 * down. */
void rp_attention_row_sums_tip(const struct rp_attention_row *row, float *sums, double *expected,
                               double *square)
{
    const size_t dim = row->args->head_dim;
    float *sum = sums, *errors = sums + dim, *largest = sums + 2 * dim;
    float max = -INFINITY, max_error = 0;
    double of_weights = 0;
    memset(sums, 0, 3 * dim * sizeof *sums);
    for (size_t key = 0; key < row->n_visible; key++) {
        const float *value = row->values + key * row->kv_dim;
        const float score = row->scores[key];
        const float error = (float)(MEAN_SIZE * RP_UNIT_ROUNDOFF) *
                            sqrtf(row->errors[key] * row->errors[key] + max_error * max_error);
        float rescale = 1.0f, weight = 1.0f, grown = 0.0f, added = error;
        if (score > max) {
            rescale = expf(max - score);
            grown = error * rescale;
            added = 0.0f;
            max = score;
            max_error = row->errors[key];
        } else {
            weight = expf(score - max);
        }
        for (size_t i = 0; i < dim; i++) {
            const float term = weight * value[i];
            errors[i] = errors[i] * rescale + grown * fabsf(sum[i]) + added * fabsf(term);
            sum[i] = sum[i] * rescale + term;
            largest[i] *= rescale;
            largest[i] = fabsf(sum[i]) > largest[i] ? fabsf(sum[i]) : largest[i];
        }
        of_weights = of_weights * (double)rescale + (double)weight;
    }
    of_weights += exp((double)rp_attention_sink(row->args, row->head) - (double)max);
    for (size_t i = 0; i < dim; i++) {
        const double step = fmax(F16_STEP * (double)largest[i], F16_SMALLEST) / of_weights;
        expected[i] = (double)errors[i] / of_weights * step;
        square[i] = step * step;
    }
}
