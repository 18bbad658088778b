/* Opens a model: which tensors there have to be, with which shapes, and decoding a layer's weights.
 * Running it is in forward.c and run.c. */
#include "refparity/model.h"

#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "architectures/from_checkpoint.h"
#include "model/model_internal.h"
#include "operations/rope_scaling.h"
#include "weights/checkpoint.h"
#include "weights/gguf_internal.h"
#include "weights/prediction_layers.h"

#define HUGE_PAGE ((size_t)2 << 20) /* of x86-64, and of others with pages of 4 KiB */

enum rp_status rp_float_alloc(size_t n, size_t width, float **floats, struct rp_error *err)
{
    *floats = NULL;
    if (width == 0 || n <= SIZE_MAX / sizeof(float) / width)
        *floats = calloc(n * width + (n * width == 0), sizeof(float));
    if (*floats)
        return RP_OK;
    rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows of %zu floats", n, width);
    return RP_ERR_MEMORY;
}

static enum rp_status check_tensor(const struct rp_model *model, enum rp_weight_id which,
                                   size_t layer, const struct rp_gguf_tensor *tensor,
                                   struct rp_error *err)
{
    const struct rp_model_config config = rp_layer_config(&model->config, layer);
    const char *path = rp_gguf_tensor_path(model->gguf, tensor);
    const size_t *dims = tensor->dims;
    size_t n_out, n_in, n_stacked = rp_weight_n_stacked(&model->config, which);
    n_stacked = n_stacked > 0 ? n_stacked : 1;
    rp_weight_shape(&config, which, &n_out, &n_in);
    n_out = rp_weight_rows(model->architecture, &config, which).n_all;
    /* A matrix a head, of whose rows n_out has all; ik_llama.cpp's files have them in two dimensions. */
    if ((which == RP_ATTN_K_B || which == RP_ATTN_V_B) && dims[2] != 1) {
        n_stacked = model->config.n_heads;
        n_out /= n_stacked;
    }
    if (dims[0] != n_in || dims[1] != n_out || dims[2] != n_stacked || dims[3] != 1)
        return rp_fail(err, RP_ERR_MISMATCH, path, (long long)tensor->offset,
                       "tensor '%s' is [%zu][%zu][%zu][%zu], expected [1][%zu][%zu][%zu] from the "
                       "configuration",
                       tensor->name, dims[3], dims[2], dims[1], dims[0], n_stacked, n_out, n_in);
    return RP_OK;
}

/* *tensor is NULL only where is_optional and the file has none. used [n_tensors] is set. */
static enum rp_status bind(const struct rp_model *model, enum rp_weight_id which, size_t layer,
                           bool is_optional, const struct rp_gguf_tensor **tensor, bool *used,
                           struct rp_error *err)
{
    char name[RP_GGUF_NAME_SIZE];
    rp_weight_full_name(model->architecture, which, layer, name);
    *tensor = rp_gguf_find_tensor(model->gguf, name);
    if (!*tensor && is_optional)
        return RP_OK;
    if (!*tensor)
        return rp_fail(err, RP_ERR_MISSING, rp_gguf_path(model->gguf), -1, "tensor '%s' is missing",
                       name);
    used[*tensor - rp_gguf_tensor(model->gguf, 0)] = true;
    return check_tensor(model, which, layer, *tensor, err);
}

static enum rp_status decode_vector(const struct rp_model *model,
                                    const struct rp_gguf_tensor *tensor, float **vector,
                                    struct rp_error *err)
{
    enum rp_status status = rp_float_alloc(1, tensor->dims[0], vector, err);
    if (status == RP_OK)
        status = rp_gguf_row(model->gguf, tensor, 0, *vector, err);
    return status;
}

/* *factors [n_rot / 2] from that tensor; none where the file has none and may have none. */
static enum rp_status read_rope_factors(const struct rp_model *model, enum rp_weight_id which,
                                        bool is_optional, float **factors, bool *used,
                                        struct rp_error *err)
{
    const struct rp_gguf_tensor *tensor;
    enum rp_status status = bind(model, which, 0, is_optional, &tensor, used, err);
    if (status != RP_OK || !tensor)
        return status;
    status = decode_vector(model, tensor, factors, err);
    for (size_t i = 0; status == RP_OK && *factors && i < model->config.n_rot / 2; i++) {
        if (!((*factors)[i] > 0 && isfinite((*factors)[i])))
            status = rp_fail(err, RP_ERR_FORMAT, rp_gguf_tensor_path(model->gguf, tensor),
                             (long long)tensor->offset,
                             "tensor '%s': value %zu is %g, expected a number above 0",
                             tensor->name, i, (double)(*factors)[i]);
    }
    return status;
}

