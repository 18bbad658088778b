/* See weights/same_tensor.h. */
#include "weights/same_tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/encoded_bounds.h"
#include "formats/half.h"
#include "weights/gguf_internal.h"

#define BLOCK_VALUES ((size_t)1 << 20) /* of the checkpoint's that are read at a time */
#define WIDEST_REACH \
    4 /* steps: one of rounding, and half of sqrt(32): see formats/encoded_bounds.h */

bool rp_is_nearest(uint32_t type)
{
    return type == RP_GGML_F32 || type == RP_GGML_F16 || type == RP_GGML_BF16;
}

/* Whether the file says that its values were rounded by their importance. */
static bool has_weights(const struct rp_gguf *file, uint32_t type)
{
    static const char prefix[] = "quantize.imatrix.";
    if (!rp_is_ever_weighted(type))
        return false;
    for (size_t i = 0; i < rp_gguf_n_values(file); i++) {
        const struct rp_gguf_string key = rp_gguf_value(file, i)->key;
        if (key.length >= sizeof prefix && memcmp(key.data, prefix, sizeof prefix - 1) == 0)
            return true;
    }
    return false;
}

enum rp_status rp_file_row_alloc(const struct rp_gguf *file, const struct rp_gguf_tensor *tensor,
                                 struct rp_file_row *row, struct rp_error *err)
{
    row->type = tensor->type;
    row->is_weighted = has_weights(file, tensor->type);
    row->allowance = row->is_weighted ? rp_weighted_allowance(tensor->type) : 1;
    row->n = tensor->dims[0];
    row->values = calloc(row->n, 4 * sizeof *row->values);
    if (!row->values)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for a row of %zu values", row->n);
    row->bound = row->values + row->n;
    row->reach = row->bound + row->n;
    row->widest = row->reach + row->n;
    return RP_OK;
}

void rp_file_row_free(struct rp_file_row *row)
{
    free(row->values);
    *row = (struct rp_file_row){.values = NULL};
}

static double norm_of(const float *x, size_t n)
{
    double square = 0;
    for (size_t i = 0; i < n; i++)
        square += (double)x[i] * (double)x[i];
    return sqrt(square);
}

void rp_file_row_measure(struct rp_file_row *row)
{
    row->norm = norm_of(row->values, row->n);
    row->bound_norm = norm_of(row->bound, row->n);
}

enum rp_status rp_file_row_read(const struct rp_gguf *file, const struct rp_gguf_tensor *tensor,
                                size_t index, struct rp_file_row *row, struct rp_error *err)
{
    enum rp_status status = rp_gguf_row(file, tensor, index, row->values, err);
    if (status == RP_ERR_FORMAT) /* decoded, but not finite: what is to be found, no error */
        status = RP_OK;
    if (status == RP_OK &&
        !rp_encoded_bounds(tensor->type, tensor->data + index * tensor->row_bytes, row->n,
                           row->bound, row->reach))
        status = rp_fail(err, RP_ERR_UNSUPPORTED, rp_gguf_tensor_path(file, tensor),
                         (long long)tensor->offset, "tensor '%s': type %s %s", tensor->name,
                         rp_ggml_type_name(tensor->type), rp_why_no_encoded_bounds(tensor->type));
    for (size_t i = 0; row->is_weighted && status == RP_OK && i < row->n; i++) {
        row->bound[i] *= (float)row->allowance;
        row->reach[i] = INFINITY;
    }
    if (status == RP_OK)
        rp_file_row_measure(row);
    return status;
}

/* Sets what each value may be off by: what the file alone allows, at most a factor of the widest steps; F16
 * and BF16 hold the nearest value, and of what they can hold the value itself. */
static void limits_at(const struct rp_file_row *row, size_t i, float x, double *bound,
                      double *reach)
{
    if (row->type == RP_GGML_F16 || row->type == RP_GGML_BF16) {
        const float nearest = row->type == RP_GGML_F16 ? rp_round_f16(x) : rp_round_bf16(x);
        /* beyond F16's range nothing is near */
        *bound = *reach = isfinite(nearest) ? fabs((double)nearest - (double)x) : 0;
        return;
    }
    const double widest = (double)row->widest[i] * row->allowance;
    *bound = fmin((double)row->bound[i], widest);
    *reach =
        row->is_weighted ? (double)INFINITY : fmin((double)row->reach[i], WIDEST_REACH * widest);
}

