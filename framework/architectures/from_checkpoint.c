/* See architectures/from_checkpoint.h. */
#include "architectures/from_checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/checkpoint_config.h"
#include "architectures/checkpoint_metadata.h"
#include "architectures/checkpoint_rope_scaling.h"
#include "architectures/gpt_oss_experts.h"
#include "architectures/hf_order.h"
#include "weights/gguf_computed.h"

#define NAME_SIZE 256
/* exp of another library: 4 units in the last place of FP32. */
#define EXP_TOLERANCE 0x1p-21
/* pow of another library is off by as much; the factor of llama3 scaling follows a frequency's error
 * multiplied by itself, some tens: Llama 3.2's is 32, low_freq_factor 1, high_freq_factor 4. */
#define ROPE_TOLERANCE 0x1p-16

/* How one tensor of the GGUF is made. */
struct made {
    const struct rp_checkpoint_tensor *source; /* NULL: rope factors */
    size_t n_rows, n_columns;
    enum rp_value_change change;
    bool has_heads_order;   /* of V heads; else of rotated pairs */
    size_t *rows, *columns; /* [n_rows], [n_columns]: HF's index of each; NULL: the same */
    /* Of experts, and of heads that have a matrix each: n_each rows of each, one tensor an expert; or each NULL, and
     * source has all, number e's from row e * stride + first on. is_transposed: column c of row r is column r of
     * row c there. */
    bool is_transposed;
    const struct rp_checkpoint_tensor **each; /* [n_rows / n_each], owned */
    size_t n_each, stride, first;
    struct rp_gpt_oss_experts fused; /* n_experts 0: it is not of gpt-oss's experts */
    float *values;                   /* [n_columns], of rope factors; else NULL */
};

struct conversion {
    struct rp_checkpoint *checkpoint;
    struct rp_checkpoint_config config;
    const char *prefix;             /* before "layers.0.": "model." or the like */
    struct made *made;              /* [n_tensors] */
    struct rp_gguf_tensor *tensors; /* [n_tensors], handed over */
    size_t n_tensors;
    bool *used; /* [of the checkpoint's tensors] */
};

static void free_conversion(void *context)
{
    struct conversion *conversion = context;
    for (size_t i = 0; i < conversion->n_tensors; i++) {
        free(conversion->made[i].rows);
        free(conversion->made[i].columns);
        free(conversion->made[i].values);
        free(conversion->made[i].each);
    }
    free(conversion->made);
    free(conversion->used);
    rp_checkpoint_config_free(&conversion->config);
    rp_checkpoint_close(conversion->checkpoint);
    free(conversion);
}

/* ---- values ---- */

static void change_values(enum rp_value_change change, float *values, size_t n)
{
    for (size_t i = 0; i < n && change == RP_CHANGE_PLUS_ONE; i++)
        values[i] += 1.0f;
    for (size_t i = 0; i < n && change == RP_CHANGE_MINUS_EXP; i++)
        values[i] = -expf(values[i]);
}

/* As many rows as n_columns of the source are wide have a matrix. */
static enum rp_status make_transposed_rows(const struct made *made, size_t first, size_t n,
                                           float *out, struct rp_error *err)
{
    const struct rp_checkpoint_tensor *source = made->source;
    const size_t n_columns = made->n_columns, width = made->n_each;
    enum rp_status status = RP_OK;
    float *matrix = malloc(n_columns * width * sizeof *matrix);
    if (!matrix)
        return rp_fail(err, RP_ERR_MEMORY, rp_safetensors_path(source->file), -1,
                       "no memory for a head of %zu rows", n_columns);
    for (size_t i = 0; i < n && status == RP_OK; i++) {
        const size_t number = (first + i) / width, row = (first + i) % width;
        if (i == 0 || row == 0)
            status = rp_safetensors_values(source->file, source->tensor,
                                           (number * made->stride + made->first) * width,
                                           n_columns * width, matrix, err);
        for (size_t k = 0; k < n_columns && status == RP_OK; k++)
            out[i * n_columns + k] = matrix[k * width + row];
    }
    free(matrix);
    return status;
}

