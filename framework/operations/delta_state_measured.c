/* The state that a DeltaNet's engine had at some position, measured from its output: what a foreign state
 * D adds to the output of a later position is D^T x, and x is known, so that D is a least-squares
 * problem. Not for the states that have a name: those are in delta_rule_changes.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operations/delta_changes.h"

#define SPARE_ROWS 4 /* more rows than unknowns in a column: what is fitted is also tested */
#define RIDGE 1e-15  /* relative, against a matrix that is not of full rank */

bool rp_delta_state_is_measurable(size_t n_positions, size_t head_dim)
{
    return n_positions >= head_dim + SPARE_ROWS;
}

/* One head's least squares. */
struct measured {
    double *carry;  /* [dim][dim]: what becomes of D until here */
    double *x;      /* [dim] */
    double *normal; /* [dim][dim] sum of x x^T */
    double *right;  /* [dim][dim] sum of x e^T, then D */
};

/* carry = exp(decay) (I - beta k k^T) carry; x = scale carry^T q */
static void carry_on(const struct rp_delta_rule *args, const float *q, const float *k, double decay,
                     double beta, struct measured *measured)
{
    const size_t dim = args->head_dim;
    memset(measured->x, 0, dim * sizeof *measured->x);
    for (size_t j = 0; j < dim; j++) {
        double held = 0;
        for (size_t i = 0; i < dim; i++)
            held += (double)k[i] * measured->carry[i * dim + j];
        for (size_t i = 0; i < dim; i++) {
            double *at = &measured->carry[i * dim + j];
            *at = exp(decay) * (*at - beta * (double)k[i] * held);
            measured->x[j] += (double)args->scale * *at * (double)q[i];
        }
    }
}

/* Solves normal D = right in place of right by Cholesky; normal is overwritten. */
static void solve(struct measured *measured, size_t dim)
{
    double *a = measured->normal, *b = measured->right, trace = 0;
    for (size_t i = 0; i < dim; i++)
        trace += a[i * dim + i];
    for (size_t i = 0; i < dim; i++) {
        a[i * dim + i] += RIDGE * trace + 1e-300;
        for (size_t j = 0; j <= i; j++) {
            double sum = a[i * dim + j];
            for (size_t k = 0; k < j; k++)
                sum -= a[i * dim + k] * a[j * dim + k];
            a[i * dim + j] =
                i == j ? sqrt(fmax(sum, RIDGE * trace + 1e-300)) : sum / a[j * dim + j];
        }
    }
    for (size_t column = 0; column < dim; column++) {
        for (size_t i = 0; i < dim; i++) {
            for (size_t k = 0; k < i; k++)
                b[i * dim + column] -= a[i * dim + k] * b[k * dim + column];
            b[i * dim + column] /= a[i * dim + i];
        }
        for (size_t i = dim; i-- > 0;) {
            for (size_t k = i + 1; k < dim; k++)
                b[i * dim + column] -= a[k * dim + i] * b[k * dim + column];
            b[i * dim + column] /= a[i * dim + i];
        }
    }
}

/* Rows weigh as the square of what they are right to: their own length. dumped and plain are the head's
 * rows, dumped_stride and plain_stride apart. */
static void measure_head(const struct rp_site *site, const struct rp_delta_rule *args, size_t head,
                         const float *dumped, const float *plain, struct measured *measured)
{
    const size_t dim = args->head_dim, stride = args->n_v_heads * dim;
    const size_t k_at = head % args->n_k_heads * dim;
    memset(measured->normal, 0, dim * dim * sizeof *measured->normal);
    memset(measured->right, 0, dim * dim * sizeof *measured->right);
    memset(measured->carry, 0, dim * dim * sizeof *measured->carry);
    for (size_t i = 0; i < dim; i++)
        measured->carry[i * dim + i] = 1;
    for (size_t p = 0; p < site->n_positions; p++) {
        const size_t at = p * args->qkv_stride + k_at;
        double square = 1e-30;
        carry_on(args, args->q + at, args->k + at, (double)args->decay[p * args->n_v_heads + head],
                 (double)args->beta[p * args->n_v_heads + head], measured);
        for (size_t j = 0; j < dim; j++)
            square += (double)dumped[p * stride + j] * (double)dumped[p * stride + j];
        for (size_t i = 0; i < dim; i++) {
            const double x = measured->x[i] / square;
            for (size_t j = 0; j < dim; j++) {
                measured->normal[i * dim + j] += x * measured->x[j];
                measured->right[i * dim + j] +=
                    x * ((double)dumped[p * stride + j] - (double)plain[p * stride + j]);
            }
        }
    }
    solve(measured, dim);
    for (size_t i = 0; i < dim * dim; i++)
        args->state[head * dim * dim + i] += (float)measured->right[i];
}

enum rp_status rp_delta_measure_state(const struct rp_site *site, const struct rp_delta_rule *args,
                                      const float *dumped)
{
    const size_t dim = args->head_dim, square = dim * dim;
    const size_t n_state = args->n_v_heads * square, group = args->n_v_heads / args->n_k_heads;
    float *kept = malloc((n_state + 1) * sizeof *kept);
    double *scratch = malloc((3 * square + dim + 1) * sizeof *scratch);
    enum rp_status status = RP_OK;
    if (!kept || !scratch)
        status = rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a state");
    if (status == RP_OK) {
        memcpy(kept, args->state, n_state * sizeof *kept);
        status = rp_ops_default()->delta_rule(NULL, site, args);
        memcpy(args->state, kept, n_state * sizeof *kept);
    }
    for (size_t head = 0; head < args->n_v_heads && status == RP_OK; head++) {
        const size_t hf_head = head % args->n_k_heads * group + head / args->n_k_heads;
        struct measured measured = {scratch, scratch + 3 * square, scratch + square,
                                    scratch + 2 * square};
        measure_head(site, args, head, dumped + hf_head * dim, args->y + head * dim, &measured);
    }
    free(kept);
    free(scratch);
    return status;
}
