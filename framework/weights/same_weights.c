/* See refparity/weights.h: walks the tensors, and says what is wrong with them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/encoded_bounds.h"
#include "refparity/weights.h"
#include "weights/gguf_internal.h"
#include "weights/prediction_layers.h"
#include "weights/same_metadata.h"
#include "weights/same_sketch.h"
#include "weights/tensor_cause.h"

#define TEXT_SIZE 64

struct comparison {
    const struct rp_gguf *file, *checkpoint;
    rp_weights_fn *see;
    void *context;
    struct rp_error *err;
};

static const char *shape_text(const struct rp_gguf_tensor *tensor, char text[96])
{
    size_t at = 0;
    text[0] = '\0';
    for (unsigned i = tensor->n_dims; i > 0 && at < 90; i--)
        at += (size_t)snprintf(text + at, 96 - at, "[%zu]", tensor->dims[i - 1]);
    return text;
}

static void begin(struct rp_weights_finding *finding, const struct rp_gguf_tensor *tensor,
                  bool is_in_file)
{
    *finding =
        (struct rp_weights_finding){.type = is_in_file ? rp_ggml_type_name(tensor->type) : ""};
    snprintf(finding->name, sizeof finding->name, "%s", tensor->name);
    snprintf(finding->next, sizeof finding->next,
             "convert again with a converter of this architecture, and compare the tensor's code");
}

static void see_missing(const struct comparison *comparison, const struct rp_gguf_tensor *expected)
{
    struct rp_weights_finding finding;
    const char *origin = rp_gguf_origin(comparison->checkpoint, expected).name;
    begin(&finding, expected, false);
    snprintf(finding.message, sizeof finding.message, "%s is missing (checkpoint: %s)",
             expected->name, origin[0] ? origin : "rope scaling in config.json");
    if (!origin[0])
        snprintf(finding.cause, sizeof finding.cause,
                 "rope scaling was not converted: readers then rotate by the unscaled frequencies");
    comparison->see(comparison->context, &finding);
}

static void see_shape(const struct comparison *comparison, const struct rp_gguf_tensor *tensor,
                      const struct rp_gguf_tensor *expected)
{
    struct rp_weights_finding finding;
    char found[96], wanted[96];
    begin(&finding, tensor, true);
    snprintf(finding.message, sizeof finding.message, "%s is %s, the checkpoint's is %s",
             tensor->name, shape_text(tensor, found), shape_text(expected, wanted));
    if (tensor->n_dims == 2 && tensor->dims[0] == expected->dims[1] &&
        tensor->dims[1] == expected->dims[0])
        snprintf(finding.cause, sizeof finding.cause, "it is transposed");
    comparison->see(comparison->context, &finding);
}

static const char *row_name(const struct rp_tensor_rows *rows)
{
    return rows->are_columns ? "column" : "row";
}

/* No row alone is over its limit. */
static void describe_together(struct rp_weights_finding *finding, const struct rp_tensor_rows *rows)
{
    snprintf(finding->message, sizeof finding->message,
             "%s (%s): its %zu %ss together are not the checkpoint's, by its sketch: L2_rel %.4g, "
             "their rounding may make that %.3g",
             finding->name, finding->type, rows->n_rows, row_name(rows), rows->together.error,
             rows->together.limit);
}

static void add_column(struct rp_weights_finding *finding, const struct rp_row_distance *worst)
{
    const size_t used = strlen(finding->message);
    snprintf(finding->message + used, sizeof finding->message - used, ", the first in column %zu",
             worst->worst);
}

static void describe(struct rp_weights_finding *finding, const struct rp_tensor_rows *rows)
{
    char range[96] = "";
    if (rows->n_failing < rows->n_rows)
        snprintf(range, sizeof range, ", all from %s %zu to %s %zu", row_name(rows),
                 rows->first_failing, row_name(rows), rows->last_failing);
    if (!isfinite(rows->worst.error)) {
        snprintf(finding->message, sizeof finding->message,
                 "%s (%s): %zu of %zu rows are not the checkpoint's%s; row %zu has values that are "
                 "not finite",
                 finding->name, finding->type, rows->n_failing, rows->n_rows, range,
                 rows->worst_row);
        if (!rows->is_sketched)
            add_column(finding, &rows->worst);
        return;
    }
    if (rows->is_sketched) {
        snprintf(
            finding->message, sizeof finding->message,
            "%s (%s): %zu of %zu %ss are not the checkpoint's, by its sketch%s; %s %zu: L2_rel "
            "%.4g, its rounding may make that %.3g",
            finding->name, finding->type, rows->n_failing, rows->n_rows, row_name(rows), range,
            row_name(rows), rows->worst_row, rows->worst.error, rows->worst.limit);
        return;
    }
    snprintf(
        finding->message, sizeof finding->message,
        "%s (%s): %zu of %zu rows are not the checkpoint's%s; row %zu: L2_rel %.4g, its rounding "
        "may cost %.3g; its value furthest off is in column %zu",
        finding->name, finding->type, rows->n_failing, rows->n_rows, range, rows->worst_row,
        rows->worst.error, rows->worst.limit, rows->worst.worst);
}