struct rp_row_distance rp_row_distance(const struct rp_file_row *row, const float *expected,
                                       double tolerance)
{
    double error_square = 0, bound_square = 0, norm_square = 0, worst_ratio = -1;
    struct rp_row_distance distance = {.is_same = true};
    rp_widest_steps(row->type, expected, row->n, row->widest);
    for (size_t i = 0; i < row->n; i++) {
        const double x = (double)expected[i], error = fabs((double)row->values[i] - x);
        const double slack = tolerance * fabs(x);
        double bound, reach;
        limits_at(row, i, expected[i], &bound, &reach);
        bound += slack;
        reach += slack;
        error_square += error * error;
        bound_square += bound * bound;
        norm_square += x * x;
        if (!(error <= reach))
            distance.is_same = false;
        const double ratio = error == 0 ? 0 : error / (reach > 0 ? reach : 0x1p-149);
        if (!isnan(worst_ratio) && !(ratio <= worst_ratio)) { /* the first NaN is the worst */
            worst_ratio = ratio;
            distance.worst = i;
        }
    }
    const double norm = norm_square > 0 ? sqrt(norm_square) : 1;
    distance.error = sqrt(error_square) / norm;
    distance.limit = sqrt(bound_square) / norm;
    if (!(error_square <= bound_square))
        distance.is_same = false;
    return distance;
}

/* Whether a is worse than b. */
static bool is_worse(const struct rp_row_distance *a, const struct rp_row_distance *b)
{
    if (a->is_same != b->is_same)
        return !a->is_same;
    if (isnan(b->error))
        return false;
    /* error / limit, where either limit may be 0 */
    return !(a->error * b->limit <= b->error * a->limit) ||
           (a->limit == 0 && b->limit == 0 && a->error > b->error);
}

/* When there is no room for a failing row, every other sample goes. */
static void add_sample(struct rp_tensor_rows *rows, size_t index)
{
    if (rows->sample_step == 0)
        rows->sample_step = 1;
    if (rows->n_failing % rows->sample_step != 0)
        return;
    if (rows->n_samples == RP_MAX_FAILING_SAMPLES) {
        for (size_t i = 0; i < RP_MAX_FAILING_SAMPLES / 2; i++)
            rows->samples[i] = rows->samples[2 * i];
        rows->n_samples /= 2;
        rows->sample_step *= 2;
    }
    rows->samples[rows->n_samples++] = index;
}

void rp_tensor_rows_add(struct rp_tensor_rows *rows, size_t index,
                        const struct rp_row_distance *distance)
{
    rows->coarsest = fmax(rows->coarsest, distance->limit);
    if (rows->n_rows++ == 0 || is_worse(distance, &rows->worst)) {
        rows->worst = *distance;
        rows->worst_row = index;
    }
    if (distance->is_same)
        return;
    add_sample(rows, index);
    if (rows->n_failing++ == 0)
        rows->first_failing = index;
    rows->last_failing = index;
}

enum rp_status rp_compare_tensor_rows(const struct rp_gguf *file,
                                      const struct rp_gguf_tensor *tensor,
                                      const struct rp_gguf *checkpoint,
                                      const struct rp_gguf_tensor *expected,
                                      struct rp_tensor_rows *rows, struct rp_error *err)
{
    const size_t width = tensor->dims[0];
    const size_t step = width < BLOCK_VALUES ? BLOCK_VALUES / width : 1;
    const double tolerance = rp_gguf_origin(checkpoint, expected).tolerance;
    struct rp_file_row row = {.values = NULL};
    float *block = calloc(step < tensor->n_rows ? step : tensor->n_rows, width * sizeof *block);
    enum rp_status status =
        block ? rp_file_row_alloc(file, tensor, &row, err)
              : rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for rows of %zu values", width);
    *rows = (struct rp_tensor_rows){.n_rows = 0};
    for (size_t first = 0; first < tensor->n_rows && status == RP_OK; first += step) {
        const size_t n = tensor->n_rows - first < step ? tensor->n_rows - first : step;
        status = rp_gguf_rows(checkpoint, expected, first, n, block, err);
        for (size_t i = 0; i < n && status == RP_OK; i++) {
            status = rp_file_row_read(file, tensor, first + i, &row, err);
            if (status != RP_OK)
                break;
            const struct rp_row_distance distance =
                rp_row_distance(&row, block + i * width, tolerance);
            rp_tensor_rows_add(rows, first + i, &distance);
        }
        rp_gguf_forget_rows(file, tensor, first, n);
    }
    rp_gguf_forget_rows(checkpoint, expected, 0, expected->n_rows);
    rp_file_row_free(&row);
    free(block);
    return status;
}
