/* The results of a ctest session: results.json and junit.xml over all pairs; of a shard shard.json too, which
 * has all that merge.h needs. Not for those of one pair: result_file.h; nor for what is printed of them: summary.h, markdown.h. */
#ifndef REFPARITY_REPORT_RESULTS_H
#define REFPARITY_REPORT_RESULTS_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "report/entries.h"
#include "run/context.h"

struct rp_results {
    cJSON *root;       /* what results.json holds; owned */
    size_t n_pairs;    /* that the session selected */
    size_t n_other;    /* pairs of the matrix that it did not */
    size_t n_compared; /* pairs with at least one slot compared or replayed */
    size_t n_passed, n_failed, n_errors, n_skipped;
    size_t
        n_replayed; /* of n_compared: by replay alone, there is no fixture and nothing needs one */
    size_t n_explained; /* of n_passed: MARGINAL, over the limit by quantization alone */
    size_t n_known;     /* XFAIL: what they diverge by is known; not of n_passed */
    size_t n_warnings;  /* of what passed, and of entries */
    struct rp_weights_counts weights;
    bool has_ended; /* ctest has run all that it had selected, session/end is the last of it */
};

/* Collects the pairs that the context's session selected; those that have no result yet (ctest was stopped
 * before its cleanup) are judged now, and one whose run was lost is an ERROR. Writes results.json and
 * junit.xml into the reports folder. After an error, which is the first of all, results are as whole as
 * they could be made, and every file is written that could be. To be freed with rp_results_free. */
enum rp_status rp_results_collect(const struct rp_context *context, struct rp_results *results,
                                  struct rp_error *err);
void rp_results_free(struct rp_results *results);

/* ---- for results that come from elsewhere: merge.h ---- */

/* Counts root's pair into results. */
void rp_results_count_pair(struct rp_results *results, const cJSON *pair);
/* Adds "summary" as it has been counted, before all else that is added to root. */
void rp_results_add_summary(const struct rp_results *results, cJSON *root);
/* Writes the HTML report, results.json and junit.xml. Of several errors the first is returned. What the HTML
 * report alone draws is dropped from root. */
enum rp_status rp_results_write(const char *reports_dir, cJSON *root, struct rp_error *err);

/* 2 when any pair or weights test is in error, or nothing was compared; else 1 when any fails; else 2 when
 * ctest did not come to its end; else 3 when there are warnings and strict_warnings; else 0. */
int rp_results_exit_code(const struct rp_results *results, bool strict_warnings);

/* The worst of two exit codes: 2, 1, 3, 0. */
int rp_results_worse_code(int a, int b);

#endif