/* Rows that pass a sketch, by a limit that rows without any relation would pass: those differ by sqrt(2). */
static bool is_too_coarse(const struct rp_tensor_rows *rows)
{
    return rows->is_sketched && rows->n_failing == 0 && rows->together.is_same &&
           !(rows->together.limit < sqrt(2));
}

static void see_too_coarse(const struct comparison *comparison, const struct rp_gguf_tensor *tensor,
                           const struct rp_tensor_rows *rows)
{
    struct rp_weights_finding finding;
    begin(&finding, tensor, true);
    finding.is_not_compared = true;
    snprintf(finding.message, sizeof finding.message,
             "%s cannot be compared by the sketch: of type %s, its %zu rows may be off by L2_rel "
             "%.3g unseen",
             tensor->name, finding.type, rows->n_rows, rows->together.limit);
    snprintf(finding.cause, sizeof finding.cause, "the other tensors are compared");
    snprintf(finding.next, sizeof finding.next,
             "compare with the checkpoint itself: refparity weights GGUF CHECKPOINT");
    comparison->see(comparison->context, &finding);
}

/* Rounding that has no limit is no reason to let the tensor pass. */
static void see_unlimited(const struct comparison *comparison, const struct rp_gguf_tensor *tensor)
{
    struct rp_weights_finding finding;
    begin(&finding, tensor, true);
    finding.is_not_compared = true;
    snprintf(finding.message, sizeof finding.message, "%s cannot be compared: type %s %s",
             tensor->name, finding.type, rp_why_no_encoded_bounds(tensor->type));
    snprintf(finding.cause, sizeof finding.cause, "the other tensors are compared");
    snprintf(
        finding.next, sizeof finding.next,
        "convert to a type whose rounding has a limit: F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, "
        "IQ4_NL, IQ4_XS, TQ1_0, TQ2_0, MXFP4, NVFP4");
    comparison->see(comparison->context, &finding);
}

static enum rp_status compare_tensor(const struct comparison *comparison,
                                     const struct rp_gguf_tensor *tensor,
                                     const struct rp_gguf_tensor *expected)
{
    struct rp_weights_finding finding;
    struct rp_tensor_rows rows;
    const struct rp_tensor_sketch *sketch = rp_gguf_origin(comparison->checkpoint, expected).sketch;
    enum rp_status status =
        (sketch && sketch->data ? rp_compare_sketched_rows : rp_compare_tensor_rows)(
            comparison->file, tensor, comparison->checkpoint, expected, &rows, comparison->err);
    if (status == RP_ERR_UNSUPPORTED) {
        see_unlimited(comparison, tensor);
        return RP_OK;
    }
    if (status != RP_OK)
        return status;
    if (is_too_coarse(&rows)) {
        see_too_coarse(comparison, tensor, &rows);
        return RP_OK;
    }
    begin(&finding, tensor, true);
    finding.is_right = rows.n_failing == 0 && (!rows.is_sketched || rows.together.is_same);
    finding.is_sketched = rows.is_sketched;
    finding.row_resolution = rows.is_sketched ? rows.coarsest : 0;
    finding.tensor_resolution = rows.together.limit;
    finding.n_rows = rows.n_rows;
    finding.n_failing = rows.n_failing;
    finding.first = rows.first_failing;
    finding.last = rows.last_failing;
    finding.worst_row = rows.worst_row;
    finding.l2_rel = rows.worst.error;
    finding.limit = rows.worst.limit;
    if (finding.is_right)
        finding.next[0] = '\0';
    else if (rows.n_failing == 0)
        describe_together(&finding, &rows);
    else
        describe(&finding, &rows);
    if (!finding.is_right)
        status = rp_tensor_cause(comparison->file, tensor, comparison->checkpoint, expected, &rows,
                                 finding.cause, comparison->err);
    if (status == RP_OK)
        comparison->see(comparison->context, &finding);
    return status;
}

/* A copy of the embeddings where the output is tied to them changes nothing. */
static const struct rp_gguf_tensor *tied_to(const struct comparison *comparison,
                                            const struct rp_gguf_tensor *tensor)
{
    if (strcmp(tensor->name, "output.weight") != 0)
        return NULL;
    return rp_gguf_find_tensor(comparison->checkpoint, "token_embd.weight");
}

/* Factors by which frequencies are divided. */
static bool are_all_ones(const struct rp_gguf *file, const struct rp_gguf_tensor *tensor)
{
    float *values = calloc(tensor->dims[0], sizeof *values);
    bool are_ones =
        values && tensor->n_rows == 1 && rp_gguf_row(file, tensor, 0, values, NULL) == RP_OK;
    for (size_t i = 0; are_ones && i < tensor->dims[0]; i++)
        are_ones = values[i] == 1;
    free(values);
    return are_ones;
}