/* Rows of experts, as many at once as lie side by side. */
static enum rp_status make_expert_rows(const struct made *made, size_t first, size_t n, float *out,
                                       struct rp_error *err)
{
    const size_t width = made->n_columns;
    enum rp_status status = RP_OK;
    for (size_t i = 0, n_now; i < n && status == RP_OK; i += n_now) {
        const size_t expert = (first + i) / made->n_each, row = (first + i) % made->n_each;
        const struct rp_checkpoint_tensor *source = made->each ? made->each[expert] : made->source;
        const size_t from = made->each ? row : expert * made->stride + made->first + row;
        n_now = made->n_each - row < n - i ? made->n_each - row : n - i;
        status = rp_safetensors_values(source->file, source->tensor, from * width, n_now * width,
                                       out + i * width, err);
    }
    return status;
}

static enum rp_status make_rows(const void *context, size_t index, size_t first, size_t n,
                                float *out, struct rp_error *err)
{
    const struct conversion *conversion = context;
    const struct made *made = &conversion->made[index];
    const size_t width = made->n_columns;
    enum rp_status status = RP_OK;
    float *row = NULL;
    if (made->values) {
        memcpy(out, made->values, width * sizeof *out);
        return RP_OK;
    }
    const struct rp_checkpoint_tensor *source = made->source;
    if (source->sketch.data)
        return rp_fail(err, RP_ERR_UNSUPPORTED, rp_safetensors_path(source->file),
                       (long long)source->tensor->offset,
                       "tensor '%s' is sketched: its values are not there", source->tensor->name);
    if (made->is_transposed)
        return make_transposed_rows(made, first, n, out, err);
    if (made->fused.n_experts > 0) { /* a row of biases has those of all the expert's rows */
        const size_t n_each = width / made->fused.n_in;
        return rp_gpt_oss_experts_rows(&made->fused, first * n_each, n * n_each, out, err);
    }
    if (made->n_each > 0)
        return make_expert_rows(made, first, n, out, err);
    if (!made->rows && !made->columns)
        status =
            rp_safetensors_values(source->file, source->tensor, first * width, n * width, out, err);
    else if (!(row = malloc(width * sizeof *row)))
        status = rp_fail(err, RP_ERR_MEMORY, rp_safetensors_path(source->file), -1,
                         "no memory for a row of %zu values", width);
    for (size_t i = 0; i < n && row && status == RP_OK; i++) {
        const size_t from = made->rows ? made->rows[first + i] : first + i;
        float *to = out + i * width;
        status = rp_safetensors_values(source->file, source->tensor, from * width, width,
                                       made->columns ? row : to, err);
        for (size_t k = 0; made->columns && k < width && status == RP_OK; k++)
            to[k] = row[made->columns[k]];
    }
    if (status == RP_OK)
        change_values(made->change, out, n * width);
    free(row);
    return status;
}

static void forget_tensor(const void *context, size_t index)
{
    const struct conversion *conversion = context;
    const struct made *made = &conversion->made[index];
    const size_t n = made->each ? made->n_rows / made->n_each : made->source ? 1 : 0;
    for (size_t i = 0; i < n; i++) {
        const struct rp_checkpoint_tensor *source = made->each ? made->each[i] : made->source;
        rp_safetensors_forget(source->file, source->tensor);
    }
}

