/* See weights/tensor_cause.h. Each cause is a candidate: a way to make the rows anew. */
#include "weights/tensor_cause.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights/gguf_internal.h"

#define MAX_SAMPLES 16          /* failing rows that are looked at */
#define MAX_SEARCHED_VALUES 2e8 /* of the checkpoint's, when a row is looked for */
#define BLOCK 32

struct search {
    const struct rp_gguf *file, *checkpoint;
    const struct rp_gguf_tensor *tensor, *expected;
    struct rp_gguf_origin origin;
    double tolerance;
    size_t n_samples;
    size_t indices[MAX_SAMPLES];
    struct rp_file_row rows[MAX_SAMPLES]; /* of the file */
    float *wanted; /* [n_samples][width]: the checkpoint's of the same number */
    float *made;   /* [width], scratch */
    char *text;    /* [RP_CAUSE_SIZE] */
    struct rp_error *err;
};

/* Makes row number sample, as a candidate has it, in search->made. */
typedef enum rp_status make_row_fn(struct search *search, const void *candidate, size_t sample);

static RP_PRINTF(2, 3) void say(struct search *search, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(search->text, RP_CAUSE_SIZE, fmt, args);
    va_end(args);
}

/* *holds: every sampled row is what the candidate makes. */
static enum rp_status check(struct search *search, make_row_fn *make, const void *candidate,
                            bool *holds)
{
    enum rp_status status = RP_OK;
    *holds = true;
    for (size_t i = 0; i < search->n_samples && *holds && status == RP_OK; i++) {
        status = make(search, candidate, i);
        if (status == RP_OK)
            *holds = rp_row_distance(&search->rows[i], search->made, search->tolerance).is_same;
    }
    return status;
}

/* ---- another order of the tensor's own rows or columns ---- */

struct order {
    const size_t *map; /* NULL: pairs */
    bool is_inverse;
    size_t head_dim, n_rot; /* of pairs: i and i + n_rot / 2 to 2i and 2i + 1 */
};

/* Where number i comes from. n: of the map. */
static size_t ordered(const struct order *order, size_t n, size_t i)
{
    if (order->map && !order->is_inverse)
        return order->map[i];
    if (order->map) {
        for (size_t k = 0; k < n; k++)
            if (order->map[k] == i)
                return k;
        return i;
    }
    const size_t half = order->n_rot / 2, at = i % order->head_dim, head = i - at;
    if (at >= order->n_rot)
        return i;
    if (order->is_inverse)
        return head + (at < half ? 2 * at : 2 * (at - half) + 1);
    return head + at / 2 + (at % 2 ? half : 0);
}

static enum rp_status make_reordered_row(struct search *search, const void *candidate,
                                         size_t sample)
{
    const size_t from = ordered(candidate, search->expected->n_rows, search->indices[sample]);
    return rp_gguf_row(search->checkpoint, search->expected, from, search->made, search->err);
}

static enum rp_status make_reordered_columns(struct search *search, const void *candidate,
                                             size_t sample)
{
    const size_t width = search->expected->dims[0];
    for (size_t c = 0; c < width; c++)
        search->made[c] = search->wanted[sample * width + ordered(candidate, width, c)];
    return RP_OK;
}

/* The converter's own order, left out or done twice. */
static enum rp_status try_own_order(struct search *search)
{
    const struct rp_gguf_origin *origin = &search->origin;
    const size_t *map = origin->rows ? origin->rows : origin->columns;
    const char *what = origin->rows ? "rows" : search->expected->n_rows > 1 ? "columns" : "values";
    make_row_fn *make = origin->rows ? make_reordered_row : make_reordered_columns;
    bool holds = false;
    enum rp_status status = RP_OK;
    for (unsigned twice = 0; twice < 2 && map && status == RP_OK; twice++) {
        const struct order order = {.map = map, .is_inverse = !twice};
        status = check(search, make, &order, &holds);
        if (!holds)
            continue;
        if (twice)
            say(search, "its %s are reordered twice: a converter does it once (%s)", what,
                origin->order);
        else
            say(search,
                "its %s are in the checkpoint's own order: the converter's reordering (%s) was "
                "not applied",
                what, origin->order);
        break;
    }
    return status;
}

