/* See operations/tips.h. */
#include "operations/tips.h"

#include <math.h>

#include "formats/half.h"
#include "refparity/gguf.h"

#define U 0x1p-24
#define BLOCK 32
#define LN_RARE 16.2 /* ln 10^7 */

/* ---- which values can tip ---- */

/* The block's scale before it is stored, in FP32; 0 for a block of zeros. */
static float scale_of(uint32_t format, const float *x, size_t n, float *peak)
{
    *peak = 0;
    for (size_t i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(*peak))
            *peak = x[i];
    return format == RP_GGML_Q4_0 ? *peak / -8.0f : fabsf(*peak) / 127.0f;
}

static bool another_peak(const float *x, size_t n, float peak, double reach)
{
    for (size_t i = 0; i < n; i++)
        if ((x[i] < 0) != (peak < 0) && (double)fabsf(peak) - fabs((double)x[i]) <= reach)
            return true;
    return false;
}

static void find_in_block(uint32_t format, const float *x, size_t first, size_t n, double noise,
                          void (*add)(void *context, const struct rp_tip *tip), void *context)
{
    float peak;
    const float scale = scale_of(format, x, n, &peak), stored = rp_round_f16(scale);
    const float other = rp_other_f16(scale, stored);
    /* The value and the block's largest are off by noise each. */
    const double reach = RP_TIP_REACH * sqrt(2.0) * noise, step = fabs((double)scale);
    if (stored == 0.0f)
        return;
    for (size_t i = 0; i < n; i++) {
        const double exact = (double)x[i] / (double)scale;
        const double distance = fabs(exact - floor(exact) - 0.5);
        if (distance <= reach / step + 2 * U * fabs(exact))
            add(context, &(struct rp_tip){RP_TIP_VALUE, first + i, 1, fabsf(stored)});
    }
    const double middle = 0.5 * ((double)stored + (double)other);
    if (other != stored &&
        fabs((double)scale - middle) <= step * (RP_TIP_REACH * noise / fabs((double)peak) + 2 * U))
        add(context,
            &(struct rp_tip){RP_TIP_SCALE, first, n, fabsf(other - stored) / fabsf(stored)});
    if (format == RP_GGML_Q4_0 && another_peak(x, n, peak, reach))
        add(context, &(struct rp_tip){RP_TIP_PEAK, first, n, fabsf(stored)});
}

void rp_find_tips(uint32_t format, const float *x, size_t n, double noise,
                  void (*add)(void *context, const struct rp_tip *tip), void *context)
{
    for (size_t i = 0; i < n; i += BLOCK)
        find_in_block(format, x + i, i, n - i < BLOCK ? n - i : BLOCK, noise, add, context);
}

/* ---- what many unlikely ones amount to ---- */

/* Chernoff: for every theta, P(sum >= x) <= exp(sum of probability (e^(theta square) - 1) - theta x). */
double rp_rare_sum(const double *expected, const double *square, size_t n)
{
    static const double thetas[] = {0.25, 0.5, 1, 2, 3, 4, 6, 8, 10, 12, 14, 16};
    double largest = 0, any = 0, best = HUGE_VAL;
    for (size_t i = 0; i < n; i++) {
        largest = square[i] > largest ? square[i] : largest;
        any += square[i] > 0 ? fmin(1, expected[i] / square[i]) : 0;
    }
    if (any <= exp(-LN_RARE) || largest == 0)
        return 0;
    for (size_t t = 0; t < sizeof thetas / sizeof *thetas; t++) {
        const double theta = thetas[t] / largest;
        double sum = LN_RARE;
        for (size_t i = 0; i < n && sum < best * theta; i++)
            if (square[i] > 0)
                sum += expected[i] / square[i] * expm1(theta * square[i]);
        best = fmin(best, sum / theta);
    }
    return best;
}