static struct rp_gguf_origin origin_of(const void *context, size_t index)
{
    const struct conversion *conversion = context;
    const struct made *made = &conversion->made[index];
    const bool is_ordered = made->rows || made->columns;
    return (struct rp_gguf_origin){
        .name = made->source ? made->source->tensor->name : "",
        .rows = made->rows,
        .columns = made->columns,
        .n_each = made->n_each,
        .stride = made->stride,
        .first = made->first,
        .each = made->each,
        .is_transposed = made->is_transposed,
        .order = !is_ordered             ? ""
                 : made->has_heads_order ? "the V heads dealt out over the K heads"
                                         : "the two values of a rotated pair side by side",
        .added = made->change == RP_CHANGE_PLUS_ONE ? 1.0f : 0.0f,
        .sketch = made->source ? &made->source->sketch : NULL,
        .is_minus_exp = made->change == RP_CHANGE_MINUS_EXP,
        .tolerance = !made->source                         ? ROPE_TOLERANCE
                     : made->change == RP_CHANGE_MINUS_EXP ? EXP_TOLERANCE
                                                           : 0};
}

/* ---- tensors ---- */

/* Names begin with "model."; with "model.language_model." or the like where there are other models. */
static enum rp_status find_prefix(struct conversion *conversion, struct rp_error *err)
{
    static const char *const prefixes[] = {"model.", "model.language_model.",
                                           "language_model.model.", "", NULL};
    for (size_t i = 0; prefixes[i]; i++) {
        char name[NAME_SIZE];
        snprintf(name, sizeof name, "%sembed_tokens.weight", prefixes[i]);
        conversion->prefix = prefixes[i];
        if (rp_checkpoint_find(conversion->checkpoint, name))
            return RP_OK;
    }
    return rp_fail(err, RP_ERR_MISSING, rp_checkpoint_path(conversion->checkpoint), -1,
                   "tensor 'model.embed_tokens.weight' is missing");
}

/* Whether the shape is [n_out][n_in], dimensions of 1 left out. */
static bool has_shape(const struct rp_safetensor *tensor, size_t n_out, size_t n_in)
{
    size_t dims[RP_SAFETENSORS_MAX_DIMS], n = 0, at = 0;
    for (unsigned i = 0; i < tensor->n_dims; i++)
        if (tensor->dims[i] != 1)
            dims[n++] = tensor->dims[i];
    if (n_out != 1 && (at == n || dims[at++] != n_out))
        return false;
    if (n_in != 1 && (at == n || dims[at++] != n_in))
        return false;
    return at == n;
}

static const char *shape_text(const struct rp_safetensor *tensor, char *text, size_t size)
{
    size_t at = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < tensor->n_dims && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "[%zu]", tensor->dims[i]);
    return text;
}

/* *map [n], where the order differs from HF's; else NULL. */
static enum rp_status make_map(const struct conversion *conversion, enum rp_layer_kind kind,
                               enum rp_slot_part part, size_t n, size_t **map, struct rp_error *err)
{
    const struct rp_model_config *model = &conversion->config.model;
    *map = NULL;
    if (part == RP_PART_OTHER || !rp_hf_order_differs(model, kind, part))
        return RP_OK;
    *map = malloc(n * sizeof **map);
    if (!*map)
        return rp_fail(err, RP_ERR_MEMORY, rp_checkpoint_path(conversion->checkpoint), -1,
                       "no memory for the order of %zu rows", n);
    for (size_t i = 0; i < n; i++)
        (*map)[rp_hf_order_own_index(model, part, n, i)] = i;
    return RP_OK;
}

static uint32_t type_of(const struct made *made)
{
    if (!made->source || made->change != RP_CHANGE_NONE)
        return RP_GGML_F32;
    switch (made->source->tensor->type) {
    case RP_SAFETENSORS_F16: return RP_GGML_F16;
    case RP_SAFETENSORS_BF16: return RP_GGML_BF16;
    default: return RP_GGML_F32;
    }
}

static bool is_of_kv_b(enum rp_weight_id which)
{
    return which == RP_ATTN_K_B || which == RP_ATTN_V_B;
}

/* attn_k_b and attn_v_b are parts of kv_b_proj, whose rows are each head's keys and values. */
static void split_kv_b(const struct rp_model_config *model, enum rp_weight_id which,
                       struct made *made)
{
    made->n_each = made->n_rows / model->n_heads;
    made->stride = model->nope_dim + model->v_head_dim;
    made->first = which == RP_ATTN_K_B ? 0 : model->nope_dim;
    made->is_transposed = which == RP_ATTN_K_B;
}

