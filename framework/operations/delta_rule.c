/* The recurrence of a gated DeltaNet, on Q and K of unit length. HF: torch_recurrent_gated_delta_rule.
 * The rule goes position by position, also for many: HF's chunks are the same sums in another order. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operations/operations.h"

enum rp_status rp_op_l2_norm(void *context, const struct rp_site *site,
                             const struct rp_l2_norm *args)
{
    (void)context;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t head = 0; head < args->n_heads; head++) {
            float *x = args->x + p * args->x_stride + head * args->head_dim;
            double sum = 0;
            for (size_t i = 0; i < args->head_dim; i++)
                sum += (double)x[i] * (double)x[i];
            float scale = 1.0f / sqrtf((float)sum + args->eps);
            for (size_t i = 0; i < args->head_dim; i++)
                x[i] *= scale;
        }
    }
    return RP_OK;
}

/* One head at one position. state [dim of K][dim of V]; q, k, v and y [dim]; y is overwritten first
 * by what v does not yet have in the state. */
static void delta_step(const struct rp_delta_rule *args, const float *q, const float *k,
                       const float *v, float decay, float beta, float *state, float *y)
{
    size_t dim = args->head_dim;
    memset(y, 0, dim * sizeof *y);
    for (size_t i = 0; i < dim; i++) {
        for (size_t j = 0; j < dim; j++) {
            state[i * dim + j] *= decay;
            y[j] += state[i * dim + j] * k[i];
        }
    }
    for (size_t j = 0; j < dim; j++)
        y[j] = beta * (v[j] - y[j]);
    for (size_t i = 0; i < dim; i++) {
        for (size_t j = 0; j < dim; j++)
            state[i * dim + j] += k[i] * y[j];
    }
    memset(y, 0, dim * sizeof *y);
    for (size_t i = 0; i < dim; i++) {
        float scaled = args->scale * q[i];
        for (size_t j = 0; j < dim; j++)
            y[j] += state[i * dim + j] * scaled;
    }
}

enum rp_status rp_op_delta_rule(void *context, const struct rp_site *site,
                                const struct rp_delta_rule *args)
{
    (void)context;
    size_t dim = args->head_dim;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t head = 0; head < args->n_v_heads; head++) {
            size_t qkv_at = p * args->qkv_stride, k_at = head % args->n_k_heads * dim;
            size_t at = p * args->n_v_heads + head;
            delta_step(args, args->q + qkv_at + k_at, args->k + qkv_at + k_at,
                       args->v + qkv_at + head * dim, expf(args->decay[at]), args->beta[at],
                       args->state + head * dim * dim, args->y + at * dim);
        }
    }
    return RP_OK;
}

/* ---- what it may be off by ---- */

#define N_DRAWS 2 /* runs on moved inputs */

static double sign_of(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 63 ? 1.0 : -1.0;
}

/* to [n_positions][n] = from [n_positions][n], rows stride apart, each value moved by plus or minus
 * relative of itself. */
static void move(float *to, const float *from, size_t n_positions, size_t n, size_t stride,
                 double relative, uint64_t *state)
{
    for (size_t p = 0; p < n_positions; p++)
        for (size_t i = 0; i < n; i++)
            to[p * stride + i] =
                (float)((double)from[p * stride + i] * (1 + relative * sign_of(state)));
}

/* Runs on moved inputs, and adds the squares of what changes to square [n_positions][n_v_heads]. */
static enum rp_status add_draw(const struct rp_site *site, const struct rp_delta_rule *args,
                               float *scratch, uint64_t *state, double *square)
{
    const size_t n = site->n_positions, dim = args->head_dim, n_gates = n * args->n_v_heads;
    const size_t k_dim = args->n_k_heads * dim, v_dim = args->n_v_heads * dim;
    const size_t stride = 2 * k_dim + v_dim, n_state = v_dim * dim;
    const double sum = RP_UNIT_ROUNDOFF * (1 + RP_SUM_ERROR * sqrt((double)dim)) +
                       hypot(rp_norm_error(dim), RP_UNIT_ROUNDOFF);
    float *qkv = scratch, *y = qkv + n * stride, *decay = y + n * v_dim;
    struct rp_delta_rule moved = *args;
    moved.q = qkv;
    moved.k = qkv + k_dim;
    moved.v = qkv + 2 * k_dim;
    moved.qkv_stride = stride;
    moved.decay = decay;
    moved.y = y;
    moved.state = decay + n_gates;
    for (size_t p = 0; p < n; p++) {
        const size_t from = p * args->qkv_stride, to = p * stride;
        move(qkv + to, args->q + from, 1, k_dim, stride, sum, state);
        move(qkv + to + k_dim, args->k + from, 1, k_dim, stride, sum, state);
        move(qkv + to + 2 * k_dim, args->v + from, 1, v_dim, stride, 2 * RP_UNIT_ROUNDOFF, state);
    }
    for (size_t i = 0; i < n_gates; i++) {
        const double g = (double)args->decay[i];
        decay[i] = (float)(g + RP_UNIT_ROUNDOFF * (2 + 8 * fmin(fabs(g), 80)) * sign_of(state));
    }
    memcpy(moved.state, args->state, n_state * sizeof *moved.state);
    enum rp_status status = rp_op_delta_rule(NULL, site, &moved);
    for (size_t i = 0; i < n * v_dim; i++) {
        const double change = (double)y[i] - (double)args->y[i];
        square[i / dim] += change * change;
    }
    return status;
}

/* The state is a sum over all positions, so that its error has no closed form: the rule is run again
 * on inputs that are moved at random, Q and K by what their L2 norm and sums of head_dim products err
 * by, the decay's logarithm as engines that work in chunks take it, the difference of running sums
 * over up to 64 positions. Its effect is taken as even over a head's row. args->state is the state
 * *before* the operation. */
enum rp_status rp_sigma_delta_rule(const struct rp_site *site, const struct rp_delta_rule *args,
                                   float *sigma)
{
    const size_t n = site->n_positions, dim = args->head_dim, v_dim = args->n_v_heads * dim;
    const size_t n_scratch =
        n * (2 * args->n_k_heads * dim + 2 * v_dim + args->n_v_heads) + v_dim * dim;
    float *scratch = calloc(n_scratch + 1, sizeof *scratch);
    double *square = calloc(n * args->n_v_heads + 1, sizeof *square);
    uint64_t state = 1;
    enum rp_status status = RP_OK;
    if (!scratch || !square)
        status = rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
    for (size_t draw = 0; draw < N_DRAWS && status == RP_OK; draw++)
        status = add_draw(site, args, scratch, &state, square);
    for (size_t i = 0; i < n * v_dim && status == RP_OK; i++)
        sigma[i] = (float)hypot(sqrt(square[i / dim] / (double)(N_DRAWS * dim)),
                                2 * RP_UNIT_ROUNDOFF * fabs((double)args->y[i]));
    free(scratch);
    free(square);
    return status;
}
