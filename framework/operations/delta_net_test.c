/* The operations of gated attention and of the gated DeltaNet against values worked out by hand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "refparity/ops.h"

#define FLOAT_ROUNDING 5e-7 /* a few roundings of FP32, 6e-8 each, on values of about 1 */
#define LN_3 1.0986122886681098f

static void expect_near(const float *values, const double *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!(fabs((double)values[i] - expected[i]) <= FLOAT_ROUNDING))
            fail_msg("value %zu is %.9g, expected %.9g", i, (double)values[i], expected[i]);
    }
}

static struct rp_site site_of(size_t n)
{
    return (struct rp_site){.n_positions = n};
}

static void a_gated_query_is_split_head_by_head(void **state)
{
    (void)state;
    static const float x[8] = {1, 2, 10, 20, 3, 4, 30, 40};
    static const double expected_q[4] = {1, 2, 3, 4}, expected_gate[4] = {10, 20, 30, 40};
    float q[4], gate[4];
    struct rp_site site = site_of(1);
    struct rp_split_gate args = {.n_heads = 2, .head_dim = 2, .x = x, .q = q, .gate = gate};
    assert_int_equal(rp_ops_default()->split_gate(NULL, &site, &args), RP_OK);
    expect_near(q, expected_q, 4);
    expect_near(gate, expected_gate, 4);
}

/* sigmoid(0) is 1/2, sigmoid(ln 3) 3/4, sigmoid(-ln 3) 1/4. */
static void attention_is_gated_by_a_sigmoid(void **state)
{
    (void)state;
    static const float gate[4] = {0, LN_3, -LN_3, 100};
    static const double expected[4] = {1, -3, 1, 0.25};
    float y[4] = {2, -4, 4, 0.25f};
    struct rp_site site = site_of(2);
    struct rp_attention_gate args = {.dim = 2, .gate = gate, .y = y};
    assert_int_equal(rp_ops_default()->attention_gate(NULL, &site, &args), RP_OK);
    expect_near(y, expected, 4);
}

/* Two channels; the second sees only the position before the current one. */
static const float conv_weight[6] = {1, 10, 100, 0, 1, 0};

/* args says x, y, state and whether there is a SiLU. */
static void convolve(size_t n, struct rp_causal_conv1d args)
{
    struct rp_site site = site_of(n);
    args.n_channels = 2;
    args.kernel = 3;
    args.weight = conv_weight;
    assert_int_equal(rp_ops_default()->causal_conv1d(NULL, &site, &args), RP_OK);
}

static void convolution_weighs_a_channels_last_positions(void **state)
{
    (void)state;
    static const float x[6] = {1, 7, 2, 8, 3, 9};
    static const double expected[6] = {100, 0, 210, 7, 321, 8}, expected_state[4] = {2, 8, 3, 9};
    float y[6], conv_state[4] = {0, 0, 0, 0};
    convolve(3, (struct rp_causal_conv1d){.x = x, .y = y, .state = conv_state});
    expect_near(y, expected, 6);
    expect_near(conv_state, expected_state, 4);
}

static void convolution_goes_on_where_the_last_call_ended(void **state)
{
    (void)state;
    static const float x[10] = {1, 7, 2, 8, 3, 9, 4, 6, 5, 5};
    float whole[10], y[10], whole_state[4] = {0, 0, 0, 0};
    convolve(5, (struct rp_causal_conv1d){.x = x, .y = whole, .state = whole_state});
    for (size_t chunk = 1; chunk < 5; chunk++) {
        float conv_state[4] = {0, 0, 0, 0};
        for (size_t p = 0; p < 5; p += chunk)
            convolve(
                chunk < 5 - p ? chunk : 5 - p,
                (struct rp_causal_conv1d){.x = x + 2 * p, .y = y + 2 * p, .state = conv_state});
        assert_memory_equal(y, whole, sizeof y);
        assert_memory_equal(conv_state, whole_state, sizeof conv_state);
    }
}

/* silu(ln 3) is 3/4 ln 3, silu(-ln 3) is -1/4 ln 3; the third is silu(0.1 ln 3). */
static void convolution_ends_in_silu(void **state)
{
    (void)state;
    static const float x[4] = {0.01f * LN_3, -LN_3, 0, 0};
    static const double expected[4] = {0.823959216501082, 0, 0.0579449556484682,
                                       -0.274653072167027};
    float y[4], conv_state[4] = {0, 0, 0, 0};
    convolve(2, (struct rp_causal_conv1d){.x = x, .y = y, .state = conv_state, .has_silu = true});
    expect_near(y, expected, 4);
}