/* made's n_rows and n_columns are set. */
static void list_tensor(struct conversion *conversion, enum rp_weight_id which, size_t layer,
                        const struct made *made)
{
    struct rp_gguf_tensor *tensor = &conversion->tensors[conversion->n_tensors];
    rp_weight_full_name(conversion->config.architecture, which, layer, tensor->name);
    tensor->n_dims = made->n_each > 0 ? 3 : made->n_rows > 1 ? 2 : 1;
    tensor->dims[0] = made->n_columns;
    tensor->dims[1] = made->n_each > 0 ? made->n_each : made->n_rows;
    tensor->dims[2] = made->n_each > 0 ? made->n_rows / made->n_each : 1;
    tensor->dims[3] = 1;
    tensor->n_rows = made->n_rows;
    tensor->type = type_of(made);
    tensor->offset = made->source ? made->source->tensor->offset : 0;
    conversion->made[conversion->n_tensors++] = *made;
}

/* The checkpoint's tensor of that name, which is noted as used; NULL: it has none. */
static const struct rp_checkpoint_tensor *use_tensor(struct conversion *conversion,
                                                     const char *name)
{
    const struct rp_checkpoint_tensor *tensor = rp_checkpoint_find(conversion->checkpoint, name);
    if (tensor)
        conversion->used[tensor - rp_checkpoint_tensor(conversion->checkpoint, 0)] = true;
    return tensor;
}

/* One of the tensors that experts are made of: [n_experts][n_out][n_in], or, n_experts 0, [n_out][n_in]. */
static enum rp_status check_experts(const struct rp_checkpoint_tensor *tensor, size_t n_experts,
                                    size_t n_out, size_t n_in, struct rp_error *err)
{
    const struct rp_safetensor *data = tensor->tensor;
    const char *path = rp_safetensors_path(tensor->file);
    const size_t *dims = data->dims, n = n_experts > 0;
    char shape[256];
    if (data->n_dims != 2 + n || (n > 0 && dims[0] != n_experts) || dims[n] != n_out ||
        dims[n + 1] != n_in)
        return rp_fail(err, RP_ERR_MISMATCH, path, (long long)data->offset,
                       "tensor '%s' is %s, expected %zu x [%zu][%zu] from config.json", data->name,
                       shape_text(data, shape, sizeof shape), n_experts > 0 ? n_experts : 1, n_out,
                       n_in);
    const size_t n_rows = n_experts > 0 ? n_experts * n_out : n_out; /* they are in the file */
    if (tensor->sketch.data && tensor->sketch.n_rows != n_rows)
        return rp_fail(err, RP_ERR_UNSUPPORTED, path, (long long)data->offset,
                       "tensor '%s' is sketched by %zu rows, expected %zu", data->name,
                       tensor->sketch.n_rows, n_rows);
    if (data->type == RP_SAFETENSORS_OTHER)
        return rp_safetensors_values(tensor->file, data, 0, 1, NULL, err);
    return RP_OK;
}

/* Of the same type, whole or sketched. */
static bool is_kept_alike(const struct rp_checkpoint_tensor *a,
                          const struct rp_checkpoint_tensor *b)
{
    return a->tensor->type == b->tensor->type && !a->sketch.data == !b->sketch.data &&
           a->sketch.n_vectors == b->sketch.n_vectors;
}

