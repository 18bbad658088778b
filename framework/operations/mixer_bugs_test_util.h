/* Bugs of attention and of the gated DeltaNet for the tests of the explanations, written apart from the
 * hypotheses that have to find them. */
#ifndef REFPARITY_OPERATIONS_MIXER_BUGS_TEST_UTIL_H
#define REFPARITY_OPERATIONS_MIXER_BUGS_TEST_UTIL_H

#include "operations/bugs_test_util.h"

/* Which keys a position sees: option; value: a chunk's length, a number of keys. */
enum {
    RP_TEST_SEES_NEXT,
    RP_TEST_SEES_OWN_CHUNK,
    RP_TEST_SEES_FIRST_GEOMETRY, /* those of the same place in the first chunk */
    RP_TEST_SEES_WHOLE_CHUNK,    /* and earlier ones */
    RP_TEST_SEES_BLOCK,
    RP_TEST_SEES_NOT_LAST,
    RP_TEST_SEES_ODDLY, /* every third position has its own first key */
    RP_TEST_SEES_ZEROS  /* value keys of zeros before the first */
};
rp_test_install rp_test_attention_sees;
rp_test_install rp_test_attention_softcap;   /* at value */
rp_test_install rp_test_attention_v_shifted; /* V of the position before */
/* In qwen3: QK-norm left out and the other pairing. */
rp_test_install rp_test_no_qk_norm_and_pairs;

/* Of the DeltaNet. */
enum { RP_TEST_DT_MISSING, RP_TEST_A_POSITIVE };
rp_test_install rp_test_decay_of;    /* option */
rp_test_install rp_test_beta_factor; /* value */
enum { RP_TEST_KERNEL_REVERSED, RP_TEST_NO_SILU, RP_TEST_CONV_LOST };
rp_test_install rp_test_conv; /* option; value: the position at which the state is lost */
enum { RP_TEST_GATE_SIGMOID, RP_TEST_WEIGHT_PLUS_1 };
rp_test_install rp_test_gated_norm; /* option */
rp_test_install rp_test_no_l2_norm; /* of which */
enum {
    RP_TEST_RULE_SCALED,    /* value */
    RP_TEST_RULE_GROUPED,   /* V head h reads K head h / group */
    RP_TEST_RULE_PLAIN,     /* the update without what the state holds */
    RP_TEST_STATE_LOST,     /* at value */
    RP_TEST_STATE_OF,       /* at position 16 that of value */
    RP_TEST_STATE_END,      /* at value that after all positions */
    RP_TEST_STATE_LEFT,     /* begins with what all positions leave */
    RP_TEST_STATE_ODD,      /* begins with something else */
    RP_TEST_STATE_REPLACED, /* at value by something else */
    RP_TEST_STATE_PADS,     /* at position 16 decayed by value pads */
    RP_TEST_BLOCKS_W        /* blocks of value: W decays once more */
};
rp_test_install rp_test_rule; /* option */
/* Positions from 16 on were run before, from the state of value, and are run on what that left. */
rp_test_install rp_test_rerun;

#endif