static void l2_norm_makes_heads_of_length_1(void **state)
{
    (void)state;
    float x[12] = {3, 4, 0, -2, 7, 8, 1e-3f, 0, 5, 12, 7, 8};
    static const double expected[12] = {0.6, 0.8, 0, -1, 7, 8, 0.5, 0, 5.0 / 13, 12.0 / 13, 7, 8};
    struct rp_site site = site_of(2);
    struct rp_l2_norm args = {.which = RP_ATTN_Q,
                              .eps = 3e-6f, /* 1e-3 / sqrt(1e-6 + 3e-6) is 1/2 */
                              .n_heads = 2,
                              .head_dim = 2,
                              .x = x,
                              .x_stride = 6};
    assert_int_equal(rp_ops_default()->l2_norm(NULL, &site, &args), RP_OK);
    expect_near(x, expected, 12);
}

/* The logarithm of the decay: a softplus(alpha + dt). softplus(0) is ln 2, softplus(ln 3) is ln 4. */
static void decay_and_beta_come_from_softplus_and_sigmoid(void **state)
{
    (void)state;
    static const float dt[2] = {1, -3}, a[2] = {-1, -2};
    static const double expected_decay[4] = {-0.693147180559945, -1.386294361119890, 0,
                                             -2.772588722239781},
                        expected_beta[4] = {0.5, 0.75, 0, 1};
    float decay[4] = {-1, 3, -101, 3 + LN_3}, beta[4] = {0, LN_3, -100, 100};
    struct rp_site site = site_of(2);
    struct rp_delta_decay of_decay = {.n_heads = 2, .dt = dt, .a = a, .y = decay};
    struct rp_delta_beta of_beta = {.n_heads = 2, .y = beta};
    assert_int_equal(rp_ops_default()->delta_decay(NULL, &site, &of_decay), RP_OK);
    assert_int_equal(rp_ops_default()->delta_beta(NULL, &site, &of_beta), RP_OK);
    expect_near(decay, expected_decay, 4);
    expect_near(beta, expected_beta, 4);
}

/* exp(30) + 1 is exp(30) in FP32: softplus(x) has to be x, not infinity, at any size. */
static void a_large_alpha_decays_without_overflow(void **state)
{
    (void)state;
    static const float dt[1] = {0}, a[1] = {-0.001f};
    static const double expected[2] = {-0.03, -1};
    float decay[2] = {30, 1000};
    struct rp_site site = site_of(2);
    struct rp_delta_decay args = {.n_heads = 1, .dt = dt, .a = a, .y = decay};
    assert_int_equal(rp_ops_default()->delta_decay(NULL, &site, &args), RP_OK);
    expect_near(decay, expected, 2);
}

/* Position 0 writes half of v = (2, 4) at k = (1, 0): the state is ((1, 2), (0, 0)), and q = (1, 1)
 * reads (1, 2). Position 1 halves it, to ((0.5, 1), (0, 0)); at k = (0.6, 0.8) that is (0.3, 0.6),
 * which v = (1.3, 0.6) exceeds by (1, 0); half of that is added, k (0.5, 0): ((0.8, 1), (0.4, 0)). */
static const float two_positions[12] = {1, 1, 1, 0, 2, 4, 1, 0, 0.6f, 0.8f, 1.3f, 0.6f};
static const float two_decays[2] = {0, -0.6931471805599453f}, two_betas[2] = {0.5f, 0.5f};

/* Positions first .. first + n - 1 of the two, Q and K of one head of 2, V of one head of 2; args says
 * state and y. */
static void run_delta_rule(size_t first, size_t n, struct rp_delta_rule args)
{
    struct rp_site site = site_of(n);
    args.n_k_heads = args.n_v_heads = 1;
    args.head_dim = 2;
    args.scale = 0.5f;
    args.q = two_positions + 6 * first;
    args.k = args.q + 2;
    args.v = args.q + 4;
    args.qkv_stride = 6;
    args.decay = two_decays + first;
    args.beta = two_betas + first;
    assert_int_equal(rp_ops_default()->delta_rule(NULL, &site, &args), RP_OK);
}

