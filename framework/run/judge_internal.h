/* What the parts of judging share: judge.c, judge_changed.c, judge_modes.c, judge_pair.c, judge_state.c,
 * judge_tokens.c, judge_warnings.c. Not for use outside. */
#ifndef REFPARITY_RUN_JUDGE_INTERNAL_H
#define REFPARITY_RUN_JUDGE_INTERNAL_H

#include <stdbool.h>

#include "base/sha256.h"
#include "run/judge.h"

void rp_judge_decide(struct rp_judgement *judgement, enum rp_verdict verdict, const char *fmt, ...)
    RP_PRINTF(3, 4);
void rp_judge_decide_error(struct rp_judgement *judgement, const struct rp_error *err);

/* What is missing is a SKIP, unless the caller has said that it has to be there. */
enum rp_verdict rp_judge_missing(const struct rp_context *context);

/* The outcome of run, of the pair whose files are paths: PASS when the engine ran. */
void rp_judge_record(const struct rp_context *context, const struct rp_pair *run,
                     const struct rp_pair_paths *paths, struct rp_run_record *record,
                     struct rp_judgement *judgement);

/* Exited with 0, in time. */
bool rp_judge_ended_well(const struct rp_run_record *record);

/* judge->state, in two steps: before a record is read, and when the pair is open. */
void rp_judge_state_begin(const struct rp_judge *judge, struct rp_sha256 *hash);
void rp_judge_state_end(struct rp_judge *judge, struct rp_sha256 *hash);

/* Opens a run's dump and holds its layers against the matrix. */
enum rp_status rp_judge_open_dump(const struct rp_pair *run, const char *dump,
                                  struct rp_tensor_set **set, struct rp_error *err);

/* What is judged has to be what the run left, and what it found: an engine's child that goes on writing
 * would make verdicts that contradict each other, or a wrong engine right; so would an engine that
 * replaces its model file. RP_ERR_MISMATCH. */
enum rp_status rp_judge_check_run(const struct rp_run_record *record, const char *dump,
                                  struct rp_error *err);
/* The same of the fixture that was found. */
enum rp_status rp_judge_check_fixture(const struct rp_run_record *record, const char *fixture,
                                      struct rp_error *err);

/* Records and dumps of two modes, the second as the reference. */
void rp_judge_open_modes(struct rp_judge *judge);

/* verdicts->warnings, where the pair passes. */
void rp_judge_warnings(const struct rp_judge *judge, struct rp_verdicts *verdicts);

/* "batched against per-token: " before a message about two modes. */
void rp_judge_name_modes(const struct rp_judge *judge, char *message, size_t size);

#endif
