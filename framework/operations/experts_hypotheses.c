/* Hypotheses about a mixture of experts: which matrix an expert multiplies by, the weighted sum, the shared expert.
 * The router's are in router_hypotheses.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operations/activation.h"
#include "operations/hypotheses.h"
#include "operations/matmul.h"
#include "operations/router.h"

#define NONE RP_NO_PARAMETER
#define LEAST_ROWS 3 /* that one expert's matrix is blamed for */
#define MATCHING_PIECE \
    0.1 /* an expert's values, of another matrix: what is left where it is the right one */

enum option {
    /* products */
    WEIGHTED_INPUT,
    SHIFTED, /* expert e multiplies by the matrix of e + value */
    BY_PLACE,
    REPLACED, /* expert `position` by that of `from_position` */
    OTHER_STACK,
    /* sum */
    UNWEIGHTED,
    WEIGHTS_BY_SIZE,
    FEWER,
    /* shared expert */
    NO_SHARED_GATE,
    NO_SIGMOID,
    NO_SHARED,
    SHARED_TWICE
};

/* ---- products ---- */

static enum rp_status run_weighted(const struct rp_change *change, const struct rp_site *site,
                                   const struct rp_linear *args)
{
    const size_t n = args->n_in, n_chosen = args->expert->n_chosen;
    struct rp_linear wrong = *args;
    float *x = malloc((site->n_positions * n + 1) * sizeof *x);
    if (!x)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a product's input");
    memcpy(x, args->x, site->n_positions * n * sizeof *x);
    for (size_t i = 0; i < site->n_positions; i++) {
        const size_t row = rp_row_of(change->positions, change->n_rows, site->positions[i]);
        for (size_t k = 0; k < n && row < change->n_rows; k++)
            x[i * n + k] *= change->what.rows[row * n_chosen + args->expert->at[i] % n_chosen];
    }
    wrong.x = x;
    const enum rp_status status = RP_RUN_BELOW(change, linear, site, &wrong);
    free(x);
    return status;
}

/* With the matrix of expert `other` of the stack. */
static enum rp_status run_other(const struct rp_change *change, const struct rp_site *site,
                                const struct rp_linear *args, enum rp_weight_id which, size_t other)
{
    const struct rp_weight *stack = &change->weights->weights[which];
    struct rp_linear wrong = *args;
    float *matrix = malloc((args->n_out * args->n_in + 1) * sizeof *matrix);
    if (!matrix)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a matrix");
    enum rp_status status = rp_gguf_rows(stack->gguf, stack->stack, other * args->n_out,
                                         args->n_out, matrix, site->err);
    wrong.weight = matrix;
    if (status == RP_OK)
        status = RP_RUN_BELOW(change, linear, site, &wrong);
    free(matrix);
    return status;
}

void rp_expert_row_take(struct rp_expert_row *row, const struct rp_site *site,
                        const struct rp_linear *args, size_t i)
{
    *row = (struct rp_expert_row){.site = *site, .linear = *args, .rows = *args->expert};
    row->site.n_positions = 1;
    row->site.positions += i;
    row->rows.at += i;
    row->rows.is_first = row->rows.is_first && i == 0;
    row->linear.expert = &row->rows;
    row->linear.x += i * args->n_in;
    row->linear.y += i * args->y_stride;
}

/* Row by row, as each may be another place of its position's choice. */
static enum rp_status run_by_place(const struct rp_change *change, const struct rp_site *site,
                                   const struct rp_linear *args)
{
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < site->n_positions && status == RP_OK; i++) {
        struct rp_expert_row row;
        rp_expert_row_take(&row, site, args, i);
        status = run_other(change, &row.site, &row.linear, args->which,
                           *row.rows.at % row.rows.n_chosen);
    }
    return status;
}