static size_t setting(const struct search *search, const char *name)
{
    char key[128];
    int64_t value = 0;
    struct rp_gguf_string architecture;
    if (rp_gguf_get_string(search->checkpoint, "general.architecture", &architecture, NULL) !=
        RP_OK)
        return 0;
    snprintf(key, sizeof key, "%.*s.%s", (int)architecture.length, architecture.data, name);
    (void)rp_gguf_get_int(search->checkpoint, key, 1, 1 << 24, &value, NULL);
    return (size_t)value;
}

/* A reordering of rotated pairs where there is none to be. */
static enum rp_status try_pairs(struct search *search)
{
    struct order order = {.head_dim = setting(search, "attention.key_length"),
                          .n_rot = setting(search, "rope.dimension_count")};
    bool holds = false;
    enum rp_status status = RP_OK;
    if (search->origin.rows || order.head_dim == 0 || order.n_rot == 0 ||
        search->expected->n_rows % order.head_dim != 0)
        return RP_OK;
    for (unsigned inverse = 0; inverse < 2 && status == RP_OK && !holds; inverse++) {
        order.is_inverse = inverse;
        status = check(search, make_reordered_row, &order, &holds);
    }
    if (holds)
        say(search,
            "its rows are permuted as Llama's Q and K are, %s: this tensor's have to stay as "
            "they are",
            order.is_inverse ? "backwards" : "the two values of a rotated pair side by side");
    return status;
}

/* Values of a block of 32: those of a byte's halves side by side, where the type has them 16 apart. */
static enum rp_status make_nibbles(struct search *search, const void *candidate, size_t sample)
{
    const size_t width = search->expected->dims[0];
    const bool is_inverse = *(const bool *)candidate;
    for (size_t c = 0; c < width; c++) {
        const size_t at = c % BLOCK, half = BLOCK / 2;
        const size_t from = is_inverse ? at / 2 + at % 2 * half : at % half * 2 + at / half;
        search->made[c] = search->wanted[sample * width + c - at + from];
    }
    return RP_OK;
}

static enum rp_status try_nibbles(struct search *search)
{
    bool holds = false;
    enum rp_status status = RP_OK;
    for (unsigned i = 0; i < 2 && status == RP_OK && search->expected->dims[0] % BLOCK == 0; i++) {
        const bool is_inverse = i;
        status = check(search, make_nibbles, &is_inverse, &holds);
        if (holds)
            break;
    }
    if (holds)
        say(search,
            "the values of each block of 32 are packed in another order: the low and the high "
            "halves of its bytes are values 16 apart, not neighbours");
    return status;
}

/* ---- other values ---- */

static enum rp_status make_transposed(struct search *search, const void *candidate, size_t sample)
{
    const size_t n = search->expected->dims[0];
    const float *all = candidate;
    for (size_t c = 0; c < n; c++)
        search->made[c] = all[c * n + search->indices[sample]];
    return RP_OK;
}

static enum rp_status try_transposed(struct search *search)
{
    const size_t n = search->expected->dims[0];
    bool holds = false;
    if (n < 2 || search->expected->n_rows != n || (double)n * (double)n > MAX_SEARCHED_VALUES)
        return RP_OK;
    float *all = calloc(n * n, sizeof *all);
    if (!all)
        return rp_fail(search->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", n);
    enum rp_status status =
        rp_gguf_rows(search->checkpoint, search->expected, 0, n, all, search->err);
    if (status == RP_OK)
        status = check(search, make_transposed, all, &holds);
    if (holds)
        say(search, "it is transposed");
    free(all);
    return status;
}

struct line {
    double factor, offset;
};

static enum rp_status make_line(struct search *search, const void *candidate, size_t sample)
{
    const struct line *line = candidate;
    const size_t width = search->expected->dims[0];
    for (size_t c = 0; c < width; c++)
        search->made[c] =
            (float)(line->factor * (double)search->wanted[sample * width + c] + line->offset);
    return RP_OK;
}

/* The offset, and the factor, that come nearest, over all samples. */
static void fit(const struct search *search, struct line *offset, struct line *factor)
{
    const size_t width = search->expected->dims[0];
    double sum = 0, product = 0, square = 0;
    for (size_t i = 0; i < search->n_samples; i++)
        for (size_t c = 0; c < width; c++) {
            const double x = (double)search->wanted[i * width + c];
            const double y = (double)search->rows[i].values[c];
            sum += y - x;
            product += x * y;
            square += x * x;
        }
    *offset = (struct line){1, sum / (double)(search->n_samples * width)};
    *factor = (struct line){square > 0 ? product / square : 0, 0};
}

/* The numbers that a fitted factor may stand for, as what a coarse type cuts off at the end of its range
 * makes it smaller; then the fitted one. */
static enum rp_status try_factors(struct search *search, double fitted)
{
    int exponent;
    const double mantissa = frexp(fitted, &exponent);
    const double factors[] = {
        round(fitted),
        copysign(ldexp(1, fabs(mantissa) > 0.7071 ? exponent : exponent - 1), fitted), fitted};
    bool holds = false;
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof factors / sizeof *factors && status == RP_OK && !holds; i++) {
        const struct line line = {factors[i], 0};
        if (!(fabs(line.factor - 1) > 4 * search->tolerance) || line.factor == 0)
            continue;
        status = check(search, make_line, &line, &holds);
        if (holds)
            say(search, "every value is multiplied by %.6g", line.factor);
    }
    return status;
}

