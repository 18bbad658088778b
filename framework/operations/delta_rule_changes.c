/* See operations/delta_changes.h: the recurrence in another order, with another state, in blocks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operations/delta_changes.h"

/* ---- one position in another order ---- */

/* y = scale * state^T x; state [dim of K][dim of V] */
static void read_state(const float *state, const float *x, size_t dim, float scale, float *y)
{
    memset(y, 0, dim * sizeof *y);
    for (size_t i = 0; i < dim; i++) {
        for (size_t j = 0; j < dim; j++)
            y[j] += state[i * dim + j] * (scale * x[i]);
    }
}

static void decay_state(float *state, size_t dim, float decay)
{
    for (size_t i = 0; i < dim * dim; i++)
        state[i] *= decay;
}

/* What one V head reads at one position. */
struct head_row {
    const float *q, *k, *v; /* [dim] */
    float decay, beta;      /* decay: its logarithm */
    float *y;               /* [dim] */
};

static size_t k_head_of(int option, const struct rp_delta_rule *args, size_t head)
{
    if (option == RP_DELTA_GROUPED_HEADS)
        return head / (args->n_v_heads / args->n_k_heads);
    return option == RP_DELTA_FIRST_HEAD ? 0 : head % args->n_k_heads;
}

static struct head_row row_of(int option, const struct rp_delta_rule *args, size_t p, size_t head)
{
    const size_t dim = args->head_dim, qkv_at = p * args->qkv_stride;
    const size_t k_at = qkv_at + k_head_of(option, args, head) * dim;
    const size_t at = p * args->n_v_heads + head;
    return (struct head_row){.q = args->q + k_at,
                             .k = args->k + k_at,
                             .v = args->v + qkv_at + head * dim,
                             .decay = args->decay[at],
                             .beta = args->beta[at],
                             .y = args->y + at * dim};
}

/* What the state is multiplied by. */
static float decay_of(int option, struct head_row row)
{
    return option == RP_DELTA_DECAY_AS_LOG         ? row.decay
           : option == RP_DELTA_DECAY_AS_MAGNITUDE ? -row.decay
                                                   : expf(row.decay);
}

/* y is also where the update is made. */
static void own_step(int option, const struct rp_delta_rule *args, struct head_row row,
                     float *state)
{
    const size_t dim = args->head_dim;
    float *y = row.y;
    if (option == RP_DELTA_BEFORE_DECAY)
        read_state(state, row.k, dim, 1, y);
    if (option != RP_DELTA_DECAY_LATE)
        decay_state(state, dim, decay_of(option, row));
    if (option == RP_DELTA_PLAIN_UPDATE)
        memset(y, 0, dim * sizeof *y);
    else if (option != RP_DELTA_BEFORE_DECAY)
        read_state(state, row.k, dim, 1, y);
    for (size_t j = 0; j < dim; j++)
        y[j] = row.beta * (row.v[j] - y[j]);
    for (size_t i = 0; i < dim; i++) {
        for (size_t j = 0; j < dim; j++)
            state[i * dim + j] += row.k[i] * y[j];
    }
    if (option == RP_DELTA_DECAY_LATE)
        decay_state(state, dim, expf(row.decay));
    read_state(state, row.q, dim, args->scale, y);
}

/* The output is read before the update. */
static void early_step(const struct rp_delta_rule *args, struct head_row row, float *state)
{
    const size_t dim = args->head_dim;
    decay_state(state, dim, expf(row.decay));
    read_state(state, row.q, dim, args->scale, row.y);
    for (size_t j = 0; j < dim; j++) {
        float held = 0;
        for (size_t i = 0; i < dim; i++)
            held += state[i * dim + j] * row.k[i];
        for (size_t i = 0; i < dim; i++)
            state[i * dim + j] += row.k[i] * (row.beta * (row.v[j] - held));
    }
}

static void run_own_steps(int option, const struct rp_site *site, const struct rp_delta_rule *args)
{
    const size_t dim = args->head_dim;
    for (size_t at = 0; at < site->n_positions * args->n_v_heads; at++) {
        const size_t head = at % args->n_v_heads;
        const struct head_row row = row_of(option, args, at / args->n_v_heads, head);
        float *state = args->state + head * dim * dim;
        if (option == RP_DELTA_OUTPUT_EARLY)
            early_step(args, row, state);
        else
            own_step(option, args, row, state);
    }
}

