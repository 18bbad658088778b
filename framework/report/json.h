/* A compared pair as JSON: what result.json, results.json and `refparity diff --json` hold. */
#ifndef REFPARITY_REPORT_JSON_H
#define REFPARITY_REPORT_JSON_H

#include <cjson/cJSON.h>

#include "compare/warnings.h"
#include "refparity/diagnose.h"

/* Adds to object: "tokens", "slots" (an array, forward order), "divergence" (null when there is
 * none), "verdict", "n_required" slots and "n_required_compared" of them. Numbers that are not finite
 * become null. cJSON's allocation failures leave members out. */
void rp_report_json(cJSON *object, const struct rp_pair_result *pair,
                    const struct rp_divergence *divergence);

/* Adds to object "warnings", an array of {"kind", "rule", "slot", "message"}. */
void rp_report_json_warnings(cJSON *object, const struct rp_warnings *warnings);

#endif
