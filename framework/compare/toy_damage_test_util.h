/* What can happen to a slot's rows on their way to a file, and what cannot: for tests of dump_damage.h.
 * Not bugs of the engine: those are in toy_model_test_util.h. */
#ifndef REFPARITY_COMPARE_TOY_DAMAGE_TEST_UTIL_H
#define REFPARITY_COMPARE_TOY_DAMAGE_TEST_UTIL_H

#include "compare/damage_rows.h"
#include "compare/dump_damage.h"
#include "compare/toy_model_test_util.h"

enum rp_toy_damage_kind {
    RP_TOY_SWAPPED_4,
    RP_TOY_SWAPPED_2,
    RP_TOY_SWAPPED_HALVES,
    RP_TOY_F16, /* the rest of the file: zeros */
    RP_TOY_F16_BY_ROW,
    RP_TOY_BF16,
    RP_TOY_BF16_BY_ROW,
    RP_TOY_F64, /* cut off at the file's size */
    RP_TOY_F64_BY_ROW,
    RP_TOY_TRANSPOSED,
    RP_TOY_PERMUTED,      /* some order that is not regular */
    RP_TOY_TWO_EXCHANGED, /* rows by and by + 1 */
    RP_TOY_REVERSED,
    RP_TOY_ONE_ROW, /* number by */
    RP_TOY_EACH_TWICE,
    RP_TOY_SHIFTED,   /* by rows; what comes in is random */
    RP_TOY_ZERO_TAIL, /* from row at, channel channel on; by_channel: that channel of every row */
    RP_TOY_NAN_TAIL,
    RP_TOY_VALUE_TAIL,
    RP_TOY_MEMORY_TAIL,
    RP_TOY_OTHER_SLOT, /* that many further */
    RP_TOY_N_DAMAGES,
    /* no damage of a file */
    RP_TOY_ROUNDED_TO_BF16 = RP_TOY_N_DAMAGES,
    RP_TOY_SCALED,
    RP_TOY_NEGATED,
    RP_TOY_NOISY,
    RP_TOY_ONE_VALUE,
    RP_TOY_RANDOM,
    RP_TOY_RANDOM_BITS,
    RP_TOY_N_CHANGES
};

struct rp_toy_damage {
    enum rp_toy_damage_kind kind;
    int by;
    size_t at, channel;
    int by_channel;
};

void rp_toy_damage(struct rp_toy_run *run, size_t slot, const struct rp_toy_damage *damage);

#endif
