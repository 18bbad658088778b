/* What replay found (run/judge_replay.h), as text and as JSON. */
#ifndef REFPARITY_REPORT_REPLAY_H
#define REFPARITY_REPORT_REPLAY_H

#include <cjson/cJSON.h>
#include <stdio.h>

#include "base/terminal.h"
#include "run/judge_replay.h"

/* A table with a line for each slot: the error that its operation introduces at its worst position, and
 * the limit there, and of a failing one what its layer inherits; then what explains the failures. Nothing
 * where n is 0. */
void rp_report_replay_text(const struct rp_terminal *out, const struct rp_replay_result *results,
                           size_t n);

/* The lines that explain one failing layer, each indented by two spaces. */
void rp_report_replay_failure(FILE *out, const struct rp_replay_result *result);

/* One object per result. */
void rp_report_replay_json(cJSON *array, const struct rp_replay_result *results, size_t n);

#endif