static enum rp_status find_rope_factors(struct rp_model *model, bool *used, struct rp_error *err)
{
    const struct rp_model_config *config = &model->config;
    enum rp_status status = RP_OK;
    if (model->architecture->may_have_rope_freqs)
        status = read_rope_factors(model, RP_ROPE_FREQS, true, &model->rope_factors, used, err);
    if (status != RP_OK || config->rope_scaling.type == RP_ROPE_NOT_SCALED)
        return status;
    if (model->rope_factors)
        return rp_fail(err, RP_ERR_UNSUPPORTED, rp_gguf_path(model->gguf), -1,
                       "tensor 'rope_freqs.weight' beside another rope scaling is not computed");
    if (config->rope_scaling.type == RP_ROPE_LONGROPE) {
        status =
            read_rope_factors(model, RP_ROPE_FACTORS_SHORT, false, &model->rope_factors, used, err);
        return status == RP_OK ? read_rope_factors(model, RP_ROPE_FACTORS_LONG, false,
                                                   &model->long_rope_factors, used, err)
                               : status;
    }
    status = rp_float_alloc(1, config->n_rot / 2, &model->rope_factors, err);
    if (status == RP_OK)
        rp_rope_scaling_factors(&config->rope_scaling, config->rope_theta, config->n_rot,
                                model->rope_factors);
    return status;
}

static enum rp_status bind_globals(struct rp_model *model, bool *used, struct rp_error *err)
{
    const struct rp_gguf_tensor *norm;
    /* what a part of the shards lacks is not asked for: rp_model_open_layers */
    const bool is_partial = rp_gguf_is_partial(model->gguf);
    enum rp_status status =
        bind(model, RP_TOKEN_EMBD, 0, is_partial, &model->token_embd, used, err);
    if (status == RP_OK)
        status = bind(model, RP_OUTPUT, 0, true, &model->output, used, err);
    if (status == RP_OK)
        status = bind(model, RP_OUTPUT_NORM, 0, is_partial, &norm, used, err);
    if (status == RP_OK)
        status = find_rope_factors(model, used, err);
    if (status != RP_OK)
        return status;
    model->config.has_tied_embeddings = !model->output;
    if (!model->output)
        model->output = model->token_embd;
    return norm ? decode_vector(model, norm, &model->output_norm, err) : RP_OK;
}

static enum rp_status bind_layers(struct rp_model *model, bool *used, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    model->layers = calloc(model->config.n_layers, sizeof *model->layers);
    if (!model->layers)
        return rp_fail(err, RP_ERR_MEMORY, rp_gguf_path(model->gguf), -1,
                       "no memory for %zu layers", model->config.n_layers);
    for (size_t layer = 0; layer < model->config.n_layers; layer++) {
        const struct rp_layer_plan *plan = rp_layer_plan_of(model, layer);
        if (!rp_model_has_layer(model, layer))
            continue;
        for (unsigned i = 0; i < RP_N_LAYER_WEIGHTS && status == RP_OK; i++) {
            enum rp_weight_id which = (enum rp_weight_id)i;
            if (rp_layer_plan_uses(plan, which))
                status = bind(model, which, layer, rp_weight_is_optional(which),
                              &model->layers[layer][which], used, err);
        }
    }
    return status;
}

/* A bias, an adapter or a further layer that is silently left out would be found as a "bug" of
 * every engine that does compute it. */
static enum rp_status refuse_unused(const struct rp_model *model, const bool *used,
                                    struct rp_error *err)
{
    for (size_t i = 0; i < rp_gguf_n_tensors(model->gguf) && !rp_gguf_is_partial(model->gguf);
         i++) {
        if (!used[i] && !rp_gguf_is_of_prediction(model->gguf, rp_gguf_tensor(model->gguf, i)))
            return rp_fail(err, RP_ERR_UNSUPPORTED, rp_gguf_path(model->gguf), -1,
                           "tensor '%s' is not part of architecture '%s' with %zu layers",
                           rp_gguf_tensor(model->gguf, i)->name, model->config.architecture,
                           model->config.n_layers);
    }
    return RP_OK;
}

/* last: SIZE_MAX for all. */
static enum rp_status open_model(const char *path, size_t first, size_t last, struct rp_model **out,
                                 struct rp_error *err)
{
    bool *used = NULL;
    enum rp_status status;
    struct rp_model *model = calloc(1, sizeof *model);
    if (!model)
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "no memory for a model");
    model->first_layer = first;
    model->last_layer = last;
    if (rp_is_checkpoint(path))
        status = rp_gguf_open_checkpoint(path, &model->gguf, err);
    else if (last < SIZE_MAX)
        status = rp_gguf_open_layers(path, first, last, &model->gguf, err);
    else
        status = rp_gguf_open(path, &model->gguf, err);
    if (status != RP_OK)
        goto done;
    status = rp_config_read(model->gguf, &model->architecture, &model->config, &model->layer_kinds,
                            &model->intermediate_sizes, err);
    if (status != RP_OK)
        goto done;
    used = calloc(rp_gguf_n_tensors(model->gguf), sizeof *used);
    if (!used) {
        status = rp_fail(err, RP_ERR_MEMORY, path, -1, "no memory for %zu tensors",
                         rp_gguf_n_tensors(model->gguf));
        goto done;
    }
    status = bind_globals(model, used, err);
    if (status == RP_OK)
        status = bind_layers(model, used, err);
    if (status == RP_OK)
        status = refuse_unused(model, used, err);