static void see_surplus(const struct comparison *comparison, const struct rp_gguf_tensor *tensor)
{
    struct rp_weights_finding finding;
    char shape[96];
    begin(&finding, tensor, true);
    if (strcmp(tensor->name, "rope_freqs.weight") == 0 && are_all_ones(comparison->file, tensor)) {
        finding.is_right = true;
        finding.next[0] = '\0';
        snprintf(finding.cause, sizeof finding.cause,
                 "the checkpoint has nothing of it; all of it is 1, which changes nothing");
        comparison->see(comparison->context, &finding);
        return;
    }
    snprintf(finding.message, sizeof finding.message,
             "%s (%s, %s) is surplus: the checkpoint has nothing of it", tensor->name, finding.type,
             shape_text(tensor, shape));
    comparison->see(comparison->context, &finding);
}

static bool has_shape_of(const struct rp_gguf_tensor *a, const struct rp_gguf_tensor *b)
{
    return memcmp(a->dims, b->dims, sizeof a->dims) == 0;
}

static enum rp_status compare_found(const struct comparison *comparison,
                                    const struct rp_gguf_tensor *tensor,
                                    const struct rp_gguf_tensor *expected)
{
    if (has_shape_of(tensor, expected))
        return compare_tensor(comparison, tensor, expected);
    see_shape(comparison, tensor, expected);
    return RP_OK;
}

static void architecture_of(const struct rp_gguf *gguf, char text[TEXT_SIZE])
{
    const struct rp_gguf_value *value = rp_gguf_find_value(gguf, "general.architecture");
    snprintf(text, TEXT_SIZE, "missing");
    if (value)
        rp_gguf_value_text(gguf, value, text, TEXT_SIZE);
}

static bool is_as_large(const struct rp_gguf_tensor *tensor, const struct rp_gguf_tensor *expected)
{
    return has_shape_of(tensor, expected) ||
           (tensor->dims[0] == expected->dims[1] && tensor->dims[1] == expected->dims[0]);
}

/* Whether most of the checkpoint's tensors are not in the file, or have other sizes in any order, or some of
 * another architecture: a converter's mistakes do not make another model. */
static bool see_another_model(const struct comparison *comparison)
{
    const size_t n = rp_gguf_n_tensors(comparison->checkpoint);
    struct rp_weights_finding finding = {
        .is_metadata = true, .type = "", .n_rows = 1, .n_failing = 1};
    char found[TEXT_SIZE], expected[TEXT_SIZE], shape[2][96];
    size_t n_fit = 0;
    architecture_of(comparison->file, found);
    architecture_of(comparison->checkpoint, expected);
    const bool is_same = strcmp(found, expected) == 0;
    for (size_t i = 0; i < n; i++) {
        const struct rp_gguf_tensor *wanted = rp_gguf_tensor(comparison->checkpoint, i);
        const struct rp_gguf_tensor *tensor = rp_gguf_find_tensor(comparison->file, wanted->name);
        const bool fits = tensor && is_as_large(tensor, wanted);
        n_fit += fits;
        if (!fits && !finding.cause[0])
            snprintf(finding.cause, sizeof finding.cause, "%s is %s, the checkpoint's is %s",
                     wanted->name, tensor ? shape_text(tensor, shape[0]) : "missing",
                     shape_text(wanted, shape[1]));
    }
    if (is_same ? n_fit >= n - n_fit : n_fit == n)
        return false;
    snprintf(finding.name, sizeof finding.name, "%s", is_same ? "tensors" : "general.architecture");
    snprintf(finding.message, sizeof finding.message,
             "the file is another model's: architecture %s, the checkpoint's %s; %zu of the "
             "checkpoint's %zu tensors are in the file by name and size",
             found, expected, n_fit, n);
    snprintf(finding.next, sizeof finding.next, "compare it with the checkpoint it was made from");
    comparison->see(comparison->context, &finding);
    return true;
}

enum rp_status rp_weights_compare(const struct rp_gguf *file, const struct rp_gguf *checkpoint,
                                  rp_weights_fn *see, void *context, struct rp_error *err)
{
    const struct comparison comparison = {file, checkpoint, see, context, err};
    if (see_another_model(&comparison))
        return RP_OK;
    enum rp_status status = rp_compare_metadata(file, checkpoint, see, context, err);
    for (size_t i = 0; i < rp_gguf_n_tensors(checkpoint) && status == RP_OK; i++) {
        const struct rp_gguf_tensor *expected = rp_gguf_tensor(checkpoint, i);
        const struct rp_gguf_tensor *tensor = rp_gguf_find_tensor(file, expected->name);
        if (tensor)
            status = compare_found(&comparison, tensor, expected);
        else
            see_missing(&comparison, expected);
    }
    for (size_t i = 0; i < rp_gguf_n_tensors(file) && status == RP_OK; i++) {
        const struct rp_gguf_tensor *tensor = rp_gguf_tensor(file, i);
        if (rp_gguf_find_tensor(checkpoint, tensor->name) || rp_gguf_is_of_prediction(file, tensor))
            continue;
        const struct rp_gguf_tensor *tied = tied_to(&comparison, tensor);
        if (tied)
            status = compare_found(&comparison, tensor, tied);
        else
            see_surplus(&comparison, tensor);
    }
    return status;
}
