/* What a generated case calls: each function is one cmocka test of the pair.
 * Not for judging: that is framework/run/judge.h; here a verdict becomes a cmocka result, text on
 * the terminal, and an exit code. */
#ifndef REFPARITY_CASE_H
#define REFPARITY_CASE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

/* Which pair this is; what else is known of it stands in the matrix. */
struct rp_case {
    const char *config; /* config.json of the build tree */
    const char *entry;
    const char *mode;   /* "" when the entry has none; "<mode>-vs-<mode>" compares two of them */
    const char *prompt; /* its id */
    int n_layers;       /* what the tests below were generated for */
};

/* Runs the engine once and records what happened; fails only when that cannot be recorded. */
void rp_case_run(void **state);
/* Did the engine exit with 0, in time, with a complete dump? */
void rp_case_engine(void **state);
/* Are the engine's token ids the fixture's? */
void rp_case_tokens(void **state);
/* Is slot within its limit at every position? */
void rp_case_slot(void **state, const char *slot);
/* Does the layer of slot ("h7"; or emb, post_norm, logits) introduce an error of its own? */
void rp_case_replay(void **state, const char *slot);
/* Collects what the tests of the pair have found, computes what none did, and writes the pair's reports; a
 * divergence is not its failure. */
void rp_case_report(void **state);

/* The tests that are named on the command line, or all of them. Exit code: 0 pass, 1 divergence,
 * 2 environment, configuration or harness error, 77 skip. */
int rp_case_main(int argc, char **argv, const struct rp_case *pair, const struct CMUnitTest *tests,
                 size_t n_tests);

#endif