done:
    free(used);
    if (status == RP_OK)
        *out = model;
    else
        rp_model_close(model);
    return status;
}

enum rp_status rp_model_open(const char *path, struct rp_model **out, struct rp_error *err)
{
    return open_model(path, 0, SIZE_MAX, out, err);
}

enum rp_status rp_model_open_layers(const char *path, size_t first, size_t last,
                                    struct rp_model **out, struct rp_error *err)
{
    const enum rp_status status = open_model(path, first, last, out, err);
    return status == RP_ERR_MISSING ? rp_model_open(path, out, err) : status;
}

bool rp_model_has_layer(const struct rp_model *model, size_t layer)
{
    return layer < model->config.n_layers &&
           (!rp_gguf_is_partial(model->gguf) ||
            (layer >= model->first_layer && layer <= model->last_layer));
}

bool rp_model_is_partial(const struct rp_model *model)
{
    return rp_gguf_is_partial(model->gguf);
}

void rp_model_close(struct rp_model *model)
{
    if (!model)
        return;
    free(model->rope_factors);
    free(model->long_rope_factors);
    free(model->output_norm);
    free(model->layers);
    free(model->layer_kinds);
    free(model->intermediate_sizes);
    rp_gguf_close(model->gguf);
    free(model);
}

const struct rp_layer_plan *rp_layer_plan_of(const struct rp_model *model, size_t layer)
{
    return rp_architecture_plan(model->architecture, &model->config, layer);
}

const float *rp_model_rope_factors(const struct rp_model *model, enum rp_layer_kind kind,
                                   size_t sequence_length)
{
    const struct rp_rope_scaling *scaling = &model->config.rope_scaling;
    if (kind == RP_LAYER_SLIDING_ATTENTION && scaling->spares_windows)
        return NULL;
    return model->long_rope_factors && sequence_length > scaling->original_context
               ? model->long_rope_factors
               : model->rope_factors;
}

size_t rp_model_slot_width(const struct rp_model *model, enum rp_slot_part part, size_t layer)
{
    if (part == RP_PART_EMB || part == RP_PART_POST_NORM)
        return model->config.hidden_size;
    if (part == RP_PART_LOGITS)
        return model->config.vocab_size;
    if (part == RP_PART_OTHER || layer >= model->config.n_layers)
        return 0;
    const struct rp_layer_plan *plan = rp_layer_plan_of(model, layer);
    const struct rp_model_config config = rp_layer_config(&model->config, layer);
    for (size_t i = 0; i < plan->n_steps; i++) {
        if (plan->steps[i].kind == RP_STEP_TAP && plan->steps[i].part == part)
            return rp_buffer_width(&config, plan->steps[i].in);
    }
    return 0;
}

uint32_t rp_model_output_type(const struct rp_model *model)
{
    return model->output->type;
}

const struct rp_model_config *rp_model_config(const struct rp_model *model)
{
    return &model->config;
}

const struct rp_gguf *rp_model_gguf(const struct rp_model *model)
{
    return model->gguf;
}

/* n floats, not zeroed; in huge pages where the system has them, as a quarter of the time of decoding
 * a large layer went into mapping small ones. */
static enum rp_status alloc_weights(size_t n, float **floats, struct rp_error *err)
{
    void *memory = NULL;
    size_t size = n * sizeof(float);
    if (size < HUGE_PAGE)
        return rp_float_alloc(1, n, floats, err);
    if (n > SIZE_MAX / sizeof(float) || posix_memalign(&memory, HUGE_PAGE, size) != 0)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for a layer of %zu weights", n);
#ifdef MADV_HUGEPAGE
    (void)madvise(memory, size, MADV_HUGEPAGE);
#endif
    *floats = memory;
    return RP_OK;
}

/* Of n rows. */
static size_t n_minima(const struct rp_gguf_tensor *tensor, size_t n)
{
    return rp_gguf_type_has_minima(tensor->type) ? tensor->dims[0] / 32 * n : 0;
}

static struct rp_weight_rows rows_of(const struct rp_model *model, size_t layer, size_t which)
{
    const struct rp_model_config config = rp_layer_config(&model->config, layer);
    return rp_weight_rows(model->architecture, &config, (enum rp_weight_id)which);
}

