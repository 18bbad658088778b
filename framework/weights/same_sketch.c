/* See weights/same_sketch.h. With y the file's row, x the checkpoint's and B what rounding may cost, ||y - x|| <= B:
 * the norms differ by B at most, and of the products' differences s_k (y - x) the squares' sum has
 * rp_sketch_limit. The same holds of all rows of a tensor together, where chance evens out: what all rows have
 * in common is found much earlier than in one row. */
#include "weights/same_sketch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/encoded_bounds.h"
#include "weights/gguf_internal.h"

#define FP32_ROUNDING 0x1p-24 /* of what the sketch stores, relative */
#define FP32_LEAST 0x1p-149
#define FP64_ROUNDING 0x1p-51 /* of a sum's term: twice that of the products' two sums */

/* What was measured of one row, before it is divided by anything. */
struct measured {
    double norm;        /* the checkpoint's */
    double norm_error;  /* by how much more than stored numbers are rounded the norms differ */
    double square;      /* of the products' differences, the same */
    double sums, slack; /* what the sums are rounded by, and with them the stored numbers */
    double bound;       /* B */
};

/* What the nearest F16 or BF16 may be off by where it holds a number of the checkpoint's type. */
static double nearest_bound(uint32_t type, uint32_t checkpoint_type, double value)
{
    const double size = fabs(value);
    if (type == checkpoint_type || type == RP_GGML_F32)
        return 0;
    if (type == RP_GGML_BF16)
        return size * 0x1p-8 + 0x1p-134;
    /* BF16 has 8 bits, which F16 holds down to 2^-17 */
    if (checkpoint_type == RP_GGML_BF16)
        return size <= 0x1p-17 ? 0x1p-25 : 0;
    return size * 0x1p-11 + 0x1p-25;
}

static double row_bound(const struct rp_file_row *row, uint32_t checkpoint_type, double envelope,
                        bool is_transposed)
{
    double square = 0;
    if (rp_is_nearest(row->type))
        for (size_t i = 0; i < row->n; i++) {
            const double bound = nearest_bound(row->type, checkpoint_type, (double)row->values[i]);
            square += bound * bound;
        }
    else
        square = row->bound_norm * row->bound_norm;
    if (is_transposed) /* the envelope is of other blocks */
        return sqrt(square);
    const double widest = rp_widest_steps_norm(row->type, envelope, row->n);
    return fmin(sqrt(square), row->allowance * widest);
}

/* What does not need the products; *expected is read. */
static enum rp_status measure_norm(const struct rp_file_row *row,
                                   const struct rp_sketch_place *place,
                                   struct rp_row_sketch *expected, struct measured *measured,
                                   struct rp_error *err)
{
    const double n = (double)row->n;
    if (!rp_sketch_row(place->sketch, place->row, expected))
        return rp_fail(err, RP_ERR_FORMAT, rp_gguf_path(place->checkpoint),
                       (long long)place->tensor->offset,
                       "row %zu of the sketch of '%s' is damaged: record it again with "
                       "ci/record.sh",
                       place->row, place->tensor->name);
    *measured = (struct measured){.norm = expected->norm};
    if (!isfinite(row->norm)) {
        measured->norm_error = measured->square = (double)NAN;
        return RP_OK;
    }
    measured->sums = FP64_ROUNDING * n * sqrt(n) * (row->norm + expected->norm) + FP32_LEAST;
    measured->slack = FP32_ROUNDING * expected->norm + measured->sums;
    measured->norm_error = fmax(fabs(row->norm - expected->norm) - measured->slack, 0);
    measured->bound =
        row_bound(row, place->tensor->type, expected->envelope, place->is_transposed) +
        place->tolerance * row->norm;
    return RP_OK;
}

static void measure_products(const struct rp_file_row *row, const struct rp_sketch_place *place,
                             const struct rp_row_sketch *expected, struct measured *measured)
{
    const size_t n = place->sketch->n_vectors;
    double products[RP_SKETCH_MAX_VECTORS];
    if (!isfinite(row->norm))
        return;
    rp_sketch_products(place->row, row->values, row->n, place->columns, n, products);
    for (size_t k = 0; k < n; k++) {
        const double slack = FP32_ROUNDING * fabs(expected->products[k]) + measured->sums;
        const double excess = fmax(fabs(products[k] - expected->products[k]) - slack, 0);
        measured->square += excess * excess;
        measured->slack = fmax(measured->slack, slack);
    }
}