/* A tensor for each: pattern has a * where the number belongs. */
static enum rp_status find_each(struct conversion *conversion, const char *pattern,
                                struct made *made, size_t n_experts, struct rp_error *err)
{
    const int n_before = (int)(strchr(pattern, '*') - pattern);
    char name[NAME_SIZE];
    enum rp_status status = RP_OK;
    made->each = calloc(n_experts, sizeof(struct rp_checkpoint_tensor *));
    if (!made->each)
        return rp_fail(err, RP_ERR_MEMORY, rp_checkpoint_path(conversion->checkpoint), -1,
                       "no memory for %zu experts", n_experts);
    for (size_t i = 0; i < n_experts && status == RP_OK; i++) {
        snprintf(name, sizeof name, "%.*s%zu%s", n_before, pattern, i, pattern + n_before + 1);
        made->each[i] = use_tensor(conversion, name);
        status = made->each[i]
                     ? check_experts(made->each[i], 0, made->n_each, made->n_columns, err)
                     : rp_fail(err, RP_ERR_MISSING, rp_checkpoint_path(conversion->checkpoint), -1,
                               "tensor '%s' is missing", name);
        if (status == RP_OK && !is_kept_alike(made->each[i], made->each[0]))
            status = rp_fail(err, RP_ERR_UNSUPPORTED, rp_safetensors_path(made->each[i]->file),
                             (long long)made->each[i]->tensor->offset,
                             "tensor '%s' is of another type than the first expert's, or one of "
                             "the two is sketched",
                             name);
    }
    made->source = made->each[0];
    return status;
}

/* All in one: gate and up side by side. */
static enum rp_status find_fused(struct conversion *conversion, const char *pattern,
                                 enum rp_weight_id which, struct made *made, size_t n_experts,
                                 struct rp_error *err)
{
    const bool is_down = which == RP_EXPERTS_DOWN;
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "%.*s%s", (int)(strchr(pattern, '*') - pattern), pattern,
             is_down ? "down_proj" : "gate_up_proj");
    made->source = use_tensor(conversion, name);
    made->stride = is_down ? made->n_each : 2 * made->n_each;
    made->first = which == RP_EXPERTS_UP ? made->n_each : 0;
    if (!made->source)
        return rp_fail(err, RP_ERR_MISSING, rp_checkpoint_path(conversion->checkpoint), -1,
                       "tensors '%s' and '%s' are missing", pattern, name);
    return check_experts(made->source, n_experts, made->stride, made->n_columns, err);
}

static enum rp_status add_experts(struct conversion *conversion, const struct rp_source *source,
                                  size_t layer, const char *pattern, struct rp_error *err)
{
    const size_t n_experts = rp_weight_n_stacked(&conversion->config.model, source->which);
    const int n_before = (int)(strchr(pattern, '*') - pattern);
    struct made made = {.change = RP_CHANGE_NONE};
    char first[NAME_SIZE];
    rp_weight_shape(&conversion->config.model, source->which, &made.n_each, &made.n_columns);
    made.n_rows = n_experts * made.n_each;
    snprintf(first, sizeof first, "%.*s0%s", n_before, pattern, pattern + n_before + 1);
    const enum rp_status status =
        rp_checkpoint_find(conversion->checkpoint, first)
            ? find_each(conversion, pattern, &made, n_experts, err)
            : find_fused(conversion, pattern, source->which, &made, n_experts, err);
    if (status == RP_OK)
        list_tensor(conversion, source->which, layer, &made);
    else
        free(made.each);
    return status;
}

static enum rp_status add_fused_experts(struct conversion *conversion,
                                        const struct rp_source *source, size_t layer,
                                        const char *name, struct rp_error *err)
{
    const struct rp_model_config *model = &conversion->config.model;
    const size_t n_experts = rp_weight_n_stacked(model, source->which);
    const bool is_bias = n_experts == 0, is_half = source->change != RP_CHANGE_ALL_OF_EXPERTS;
    struct made made = {.change = RP_CHANGE_NONE};
    struct rp_gpt_oss_experts *fused = &made.fused;
    rp_weight_shape(model, source->which, &made.n_rows, &made.n_columns);
    fused->n_experts = is_bias ? made.n_rows : n_experts;
    fused->n_out = is_bias ? made.n_columns : made.n_rows;
    fused->n_in = is_bias ? 1 : made.n_columns;
    fused->step = is_half ? 2 : 1;
    fused->n_all = fused->step * fused->n_out;
    fused->first = source->change == RP_CHANGE_ODD_OF_EXPERTS;
    made.n_each = is_bias ? 0 : made.n_rows;
    made.n_rows = is_bias ? made.n_rows : n_experts * made.n_rows;
    const enum rp_status status = rp_gpt_oss_experts_find(conversion->checkpoint, name, fused, err);
    if (status != RP_OK)
        return status;
    made.source = fused->values ? fused->values : fused->blocks;
    (void)use_tensor(conversion, made.source->tensor->name);
    if (fused->scales)
        (void)use_tensor(conversion, fused->scales->tensor->name);
    list_tensor(conversion, source->which, layer, &made);
    return RP_OK;
}

