/* What results.json says of known divergences: each one of an entry once, and those that are mended. Not for
 * finding them: run/known.h. */
#ifndef REFPARITY_REPORT_KNOWN_H
#define REFPARITY_REPORT_KNOWN_H

#include <cjson/cJSON.h>

#include "run/known.h"

/* Adds "known" to a pair's object, where its entry has any: {"slot", "name", "reason", "issue", "line",
 * "state", "n_judged", "n_met", "first", "message"}. */
void rp_report_known_json(cJSON *pair, const struct rp_known_result *known, size_t n);

/* A known divergence of an entry that some of its pairs have met. Texts are results.json's own, "" where it has
 * none. */
struct rp_known_group {
    const char *entry, *slot, *name, *reason, *issue;
    size_t n_pairs; /* that have met it */
    double n_slots; /* of all of these */
};
typedef void rp_known_fn(void *context, const struct rp_known_group *group);
/* In the order of the matrix. Returns how many there are; see may be NULL. */
size_t rp_report_known(const cJSON *pairs, rp_known_fn *see, void *context);

/* "h*_attn, rope-theta: REASON (ISSUE)". Returns buf. */
const char *rp_known_text(const struct rp_known_group *group, char *buf, size_t size);

/* The pair's next known divergence, from item on (NULL: the first), that is a failure of its own: its "message"
 * says why. NULL: there are no more. */
const cJSON *rp_report_next_mended(const cJSON *pair, const cJSON *item);

#endif
