/* What a run changed (baseline.h), written down: as text, Markdown or JSON. First what is new, then what is
 * worse, mended, better, now known; then the pairs that only one of the runs has. */
#ifndef REFPARITY_REPORT_BASELINE_TEXT_H
#define REFPARITY_REPORT_BASELINE_TEXT_H

#include <stdio.h>

#include "base/terminal.h"
#include "report/baseline.h"

/* path: the earlier results.json. Of one pair a few lines a kind, and how many more there are. */
void rp_baseline_write_text(const struct rp_terminal *out, const char *path,
                            const struct rp_baseline *baseline);
void rp_baseline_write_markdown(FILE *out, const char *path, const struct rp_baseline *baseline);

/* All: {"format": "refparity-baseline", "version": 1, "baseline", "summary": {"new", …, "same", "pairs"},
 * "changes": [{"kind", "pair", "what", "was", "is", "measure", "before", "now", "allowed", "message"}],
 * "only_in_baseline", "only_in_this_run"}. What is not finite is null. RP_ERR_MEMORY. */
enum rp_status rp_baseline_write_json(FILE *out, const char *path,
                                      const struct rp_baseline *baseline, struct rp_error *err);

#endif