static struct rp_row_distance distance_of(const struct measured *measured, size_t n_vectors,
                                          double x)
{
    const double norm = measured->norm > 0 ? measured->norm : 1;
    struct rp_square_bounds bounds = {0, 0, 0};
    rp_square_bounds_add(&bounds, measured->bound * measured->bound);
    const double limit = rp_sketch_limit(&bounds, n_vectors, x);
    struct rp_row_distance distance = {
        .error = sqrt(measured->square / (double)n_vectors) / norm,
        .limit = (sqrt(limit / (double)n_vectors) + measured->slack) / norm,
        .is_same = measured->square <= limit && measured->norm_error <= measured->bound};
    if (measured->square <= limit && !distance.is_same) { /* the norm alone shows it */
        distance.error = measured->norm_error / norm;
        distance.limit = measured->bound / norm;
    }
    return distance;
}

enum rp_status rp_sketch_row_distance(const struct rp_file_row *row,
                                      const struct rp_sketch_place *place,
                                      struct rp_row_distance *distance, struct rp_error *err)
{
    struct rp_row_sketch expected;
    struct measured measured = {.norm = 0};
    enum rp_status status = measure_norm(row, place, &expected, &measured, err);
    if (status != RP_OK)
        return status;
    if (measured.norm_error <= measured.bound)
        measure_products(row, place, &expected, &measured);
    *distance = distance_of(&measured, place->sketch->n_vectors, place->x);
    return RP_OK;
}

enum rp_status rp_sketch_row_limit(const struct rp_file_row *row,
                                   const struct rp_sketch_place *place, double *limit,
                                   struct rp_error *err)
{
    struct rp_row_sketch expected;
    struct measured measured = {.norm = 0};
    enum rp_status status = measure_norm(row, place, &expected, &measured, err);
    if (status != RP_OK)
        return status;
    measured.norm_error = 0;
    measured.square = 0;
    *limit = distance_of(&measured, place->sketch->n_vectors, place->x).limit;
    return RP_OK;
}

double rp_sketch_x(const struct rp_gguf *checkpoint)
{
    double n = 1;
    for (size_t i = 0; i < rp_gguf_n_tensors(checkpoint); i++) {
        const struct rp_gguf_tensor *tensor = rp_gguf_tensor(checkpoint, i);
        const double n_columns = (double)tensor->dims[0] * (double)tensor->dims[2];
        const bool is_transposed = rp_gguf_origin(checkpoint, tensor).is_transposed;
        n += 1 + (is_transposed ? n_columns : (double)tensor->n_rows);
    }
    return log(n / RP_SKETCH_CHANCE);
}

/* Of all rows of a tensor. Rows of the same number in several sketches have the same signs: their errors e are one
 * quadratic form of these, whose generating function is at most that of a row with the sum of their squares
 * (prod (1 - 2 t l_i) >= 1 - 2 t sum l_i, of its eigenvalues l_i). */
struct together {
    double *bounds; /* [n] squares, by the row's number */
    double square, norm_square, slack_square;
    size_t n;
};

static enum rp_status together_open(struct together *together, const struct rp_gguf_origin *origin,
                                    struct rp_error *err)
{
    *together = (struct together){.n = origin->each ? origin->n_each : origin->sketch->n_rows};
    together->bounds = calloc(together->n + 1, sizeof *together->bounds);
    return together->bounds
               ? RP_OK
               : rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", together->n);
}

static struct rp_row_distance distance_together(const struct together *together, size_t n_vectors,
                                                double x)
{
    const double norm = together->norm_square > 0 ? sqrt(together->norm_square) : 1;
    struct rp_square_bounds bounds = {0, 0, 0};
    for (size_t i = 0; i < together->n; i++)
        rp_square_bounds_add(&bounds, together->bounds[i]);
    const double limit = rp_sketch_limit(&bounds, n_vectors, x);
    return (struct rp_row_distance){
        .error = sqrt(together->square / (double)n_vectors) / norm,
        .limit = (sqrt(limit / (double)n_vectors) + sqrt(together->slack_square)) / norm,
        .is_same = together->square <= limit};
}

/* A comparison under way. */
struct comparison {
    struct rp_sketch_place place;
    struct together together;
    struct rp_tensor_rows *rows;
};

/* The file's row number r, which is read, is held against the place's. */
static enum rp_status compare_row(struct comparison *comparison, const struct rp_file_row *row,
                                  size_t r, struct rp_error *err)
{
    const struct rp_sketch_place *place = &comparison->place;
    struct together *together = &comparison->together;
    struct rp_row_sketch expected;
    struct measured measured = {.norm = 0};
    enum rp_status status = measure_norm(row, place, &expected, &measured, err);
    if (status != RP_OK)
        return status;
    measure_products(row, place, &expected, &measured);
    const struct rp_row_distance distance =
        distance_of(&measured, place->sketch->n_vectors, place->x);
    rp_tensor_rows_add(comparison->rows, r, &distance);
    together->bounds[place->row] += measured.bound * measured.bound;
    together->square += measured.square;
    together->norm_square += measured.norm * measured.norm;
    together->slack_square += measured.slack * measured.slack;
    return RP_OK;
}

