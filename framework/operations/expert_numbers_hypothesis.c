/* The hypothesis that a dump's numbers of experts are not those that ran: the values are right for the experts that
 * the router's logits choose. Then _experts fails, and so does what is computed from it, and one cause is named. */
#include <stdlib.h>
#include <string.h>

#include "operations/hypotheses.h"
#include "operations/router.h"

static bool is_among(const float *numbers, size_t n, float number)
{
    for (size_t k = 0; k < n; k++)
        if (numbers[k] == number)
            return true;
    return false;
}

/* The numbers that own has not are replaced by those that own alone has, in the same places; how many. */
static size_t replace(float *numbers, const float *own, size_t n)
{
    size_t next = 0, n_replaced = 0;
    for (size_t k = 0; k < n; k++) {
        if (is_among(own, n, numbers[k]))
            continue;
        while (next < n && is_among(numbers, n, own[next]))
            next++;
        if (next == n)
            break;
        numbers[k] = own[next];
        n_replaced++;
    }
    return n_replaced;
}

/* What the change has for the numbers at the position; NULL: nothing. */
static const float *numbers_at(const struct rp_change *change, int64_t position, size_t n_chosen)
{
    const size_t row = rp_row_of(change->positions, change->n_rows, position);
    return row < change->n_rows ? change->what.rows + row * n_chosen : NULL;
}

static enum rp_status weigh_experts(void *context, const struct rp_site *site,
                                    const struct rp_weigh_experts *args)
{
    const struct rp_change *change = context;
    const size_t n = args->router->n_chosen;
    struct rp_weigh_experts wrong = *args;
    float *experts = malloc((site->n_positions * n + 1) * sizeof *experts);
    if (!experts)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for the experts' numbers");
    memcpy(experts, args->experts, site->n_positions * n * sizeof *experts);
    for (size_t p = 0; p < site->n_positions; p++) {
        const float *numbers = numbers_at(change, site->positions[p], n);
        if (numbers)
            memcpy(experts + p * n, numbers, n * sizeof *experts);
    }
    wrong.experts = experts;
    const enum rp_status status = RP_RUN_BELOW(change, weigh_experts, site, &wrong);
    free(experts);
    return status;
}

/* Row i of a product, by the matrix of another expert. */
static enum rp_status run_row(const struct rp_change *change, const struct rp_site *site,
                              const struct rp_linear *args, size_t i, size_t expert, float *matrix)
{
    const struct rp_weight *stack = &change->weights->weights[args->which];
    struct rp_expert_row row;
    rp_expert_row_take(&row, site, args, i);
    if (expert == args->expert->expert)
        return RP_RUN_BELOW(change, linear, &row.site, &row.linear);
    const enum rp_status status = rp_gguf_rows(stack->gguf, stack->stack, expert * args->n_out,
                                               args->n_out, matrix, site->err);
    if (args->bias) /* of all experts, one behind the other */
        row.linear.bias = args->bias - args->expert->expert * args->n_out + expert * args->n_out;
    row.linear.weight = matrix;
    return status == RP_OK ? RP_RUN_BELOW(change, linear, &row.site, &row.linear) : status;
}

static enum rp_status linear(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    const struct rp_change *change = context;
    enum rp_status status = RP_OK;
    if (!args->expert)
        return RP_RUN_BELOW(change, linear, site, args);
    float *matrix = malloc((args->n_out * args->n_in + 1) * sizeof *matrix);
    if (!matrix)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for a matrix");
    for (size_t i = 0; i < site->n_positions && status == RP_OK; i++) {
        const size_t n_chosen = args->expert->n_chosen;
        const float *numbers = numbers_at(change, site->positions[i], n_chosen);
        const size_t expert = numbers ? rp_expert_number(&site->config->router,
                                                         numbers[args->expert->at[i] % n_chosen])
                                      : args->expert->expert;
        status = run_row(change, site, args, i, expert < SIZE_MAX ? expert : args->expert->expert,
                         matrix);
    }
    free(matrix);
    return status;
}

static void install(struct rp_ops *ops)
{
    ops->weigh_experts = weigh_experts;
    ops->linear = linear;
}

/* numbers [n][n_chosen]: the dump's, corrected at the failing positions; returns how many differ. */
static size_t correct(struct rp_search *search, const float *dumped, const float *logits,
                      float *numbers)
{
    const struct rp_router *router = &search->config->router;
    const size_t n_chosen = router->n_chosen;
    const struct rp_site site = {.config = search->config,
                                 .layer = search->slot.layer,
                                 .n_positions = search->n,
                                 .positions = search->slot.positions,
                                 .err = search->err};
    const struct rp_choose_experts args = {
        .router = router,
        .correction = search->weights.weights[RP_ROUTER_CORRECTION].data,
        .logits = logits,
        .experts = malloc((search->n * n_chosen + 1) * sizeof(float))};
    size_t n_replaced = 0;
    enum rp_status status = args.experts ? rp_op_choose_experts(NULL, &site, &args) : RP_ERR_MEMORY;
    rp_search_note(search, status);
    memcpy(numbers, dumped, search->n * n_chosen * sizeof *numbers);
    for (size_t row = 0; row < search->n && status == RP_OK; row++)
        if (search->is_failing[row])
            n_replaced +=
                replace(numbers + row * n_chosen, args.experts + row * n_chosen, n_chosen);
    free(args.experts);
    return n_replaced;
}

void rp_collect_expert_numbers(struct rp_search *search)
{
    const struct rp_router *router = &search->config->router;
    const int layer = search->slot.layer;
    char experts_name[RP_SLOT_NAME_SIZE], router_name[RP_SLOT_NAME_SIZE];
    rp_slot_name(RP_PART_EXPERTS, layer, experts_name);
    rp_slot_name(RP_PART_ROUTER, layer, router_name);
    if (!rp_search_reads(search, experts_name) || search->dim < router->n_chosen)
        return;
    const float *dumped = rp_search_slot_rows(search, experts_name, router->n_chosen);
    const float *logits = rp_search_slot_rows(search, router_name, router->n_experts);
    float *numbers = dumped && logits ? rp_search_new_rows(search) : NULL; /* [n][n_chosen] */
    if (!numbers || correct(search, dumped, logits, numbers) == 0)
        return;
    struct rp_candidate candidate = rp_candidate_make("experts-number", install, 0, RP_N_WEIGHTS);
    candidate.is_everywhere = true;
    candidate.rows = numbers;
    rp_search_add(search, candidate,
                  "%s names other experts than those that ran: the values are right for the ones "
                  "that %s chooses",
                  experts_name, router_name);
}