static enum rp_status try_line(struct search *search)
{
    struct line offset, factor;
    bool holds = false;
    const double tolerance = search->tolerance;
    /* FP32 rounds the sum. A factor is fitted to values that rounding moved: of thousands of them, by half a
     * step each, it is known to some 1e-4. */
    const bool is_quantized = search->tensor->type != RP_GGML_F32 &&
                              search->tensor->type != RP_GGML_F16 &&
                              search->tensor->type != RP_GGML_BF16;
    search->tolerance = tolerance + (is_quantized ? 0x1p-10 : 0x1p-20);
    fit(search, &offset, &factor);
    if (fabs(offset.offset - round(offset.offset)) < 1e-3)
        offset.offset = round(offset.offset);
    enum rp_status status = check(search, make_line, &offset, &holds);
    if (holds && offset.offset != 0) {
        const double added = (double)search->origin.added;
        say(search, "every value is off by %+.6g%s", offset.offset,
            added != 0 && offset.offset == added    ? ": the converter's 1 is added twice"
            : added != 0 && offset.offset == -added ? ": the converter's 1 is not added"
            : fabs(offset.offset) == 1 ? ": 1 is added, as for norms that multiply by 1 + weight; "
                                         "this one does not"
                                       : "");
    } else if (status == RP_OK) {
        status = try_factors(search, factor.factor);
    }
    search->tolerance = tolerance;
    return status;
}

/* What is left where a formula was not applied: x for -exp(x). */
static enum rp_status make_log(struct search *search, const void *candidate, size_t sample)
{
    const size_t width = search->expected->dims[0];
    (void)candidate;
    for (size_t c = 0; c < width; c++)
        search->made[c] = logf(-search->wanted[sample * width + c]);
    return RP_OK;
}

static enum rp_status try_log(struct search *search)
{
    bool holds = false;
    const double tolerance = search->tolerance;
    if (!search->origin.is_minus_exp)
        return RP_OK;
    search->tolerance = 1e-5; /* the logarithm of what FP32 rounded, where it is near 0 */
    enum rp_status status = check(search, make_log, NULL, &holds);
    search->tolerance = tolerance;
    if (holds)
        say(search, "it is the checkpoint's values: -exp(x) was not applied");
    return status;
}

static void try_constant(struct search *search)
{
    const float first = search->rows[0].values[0];
    bool is_constant = search->n_samples * search->rows[0].n > 1;
    for (size_t i = 0; i < search->n_samples; i++)
        for (size_t c = 0; c < search->rows[i].n; c++) {
            const float value = search->rows[i].values[c];
            is_constant = is_constant && value == first;
            if (!isfinite(value)) {
                say(search, "row %zu has the value %g in column %zu", search->indices[i],
                    (double)value, c);
                return;
            }
        }
    if (is_constant)
        say(search, "all values are %g: never written", (double)first);
}

/* ---- other rows ---- */

static enum rp_status make_same_row(struct search *search, const void *candidate, size_t sample)
{
    return rp_gguf_row(search->checkpoint, candidate, search->indices[sample], search->made,
                       search->err);
}

static enum rp_status try_other_tensors(struct search *search)
{
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < rp_gguf_n_tensors(search->checkpoint) && status == RP_OK; i++) {
        const struct rp_gguf_tensor *other = rp_gguf_tensor(search->checkpoint, i);
        bool holds = false;
        if (other == search->expected || other->dims[0] != search->expected->dims[0] ||
            other->n_rows != search->expected->n_rows)
            continue;
        status = check(search, make_same_row, other, &holds);
        if (holds) {
            say(search, "it is another tensor: what %s has to be (checkpoint: %s)", other->name,
                rp_gguf_origin(search->checkpoint, other).name);
            break;
        }
    }
    return status;
}