const struct rp_gguf_tensor *rp_model_undecodable(const struct rp_model *model, size_t layer,
                                                  enum rp_weight_id which)
{
    const struct rp_gguf_tensor *tensor = which < RP_N_LAYER_WEIGHTS ? model->layers[layer][which]
                                          : which == RP_TOKEN_EMBD   ? model->token_embd
                                          : which == RP_OUTPUT       ? model->output
                                                                     : NULL;
    return tensor && !rp_ggml_type_is_readable(tensor->type) ? tensor : NULL;
}

enum rp_status rp_layer_check_decodable(const struct rp_model *model, size_t layer,
                                        struct rp_error *err)
{
    for (unsigned i = 0; i < RP_N_LAYER_WEIGHTS; i++) {
        const struct rp_gguf_tensor *tensor =
            rp_model_undecodable(model, layer, (enum rp_weight_id)i);
        if (tensor)
            return rp_gguf_row(model->gguf, tensor, 0, NULL, err);
    }
    return RP_OK;
}

/* Decodes rows of the tensor to values [rows.n][dims[0]]; NaN where it cannot be decoded. */
static enum rp_status decode(const struct rp_model *model, const struct rp_gguf_tensor *tensor,
                             struct rp_weight_rows rows, float *values, struct rp_error *err)
{
    if (!rp_ggml_type_is_readable(tensor->type)) {
        for (size_t i = 0; i < rows.n * tensor->dims[0]; i++)
            values[i] = NAN;
        return RP_OK;
    }
    const enum rp_status status =
        rp_gguf_rows(model->gguf, tensor, rows.first, rows.n, values, err);
    rp_gguf_forget_rows(model->gguf, tensor, rows.first, rows.n);
    return status;
}

/* Experts' matrices are decoded one at a time, where they are used. */
static bool is_stack(const struct rp_model *model, size_t which)
{
    return rp_weight_n_stacked(&model->config, (enum rp_weight_id)which) > 0;
}

size_t rp_layer_bytes(const struct rp_model *model, size_t layer)
{
    size_t total = 0;
    /* Every element takes at least a bit of the file, so the sum cannot overflow. */
    for (size_t i = 0; i < RP_N_LAYER_WEIGHTS; i++) {
        const struct rp_gguf_tensor *tensor = model->layers[layer][i];
        if (!tensor || is_stack(model, i))
            continue;
        const size_t n = rows_of(model, layer, i).n;
        total += tensor->dims[0] * n + n_minima(tensor, n);
    }
    return total * sizeof(float);
}

enum rp_status rp_layer_load(const struct rp_model *model, size_t layer, struct rp_layer *weights,
                             struct rp_error *err)
{
    enum rp_status status = RP_OK;
    struct rp_layer loaded = {.owned = NULL};
    if (layer >= model->config.n_layers)
        return rp_fail(err, RP_ERR_ARGUMENT, rp_gguf_path(model->gguf), -1,
                       "layer %zu of a model with %zu", layer, model->config.n_layers);
    if (!rp_model_has_layer(model, layer))
        return rp_fail(err, RP_ERR_ARGUMENT, rp_gguf_path(model->gguf), -1,
                       "layer %zu of a model of which layers %zu to %zu are open", layer,
                       model->first_layer, model->last_layer);
    status = alloc_weights(rp_layer_bytes(model, layer) / sizeof(float), &loaded.owned, err);
    if (!loaded.owned) /* as status says */
        return status;
    float *at = loaded.owned;
    for (size_t i = 0; i < RP_N_LAYER_WEIGHTS && status == RP_OK; i++) {
        const struct rp_gguf_tensor *tensor = model->layers[layer][i];
        if (!tensor)
            continue;
        if (is_stack(model, i)) {
            loaded.weights[i] = (struct rp_weight){.n_out = tensor->dims[1],
                                                   .n_in = tensor->dims[0],
                                                   .type = tensor->type,
                                                   .gguf = model->gguf,
                                                   .stack = tensor};
            continue;
        }
        const struct rp_weight_rows rows = rows_of(model, layer, i);
        const size_t n_values = rows.n * tensor->dims[0];
        float *minima = n_minima(tensor, rows.n) ? at + n_values : NULL;
        loaded.weights[i] = (struct rp_weight){.data = at,
                                               .n_out = rows.n,
                                               .n_in = tensor->dims[0],
                                               .type = tensor->type,
                                               .minima = minima};
        if (minima)
            rp_gguf_minima(tensor, rows.first, rows.n, minima);
        status = decode(model, tensor, rows, at, err);
        at += n_values + n_minima(tensor, rows.n);
    }
    if (status == RP_OK)
        *weights = loaded;
    else
        rp_layer_free(&loaded);
    return status;
}

void rp_layer_free(struct rp_layer *weights)
{
    free(weights->owned);
    *weights = (struct rp_layer){.owned = NULL};
}