static void set_place(struct comparison *comparison, const struct rp_gguf_origin *origin, size_t r)
{
    const struct rp_sketched_row row = rp_origin_sketched_row(origin, r);
    comparison->place.sketch = row.sketch;
    comparison->place.row = row.row;
}

static enum rp_status compare_rows(struct comparison *comparison,
                                   const struct rp_gguf_origin *origin, const struct rp_gguf *file,
                                   const struct rp_gguf_tensor *tensor, struct rp_error *err)
{
    struct rp_file_row row = {.values = NULL};
    enum rp_status status = rp_file_row_alloc(file, tensor, &row, err);
    for (size_t r = 0; r < tensor->n_rows && status == RP_OK; r++) {
        set_place(comparison, origin, r);
        status = rp_file_row_read(file, tensor, r, &row, err);
        if (status == RP_OK)
            status = compare_row(comparison, &row, r, err);
    }
    rp_file_row_free(&row);
    return status;
}

/* Columns of the file's matrices [dims[1]][dims[0]], which are rows of the checkpoint's. */
static enum rp_status compare_columns(struct comparison *comparison,
                                      const struct rp_gguf_origin *origin,
                                      const struct rp_gguf *file,
                                      const struct rp_gguf_tensor *tensor, struct rp_error *err)
{
    const size_t width = tensor->dims[0], height = tensor->dims[1];
    struct rp_gguf_tensor turned = *tensor;
    struct rp_gguf_origin of_columns = *origin;
    struct rp_file_row row = {.values = NULL}, column = {.values = NULL};
    float *values = calloc(height + 1, 2 * width * sizeof *values), *bounds = values;
    enum rp_status status =
        values ? rp_file_row_alloc(file, tensor, &row, err)
               : rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", height);
    turned.dims[0] = height;
    of_columns.n_each = width;
    if (status == RP_OK)
        status = rp_file_row_alloc(file, &turned, &column, err);
    if (values)
        bounds = values + height * width;
    for (size_t head = 0; head < tensor->dims[2] && status == RP_OK; head++) {
        for (size_t r = 0; r < height && status == RP_OK; r++) {
            status = rp_file_row_read(file, tensor, head * height + r, &row, err);
            memcpy(values + r * width, row.values, width * sizeof *values);
            memcpy(bounds + r * width, row.bound, width * sizeof *values);
        }
        for (size_t c = 0; c < width && status == RP_OK; c++) {
            for (size_t r = 0; r < height; r++) {
                column.values[r] = values[r * width + c];
                column.bound[r] = bounds[r * width + c];
            }
            rp_file_row_measure(&column);
            set_place(comparison, &of_columns, head * width + c);
            status = compare_row(comparison, &column, head * width + c, err);
        }
    }
    comparison->rows->n_samples = 0; /* they are no rows that could be read again */
    rp_file_row_free(&row);
    rp_file_row_free(&column);
    free(values);
    return status;
}

enum rp_status rp_compare_sketched_rows(const struct rp_gguf *file,
                                        const struct rp_gguf_tensor *tensor,
                                        const struct rp_gguf *checkpoint,
                                        const struct rp_gguf_tensor *expected,
                                        struct rp_tensor_rows *rows, struct rp_error *err)
{
    const struct rp_gguf_origin origin = rp_gguf_origin(checkpoint, expected);
    struct comparison comparison = {.place = {.checkpoint = checkpoint,
                                              .tensor = expected,
                                              .is_transposed = origin.is_transposed,
                                              .columns = origin.columns,
                                              .x = rp_sketch_x(checkpoint)},
                                    .rows = rows};
    enum rp_status status = together_open(&comparison.together, &origin, err);
    *rows = (struct rp_tensor_rows){.is_sketched = true, .are_columns = origin.is_transposed};
    if (status == RP_OK)
        status = (origin.is_transposed ? compare_columns : compare_rows)(&comparison, &origin, file,
                                                                         tensor, err);
    rp_gguf_forget_rows(file, tensor, 0, tensor->n_rows);
    if (status == RP_OK)
        rows->together =
            distance_together(&comparison.together, origin.sketch->n_vectors, comparison.place.x);
    free(comparison.together.bounds);
    return status;
}
