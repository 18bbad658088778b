/* A small causal decoder with random weights, the bugs that engines have, and its dumps: for tests that
 * need slots which follow from each other. Not the C model: that is model.h. */
#ifndef REFPARITY_COMPARE_TOY_MODEL_TEST_UTIL_H
#define REFPARITY_COMPARE_TOY_MODEL_TEST_UTIL_H

#include <stddef.h>
#include <stdint.h>

#include "refparity/compare.h"

enum {
    RP_TOY_MAX_LAYERS = 6,
    RP_TOY_MAX_POSITIONS = 16,
    RP_TOY_MAX_DIM = 48,
    RP_TOY_VOCAB = 64,
    RP_TOY_MAX_SLOTS = RP_TOY_MAX_LAYERS + 3
};

/* A linear congruential generator, so that a trial can be repeated. */
uint32_t rp_toy_random(uint32_t *state);        /* all 32 bits */
size_t rp_toy_below(uint32_t *state, size_t n); /* 0 .. n - 1 */
double rp_toy_normal(uint32_t *state);          /* mean 0, variance about 1 */

struct rp_toy_model {
    size_t n_layers, dim;
    float emb[RP_TOY_VOCAB][RP_TOY_MAX_DIM];
    /* Q, K, V, O, FFN up, FFN down; [dim][dim] of each are used */
    float w[RP_TOY_MAX_LAYERS][6][RP_TOY_MAX_DIM][RP_TOY_MAX_DIM];
    float norm[2 * RP_TOY_MAX_LAYERS + 1][RP_TOY_MAX_DIM];
    float head[RP_TOY_VOCAB][RP_TOY_MAX_DIM];
};
/* growth: how many times longer each layer's addition is than the one before. */
void rp_toy_make(struct rp_toy_model *model, uint32_t seed, size_t n_layers, size_t dim,
                 double growth);

/* emb, h0 .., post_norm, logits: the slots in forward order. */
struct rp_toy_run {
    size_t n, n_slots;
    size_t dim[RP_TOY_MAX_SLOTS];
    float rows[RP_TOY_MAX_SLOTS][RP_TOY_MAX_POSITIONS * RP_TOY_VOCAB]; /* [n][dim] of each */
    char name[RP_TOY_MAX_SLOTS][RP_SLOT_NAME_SIZE];
};

/* What engines get wrong; layer and position say where. */
enum rp_toy_bug {
    RP_TOY_CLEAN,
    RP_TOY_LAYER_SKIPPED,
    RP_TOY_LAYER_TWICE,
    RP_TOY_LAYERS_SWAPPED, /* layer and the one after it */
    RP_TOY_OTHER_WEIGHTS,  /* layer runs with the weights of the one after it */
    RP_TOY_LATE,           /* each layer with the weights before its own, the first not at all */
    RP_TOY_FIRST_TOKEN_DROPPED, /* the last position repeats its token */
    RP_TOY_EXTRA_TOKEN,         /* in front; the last is cut off */
    RP_TOY_TOKENS_REVERSED,
    RP_TOY_TOKENS_PERMUTED,
    RP_TOY_ONE_TOKEN,         /* the first is fed at every position */
    RP_TOY_STUCK,             /* from position on, each step computes that position again */
    RP_TOY_FORGETS,           /* attention sees its own position alone */
    RP_TOY_FORGETS_ONE_TOKEN, /* and that is fed the first token */
    RP_TOY_NOT_CAUSAL,
    RP_TOY_CACHE_STUCK, /* attention sees positions up to that one, and its own */
    RP_TOY_CUT_SHORT,   /* rows from position on stay zeros in every slot */
    RP_TOY_NAN,         /* from layer and position on */
    RP_TOY_ZEROS,       /* layer's output is zeros from position on, and goes on from there */
    RP_TOY_ROWS_PERMUTED_AFTER, /* layer's output rows are mixed up, and go on from there */
    RP_TOY_ROWS_TRANSPOSED_AFTER,
    RP_TOY_ROW_REPEATED_AFTER,
    RP_TOY_LOGITS_OFF_BY_ONE,
    RP_TOY_LOGITS_REVERSED,
    RP_TOY_NO_RESIDUAL,
    RP_TOY_FFN_SCALED,
    RP_TOY_NO_NORM,
    RP_TOY_NO_FINAL_NORM,
    RP_TOY_FINAL_NORM_TWICE,
    RP_TOY_NO_ATTENTION,
    RP_TOY_ONE_CHANNEL,
    RP_TOY_N_BUGS
};

struct rp_toy_fault {
    enum rp_toy_bug bug;
    size_t layer, position;
};

void rp_toy_run(const struct rp_toy_model *model, const int *tokens, size_t n,
                const struct rp_toy_fault *fault, struct rp_toy_run *run);
/* Relative noise on every value, as quantization adds it. */
void rp_toy_add_noise(struct rp_toy_run *run, double size, uint32_t *state);
/* Index of the slot. */
size_t rp_toy_slot(const struct rp_toy_run *run, const char *name);

/* Both runs as dumps in a scratch folder, open. Aborts when it cannot. */
struct rp_toy_sets {
    char folder[256];
    struct rp_comparison comparison;
};
void rp_toy_sets_open(struct rp_toy_sets *sets, const struct rp_toy_run *reference,
                      const struct rp_toy_run *engine);
void rp_toy_sets_close(struct rp_toy_sets *sets);

#endif
