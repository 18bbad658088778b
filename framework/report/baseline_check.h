/* Can an earlier run's results.json be compared with this one's: is it one, and of the same matrix? Not for
 * comparing them: baseline.h. */
#ifndef REFPARITY_REPORT_BASELINE_CHECK_H
#define REFPARITY_REPORT_BASELINE_CHECK_H

#include "base/json.h"

/* RP_ERR_FORMAT: it is no results.json; RP_ERR_UNSUPPORTED: of another version. */
enum rp_status rp_baseline_check_format(const struct rp_json *doc, struct rp_error *err);

/* was: a pair of doc; now: this run's of the same name. RP_ERR_MISMATCH: another model, engine, prompt or
 * number of layers. */
enum rp_status rp_baseline_check_pair(const struct rp_json *doc, const cJSON *was, const cJSON *now,
                                      struct rp_error *err);

#endif