/* name: in the checkpoint. */
static enum rp_status add_tensor(struct conversion *conversion, const struct rp_source *source,
                                 size_t layer, const char *name, struct rp_error *err)
{
    const struct rp_checkpoint *checkpoint = conversion->checkpoint;
    const enum rp_layer_kind kind = conversion->config.layer_kinds[layer];
    const struct rp_model_config config = rp_layer_config(&conversion->config.model, layer);
    char shape[256];
    size_t n_rows, n_columns;
    struct made made = {.source = use_tensor(conversion, name), .change = source->change};
    if (!made.source && rp_weight_is_optional(source->which))
        return RP_OK;
    if (!made.source)
        return rp_fail(err, RP_ERR_MISSING, rp_checkpoint_path(checkpoint), -1,
                       "tensor '%s' is missing", name);
    const struct rp_safetensor *tensor = made.source->tensor;
    const char *path = rp_safetensors_path(made.source->file);
    rp_weight_shape(&config, source->which, &made.n_rows, &made.n_columns);
    made.n_rows = rp_weight_rows(conversion->config.architecture, &config, source->which).n_all;
    n_rows = made.n_rows;
    n_columns = made.n_columns;
    if (is_of_kv_b(source->which))
        rp_weight_shape(&config, RP_ATTN_KV_B, &n_rows, &n_columns);
    if (!has_shape(tensor, n_rows, n_columns))
        return rp_fail(err, RP_ERR_MISMATCH, path, (long long)tensor->offset,
                       "tensor '%s' is %s, expected [%zu][%zu] from config.json", name,
                       shape_text(tensor, shape, sizeof shape), n_rows, n_columns);
    if (made.source->sketch.data &&
        (made.source->sketch.n_rows != n_rows || source->change != RP_CHANGE_NONE))
        return rp_fail(err, RP_ERR_UNSUPPORTED, path, (long long)tensor->offset,
                       "tensor '%s' is sketched by rows of %s, and has to be there whole", name,
                       shape_text(tensor, shape, sizeof shape));
    if (tensor->type == RP_SAFETENSORS_OTHER)
        return rp_safetensors_values(made.source->file, tensor, 0, 1, NULL, err);
    if (is_of_kv_b(source->which))
        split_kv_b(&conversion->config.model, source->which, &made);
    enum rp_status status = make_map(conversion, kind, source->rows, made.n_rows, &made.rows, err);
    if (status == RP_OK)
        status = make_map(conversion, kind, source->columns, made.n_columns, &made.columns, err);
    made.has_heads_order =
        !rp_hf_order_may_differ(source->rows) && !rp_hf_order_may_differ(source->columns);
    if (status == RP_OK)
        list_tensor(conversion, source->which, layer, &made);
    else
        free(made.rows);
    return status;
}