static enum rp_status linear(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    const struct rp_change *change = context;
    const struct rp_candidate *what = &change->what;
    const size_t n = site->config->router.n_experts;
    if (!args->expert || (what->which != RP_N_WEIGHTS && what->which != args->which &&
                          !(what->option == OTHER_STACK && what->other == args->which)))
        return RP_RUN_BELOW(change, linear, site, args);
    switch (what->option) {
    case WEIGHTED_INPUT: return run_weighted(change, site, args);
    case BY_PLACE: return run_by_place(change, site, args);
    case OTHER_STACK:
        return run_other(change, site, args, what->which == args->which ? what->other : what->which,
                         args->expert->expert);
    case SHIFTED:
        return run_other(change, site, args, args->which,
                         (args->expert->expert + (size_t)what->value) % n);
    default: break;
    }
    if ((int64_t)args->expert->expert != what->position)
        return RP_RUN_BELOW(change, linear, site, args);
    return run_other(change, site, args, args->which, (size_t)what->from_position);
}

static void install_products(struct rp_ops *ops)
{
    ops->linear = linear;
}

/* ---- sums ---- */

static int falling(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

static void drop_lowest(float *weights, size_t n)
{
    size_t lowest = 0;
    for (size_t k = 1; k < n; k++)
        lowest = weights[k] < weights[lowest] ? k : lowest;
    weights[lowest] = 0;
}

static enum rp_status sum_experts(void *context, const struct rp_site *site,
                                  const struct rp_sum_experts *args)
{
    const struct rp_change *change = context;
    const size_t n = args->n_chosen;
    struct rp_sum_experts wrong = *args;
    float *weights = malloc((site->n_positions * n + 1) * sizeof *weights);
    if (!weights)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu weights", n);
    memcpy(weights, args->weights, site->n_positions * n * sizeof *weights);
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t k = 0; k < n && change->what.option == UNWEIGHTED; k++)
            weights[p * n + k] = (float)change->what.value;
        if (change->what.option == WEIGHTS_BY_SIZE)
            qsort(weights + p * n, n, sizeof *weights, falling);
        if (change->what.option == FEWER)
            drop_lowest(weights + p * n, n);
    }
    wrong.weights = weights;
    const enum rp_status status = RP_RUN_BELOW(change, sum_experts, site, &wrong);
    free(weights);
    return status;
}

static enum rp_status add_shared_expert(void *context, const struct rp_site *site,
                                        const struct rp_add_shared_expert *args)
{
    const struct rp_change *change = context;
    struct rp_add_shared_expert wrong = *args;
    if (change->what.option == NO_SHARED)
        return RP_OK;
    if (change->what.option == NO_SHARED_GATE)
        wrong.gate = NULL;
    for (size_t i = 0; i < site->n_positions * args->dim && change->what.option == NO_SIGMOID; i++)
        args->y[i] += args->gate[i / args->dim] * args->shared[i];
    if (change->what.option == NO_SIGMOID)
        return RP_OK;
    enum rp_status status = RP_RUN_BELOW(change, add_shared_expert, site, &wrong);
    if (status == RP_OK && change->what.option == SHARED_TWICE)
        status = RP_RUN_BELOW(change, add_shared_expert, site, &wrong);
    return status;
}

static void install_sum(struct rp_ops *ops)
{
    ops->sum_experts = sum_experts;
}

static void install_shared(struct rp_ops *ops)
{
    ops->add_shared_expert = add_shared_expert;
}

/* ---- one expert's matrix ---- */

static double piece_error(const float *a, const float *b, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)a[i] * (double)a[i];
    }
    return sqrt(difference / (norm > 0 ? norm : 1));
}