/* ---- the state between two positions ---- */

static void transpose_state(const struct rp_delta_rule *args)
{
    const size_t dim = args->head_dim;
    for (size_t head = 0; head < args->n_v_heads; head++) {
        float *state = args->state + head * dim * dim;
        for (size_t i = 0; i < dim; i++) {
            for (size_t j = 0; j < i; j++) {
                const float kept = state[i * dim + j];
                state[i * dim + j] = state[j * dim + i];
                state[j * dim + i] = kept;
            }
        }
    }
}

/* A pad's projections are zero: its decay is exp(a softplus(dt)), and it adds nothing. */
static void decay_by_pads(const struct rp_change *change, const struct rp_delta_rule *args)
{
    const float *a = change->weights->weights[RP_SSM_A].data;
    const float *dt = change->weights->weights[RP_SSM_DT].data;
    for (size_t head = 0; a && dt && head < args->n_v_heads; head++) {
        const double decay = (double)a[head] * log1p(exp((double)dt[head])) * change->what.value;
        decay_state(args->state + head * args->head_dim * args->head_dim, args->head_dim,
                    (float)exp(decay));
    }
}

struct rp_delta_rule rp_delta_rule_from(const struct rp_delta_rule *args, size_t first)
{
    struct rp_delta_rule part = *args;
    part.q += first * args->qkv_stride;
    part.k += first * args->qkv_stride;
    part.v += first * args->qkv_stride;
    part.decay += first * args->n_v_heads;
    part.beta += first * args->n_v_heads;
    part.y += first * args->n_v_heads * args->head_dim;
    return part;
}

static enum rp_status run_positions(const struct rp_change *change, const struct rp_site *site,
                                    const struct rp_delta_rule *args, size_t first, size_t n)
{
    const struct rp_delta_rule part = rp_delta_rule_from(args, first);
    struct rp_site some = *site;
    some.positions += first;
    some.n_positions = n;
    return n > 0 ? RP_RUN_BELOW(change, delta_rule, &some, &part) : RP_OK;
}

static bool loses_state(const struct rp_candidate *what, int64_t position)
{
    switch (what->option) {
    case RP_DELTA_STATE_AT_EACH: return true;
    case RP_DELTA_STATE_AT: return position == what->position;
    case RP_DELTA_STATE_EVERY: return what->position > 0 && position % what->position == 0;
    default: return false;
    }
}

static enum rp_status measure(const struct rp_change *change, const struct rp_site *site,
                              const struct rp_delta_rule *args, size_t first)
{
    const size_t width = args->n_v_heads * args->head_dim;
    const size_t row = rp_row_of(change->positions, change->n_rows, site->positions[first]);
    struct rp_site some = *site;
    some.positions += first;
    some.n_positions -= first;
    if (change->n_rows - row != some.n_positions)
        return RP_OK;
    const struct rp_delta_rule part = rp_delta_rule_from(args, first);
    return rp_delta_measure_state(&some, &part, change->what.rows + row * width);
}

/* Runs positions from .. p - 1 once more on the state; their outputs stay. */
static enum rp_status repeat(const struct rp_change *change, const struct rp_site *site,
                             const struct rp_delta_rule *args, size_t from, size_t p)
{
    const size_t width = args->n_v_heads * args->head_dim;
    float *kept = malloc((p * width + 1) * sizeof *kept);
    if (!kept)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", p);
    memcpy(kept, args->y, p * width * sizeof *kept);
    const enum rp_status status = run_positions(change, site, args, from, p - from);
    memcpy(args->y, kept, p * width * sizeof *kept);
    free(kept);
    return status;
}