static enum rp_status add_layers(struct conversion *conversion, struct rp_error *err)
{
    const struct rp_architecture *architecture = conversion->config.architecture;
    char name[NAME_SIZE];
    enum rp_status status = RP_OK;
    for (size_t layer = 0; layer < conversion->config.model.n_layers; layer++) {
        const struct rp_layer_plan *plan =
            rp_architecture_plan(architecture, &conversion->config.model, layer);
        for (size_t i = 0; i < architecture->n_sources && status == RP_OK; i++) {
            const struct rp_source *source = &architecture->sources[i];
            if (source->which >= RP_N_LAYER_WEIGHTS || !rp_layer_plan_uses(plan, source->which))
                continue;
            snprintf(name, sizeof name, "%slayers.%zu.%s", conversion->prefix, layer, source->name);
            if (strchr(source->name, '*'))
                status = add_experts(conversion, source, layer, name, err);
            else if (source->change >= RP_CHANGE_EVEN_OF_EXPERTS)
                status = add_fused_experts(conversion, source, layer, name, err);
            else
                status = add_tensor(conversion, source, layer, name, err);
        }
    }
    return status;
}

/* factors [n_rot / 2], NULL: llama3's, which are computed here. */
static enum rp_status add_rope_factors(struct conversion *conversion, enum rp_weight_id which,
                                       const float *factors, struct rp_error *err)
{
    const size_t n = conversion->config.model.n_rot / 2;
    const struct made made = {
        .n_rows = 1, .n_columns = n, .values = malloc(n * sizeof *made.values)};
    if (!made.values)
        return rp_fail(err, RP_ERR_MEMORY, rp_checkpoint_path(conversion->checkpoint), -1,
                       "no memory for %zu rope factors", n);
    if (factors)
        memcpy(made.values, factors, n * sizeof *factors);
    else
        rp_llama3_rope_factors(&conversion->config, made.values);
    list_tensor(conversion, which, 0, &made);
    return RP_OK;
}

static enum rp_status add_all_rope_factors(struct conversion *conversion, struct rp_error *err)
{
    const struct rp_checkpoint_config *config = &conversion->config;
    enum rp_status status = RP_OK;
    if (config->has_llama3_rope)
        status = add_rope_factors(conversion, RP_ROPE_FREQS, NULL, err);
    if (status == RP_OK && config->short_rope_factors)
        status =
            add_rope_factors(conversion, RP_ROPE_FACTORS_SHORT, config->short_rope_factors, err);
    if (status == RP_OK && config->long_rope_factors)
        status = add_rope_factors(conversion, RP_ROPE_FACTORS_LONG, config->long_rope_factors, err);
    return status;
}

static enum rp_status add_globals(struct conversion *conversion, struct rp_error *err)
{
    static const struct rp_source output = {"lm_head.weight", RP_OUTPUT, RP_CHANGE_NONE,
                                            RP_PART_OTHER, RP_PART_OTHER};
    const struct rp_architecture *architecture = conversion->config.architecture;
    char name[NAME_SIZE];
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < architecture->n_sources && status == RP_OK; i++) {
        const struct rp_source *source = &architecture->sources[i];
        if (source->which < RP_N_LAYER_WEIGHTS)
            continue;
        snprintf(name, sizeof name, "%s%s", conversion->prefix, source->name);
        status = add_tensor(conversion, source, 0, name, err);
    }
    if (status == RP_OK && !conversion->config.model.has_tied_embeddings)
        status = add_tensor(conversion, &output, 0, output.name, err);
    if (status == RP_OK)
        status = add_all_rope_factors(conversion, err);
    return status;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

/* name: behind the prefix. */
static bool is_of_prediction(const struct rp_model_config *model, const char *name)
{
    char *end;
    if (strncmp(name, "layers.", 7) != 0 || name[7] < '0' || name[7] > '9')
        return false;
    const unsigned long layer = strtoul(name + 7, &end, 10);
    return *end == '.' && layer >= model->n_layers &&
           layer - model->n_layers < model->n_prediction_layers;
}

/* A bias, an adapter or a further layer that is silently left out would be found as a "bug" of every
 * engine that does compute it. Layers for multi-token prediction, other models beside the text model, tied outputs, and buffers that old
 * checkpoints have are none of it. */
