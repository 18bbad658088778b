/* This run against an earlier one: what is new, worse, mended and better, slot by slot and operation by
 * operation. For engines under work: old failures may stay. Not for verdicts, which are each run's own; nor for
 * how it is written: baseline_text.h. */
#ifndef REFPARITY_REPORT_BASELINE_H
#define REFPARITY_REPORT_BASELINE_H

#include <stdbool.h>

#include "base/json.h"

enum rp_change_kind {
    RP_CHANGE_NEW,    /* it is FAIL or ERROR, and was not */
    RP_CHANGE_WORSE,  /* a worse verdict, an error that has grown, or no longer compared */
    RP_CHANGE_MENDED, /* it was FAIL, ERROR or XFAIL, and passes */
    RP_CHANGE_BETTER,
    RP_CHANGE_KNOWN, /* it was FAIL, and is XFAIL */
    RP_N_CHANGE_KINDS
};
const char *rp_change_kind_name(enum rp_change_kind kind); /* "new", "worse", … */

/* One slot, operation or test. Texts are those of the two results.json. */
struct rp_change {
    enum rp_change_kind kind;
    const char *pair;     /* or entry, of a test `weights` */
    char what[48];        /* "h3", "replay/h3_attn", "engine", "tokens", "report", "weights" */
    const char *was, *is; /* verdicts; "": not there */
    const char *message;  /* of this run */
    const char
        *measure;       /* "L2_rel", "introduced"; NULL: no number has changed by more than noise */
    double before, now; /* HUGE_VAL: not finite */
    double allowed;     /* how far it may grow by rounding; of BETTER, how far fall */
};

/* How far an error that was `before` may grow where nothing but rounding has changed.
 *
 * introduced: an operation that sums in another order moves its output by its bound, which is replay's limit;
 * both runs may have, in opposite directions: before + limit of then + limit of now.
 *
 * L2_rel of a slot of dim values: rounding that falls anew is another draw of dim errors, whose norm has a
 * standard deviation of 1 / sqrt(2 dim) of itself: five of them are a factor of 1 + 5 / sqrt(2 dim). To that
 * comes what other orders add up to: the sum of the operations' limits up to the slot, of both runs; where
 * nothing is replayed, sqrt(dim) 2^-24 (what a sum of dim terms in FP32 is off by, Higham and Mary 2019) for
 * each of 16 operations a layer. */
double rp_baseline_allowed_introduced(double before, double limit_then, double limit_now);
double rp_baseline_allowed_l2_rel(double before, double dim, double noise);

struct rp_baseline {
    struct rp_json *doc;       /* the earlier run's */
    struct rp_change *changes; /* [n_changes], by kind, then in the order of the matrix */
    size_t n_changes, n_of[RP_N_CHANGE_KINDS];
    size_t n_pairs, n_same;   /* pairs of both runs; slots and operations that have not changed */
    const char **only_before; /* [n_only_before] pairs that this run has not */
    const char **only_now;    /* [n_only_now] pairs that the earlier one had not */
    size_t n_only_before, n_only_now;
};

/* path: the earlier run's results.json; results: this one's root, which has to outlive *baseline. RP_ERR_FORMAT:
 * it is no results.json, or its values are not what they can be, with line and column; RP_ERR_UNSUPPORTED: of
 * another version; RP_ERR_MISMATCH: of another matrix, and the message says what differs. Also errors of
 * reading, and RP_ERR_MEMORY. To be freed with rp_baseline_free, also after an error. */
enum rp_status rp_baseline_open(const char *path, const cJSON *results,
                                struct rp_baseline *baseline, struct rp_error *err);
void rp_baseline_free(struct rp_baseline *baseline);

/* 2 where something new is an ERROR; else 1 where anything is new or worse; else 0. */
int rp_baseline_exit_code(const struct rp_baseline *baseline);

#endif