static enum rp_status run_with_state(const struct rp_change *change, const struct rp_site *site,
                                     const struct rp_delta_rule *args)
{
    const struct rp_candidate *what = &change->what;
    const size_t size = args->n_v_heads * args->head_dim * args->head_dim * sizeof(float);
    const size_t from = rp_row_of(site->positions, site->n_positions, what->from_position);
    enum rp_status status = RP_OK;
    float *kept = calloc(1, size + 1);
    if (!kept)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a state");
    if (what->option == RP_DELTA_STATE_OF_END) {
        status = run_positions(change, site, args, 0, site->n_positions);
        memcpy(kept, args->state, size);
        memset(args->state, 0, size);
    }
    if (what->option == RP_DELTA_STATE_LEFT)
        status = run_positions(change, site, args, 0,
                               what->value >= 1 && what->value < (double)site->n_positions
                                   ? (size_t)what->value
                                   : site->n_positions);
    for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {
        const bool is_here = site->positions[p] == what->position;
        if (p == from && what->option == RP_DELTA_STATE_OF)
            memcpy(kept, args->state, size);
        if (what->option == RP_DELTA_STATE_TRANSPOSED)
            transpose_state(args);
        else if (loses_state(what, site->positions[p]))
            memset(args->state, 0, size);
        else if (is_here &&
                 (what->option == RP_DELTA_STATE_OF || what->option == RP_DELTA_STATE_OF_END))
            memcpy(args->state, kept, size);
        else if (is_here && what->option == RP_DELTA_STATE_PADS)
            decay_by_pads(change, args);
        else if (is_here && what->option == RP_DELTA_STATE_MEASURED)
            status = measure(change, site, args, p);
        else if (is_here && what->option == RP_DELTA_STATE_REPEATED && from < p)
            status = repeat(change, site, args, from, p);
        if (status == RP_OK)
            status = run_positions(change, site, args, p, 1);
    }
    free(kept);
    return status;
}

/* ---- blocks ---- */

/* One head's block: the same sums as position by position, in HF's order. Each [n][dim], n rows. */
struct block {
    double *w;    /* what the earlier blocks' state is read with */
    double *u;    /* the update, without what the earlier blocks hold; then with it */
    double *aged; /* [n] the running sum of the decay's logarithm */
};

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static double ageing(int option, const struct block *block, size_t from, size_t to)
{
    return option == RP_DELTA_INSIDE_NOT_AGED ? 1 : exp(block->aged[to] - block->aged[from]);
}

/* u_i = beta_i (v_i - sum over j < i of decay(j, i) (k_i k_j) u_j), and w_i likewise of decayed K. */
static void solve_block(int option, const struct rp_delta_rule *args, const struct head_row *rows,
                        size_t n, struct block *block)
{
    const size_t dim = args->head_dim;
    const bool is_plain = option == RP_DELTA_W_PLAIN || option == RP_DELTA_W_TWICE_BETWEEN;
    const double power = option == RP_DELTA_W_TWICE_INSIDE ? 2 : is_plain ? 0 : 1;
    for (size_t i = 0; i < n; i++) {
        const double beta = (double)rows[i].beta;
        double *u = block->u + i * dim, *w = block->w + i * dim;
        block->aged[i] = (double)rows[i].decay + (i > 0 ? block->aged[i - 1] : 0);
        for (size_t d = 0; d < dim; d++) {
            u[d] = beta * (double)rows[i].v[d];
            w[d] = beta * exp(power * block->aged[i]) * (double)rows[i].k[d];
        }
        for (size_t j = 0; j < i && option != RP_DELTA_INSIDE_PLAIN; j++) {
            const double share =
                beta * ageing(option, block, j, i) * dot(rows[i].k, rows[j].k, dim);
            for (size_t d = 0; d < dim; d++) {
                u[d] -= share * block->u[j * dim + d];
                w[d] -= share * block->w[j * dim + d];
            }
        }
    }
}

/* u_i -= w_i state */
static void take_earlier(int option, size_t n, size_t dim, const float *state, struct block *block)
{
    for (size_t i = 0; i < n && option != RP_DELTA_W_MISSING; i++) {
        const bool is_aged = option == RP_DELTA_W_TWICE || option == RP_DELTA_W_TWICE_BETWEEN;
        const double factor = is_aged ? exp(block->aged[i]) : 1;
        for (size_t k = 0; k < dim; k++) {
            const double w = factor * block->w[i * dim + k];
            for (size_t d = 0; d < dim; d++)
                block->u[i * dim + d] -= w * (double)state[k * dim + d];
        }
    }
}

