/* See operations/rope_scaling.h. */
#include "operations/rope_scaling.h"

#include <math.h>

#define TWO_PI 6.283185307179586
#define LEAST_RAMP 0.001 /* HF's, where both of its ends are one */

double rp_yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

double rp_yarn_attention_factor(double factor, double mscale, double mscale_all_dim)
{
    return mscale > 0 && mscale_all_dim > 0
               ? rp_yarn_mscale(factor, mscale) / rp_yarn_mscale(factor, mscale_all_dim)
               : rp_yarn_mscale(factor, 1);
}

double rp_longrope_attention_factor(double factor, double original_context)
{
    return factor <= 1 ? 1 : sqrt(1 + log(factor) / log(original_context));
}

/* The pair, not a whole one, that turns so many times in the original context. HF: find_correction_dim. */
static double pair_of_turns(const struct rp_rope_scaling *scaling, double turns, double theta,
                            double n_rot)
{
    return n_rot * log((double)scaling->original_context / (turns * TWO_PI)) / (2 * log(theta));
}

/* Pairs up to *low are as they were, those from *high on are scaled. HF: find_correction_range. */
static void find_ramp(const struct rp_rope_scaling *scaling, double theta, double n_rot,
                      double *low, double *high)
{
    *low = pair_of_turns(scaling, (double)scaling->beta_fast, theta, n_rot);
    *high = pair_of_turns(scaling, (double)scaling->beta_slow, theta, n_rot);
    if (!scaling->keeps_ramp_ends) {
        *low = floor(*low);
        *high = ceil(*high);
    }
    *low = fmax(*low, 0);
    *high = fmin(*high, n_rot - 1);
    if (*high == *low)
        *high += LEAST_RAMP;
}

/* The factor by which FP32 division makes `scaled` of `plain`, where one does. */
static float factor_between(float plain, float scaled)
{
    const float factor = plain / scaled;
    const float others[] = {nextafterf(factor, 0), nextafterf(factor, HUGE_VALF)};
    for (size_t i = 0; i < 2 && plain / factor != scaled; i++)
        if (plain / others[i] == scaled)
            return others[i];
    return factor;
}

void rp_rope_scaling_factors(const struct rp_rope_scaling *scaling, float theta, size_t n_rot,
                             float *factors)
{
    double low = 0, high = 0;
    const bool is_yarn = scaling->type == RP_ROPE_YARN;
    if (is_yarn)
        find_ramp(scaling, (double)theta, (double)n_rot, &low, &high);
    for (size_t i = 0; i < n_rot / 2; i++) {
        factors[i] = scaling->type == RP_ROPE_LINEAR ? scaling->factor : 1;
        if (!is_yarn)
            continue;
        const float power = powf(theta, (float)(2 * i) / (float)n_rot);
        const float plain = 1.0f / power, slow = 1.0f / (scaling->factor * power);
        const float ramp = ((float)i - (float)low) / (float)(high - low);
        const float kept = 1.0f - fminf(fmaxf(ramp, 0), 1);
        factors[i] = factor_between(plain, slow * (1.0f - kept) + plain * kept);
    }
}
