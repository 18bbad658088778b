/* Judges a pair after `run`: the engine's own behaviour, its tokens, its slots, all of it.
 * Not for running the engine (run.h) nor for the rule (refparity/compare.h). */
#ifndef REFPARITY_RUN_JUDGE_H
#define REFPARITY_RUN_JUDGE_H

#include "refparity/diagnose.h"
#include "run/record.h"

/* A verdict with its reason in one line. */
struct rp_judgement {
    enum rp_verdict verdict;
    char message[1600];
};

/* One pair, opened for judging. */
struct rp_judge {
    const struct rp_context *context;
    const struct rp_pair *pair;
    struct rp_pair_paths paths;
    char fixture_path[RP_PATH_SIZE];
    struct rp_run_record record;
    /* PASS when there is something to compare; else the verdict of every test but `engine`, with
     * the reason: not run, skipped, no fixture, a dump that cannot be read. */
    struct rp_judgement prerequisites;
    struct rp_comparison comparison; /* owns both sets; usable when prerequisites pass */
};

/* Opens what is there; what is not is in judge->prerequisites. To be closed with rp_judge_close. */
void rp_judge_open(const struct rp_context *context, const struct rp_pair *pair,
                   struct rp_judge *judge);
void rp_judge_close(struct rp_judge *judge);

/* Did the engine run to its end, exit with 0, and complete its dump? */
void rp_judge_engine(const struct rp_judge *judge, struct rp_judgement *judgement);

/* The token ids, and one slot; as rp_compare_tokens and rp_compare_slot, after the prerequisites.
 * A slot that is missing because the engine broke says so. */
void rp_judge_tokens(const struct rp_judge *judge, struct rp_tokens_result *result);
void rp_judge_slot(const struct rp_judge *judge, const char *slot, struct rp_slot_result *result);

/* The whole pair. */
struct rp_verdicts {
    struct rp_judgement engine;
    struct rp_pair_result pair; /* the required slots alone when the prerequisites fail */
    struct rp_divergence divergence;
    enum rp_verdict verdict; /* the worst of engine, prerequisites and pair */
};
enum rp_status rp_judge_pair(const struct rp_judge *judge, struct rp_verdicts *verdicts,
                             struct rp_error *err);
void rp_verdicts_free(struct rp_verdicts *verdicts);

/* The end of the engine's log, each line behind "  | ", at most n lines; "" when it printed
 * nothing. Returns buf. */
const char *rp_judge_log_tail(const struct rp_judge *judge, size_t n, char *buf, size_t size);

#endif
