/* See gate.h. HF, engine and exact are three points in one space. An engine that is over the limit
 * against HF is explained where it lies on the exact reference: what is left between that and HF is
 * quantization, measured. By the triangle inequality its distance from HF is then no more than the two
 * together; that is checked all the same, for it fails where the rows are not of one kind. */
#include "compare/gate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compare/align.h"

#define ROUNDING 1e-6 /* of the triangle's sides: sums in double over FP32 values */

#define SAY(result, ...) snprintf((result)->message, sizeof(result)->message, __VA_ARGS__)

/* One position of the three. */
struct triangle {
    struct rp_position_metrics total; /* engine beside reference */
    double own;                       /* ||engine - exact|| / ||exact|| */
    double own_side;                  /* the same over ||reference|| */
    double quantization;              /* ||exact - reference|| / ||reference|| */
    int over;                         /* 1: over the limit against the reference */
};

struct finding {
    struct triangle first_own;   /* the first with its own error over the limit */
    struct triangle unexplained; /* the first over the limit that quantization does not explain */
    size_t n_unexplained;
    size_t n_without_exact; /* positions that exact lacks */
};

static int is_larger(double a, double b) /* NaN is larger than all */
{
    return isnan(a) ? !isnan(b) : a > b;
}

static int is_explained(const struct triangle *t, double limit)
{
    const double total = t->total.metrics.l2_rel;
    return t->own <= limit && total <= (t->own_side + t->quantization) * (1 + ROUNDING) + ROUNDING;
}

static void note(struct rp_exact_result *exact, struct finding *found, const struct triangle *here)
{
    const int64_t position = here->total.position;
    if (exact->n_compared == 0 || is_larger(here->own, exact->own_error)) {
        exact->own_error = here->own;
        exact->own_position = position;
    }
    if (exact->n_compared == 0 || is_larger(here->quantization, exact->quantization_error)) {
        exact->quantization_error = here->quantization;
        exact->quantization_position = position;
    }
    exact->n_compared++;
    if (!(here->own <= exact->limit) && exact->n_failing++ == 0)
        found->first_own = *here;
    if (here->over && !is_explained(here, exact->limit) && found->n_unexplained++ == 0)
        found->unexplained = *here;
}

static struct triangle measure(const struct rp_row_pair *row, const void *exact,
                               const struct rp_slot_result *result, int is_logits)
{
    const struct rp_metrics own = rp_metrics_row(exact, row->engine, result->dim);
    const struct rp_metrics quantized = rp_metrics_row(row->ref, exact, result->dim);
    const struct rp_metrics total = rp_metrics_row(row->ref, row->engine, result->dim);
    const int passes = is_logits ? total.cosine > result->limit : total.l2_rel < result->limit;
    return (struct triangle){.total = {row->position, total},
                             .own = own.l2_rel,
                             .own_side = own.l2_rel * own.norm_ref / quantized.norm_ref,
                             .quantization = quantized.l2_rel,
                             .over = !passes};
}

/* The row at position; rows ascend, and *next walks along. NULL when there is none. */
static const void *find_row(const struct rp_tensor *exact, size_t *next, int64_t position)
{
    while (*next < exact->n_positions && exact->positions[*next] < position)
        (*next)++;
    if (*next == exact->n_positions || exact->positions[*next] != position)
        return NULL;
    return (const char *)exact->data + *next * exact->dim * sizeof(float);
}

static enum rp_status compare_rows(const struct rp_comparison *c, struct rp_slot_result *result,
                                   struct finding *found, struct rp_error *err)
{
    struct rp_tensor exact = {0};
    struct rp_alignment alignment;
    struct rp_row_pair row;
    size_t next = 0;
    int layer;
    const int is_logits = rp_slot_parse(result->slot, &layer) == RP_PART_LOGITS;
    enum rp_status status = rp_tensor_load(c->exact, result->slot, &exact, err);
    if (status)
        return status;
    status = rp_alignment_open(c, result->slot, &alignment, err);
    if (!status && exact.dim != alignment.dim)
        status = rp_fail(err, RP_ERR_MISMATCH, rp_tensor_set_path(c->exact), -1,
                         "%s has %zu values per position, the reference has %zu", result->slot,
                         exact.dim, alignment.dim);
    while (!status && rp_alignment_next(c, &alignment, &row)) {
        const void *exact_row = find_row(&exact, &next, row.position);
        if (!exact_row) {
            found->n_without_exact++;
            continue;
        }
        const struct triangle here = measure(&row, exact_row, result, is_logits);
        note(&result->exact, found, &here);
    }
    rp_alignment_close(&alignment);
    rp_tensor_release(&exact);
    return status;
}

/* A failing position that is not the first over the limit against HF: metrics follow. */
static void set_first(struct rp_slot_result *result, const struct triangle *here)
{
    result->first = here->total;
}

static void append(struct rp_slot_result *result, const char *text)
{
    const size_t used = strlen(result->message);
    snprintf(result->message + used, sizeof result->message - used, "%s", text);
}