static void the_delta_rule_writes_what_the_state_lacks(void **state)
{
    (void)state;
    static const double expected[4] = {0.5, 1, 0.4, 0.5}, expected_state[4] = {0.8, 1, 0.4, 0};
    float y[4], recurrent[4] = {0, 0, 0, 0};
    run_delta_rule(0, 2, (struct rp_delta_rule){.state = recurrent, .y = y});
    expect_near(y, expected, 4);
    expect_near(recurrent, expected_state, 4);
}

static void the_delta_rule_goes_on_from_its_state(void **state)
{
    (void)state;
    float whole[4], y[4], whole_state[4] = {0, 0, 0, 0}, recurrent[4] = {0, 0, 0, 0};
    run_delta_rule(0, 2, (struct rp_delta_rule){.state = whole_state, .y = whole});
    for (size_t p = 0; p < 2; p++)
        run_delta_rule(p, 1, (struct rp_delta_rule){.state = recurrent, .y = y + 2 * p});
    assert_memory_equal(y, whole, sizeof y);
    assert_memory_equal(recurrent, whole_state, sizeof recurrent);
}

/* Heads of 1: K heads 2 and 3, V heads 1, 1, 1, 1, q 1: each reads k^2 or, from its head's K, v k. */
static void v_heads_share_k_heads_in_turn(void **state)
{
    (void)state;
    static const float qkv[8] = {1, 10, 2, 3, 1, 1, 1, 1};
    static const float ones[4] = {1, 1, 1, 1};
    static const double expected[4] = {2, 30, 2, 30};
    float y[4], recurrent[4] = {0, 0, 0, 0};
    struct rp_site site = site_of(1);
    struct rp_delta_rule args = {.n_k_heads = 2,
                                 .n_v_heads = 4,
                                 .head_dim = 1,
                                 .scale = 1,
                                 .q = qkv,
                                 .k = qkv + 2,
                                 .v = qkv + 4,
                                 .qkv_stride = 8,
                                 .decay = ones,
                                 .beta = ones,
                                 .state = recurrent,
                                 .y = y};
    assert_int_equal(rp_ops_default()->delta_rule(NULL, &site, &args), RP_OK);
    expect_near(y, expected, 4);
}

/* 3 and 4 over sqrt(12.5), times the weight; silu(ln 3) is 3/4 ln 3, silu(0) is 0. */
static void the_gated_norm_gates_after_it_norms(void **state)
{
    (void)state;
    static const float x[4] = {3, 4, 1e-3f, 1e-3f}, weight[2] = {1, 2};
    static const float gate[4] = {LN_3, 0, 0, LN_3};
    static const double expected[4] = {0.699152495, 0, 0, 0.823959216501082};
    float y[4];
    struct rp_site site = site_of(1);
    struct rp_gated_norm args = {.weight = weight,
                                 .eps = 3e-6f, /* of mean squares 12.5 and 1e-6 */
                                 .n_rows = 2,
                                 .dim = 2,
                                 .gate = gate,
                                 .x = x,
                                 .y = y};
    assert_int_equal(rp_ops_default()->gated_norm(NULL, &site, &args), RP_OK);
    expect_near(y, expected, 4);
    memcpy(y, x, sizeof y);
    args.x = y;
    assert_int_equal(rp_ops_default()->gated_norm(NULL, &site, &args), RP_OK);
    expect_near(y, expected, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gated_query_is_split_head_by_head),
        cmocka_unit_test(attention_is_gated_by_a_sigmoid),
        cmocka_unit_test(convolution_weighs_a_channels_last_positions),
        cmocka_unit_test(convolution_goes_on_where_the_last_call_ended),
        cmocka_unit_test(convolution_ends_in_silu),
        cmocka_unit_test(l2_norm_makes_heads_of_length_1),
        cmocka_unit_test(decay_and_beta_come_from_softplus_and_sigmoid),
        cmocka_unit_test(a_large_alpha_decays_without_overflow),
        cmocka_unit_test(the_delta_rule_writes_what_the_state_lacks),
        cmocka_unit_test(the_delta_rule_goes_on_from_its_state),
        cmocka_unit_test(v_heads_share_k_heads_in_turn),
        cmocka_unit_test(the_gated_norm_gates_after_it_norms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
