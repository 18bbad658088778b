/* See weights/tensor_cause.h. Each cause is a candidate: a way to make the rows anew. */
#include <math.h>
#include <stdlib.h>

#include "weights/cause_order.h"
#include "weights/cause_sketch.h"

struct line {
    double factor, offset;
};

static enum rp_status make_line(struct rp_cause_search *search, const void *candidate,
                                size_t sample)
{
    const struct line *line = candidate;
    const size_t width = search->expected->dims[0];
    for (size_t c = 0; c < width; c++)
        search->made[c] =
            (float)(line->factor * (double)search->wanted[sample * width + c] + line->offset);
    return RP_OK;
}

/* The offset, and the factor, that come nearest, over all samples. */
static void fit(const struct rp_cause_search *search, struct line *offset, struct line *factor)
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
static enum rp_status try_factors(struct rp_cause_search *search, double fitted)
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
        status = rp_cause_check(search, make_line, &line, &holds);
        if (holds)
            rp_cause_say(search, "every value is multiplied by %.6g", line.factor);
    }
    return status;
}

static enum rp_status try_line(struct rp_cause_search *search)
{
    struct line offset, factor;
    bool holds = false;
    const double tolerance = search->tolerance;
    /* FP32 rounds the sum. A factor is fitted to values that rounding moved: of thousands of them, by half a
     * step each, it is known to some 1e-4. */
    search->tolerance = tolerance + (rp_is_nearest(search->tensor->type) ? 0x1p-20 : 0x1p-10);
    fit(search, &offset, &factor);
    if (fabs(offset.offset - round(offset.offset)) < 1e-3)
        offset.offset = round(offset.offset);
    enum rp_status status = rp_cause_check(search, make_line, &offset, &holds);
    if (holds && offset.offset != 0) {
        const double added = (double)search->origin.added;
        rp_cause_say(search, "every value is off by %+.6g%s", offset.offset,
                     added != 0 && offset.offset == added    ? ": the converter's 1 is added twice"
                     : added != 0 && offset.offset == -added ? ": the converter's 1 is not added"
                     : fabs(offset.offset) == 1
                         ? ": 1 is added, as for norms that multiply by 1 + weight; "
                           "this one does not"
                         : "");
    } else if (status == RP_OK) {
        status = try_factors(search, factor.factor);
    }
    search->tolerance = tolerance;
    return status;
}

/* What is left where a formula was not applied: x for -exp(x). */
static enum rp_status make_log(struct rp_cause_search *search, const void *candidate, size_t sample)
{
    const size_t width = search->expected->dims[0];
    (void)candidate;
    for (size_t c = 0; c < width; c++)
        search->made[c] = logf(-search->wanted[sample * width + c]);
    return RP_OK;
}

static enum rp_status try_log(struct rp_cause_search *search)
{
    bool holds = false;
    const double tolerance = search->tolerance;
    if (!search->origin.is_minus_exp)
        return RP_OK;
    search->tolerance = 1e-5; /* the logarithm of what FP32 rounded, where it is near 0 */
    enum rp_status status = rp_cause_check(search, make_log, NULL, &holds);
    search->tolerance = tolerance;
    if (holds)
        rp_cause_say(search, "it is the checkpoint's values: -exp(x) was not applied");
    return status;
}

static void try_constant(struct rp_cause_search *search)
{
    const float first = search->rows[0].values[0];
    bool is_constant = search->n_samples * search->rows[0].n > 1;
    for (size_t i = 0; i < search->n_samples; i++)
        for (size_t c = 0; c < search->rows[i].n; c++) {
            const float value = search->rows[i].values[c];
            is_constant = is_constant && value == first;
            if (!isfinite(value)) {
                rp_cause_say(search, "row %zu has the value %g in column %zu", search->indices[i],
                             (double)value, c);
                return;
            }
        }
    if (is_constant)
        rp_cause_say(search, "all values are %g: never written", (double)first);
}

/* ---- all of it ---- */

static enum rp_status try_values(struct rp_cause_search *search)
{
    static enum rp_status (*const tries[])(struct rp_cause_search *) = {
        rp_try_own_order, rp_try_pairs,         try_log,           try_line,
        rp_try_nibbles,   rp_try_other_tensors, rp_try_transposed, rp_try_other_rows};
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < sizeof tries / sizeof *tries && status == RP_OK && !search->text[0]; i++)
        status = tries[i](search);
    return status;
}

enum rp_status rp_tensor_cause(const struct rp_gguf *file, const struct rp_gguf_tensor *tensor,
                               const struct rp_gguf *checkpoint,
                               const struct rp_gguf_tensor *expected,
                               const struct rp_tensor_rows *rows, char text[RP_CAUSE_SIZE],
                               struct rp_error *err)
{
    const size_t width = expected->dims[0];
    struct rp_cause_search search = {.file = file,
                                     .checkpoint = checkpoint,
                                     .tensor = tensor,
                                     .expected = expected,
                                     .origin = rp_gguf_origin(checkpoint, expected),
                                     .is_sketched = rows->is_sketched,
                                     .place = {.checkpoint = checkpoint},
                                     .text = text,
                                     .err = err};
    enum rp_status status = RP_OK;
    text[0] = '\0';
    if (search.is_sketched)
        search.place.x = rp_sketch_x(checkpoint);
    search.tolerance = search.origin.tolerance;
    search.wanted = calloc(width, RP_MAX_FAILING_SAMPLES * sizeof(float));
    search.made = calloc(width, sizeof(float));
    if (!search.wanted || !search.made)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for rows of %zu values", width);
    if (status == RP_OK)
        status = rp_cause_take_samples(&search, rows);
    if (status == RP_OK && search.n_samples > 0) {
        try_constant(&search);
        if (!text[0])
            status = search.is_sketched ? rp_try_sketch(&search) : try_values(&search);
    }
    if (status == RP_OK && !text[0] && search.is_sketched)
        rp_cause_say(&search,
                     "the sketch cannot say why: compare with the checkpoint itself (refparity "
                     "weights GGUF CHECKPOINT)");
    for (size_t i = 0; i < RP_MAX_FAILING_SAMPLES; i++)
        rp_file_row_free(&search.rows[i]);
    free(search.wanted);
    free(search.made);
    return status;
}
