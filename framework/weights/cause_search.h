/* What the files that look for a tensor's cause share: its failing rows, and what they would have to be.
 * Nothing outside this folder includes it. */
#ifndef REFPARITY_WEIGHTS_CAUSE_SEARCH_H
#define REFPARITY_WEIGHTS_CAUSE_SEARCH_H

#include "weights/same_sketch.h"
#include "weights/tensor_cause.h"

#define RP_CAUSE_MAX_VALUES 2e8 /* of the checkpoint's, when a row is looked for */

struct rp_cause_search {
    const struct rp_gguf *file, *checkpoint;
    const struct rp_gguf_tensor *tensor, *expected;
    struct rp_gguf_origin origin;
    double tolerance;
    size_t n_samples;
    size_t indices[RP_MAX_FAILING_SAMPLES];
    struct rp_file_row rows[RP_MAX_FAILING_SAMPLES]; /* of the file */
    float *wanted; /* [n_samples][width]: the checkpoint's of the same number; not of a sketch */
    float *made;   /* [width], scratch */
    bool is_sketched;
    struct rp_sketch_place place; /* where is_sketched: instead of made */
    char *text;                   /* [RP_CAUSE_SIZE] */
    struct rp_error *err;
};

/* Makes row number sample, as a candidate has it, in search->made; of a sketch, says which row it is. */
typedef enum rp_status rp_make_row_fn(struct rp_cause_search *search, const void *candidate,
                                      size_t sample);

void rp_cause_say(struct rp_cause_search *search, const char *fmt, ...) RP_PRINTF(2, 3);

/* Reads the rows that rp_compare_tensor_rows sampled. */
enum rp_status rp_cause_take_samples(struct rp_cause_search *search,
                                     const struct rp_tensor_rows *rows);

bool rp_cause_is_sketched(const struct rp_cause_search *search,
                          const struct rp_gguf_tensor *tensor);

/* Row index of tensor, in a GGUF's order, is what the candidate makes. */
enum rp_status rp_cause_take_row(struct rp_cause_search *search,
                                 const struct rp_gguf_tensor *tensor, size_t index);
/* *is_same: sampled row i is what was made last. */
enum rp_status rp_cause_compare_row(struct rp_cause_search *search, size_t i, bool *is_same);
/* *holds: every sampled row is what the candidate makes. */
enum rp_status rp_cause_check(struct rp_cause_search *search, rp_make_row_fn *make,
                              const void *candidate, bool *holds);

#endif
