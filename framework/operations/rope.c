/* Rotary position embedding. RoFormer (arXiv 2104.09864); HF: apply_rotary_pos_emb. */
#include <math.h>

#include "operations/operations.h"

/* Index of value i (of n_rot / 2) of the first and of the second half of a pair. */
static void rope_pair(const struct rp_rope *args, size_t i, size_t *first, size_t *second)
{
    bool is_neox = args->ordering == RP_ROPE_NEOX;
    *first = args->first + (is_neox ? i : 2 * i);
    *second = args->first + (is_neox ? i + args->n_rot / 2 : 2 * i + 1);
}

/* inv_freq, angle, cosine and sine are rounded to FP32 where HF's rotary embedding rounds them: at
 * position 150 a more exact angle would already differ by 1e-5. */
enum rp_status rp_op_rope(void *context, const struct rp_site *site, const struct rp_rope *args)
{
    (void)context;
    const float scale = rp_rope_scale(args);
    size_t dim = args->n_heads * args->head_dim;
    for (size_t i = 0; i < args->n_rot / 2; i++) {
        size_t first, second;
        float exponent = (float)(2 * i) / (float)args->n_rot;
        float inv_freq = 1.0f / powf(args->theta, exponent);
        if (args->freq_factors)
            inv_freq /= args->freq_factors[i];
        rope_pair(args, i, &first, &second);
        for (size_t p = 0; p < site->n_positions; p++) {
            float angle = (float)args->positions[p] * inv_freq;
            float cosine = cosf(angle) * scale, sine = sinf(angle) * scale;
            for (size_t head = 0; head < args->n_heads; head++) {
                float *x = args->x + p * dim + head * args->head_dim;
                float a = x[first], b = x[second];
                x[first] = a * cosine - b * sine;
                x[second] = b * cosine + a * sine;
            }
        }
    }
    return RP_OK;
}

/* Whether a pair's frequency is made of two others by YaRN's or Llama 3's ramp: its factor is between the
 * least and the largest, and longrope's are not made at all. */
static bool is_mixed(const struct rp_site *site, const struct rp_rope *args, size_t i)
{
    if (!args->freq_factors ||
        (site->config && site->config->rope_scaling.type == RP_ROPE_LONGROPE))
        return false;
    float least = args->freq_factors[0], largest = least;
    for (size_t k = 1; k < args->n_rot / 2; k++) {
        least = fminf(least, args->freq_factors[k]);
        largest = fmaxf(largest, args->freq_factors[k]);
    }
    return args->freq_factors[i] > least && args->freq_factors[i] < largest;
}

/* Frequencies made by repeated multiplication drift by half a unit per step. Where two are mixed, the ramp's
 * value (two logarithms, a difference, a quotient; 1 minus it) is off by about two units, which is that much
 * of the faster one. */
static double frequency_error(const struct rp_site *site, const struct rp_rope *args, size_t i,
                              double plain, double frequency)
{
    const double drift = frequency * (1.0 + 0.5 * (double)i);
    return is_mixed(site, args, i) ? hypot(drift, 2 * plain) : drift;
}

/* The angle is rounded at each position, and cosine and sine are off by what the angle is; the rotation rounds
 * twice. An attention factor is rounded itself and rounds both once more. */
enum rp_status rp_sigma_rope(const struct rp_site *site, const struct rp_rope *args, float *sigma)
{
    const size_t dim = args->n_heads * args->head_dim;
    const double scale = (double)rp_rope_scale(args);
    const double rounding_square =
        (args->attention_factor > 0 ? 1.5 : 0.49) * RP_UNIT_ROUNDOFF * RP_UNIT_ROUNDOFF;
    for (size_t i = 0; i < site->n_positions * dim; i++)
        sigma[i] = 0;
    for (size_t i = 0; i < args->n_rot / 2; i++) {
        size_t first, second;
        const double plain = pow((double)args->theta, -2.0 * (double)i / (double)args->n_rot);
        const double frequency = args->freq_factors ? plain / (double)args->freq_factors[i] : plain;
        const double error =
            RP_UNIT_ROUNDOFF *
            hypot(frequency_error(site, args, i, plain, frequency), 0.6 * frequency);
        rope_pair(args, i, &first, &second);
        for (size_t p = 0; p < site->n_positions; p++) {
            const double angle = fabs((double)args->positions[p]) * error;
            for (size_t head = 0; head < args->n_heads; head++) {
                const size_t at = p * dim + head * args->head_dim;
                const double a = scale * (double)args->x[at + first],
                             b = scale * (double)args->x[at + second];
                const double rounding = rounding_square * (a * a + b * b);
                sigma[at + first] = (float)sqrt(b * b * angle * angle + rounding);
                sigma[at + second] = (float)sqrt(a * a * angle * angle + rounding);
            }
        }
    }
    return RP_OK;
}