/* That the file's values are those of the checkpoint, to what their types may cost, is what makes the
 * distance quantization. */
static void check_weights(const struct rp_comparison *comparison, struct rp_slot_result *result)
{
    const char *why = comparison->weights_message ? comparison->weights_message : "";
    const size_t used = strlen(result->message);
    char *end = result->message + used;
    const size_t left = sizeof result->message - used;
    switch (comparison->weights) {
    case RP_PASS:
    case RP_MARGINAL: break;
    case RP_SKIP:
        snprintf(end, left, "; not checked: whether the file is the checkpoint (%.120s)", why);
        break;
    case RP_FAIL:
        result->verdict = RP_FAIL;
        SAY(result,
            "L2_rel %.4g at position %lld is no quantization: the engine's file is not the "
            "checkpoint: %.400s",
            result->first.metrics.l2_rel, (long long)result->first.position, why);
        break;
    case RP_ERROR:
        result->verdict = RP_ERROR;
        SAY(result, "whether the engine's file is the checkpoint has to be known: %.400s", why);
        break;
    }
}

static void decide_explained(const struct rp_comparison *comparison, struct rp_slot_result *result,
                             const struct finding *found)
{
    const struct rp_exact_result *exact = &result->exact;
    const struct triangle *here = &found->unexplained;
    if (result->verdict != RP_FAIL)
        return;
    if (found->n_without_exact) {
        append(result, "; the exact reference lacks positions, so that nothing explains it");
    } else if (found->n_unexplained == 0) {
        result->verdict = RP_MARGINAL;
        SAY(result,
            "L2_rel %.4g at worst, at position %lld, is quantization: that alone is %.4g, the "
            "engine's own error %.3g, limit %g",
            result->worst.metrics.l2_rel, (long long)result->worst.position,
            exact->quantization_error, exact->own_error, exact->limit);
        check_weights(comparison, result);
    } else if (here->total.metrics.engine_finite) {
        set_first(result, here);
        SAY(result,
            "L2_rel %.4g at position %lld, of which quantization is %.4g: the engine's own error "
            "is %.4g, limit %g",
            here->total.metrics.l2_rel, (long long)here->total.position, here->quantization,
            here->own, exact->limit);
    } else if (here->total.position != result->first.position) {
        set_first(result, here);
        SAY(result, "NaN or infinity at position %lld", (long long)here->total.position);
    }
}

static void decide_exact(struct rp_slot_result *result, const struct finding *found)
{
    const struct rp_exact_result *exact = &result->exact;
    const struct triangle *here = &found->first_own;
    if (found->n_without_exact || exact->n_compared == 0) {
        result->verdict = RP_ERROR;
        SAY(result, "the exact reference lacks %zu positions", found->n_without_exact);
        return;
    }
    const int had_failed = result->verdict == RP_FAIL;
    result->verdict = exact->n_failing ? RP_FAIL : RP_PASS;
    result->n_failing = exact->n_failing;
    if (exact->n_failing == 0) {
        result->first.position = -1;
        SAY(result, "own error %.4g at worst, at position %lld, limit %g (L2_rel against HF %.4g)",
            exact->own_error, (long long)exact->own_position, exact->limit,
            result->worst.metrics.l2_rel);
    } else if (here->total.metrics.engine_finite) {
        set_first(result, here);
        SAY(result, "own error %.4g at position %lld, limit %g (L2_rel against HF %.4g)", here->own,
            (long long)here->total.position, exact->limit, here->total.metrics.l2_rel);
    } else if (!had_failed || here->total.position != result->first.position) {
        set_first(result, here);
        SAY(result, "NaN or infinity at position %lld", (long long)here->total.position);
    }
}

static void without_exact(struct rp_slot_result *result, enum rp_gate gate, const char *why)
{
    if (gate == RP_GATE_EXACT) {
        result->verdict = RP_SKIP;
        SAY(result, "no exact reference: %.400s", why);
    } else if (result->verdict == RP_FAIL) {
        append(result, "; there is no exact reference that could explain it: ");
        append(result, why);
    }
}

void rp_gate_slot(const struct rp_comparison *comparison, struct rp_slot_result *result)
{
    struct rp_error err;
    char text[sizeof result->message];
    struct finding found;
    memset(&found, 0, sizeof found);
    if (result->verdict != RP_PASS && result->verdict != RP_FAIL)
        return;
    result->exact.limit = rp_limits_l2_rel(&comparison->exact_limits, result->slot);
    if (!comparison->exact) {
        without_exact(result, comparison->gate,
                      comparison->no_exact ? comparison->no_exact : "none was given");
        return;
    }
    if (!rp_tensor_set_find(comparison->exact, result->slot)) {
        without_exact(result, comparison->gate, "it lacks this slot");
        return;
    }
    if (compare_rows(comparison, result, &found, &err)) {
        result->verdict = RP_ERROR;
        SAY(result, "%s", rp_error_text(&err, text, sizeof text));
    } else if (comparison->gate == RP_GATE_EXACT) {
        decide_exact(result, &found);
    } else {
        decide_explained(comparison, result, &found);
    }
}