/* Looks for each sampled row among all rows of the tensor. */
static enum rp_status try_other_rows(struct search *search)
{
    const size_t n_rows = search->expected->n_rows, width = search->expected->dims[0];
    size_t found[MAX_SAMPLES], n_found = 0;
    bool has[MAX_SAMPLES] = {false};
    enum rp_status status = RP_OK;
    if (n_rows < 2 || (double)n_rows * (double)width > MAX_SEARCHED_VALUES)
        return RP_OK;
    for (size_t r = 0; r < n_rows && n_found < search->n_samples && status == RP_OK; r++) {
        status = rp_gguf_row(search->checkpoint, search->expected, r, search->made, search->err);
        for (size_t i = 0; i < search->n_samples && status == RP_OK; i++) {
            if (has[i] ||
                !rp_row_distance(&search->rows[i], search->made, search->tolerance).is_same)
                continue;
            has[i] = true;
            found[i] = r;
            n_found++;
        }
    }
    if (status == RP_OK && n_found == search->n_samples && n_found > 0)
        say(search,
            "its rows are the checkpoint's in another order: row %zu is row %zu, row %zu is row "
            "%zu",
            search->indices[0], found[0], search->indices[n_found - 1], found[n_found - 1]);
    return status;
}

/* ---- all of it ---- */

/* Failing rows, spread over the tensor. */
static enum rp_status take_samples(struct search *search, const struct rp_tensor_rows *rows)
{
    const size_t span = rows->last_failing - rows->first_failing + 1;
    const size_t step = span <= MAX_SAMPLES ? 1 : span / MAX_SAMPLES;
    const size_t width = search->expected->dims[0];
    enum rp_status status = RP_OK;
    for (size_t r = rows->first_failing;
         r <= rows->last_failing && search->n_samples < MAX_SAMPLES && status == RP_OK; r += step) {
        struct rp_file_row *row = &search->rows[search->n_samples];
        float *wanted = search->wanted + search->n_samples * width;
        if (!row->values)
            status = rp_file_row_alloc(search->tensor, row, search->err);
        if (status == RP_OK)
            status = rp_file_row_read(search->file, search->tensor, r, row, search->err);
        if (status == RP_OK)
            status = rp_gguf_row(search->checkpoint, search->expected, r, wanted, search->err);
        if (status == RP_OK && !rp_row_distance(row, wanted, search->tolerance).is_same)
            search->indices[search->n_samples++] = r;
    }
    return status;
}

enum rp_status rp_tensor_cause(const struct rp_gguf *file, const struct rp_gguf_tensor *tensor,
                               const struct rp_gguf *checkpoint,
                               const struct rp_gguf_tensor *expected,
                               const struct rp_tensor_rows *rows, char text[RP_CAUSE_SIZE],
                               struct rp_error *err)
{
    static enum rp_status (*const tries[])(struct search *) = {
        try_own_order, try_pairs,         try_log,        try_line,
        try_nibbles,   try_other_tensors, try_transposed, try_other_rows};
    const size_t width = expected->dims[0];
    struct search search = {.file = file,
                            .checkpoint = checkpoint,
                            .tensor = tensor,
                            .expected = expected,
                            .origin = rp_gguf_origin(checkpoint, expected),
                            .text = text,
                            .err = err};
    enum rp_status status = RP_OK;
    text[0] = '\0';
    search.tolerance = search.origin.tolerance;
    search.wanted = calloc(width, MAX_SAMPLES * sizeof(float));
    search.made = calloc(width, sizeof(float));
    if (!search.wanted || !search.made)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for rows of %zu values", width);
    if (status == RP_OK)
        status = take_samples(&search, rows);
    if (status == RP_OK && search.n_samples > 0) {
        try_constant(&search);
        for (size_t i = 0; i < sizeof tries / sizeof *tries && status == RP_OK && !text[0]; i++)
            status = tries[i](&search);
    }
    for (size_t i = 0; i < MAX_SAMPLES; i++)
        rp_file_row_free(&search.rows[i]);
    free(search.wanted);
    free(search.made);
    return status;
}
