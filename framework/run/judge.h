/* Judges a pair after `run`: the engine's own behaviour, its tokens, its slots, all of it.
 * Not for running the engine (run.h) nor for the rule (refparity/compare.h). */
#ifndef REFPARITY_RUN_JUDGE_H
#define REFPARITY_RUN_JUDGE_H

#include "compare/warnings.h"
#include "refparity/diagnose.h"
#include "run/record.h"

/* A verdict with its reason in one line. */
struct rp_judgement {
    enum rp_verdict verdict;
    char message[1600];
};

struct rp_explained_gate;

/* One pair, opened for judging. Where two modes are compared, the reference is the dump of the mode
 * against, and fixture_path its folder; paths.dump and paths.log are those of the mode compared. */
struct rp_judge {
    const struct rp_context *context;
    const struct rp_pair *pair;
    struct rp_pair_paths paths;
    char fixture_path[RP_PATH_SIZE];
    struct rp_run_record record;
    struct rp_run_record reference_record; /* of the mode that is the reference */
    struct rp_pair_paths run_paths;        /* private: of the mode opened last */
    /* PASS when there is something to compare; else the verdict of every test but `engine`, with
     * the reason: not run, skipped, no fixture, a dump that cannot be read. */
    struct rp_judgement prerequisites;
    struct rp_comparison comparison; /* owns its sets; usable when prerequisites pass */
    struct rp_explained_gate *gate;  /* private: behind comparison's; NULL where it has none */
    /* Of all that the verdicts rest on; a stored one is believed while it is the same: stored.h. */
    char state[RP_FINGERPRINT_SIZE];
};

/* Opens what is there; what is not is in judge->prerequisites. To be closed with rp_judge_close. */
void rp_judge_open(const struct rp_context *context, const struct rp_pair *pair,
                   struct rp_judge *judge);
/* What is there is not of this run: the prerequisites become an ERROR with this reason. */
void rp_judge_lose(struct rp_judge *judge, const char *reason);
void rp_judge_close(struct rp_judge *judge);

/* Did the engine run to its end, exit with 0 or as the entry accepts, and complete its dump? Not for
 * a comparison of two modes. */
void rp_judge_engine(const struct rp_judge *judge, struct rp_judgement *judgement);

/* The token ids, as rp_compare_tokens, after the prerequisites. An engine without ids has to be declared
 * so, and is held to the count of positions. */
void rp_judge_tokens(const struct rp_judge *judge, struct rp_tokens_result *result);

/* Is what the verdicts of pair rest on what it was when they were found: fixture, model file, dump?
 * RP_ERR_MISMATCH says what has changed. */
enum rp_status rp_judge_check_inputs(const struct rp_context *context, const struct rp_pair *pair,
                                     struct rp_error *err);

/* What the test of a required slot finds: its verdict, and for the report the evidence of its layer. */
struct rp_slot_test {
    /* As rp_compare_slot, after the prerequisites and the tokens. A slot that is missing because the
     * engine broke says so. */
    struct rp_slot_result result;
    struct rp_slot_result
        *compared; /* [n_compared] as compared, before the pair's context adds to it;
                                      * empty when the prerequisites fail */
    size_t n_compared;
    double seconds; /* that it took */
};
/* test is to be freed. RP_ERR_MEMORY. */
enum rp_status rp_judge_slot(const struct rp_judge *judge, const char *slot,
                             struct rp_slot_test *test, struct rp_error *err);
void rp_slot_test_free(struct rp_slot_test *test); /* a zeroed one is allowed */

/* Makes a comparison of two modes, which has no run of its own, part of the context's session. */
enum rp_status rp_judge_select_modes(const struct rp_context *context, const struct rp_pair *pair,
                                     struct rp_error *err);

struct rp_replay_result;
struct rp_known_result;

/* The whole pair. Seconds are those of the test that found it, or what it took to compute it here. */
struct rp_verdicts {
    struct rp_judgement engine;
    double engine_s;            /* spent on judging it; its run is in judge->record */
    struct rp_pair_result pair; /* the required slots alone when the prerequisites fail */
    double tokens_s;
    double *slots_s; /* [pair.n_slots]; 0 of evidence, which is part of its layer's */
    struct rp_divergence divergence;
    struct rp_replay_result *replay; /* [n_replay], of an entry with replay; see judge_replay.h */
    size_t n_replay;
    struct rp_known_result *known; /* [n_known], those of the entry; see known.h */
    size_t n_known;
    /* The worst of engine, prerequisites, pair, and of replay what is no pass or skip; FAIL where what is
     * known is mended. Where there is no
     * fixture and nothing needs one: PASS when all is replayed and passes. */
    enum rp_verdict verdict;
    struct rp_warnings warnings; /* none where that is no pass */
};
/* Collects what the pair's tests have stored, and computes what none did. RP_ERR_FORMAT: something else
 * wrote there, and the message says where. */
enum rp_status rp_judge_pair(const struct rp_judge *judge, struct rp_verdicts *verdicts,
                             struct rp_error *err);
void rp_verdicts_free(struct rp_verdicts *verdicts);

/* The end of the engine's log, each line behind "  | ", at most n lines; "" when it printed
 * nothing. Returns buf. */
const char *rp_judge_log_tail(const struct rp_judge *judge, size_t n, char *buf, size_t size);

#endif