/* The experts whose pieces differ: how many; the first one, and where: its row * n_chosen + place. */
static size_t find_wrong(const struct rp_search *search, const float *experts, size_t *expert,
                         size_t *at)
{
    const struct rp_router *router = &search->config->router;
    const size_t n_each = search->dim / router->n_chosen;
    bool *is_wrong = calloc(router->n_experts + 1, sizeof *is_wrong);
    size_t n = 0;
    for (size_t piece = 0; piece < search->n * router->n_chosen && is_wrong; piece++) {
        const size_t e = rp_expert_number(router, experts[piece]);
        const size_t row = piece / router->n_chosen;
        const double limit = sqrt((double)router->n_chosen) * search->limit[row];
        if (e == SIZE_MAX || is_wrong[e] || !search->is_failing[row] ||
            piece_error(search->computed + piece * n_each, search->dumped + piece * n_each,
                        n_each) <= limit)
            continue;
        is_wrong[e] = true;
        if (n++ == 0) {
            *expert = e;
            *at = piece;
        }
    }
    free(is_wrong);
    return n;
}

/* Whose matrix gives the dumped piece; SIZE_MAX: none's. x [n_in], bias [n_experts][n_out] or NULL. */
static size_t find_matrix(struct rp_search *search, const struct rp_weight *stack, const float *x,
                          const float *piece)
{
    const size_t n = stack->n_out * stack->n_in;
    float *matrix = malloc((n + stack->n_out + 1) * sizeof *matrix), *y = matrix + n;
    size_t found = SIZE_MAX;
    double least = MATCHING_PIECE;
    for (size_t e = 0; e < search->config->router.n_experts && matrix; e++) {
        if (rp_gguf_rows(stack->gguf, stack->stack, e * stack->n_out, stack->n_out, matrix, NULL) !=
            RP_OK)
            break;
        rp_matmul(matrix, stack->n_out, stack->n_in, x, 1, y, stack->n_out);
        const double error = piece_error(y, piece, stack->n_out);
        if (error < least) {
            least = error;
            found = e;
        }
    }
    free(matrix);
    return found;
}

/* Experts' values as dumped: `position` says whose. rows: the experts' numbers. */
static enum rp_status take_dumped(const struct rp_change *change, size_t n, size_t dim,
                                  float *rows, /* NOLINT(readability-non-const-parameter) */
                                  struct rp_error *err)
{
    const struct rp_candidate *what = &change->what;
    const size_t n_chosen = (size_t)what->option, n_each = dim / n_chosen;
    (void)err;
    for (size_t piece = 0; piece < n * n_chosen; piece++)
        if ((int64_t)what->rows[piece] == what->position)
            memcpy(rows + piece * n_each, what->more_rows + piece * n_each, n_each * sizeof *rows);
    return RP_OK;
}

static void add_replaced(struct rp_search *search, enum rp_weight_id which, size_t expert,
                         size_t other)
{
    struct rp_candidate candidate =
        rp_candidate_make("expert-matrix", install_products, REPLACED, which);
    candidate.is_everywhere = true;
    candidate.position = (int64_t)expert;
    candidate.from_position = (int64_t)other;
    candidate.parameter = (double)other;
    rp_search_add(search, candidate, "expert %zu multiplies by expert %zu's %s", expert, other,
                  rp_weight_name(which));
}

static void add_shifted(struct rp_search *search, enum rp_weight_id which, size_t shift)
{
    const size_t n = search->config->router.n_experts;
    struct rp_candidate candidate =
        rp_candidate_make("expert-matrix", install_products, SHIFTED, which);
    candidate.is_everywhere = true;
    candidate.value = (double)shift;
    candidate.reports_value = true;
    if (shift > n / 2)
        rp_search_add(search, candidate, "each expert multiplies by the %s of the one %zu before",
                      rp_weight_name(which), n - shift);
    else
        rp_search_add(search, candidate, "each expert multiplies by the %s of the one %zu after it",
                      rp_weight_name(which), shift);
}