static void read_block(int option, const struct rp_delta_rule *args, const struct head_row *rows,
                       size_t n, const float *state, const struct block *block, double *y)
{
    const size_t dim = args->head_dim;
    for (size_t i = 0; i < n; i++) {
        const double earlier = option == RP_DELTA_READ_MISSING ? 0
                               : option == RP_DELTA_READ_PLAIN ? 1
                                                               : exp(block->aged[i]);
        memset(y, 0, dim * sizeof *y);
        for (size_t k = 0; k < dim; k++) {
            for (size_t d = 0; d < dim; d++)
                y[d] += earlier * (double)rows[i].q[k] * (double)state[k * dim + d];
        }
        for (size_t j = 0; j <= i; j++) {
            const double share = ageing(option, block, j, i) * dot(rows[i].q, rows[j].k, dim);
            for (size_t d = 0; d < dim; d++)
                y[d] += share * block->u[j * dim + d];
        }
        for (size_t d = 0; d < dim; d++)
            rows[i].y[d] = (float)((double)args->scale * y[d]);
    }
}

static void update_state(int option, const struct head_row *rows, size_t n, size_t dim,
                         const struct block *block, float *state)
{
    const double all = block->aged[n - 1];
    const double old = option == RP_DELTA_BLOCK_NOT_AGED ? 1 : exp(all);
    for (size_t k = 0; k < dim; k++) {
        for (size_t d = 0; d < dim; d++) {
            double sum = old * (double)state[k * dim + d];
            for (size_t i = 0; i < n; i++)
                sum += (option == RP_DELTA_KEYS_NOT_AGED ? 1 : exp(all - block->aged[i])) *
                       (double)rows[i].k[k] * block->u[i * dim + d];
            state[k * dim + d] = (float)sum;
        }
    }
}

static enum rp_status run_blocks(const struct rp_change *change, const struct rp_site *site,
                                 const struct rp_delta_rule *args)
{
    const int option = change->what.option;
    const size_t dim = args->head_dim, n_positions = site->n_positions;
    const size_t most = change->what.position > 0 ? (size_t)change->what.position : n_positions;
    struct head_row *rows = malloc((most + 1) * sizeof *rows);
    double *scratch = malloc((2 * most * dim + most + dim + 1) * sizeof *scratch);
    enum rp_status status = RP_OK;
    if (!rows || !scratch)
        status = rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a block");
    for (size_t first = 0, n; first < n_positions && status == RP_OK; first += n) {
        n = n_positions - first < most ? n_positions - first : most;
        for (size_t head = 0; head < args->n_v_heads; head++) {
            float *state = args->state + head * dim * dim;
            struct block block = {scratch, scratch + most * dim, scratch + 2 * most * dim};
            for (size_t i = 0; i < n; i++)
                rows[i] = row_of(option, args, first + i, head);
            solve_block(option, args, rows, n, &block);
            take_earlier(option, n, dim, state, &block);
            read_block(option, args, rows, n, state, &block, block.aged + most);
            update_state(option, rows, n, dim, &block, state);
        }
    }
    free(rows);
    free(scratch);
    return status;
}

static enum rp_status delta_rule(void *context, const struct rp_site *site,
                                 const struct rp_delta_rule *args)
{
    const struct rp_change *change = context;
    const int option = change->what.option;
    struct rp_delta_rule wrong = *args;
    if (option == RP_DELTA_SCALE) {
        wrong.scale = (float)change->what.value;
        return RP_RUN_BELOW(change, delta_rule, site, &wrong);
    }
    if (option == RP_DELTA_QK_SWAPPED) {
        wrong.q = args->k;
        wrong.k = args->q;
        return RP_RUN_BELOW(change, delta_rule, site, &wrong);
    }
    if (option >= RP_DELTA_W_TWICE)
        return run_blocks(change, site, args);
    if (option >= RP_DELTA_STATE_TRANSPOSED)
        return run_with_state(change, site, args);
    run_own_steps(option, site, args);
    return RP_OK;
}

void rp_delta_rule_install(struct rp_ops *ops)
{
    ops->delta_rule = delta_rule;
}