static enum rp_status refuse_unused(const struct conversion *conversion, struct rp_error *err)
{
    const size_t n_prefix = strlen(conversion->prefix);
    for (size_t i = 0; i < rp_checkpoint_n_tensors(conversion->checkpoint); i++) {
        const struct rp_checkpoint_tensor *tensor = rp_checkpoint_tensor(conversion->checkpoint, i);
        const char *name = tensor->tensor->name;
        if (conversion->used[i] || strncmp(name, conversion->prefix, n_prefix) != 0 ||
            strncmp(name, "model.visual.", 13) == 0 || ends_with(name, "rotary_emb.inv_freq") ||
            (n_prefix == 0 && ends_with(name, "lm_head.weight")) ||
            is_of_prediction(&conversion->config.model, name + n_prefix))
            continue;
        return rp_fail(err, RP_ERR_UNSUPPORTED, rp_safetensors_path(tensor->file),
                       (long long)tensor->tensor->offset,
                       "tensor '%s' is not part of architecture '%s' with %zu layers", name,
                       conversion->config.architecture->name, conversion->config.model.n_layers);
    }
    return RP_OK;
}

/* Whether the file's keys of latent attention are those of heads, not of the latent. */
static bool has_latents_in_one(const struct rp_gguf *file, const struct rp_model_config *model)
{
    char key[NAME_SIZE];
    snprintf(key, sizeof key, "%s.attention.key_length_mla", model->architecture);
    return model->kv_lora_rank > 0 && !rp_gguf_find_value(file, key);
}

typedef enum rp_status open_fn(const char *path, struct rp_checkpoint **out, struct rp_error *err);

/* like: a file; NULL: as converters write it today. */
static enum rp_status convert(const char *path, const struct rp_gguf *like, struct rp_gguf **out,
                              struct rp_error *err)
{
    open_fn *const open = rp_is_checkpoint(path) ? rp_checkpoint_open : rp_checkpoint_open_sketch;
    struct rp_gguf_metadata metadata = {.bytes = NULL};
    struct conversion *conversion = calloc(1, sizeof *conversion);
    if (!conversion)
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "no memory for a checkpoint");
    enum rp_status status = open(path, &conversion->checkpoint, err);
    if (status == RP_OK)
        status = rp_checkpoint_config_read(conversion->checkpoint, &conversion->config, err);
    if (status == RP_OK && like && has_latents_in_one(like, &conversion->config.model))
        rp_checkpoint_config_put_in_one(&conversion->config);
    if (status == RP_OK)
        status = find_prefix(conversion, err);
    if (status != RP_OK)
        goto done;
    const size_t most = (conversion->config.model.n_layers + 1) * RP_N_WEIGHTS;
    conversion->made = calloc(most, sizeof *conversion->made);
    conversion->tensors = calloc(most, sizeof *conversion->tensors);
    conversion->used =
        calloc(rp_checkpoint_n_tensors(conversion->checkpoint), sizeof *conversion->used);
    if (!conversion->made || !conversion->tensors || !conversion->used)
        status = rp_fail(err, RP_ERR_MEMORY, path, -1, "no memory for a checkpoint");
    if (status == RP_OK)
        status = add_globals(conversion, err);
    if (status == RP_OK)
        status = add_layers(conversion, err);
    if (status == RP_OK)
        status = refuse_unused(conversion, err);
    if (status == RP_OK) {
        const struct rp_gguf_source source = {make_rows, forget_tensor, origin_of, free_conversion,
                                              conversion};
        rp_checkpoint_metadata(conversion->checkpoint, &conversion->config, &metadata);
        return rp_gguf_open_computed(path, &metadata, conversion->tensors, conversion->n_tensors,
                                     source, out, err);
    }
done:
    free(conversion->tensors);
    free_conversion(conversion);
    return status;
}

enum rp_status rp_gguf_open_checkpoint(const char *path, struct rp_gguf **out, struct rp_error *err)
{
    return convert(path, NULL, out, err);
}

enum rp_status rp_gguf_open_checkpoint_like(const char *path, const struct rp_gguf *file,
                                            struct rp_gguf **out, struct rp_error *err)
{
    return convert(path, file, out, err);
}