/* Of the slots of gate and up, where each expert's values are dumped. */
static void collect_pieces(struct rp_search *search, enum rp_weight_id which)
{
    const struct rp_router *router = &search->config->router;
    const struct rp_weight *stack = &search->weights.weights[which];
    char name[RP_SLOT_NAME_SIZE];
    size_t expert = 0, at = 0;
    const float *experts = rp_search_slot_rows(
        search, rp_slot_name(RP_PART_EXPERTS, search->slot.layer, name), router->n_chosen);
    const float *x = rp_search_slot_rows(
        search, rp_slot_name(RP_PART_PREFFN, search->slot.layer, name), stack->n_in);
    const size_t n_wrong = experts ? find_wrong(search, experts, &expert, &at) : 0;
    if (n_wrong == 0 || !x)
        return;
    const size_t other = find_matrix(search, stack, x + at / router->n_chosen * stack->n_in,
                                     search->dumped + at * stack->n_out);
    if (other != SIZE_MAX && other != expert && n_wrong > 1)
        add_shifted(search, which, (other + router->n_experts - expert) % router->n_experts);
    if (other != SIZE_MAX && other != expert)
        add_replaced(search, which, expert, other);
    if (n_wrong > 1)
        return;
    struct rp_candidate candidate = rp_candidate_of_rows("expert-matrix", take_dumped, 0, experts);
    candidate.phase = RP_PHASE_FIT; /* a named cause comes first */
    candidate.option = (int)router->n_chosen;
    candidate.more_rows = search->dumped;
    candidate.position = (int64_t)expert;
    candidate.parameter = (double)expert;
    rp_search_add(search, candidate, "expert %zu alone is wrong: its %s is another matrix", expert,
                  rp_weight_name(which));
}

/* The expert that all failing rows chose, and no other one; SIZE_MAX: there is none such. */
static size_t find_common(const struct rp_search *search, const float *experts)
{
    const struct rp_router *router = &search->config->router;
    const size_t n_chosen = router->n_chosen;
    size_t found = SIZE_MAX;
    for (size_t e = 0; e < router->n_experts; e++) {
        bool is_common = search->n_failing >= LEAST_ROWS && search->n_failing < search->n;
        for (size_t row = 0; row < search->n && is_common; row++) {
            bool has = false;
            for (size_t k = 0; k < n_chosen; k++)
                has |= rp_expert_number(router, experts[row * n_chosen + k]) == e;
            is_common = has == search->is_failing[row];
        }
        if (is_common)
            found = e;
    }
    return found;
}

static enum rp_status take_failing(const struct rp_change *change, size_t n, size_t dim,
                                   float *rows, /* NOLINT(readability-non-const-parameter) */
                                   struct rp_error *err)
{
    (void)err;
    memcpy(rows, change->what.rows, n * dim * sizeof *rows);
    return RP_OK;
}

/* Of the sum: which expert's rows fail, and whose matrix it may have instead. */
static void collect_down(struct rp_search *search)
{
    const struct rp_router *router = &search->config->router;
    char name[RP_SLOT_NAME_SIZE];
    const float *experts = rp_search_slot_rows(
        search, rp_slot_name(RP_PART_EXPERTS, search->slot.layer, name), router->n_chosen);
    const size_t expert = experts ? find_common(search, experts) : SIZE_MAX;
    const double work = rp_search_work(search) * (double)router->n_experts;
    for (size_t shift = 1; shift < router->n_experts; shift += router->n_experts - 2) {
        add_shifted(search, RP_EXPERTS_DOWN, shift);
        if (router->n_experts <= 2)
            break;
    }
    if (expert == SIZE_MAX || search->slot.is_carried)
        return;
    for (size_t other = 0; other < router->n_experts && work < RP_MOST_WORK; other++)
        if (other != expert)
            add_replaced(search, RP_EXPERTS_DOWN, expert, other);
    struct rp_candidate candidate =
        rp_candidate_of_rows("expert-matrix", take_failing, 0, search->dumped);
    candidate.phase = RP_PHASE_BIAS;
    candidate.parameter = (double)expert;
    rp_search_add(search, candidate,
                  "the positions that go to expert %zu are wrong, and no others: its ffn_down_exps "
                  "is another matrix",
                  expert);
}

