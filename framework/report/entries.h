/* What a session found of entries, not of pairs: the tests <entry>/weights; and with REFPARITY_REQUIRE, the
 * entries that are _disabled. */
#ifndef REFPARITY_REPORT_ENTRIES_H
#define REFPARITY_REPORT_ENTRIES_H

#include <cjson/cJSON.h>

#include "run/context.h"

/* Tests <entry>/weights. */
struct rp_weights_counts {
    size_t n, n_passed, n_failed, n_errors, n_skipped;
};

/* Adds to array, results.json's "entries", an object for each entry that there is something to say of:
 * {"entry", "engine", "hf_model", "matrix", "line"}, and "weights": {"verdict", "message", "compare_s",
 * "reproduce"}, "disabled": {"verdict", "message"}, "warnings". */
void rp_report_entries(const struct rp_context *context, cJSON *array,
                       struct rp_weights_counts *weights);

/* "weights: 3 of 4 files are their checkpoints', 1 is not, 0 errors, 2 skipped"; "" where no test was
 * run. Returns buf. */
const char *rp_report_weights_line(const struct rp_weights_counts *weights, char *buf, size_t size);

#endif
