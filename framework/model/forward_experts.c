/* The steps of a mixture of experts. A product runs expert by expert, on the rows that go to it: of a layer's
 * experts one matrix is in memory at a time, and only those that some position goes to are read. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/pass.h"
#include "operations/router.h"
#include "weights/gguf_internal.h"

enum rp_status rp_run_choose_experts(struct rp_pass *pass, const struct rp_step *step)
{
    struct rp_choose_experts args = {
        .router = &pass->site.config->router,
        .correction =
            step->which < RP_N_LAYER_WEIGHTS ? pass->layer->weights[step->which].data : NULL,
        .logits = pass->buffers[step->in],
        .experts = pass->buffers[step->out],
    };
    return pass->ops->choose_experts(pass->ops->context, &pass->site, &args);
}

enum rp_status rp_run_weigh_experts(struct rp_pass *pass, const struct rp_step *step)
{
    struct rp_weigh_experts args = {
        .router = &pass->site.config->router,
        .logits = pass->buffers[step->in],
        .experts = pass->buffers[RP_BUFFER_EXPERTS],
        .weights = pass->buffers[step->out],
    };
    return pass->ops->weigh_experts(pass->ops->context, &pass->site, &args);
}

enum rp_status rp_run_sum_experts(struct rp_pass *pass, const struct rp_step *step)
{
    struct rp_sum_experts args = {
        .n_chosen = pass->site.config->router.n_chosen,
        .dim = pass->site.config->hidden_size,
        .weights = pass->buffers[RP_BUFFER_EXPERT_WEIGHTS],
        .x = pass->buffers[step->in],
        .y = pass->buffers[step->out],
    };
    return pass->ops->sum_experts(pass->ops->context, &pass->site, &args);
}

enum rp_status rp_run_add_shared(struct rp_pass *pass, const struct rp_step *step)
{
    struct rp_add_shared_expert args = {
        .dim = pass->site.config->hidden_size,
        .gate = step->which == RP_SHARED_ROUTER ? pass->buffers[RP_BUFFER_SHARED_ROUTER] : NULL,
        .shared = pass->buffers[step->in],
        .y = pass->buffers[step->out],
    };
    return pass->ops->add_shared_expert(pass->ops->context, &pass->site, &args);
}

/* A product with experts' matrices. */
struct product {
    struct rp_pass *pass;
    const struct rp_step *step;
    const struct rp_weight *weight;
    const float *bias; /* [n_experts][n_out], or NULL */
    size_t n_chosen;
    bool has_input_each; /* x has a row for each of the chosen experts; else one a position */
    float *matrix;       /* [n_out][n_in], then its minima */
    float *x, *y;        /* [n_positions][n_in], [n_positions][n_out]: of one expert's rows */
    size_t *at;          /* [n_positions] see struct rp_expert_rows */
    int64_t *positions;  /* [n_positions] */
};

static size_t n_minima(const struct rp_weight *weight)
{
    return rp_gguf_type_has_minima(weight->type) ? weight->n_out * (weight->n_in / 32) : 0;
}

static enum rp_status product_open(struct product *product)
{
    const struct rp_weight *weight = product->weight;
    struct rp_error *err = product->pass->site.err;
    const size_t n = product->pass->site.n_positions;
    enum rp_status status =
        rp_float_alloc(1, weight->n_out * weight->n_in + n_minima(weight), &product->matrix, err);
    if (status == RP_OK)
        status = rp_float_alloc(n, weight->n_in, &product->x, err);
    if (status == RP_OK)
        status = rp_float_alloc(n, weight->n_out, &product->y, err);
    product->at = calloc(n + 1, sizeof *product->at);
    product->positions = calloc(n + 1, sizeof *product->positions);
    if (status == RP_OK && (!product->at || !product->positions))
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
    return status;
}

static void product_close(struct product *product)
{
    free(product->matrix);
    free(product->x);
    free(product->y);
    free(product->at);
    free(product->positions);
}

