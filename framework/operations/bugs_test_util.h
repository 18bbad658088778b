/* Bugs for the tests of the explanations, written apart from the hypotheses that have to find them. */
#ifndef REFPARITY_OPERATIONS_BUGS_TEST_UTIL_H
#define REFPARITY_OPERATIONS_BUGS_TEST_UTIL_H

#include "explain/engine_test_util.h"

typedef void rp_test_install(struct rp_ops *ops);

/* Of attention. value: the base; a factor of the positions, of the scale. */
rp_test_install rp_test_rope_base, rp_test_rope_scaled, rp_test_rope_pairs, rp_test_rope_missing;
/* The default base, and no factors; positions off by value; to and fro; the first value pairs still. */
rp_test_install rp_test_rope_default, rp_test_rope_offset, rp_test_rope_folded,
    rp_test_rope_sections;
/* Rope scaling, of Q (which) or K alone or of both: missing; another attention factor (value, 0: none); another
 * scaling's factors (option); longrope's other ones. */
rp_test_install rp_test_rope_unscaled, rp_test_rope_attention, rp_test_rope_other_scaling,
    rp_test_rope_longrope;
enum {
    RP_TEST_LINEAR,
    RP_TEST_RAMP_ENDS,
    RP_TEST_BETAS,
    RP_TEST_WHOLE_CONTEXT,
    RP_TEST_INVERTED,
    RP_TEST_FACTOR /* value */
};
/* Only in the K or Q (which) of one head. */
rp_test_install rp_test_rope_missing_in_head;
rp_test_install rp_test_attention_scale, rp_test_attention_sees_all, rp_test_attention_window;
rp_test_install rp_test_attention_heads, rp_test_attention_head_zero;
rp_test_install rp_test_gate_missing;
/* Of norms, `which`. value: a factor of eps; added to the weight. */
rp_test_install rp_test_norm_eps, rp_test_norm_offset, rp_test_norm_missing,
    rp_test_qk_norm_missing;
/* The weight rounded to BF16; times something else in every channel. */
rp_test_install rp_test_norm_rounded, rp_test_norm_odd_weight;
/* Of the FFN. value: beta of SiLU. */
rp_test_install rp_test_ffn_swapped, rp_test_ffn_gelu, rp_test_ffn_odd, rp_test_ffn_beta;
/* Two in one operation: another base (value times the model's), and the other pairing. Two in two: the
 * FFN's gate and up swapped, and its output times value. */
rp_test_install rp_test_two_in_rope, rp_test_two_in_ffn;
/* Of matrix products, `which`: times value; another layer's weights. */
rp_test_install rp_test_product_factor, rp_test_other_weights;
/* The layer's weight `option`; transposed; the layer's input multiplied; output channels moved by 1. */
rp_test_install rp_test_other_tensor, rp_test_transposed, rp_test_reads_input,
    rp_test_product_rolled;
/* Outside the layers: the embedding of another token at position 3; logits capped at value. */
rp_test_install rp_test_other_token, rp_test_softcap;
/* Of the sum after `which`: option. */
enum {
    RP_TEST_LEAK, /* value times the stream before the sum */
    RP_TEST_NO_STREAM,
    RP_TEST_CHANNEL, /* 17 times value */
    RP_TEST_SWAPPED, /* channels 3 and 9 */
    RP_TEST_F16,
    RP_TEST_CLIPPED, /* to value */
    RP_TEST_OFFSET,
    RP_TEST_BIAS,
    RP_TEST_SHIFTED /* by a position */
};
rp_test_install rp_test_sum;
/* Of the DeltaNet: option. */
enum { RP_TEST_NO_DECAY, RP_TEST_DECAY_TWICE };
rp_test_install rp_test_delta_decay, rp_test_delta_beta_raw;
rp_test_install rp_test_conv_forgets, rp_test_delta_ungated;

#endif
