/* The `run` step of a pair: checks what the engine needs, runs it once, records what happened. */
#ifndef REFPARITY_RUN_RUN_H
#define REFPARITY_RUN_RUN_H

#include "run/record.h"

/* Removes what an earlier run left, runs the engine (or keeps its dump, see context->reuse), and
 * writes run.json. Missing prerequisites, a wrong n_layers, a crash, a hang: all of these are
 * recorded, and RP_OK. Fails only when nothing could be recorded. */
enum rp_status rp_run_pair(const struct rp_context *context, const struct rp_pair *pair,
                           struct rp_run_record *record, struct rp_error *err);

#endif