/* Gathers the rows that go to the expert; returns how many there are. */
static size_t gather(struct product *product, size_t expert)
{
    const struct rp_pass *pass = product->pass;
    const float *experts = pass->buffers[RP_BUFFER_EXPERTS], *x = pass->buffers[product->step->in];
    const size_t n_in = product->weight->n_in, n_chosen = product->n_chosen;
    size_t n = 0;
    for (size_t p = 0; p < pass->site.n_positions; p++) {
        for (size_t k = 0; k < n_chosen; k++) {
            const size_t at = p * n_chosen + k;
            if (rp_expert_number(&pass->site.config->router, experts[at]) != expert)
                continue;
            memcpy(product->x + n * n_in, x + (product->has_input_each ? at : p) * n_in,
                   n_in * sizeof *x);
            product->at[n] = at;
            product->positions[n++] = pass->site.positions[p];
            break; /* an expert is chosen once */
        }
    }
    return n;
}

static enum rp_status decode(const struct product *product, size_t expert)
{
    const struct rp_weight *weight = product->weight;
    const size_t n_values = weight->n_out * weight->n_in, first = expert * weight->n_out;
    if (!rp_ggml_type_is_readable(weight->type)) {
        for (size_t i = 0; i < n_values; i++)
            product->matrix[i] = NAN;
        return RP_OK;
    }
    const enum rp_status status = rp_gguf_rows(weight->gguf, weight->stack, first, weight->n_out,
                                               product->matrix, product->pass->site.err);
    if (status == RP_OK && n_minima(weight) > 0)
        rp_gguf_minima(weight->stack, first, weight->n_out, product->matrix + n_values);
    rp_gguf_forget_rows(weight->gguf, weight->stack, first, weight->n_out);
    return status;
}

static enum rp_status run_expert(struct product *product, size_t expert, size_t n, bool is_first)
{
    const struct rp_pass *pass = product->pass;
    const struct rp_weight *weight = product->weight;
    const size_t n_out = weight->n_out;
    float *y = pass->buffers[product->step->out];
    struct rp_site site = pass->site;
    const struct rp_weight loaded = {
        .data = product->matrix,
        .n_out = n_out,
        .n_in = weight->n_in,
        .type = weight->type,
        .minima = n_minima(weight) > 0 ? product->matrix + n_out * weight->n_in : NULL};
    const struct rp_expert_rows rows = {
        .expert = expert, .is_first = is_first, .n_chosen = product->n_chosen, .at = product->at};
    const struct rp_linear args = {.which = product->step->which,
                                   .type = weight->type,
                                   .weight = product->matrix,
                                   .loaded = &loaded,
                                   .bias = product->bias ? product->bias + expert * n_out : NULL,
                                   .n_out = n_out,
                                   .n_in = weight->n_in,
                                   .expert = &rows,
                                   .x = product->x,
                                   .y = product->y,
                                   .y_stride = n_out};
    site.n_positions = n;
    site.positions = product->positions;
    enum rp_status status = decode(product, expert);
    if (status == RP_OK)
        status = pass->ops->linear(pass->ops->context, &site, &args);
    for (size_t i = 0; i < n && status == RP_OK; i++)
        memcpy(y + product->at[i] * n_out, product->y + i * n_out, n_out * sizeof *y);
    return status;
}

enum rp_status rp_run_experts_linear(struct rp_pass *pass, const struct rp_step *step)
{
    const enum rp_weight_id bias = step->has_bias ? rp_bias_of(step->which) : RP_N_WEIGHTS;
    struct product product = {.pass = pass,
                              .step = step,
                              .weight = &pass->layer->weights[step->which],
                              .bias = bias < RP_N_LAYER_WEIGHTS ? pass->layer->weights[bias].data
                                                                : NULL,
                              .n_chosen = pass->site.config->router.n_chosen,
                              .has_input_each = step->in == RP_BUFFER_EXPERTS_GATE};
    const size_t n_values = pass->site.n_positions * product.n_chosen * product.weight->n_out;
    bool is_first = true;
    enum rp_status status = product_open(&product);
    for (size_t i = 0; i < n_values; i++) /* of numbers that are no expert's */
        pass->buffers[step->out][i] = NAN;
    for (size_t expert = 0; expert < pass->site.config->router.n_experts && status == RP_OK;
         expert++) {
        const size_t n = gather(&product, expert);
        if (n == 0)
            continue;
        status = run_expert(&product, expert, n, is_first);
        is_first = false;
    }
    product_close(&product);
    return status;
}
