/* A matrix of one entry in a scratch folder, with its context: what tests of run and judge need.
 * The engine is always the real embedded one, or a shell that wraps it. */
#ifndef REFPARITY_CASES_SCRATCH_PAIR_TEST_UTIL_H
#define REFPARITY_CASES_SCRATCH_PAIR_TEST_UTIL_H

#include "run/judge.h"

#define RP_FOX "The quick brown fox jumps over the lazy dog."

struct rp_scratch_pair {
    char folder[256];
    struct rp_context context;
    struct rp_pair pair;
};

/* What the matrix says; a NULL takes the default. */
struct rp_scratch_spec {
    const char *argv;         /* JSON array; {target:…} knows refparity-embedded(-bugs) */
    const char *engine_extra; /* more members of the engine, each with a comma before it */
    const char *entry_extra;  /* more members of the entry, likewise */
    const char *architecture; /* "qwen3" or "llama" */
    const char *weights;      /* "bf16", "q8_0" or "q4_0": which of its files; bf16 by default */
    const char *gguf;         /* path, in the place of that file */
    const char *prompt;       /* JSON string */
    const char *layout;       /* "npy" or "bin" */
    const char *mode;         /* of the pair; the default is that of an entry without modes */
    const char *stores;       /* JSON array's inside; the default is fixtures/store */
    int n_layers;             /* 0: as the tiny models have */
};

enum { RP_TINY_LAYERS = 4 };

/* Fails the test when it cannot be set up. */
void rp_scratch_pair_open(struct rp_scratch_pair *scratch, const struct rp_scratch_spec *spec);
void rp_scratch_pair_close(struct rp_scratch_pair *scratch);

/* The same, after session/begin, as under ctest. */
void rp_scratch_pair_begin(struct rp_scratch_pair *scratch, const struct rp_scratch_spec *spec);

/* As a test's own process does: reads matrix and session again. RP_ERR_…: what rp_context_open says; the
 * pair is then as it was. */
enum rp_status rp_scratch_pair_reopen(struct rp_scratch_pair *scratch, struct rp_error *err);

/* Runs the pair, or the two modes that it compares, and judges it whole; verdicts are freed by the
 * caller. */
void rp_scratch_pair_judge(struct rp_scratch_pair *scratch, struct rp_verdicts *verdicts);

/* The result of slot in verdicts; fails the test when there is none. */
const struct rp_slot_result *rp_slot_of(const struct rp_verdicts *verdicts, const char *slot);

#endif