/* ---- the family ---- */

static void add_product(struct rp_search *search, enum rp_weight_id which)
{
    char name[RP_SLOT_NAME_SIZE];
    struct rp_candidate candidate =
        rp_candidate_make("expert-matrix", install_products, BY_PLACE, which);
    candidate.is_everywhere = true;
    if (!rp_search_has_step(search, RP_STEP_EXPERTS_LINEAR, which))
        return;
    rp_search_add(search, candidate,
                  "the expert in place k of the choice multiplies by expert k's %s",
                  rp_weight_name(which));
    candidate = rp_candidate_make("weights-swapped", install_products, OTHER_STACK, which);
    candidate.is_everywhere = true;
    candidate.other = which == RP_EXPERTS_GATE ? RP_EXPERTS_UP : RP_EXPERTS_GATE;
    if (which != RP_EXPERTS_DOWN)
        rp_search_add(search, candidate, "%s and %s swapped", rp_weight_name(which),
                      rp_weight_name(candidate.other));
    candidate = rp_candidate_make("experts-weights", install_products, WEIGHTED_INPUT, which);
    candidate.is_everywhere = true;
    candidate.rows =
        rp_search_slot_rows(search, rp_slot_name(RP_PART_EXPERTW, search->slot.layer, name),
                            search->config->router.n_chosen);
    if (candidate.rows && which != RP_EXPERTS_DOWN)
        rp_search_add(search, candidate, "%s multiplies its input times the expert's weight",
                      rp_weight_name(which));
    if (which == RP_EXPERTS_DOWN)
        collect_down(search);
    else if (!search->slot.is_carried)
        collect_pieces(search, which);
}

static void add_sums(struct rp_search *search)
{
    static const struct rp_hypothesis sums[] = {
        {"experts-weights", WEIGHTS_BY_SIZE, NONE,
         "the weights, the largest first, multiply the experts by rising number"},
        {"router-top-k", FEWER, NONE, "one expert less is summed"},
    };
    static const struct rp_hypothesis shared[] = {
        {"shared-gate", NO_SHARED_GATE, NONE, "the shared expert's output without its gate"},
        {"shared-gate", NO_SIGMOID, NONE, "the shared expert's gate without its sigmoid"},
        {"shared-missing", NO_SHARED, NONE, "the shared expert's output is not added"},
        {"shared-missing", SHARED_TWICE, NONE, "the shared expert's output is added twice"},
    };
    struct rp_candidate unweighted =
        rp_candidate_make("experts-weights", install_sum, UNWEIGHTED, RP_N_WEIGHTS);
    unweighted.value = 1;
    if (rp_search_has_step(search, RP_STEP_SUM_EXPERTS, RP_N_WEIGHTS)) {
        rp_search_add(search, unweighted, "the experts' outputs are summed without their weights");
        unweighted.value = 1.0 / (double)search->config->router.n_chosen;
        rp_search_add(search, unweighted, "the mean of the experts' outputs, without weights");
    }
    RP_ADD_ALL(search, RP_STEP_SUM_EXPERTS, install_sum, sums);
    if (rp_search_has_step(search, RP_STEP_ADD_SHARED, RP_SHARED_ROUTER))
        RP_ADD_ALL(search, RP_STEP_ADD_SHARED, install_shared, shared);
    else
        rp_search_add_all(search, RP_STEP_ADD_SHARED, install_shared, shared + 2, 2);
}

void rp_collect_experts(struct rp_search *search)
{
    rp_collect_expert_numbers(search);
    rp_collect_router(search);
    add_product(search, RP_EXPERTS_GATE);
    add_product(search, RP_EXPERTS_UP);
    add_product(search, RP_EXPERTS_DOWN);
    add_sums(search);
}
