/* Two small tensor sets in a scratch folder, a reference and an engine's, with every required slot
 * of a model; a test then writes what it wants to differ. */
#ifndef REFPARITY_COMPARE_SCRATCH_SETS_TEST_UTIL_H
#define REFPARITY_COMPARE_SCRATCH_SETS_TEST_UTIL_H

#include "refparity/compare.h"

enum { RP_TEST_LAYERS = 3, RP_TEST_POSITIONS = 6, RP_TEST_DIM = 10 };

/* One value of a slot, changed. */
struct rp_test_change {
    const char *slot;
    int position; /* -1: all */
    float factor; /* of the engine's row */
    float value;  /* when factor is 0: put into channel 4 */
    int zero;     /* the whole row becomes 0 */
};

struct rp_test_sets {
    char folder[256];
    struct rp_comparison comparison;
};

struct rp_test_side {
    const struct rp_test_change *changes; /* [n_changes] */
    size_t n_changes;
    const char *without; /* a slot that is left out, or NULL */
    int with_inner_slots;
    int n_positions; /* of every slot; 0: RP_TEST_POSITIONS */
    int first_position;
    int last_token; /* its id; 0: as the other side */
    int n_tokens;   /* 0: one per position; -1: no ids at all */
};

/* Writes and opens both sides; aborts the test when it cannot. */
void rp_test_sets_open(struct rp_test_sets *sets, const struct rp_test_side *reference,
                       const struct rp_test_side *engine);
void rp_test_sets_close(struct rp_test_sets *sets);

#endif
