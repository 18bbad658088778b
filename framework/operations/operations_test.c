/* The default operations against values that can be checked by hand, and the matrix product against
 * a sum in double. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "weights/gguf_builder.h"
#include "operations/matmul.h"
#include "refparity/ops.h"

#define FLOAT_ROUNDING 5e-7 /* a few roundings of FP32, 6e-8 each, on values of about 1 */

static void expect_near(const float *values, const double *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!(fabs((double)values[i] - expected[i]) <= FLOAT_ROUNDING))
            fail_msg("value %zu is %.9g, expected %.9g", i, (double)values[i], expected[i]);
    }
}

static struct rp_site site_of(size_t n, const int64_t *positions)
{
    return (struct rp_site){.n_positions = n, .positions = positions};
}

static void rms_norm_divides_by_the_root_of_the_mean_square(void **state)
{
    (void)state;
    static const float x[4] = {3, 4, 0, 0}, weight[2] = {1, 2};
    static const double expected[4] = {0.848528137423857, 2.262741699796952, 0, 0};
    float y[4];
    struct rp_site site = site_of(2, NULL);
    struct rp_rms_norm args = {
        .weight = weight, .eps = 1e-6f, .n_rows = 2, .dim = 2, .x = x, .y = y};
    assert_int_equal(rp_ops_default()->rms_norm(NULL, &site, &args), RP_OK);
    expect_near(y, expected, 4);
}

static void rms_norm_adds_eps_to_the_mean_square(void **state)
{
    (void)state;
    static const float weight[2] = {1, 1};
    static const double expected[2] = {0.447213595499958, 0.447213595499958};
    float x[2] = {1e-3f, 1e-3f}; /* mean square 1e-6, eps 4e-6: 1 / sqrt(5) remains */
    struct rp_site site = site_of(1, NULL);
    struct rp_rms_norm args = {
        .weight = weight, .eps = 4e-6f, .n_rows = 1, .dim = 2, .x = x, .y = x};
    assert_int_equal(rp_ops_default()->rms_norm(NULL, &site, &args), RP_OK);
    expect_near(x, expected, 2);
}

/* One head at one position, theta 10000; shape says the rest. */
static void rotate(const struct rp_rope *shape, int64_t position)
{
    struct rp_site site = site_of(1, &position);
    struct rp_rope args = *shape;
    args.theta = 10000;
    args.n_heads = 1;
    args.head_dim = 4;
    args.positions = &position;
    assert_int_equal(rp_ops_default()->rope(NULL, &site, &args), RP_OK);
}

/* 4 values: frequencies 1 and 0.01. At position 2 the angles are 2 and 0.02. */
static void rope_pairs_halves_or_neighbours(void **state)
{
    (void)state;
    float neox[4] = {1, 1, 0, 0}, interleaved[4] = {1, 0, 1, 0};
    const double expected_neox[4] = {cos(2), cos(0.02), sin(2), sin(0.02)};
    const double expected_interleaved[4] = {cos(2), sin(2), cos(0.02), sin(0.02)};
    rotate(&(struct rp_rope){.ordering = RP_ROPE_NEOX, .n_rot = 4, .x = neox}, 2);
    expect_near(neox, expected_neox, 4);
    rotate(&(struct rp_rope){.ordering = RP_ROPE_INTERLEAVED, .n_rot = 4, .x = interleaved}, 2);
    expect_near(interleaved, expected_interleaved, 4);
}

static void rope_at_position_0_changes_nothing(void **state)
{
    (void)state;
    float x[4] = {1, -2, 3, 4};
    static const double expected[4] = {1, -2, 3, 4};
    rotate(&(struct rp_rope){.ordering = RP_ROPE_NEOX, .n_rot = 4, .x = x}, 0);
    rotate(&(struct rp_rope){.ordering = RP_ROPE_INTERLEAVED, .n_rot = 4, .x = x}, 0);
    expect_near(x, expected, 4);
}

static void rope_divides_frequencies_by_their_factors(void **state)
{
    (void)state;
    static const float factors[2] = {2, 8};
    float x[4] = {1, 1, 0, 0};
    const double expected[4] = {cos(1.5), cos(0.00375), sin(1.5), sin(0.00375)};
    rotate(&(struct rp_rope){.ordering = RP_ROPE_NEOX, .n_rot = 4, .x = x, .freq_factors = factors},
           3);
    expect_near(x, expected, 4);
}

static void rope_leaves_what_is_not_rotated(void **state)
{
    (void)state;
    float x[4] = {1, 0, 7, 8};
    const double expected[4] = {cos(1), sin(1), 7, 8};
    rotate(&(struct rp_rope){.ordering = RP_ROPE_NEOX, .n_rot = 2, .x = x}, 1);
    expect_near(x, expected, 4);
}

/* HF computes position * inv_freq in FP32; the double-precision angle is another at the 1e-5 level
 * and would be "more exact" than the reference. */
static void rope_rounds_angles_as_hf_does(void **state)
{
    (void)state;
    float x[4] = {1, 1, 0, 0};
    float inv_freq = 1.0f / powf(10000.0f, 0.5f), angle = 149.0f * inv_freq;
    const double expected[4] = {(double)cosf(149.0f), (double)cosf(angle), (double)sinf(149.0f),
                                (double)sinf(angle)};
    rotate(&(struct rp_rope){.ordering = RP_ROPE_NEOX, .n_rot = 4, .x = x}, 149);
    expect_near(x, expected, 4);
}

static void attend(const struct rp_attention *shape, size_t n, const int64_t *positions)
{
    float scores[8];
    struct rp_site site = site_of(n, positions);
    struct rp_attention args = *shape;
    args.scores = scores;
    assert_int_equal(rp_ops_default()->attention(NULL, &site, &args), RP_OK);
}

static void attention_weighs_values_by_softmax(void **state)
{
    (void)state;
    static const int64_t positions[2] = {0, 1};
    static const float q[1] = {2}, keys[2] = {0, 0.549306144f}; /* scores 0 and ln 3 */
    static const float values[2] = {8, 16};
    static const double expected[1] = {14}; /* 1/4 * 8 + 3/4 * 16 */
    float y[1];
    struct rp_attention args = {.n_heads = 1,
                                .n_kv_heads = 1,
                                .head_dim = 1,
                                .scale = 1,
                                .is_causal = true,
                                .q = q,
                                .n_keys = 2,
                                .keys = keys,
                                .values = values,
                                .key_positions = positions,
                                .y = y};
    attend(&args, 1, &positions[1]);
    assert_true(fabs((double)y[0] - expected[0]) < 1e-5);
    args.scale = 0;
    attend(&args, 1, &positions[1]);
    assert_true(fabs((double)y[0] - 12) < 1e-5);
}

static void attention_sees_no_later_key(void **state)
{
    (void)state;
    static const int64_t positions[3] = {4, 5, 9};
    static const float q[3] = {0, 0, 0}, keys[3] = {1, 2, 3}, values[3] = {3, 5, 10};
    static const double causal[3] = {3, 4, 6}, all[3] = {6, 6, 6};
    float y[3];
    struct rp_attention args = {.n_heads = 1,
                                .n_kv_heads = 1,
                                .head_dim = 1,
                                .scale = 1,
                                .is_causal = true,
                                .q = q,
                                .n_keys = 3,
                                .keys = keys,
                                .values = values,
                                .key_positions = positions,
                                .y = y};
    attend(&args, 3, positions);
    expect_near(y, causal, 3);
    args.is_causal = false;
    attend(&args, 3, positions);
    expect_near(y, all, 3);
}

static void query_heads_share_kv_heads_in_groups(void **state)
{
    (void)state;
    static const int64_t position = 0;
    static const float q[4] = {0}, keys[2] = {0}, values[2] = {1, 2};
    static const double expected[4] = {1, 1, 2, 2};
    float y[4];
    struct rp_attention args = {.n_heads = 4,
                                .n_kv_heads = 2,
                                .head_dim = 1,
                                .scale = 1,
                                .is_causal = true,
                                .q = q,
                                .n_keys = 1,
                                .keys = keys,
                                .values = values,
                                .key_positions = &position,
                                .y = y};
    attend(&args, 1, &position);
    expect_near(y, expected, 4);
}

static void large_scores_do_not_overflow(void **state)
{
    (void)state;
    static const int64_t positions[2] = {0, 1};
    static const float q[1] = {1000}, keys[2] = {1, -1}, values[2] = {5, 7};
    static const double expected[1] = {5};
    float y[1];
    struct rp_attention args = {.n_heads = 1,
                                .n_kv_heads = 1,
                                .head_dim = 1,
                                .scale = 1,
                                .is_causal = true,
                                .q = q,
                                .n_keys = 2,
                                .keys = keys,
                                .values = values,
                                .key_positions = positions,
                                .y = y};
    attend(&args, 1, &positions[1]);
    expect_near(y, expected, 1);
}

static void ffn_activation_is_silu_of_gate_times_up(void **state)
{
    (void)state;
    static const float gate[4] = {0, 1, -1, -200}, up[4] = {5, 2, 3, 1};
    static const double expected[4] = {0, 1.462117157260010, -0.806824264109877, 0};
    float y[4];
    struct rp_site site = site_of(2, NULL);
    struct rp_ffn_activation args = {.dim = 2, .gate = gate, .up = up, .y = y};
    assert_int_equal(rp_ops_default()->ffn_activation(NULL, &site, &args), RP_OK);
    expect_near(y, expected, 4);
}

static void residual_add_adds_in_place(void **state)
{
    (void)state;
    static const float branch[2] = {0.5f, -1};
    static const double expected[2] = {1.5, 1};
    float hidden[2] = {1, 2};
    struct rp_site site = site_of(1, NULL);
    struct rp_residual_add args = {.dim = 2, .branch = branch, .hidden = hidden};
    assert_int_equal(rp_ops_default()->residual_add(NULL, &site, &args), RP_OK);
    expect_near(hidden, expected, 2);
}

static void embed_copies_the_tokens_rows(void **state)
{
    (void)state;
    static const uint64_t dims[2] = {2, 3};
    static const float table[6] = {0, 1, 2, 3, 4, 5};
    static const double expected[4] = {4, 5, 0, 1};
    static const int32_t tokens[2] = {2, 0}, outside[2] = {0, 3}, negative[2] = {0, -1};
    struct gguf_builder builder = {.version = 3};
    struct rp_gguf *gguf = NULL;
    struct rp_model_config config = {.hidden_size = 2};
    struct rp_error err;
    float y[4];
    gguf_add_tensor(&builder, "token_embd.weight", RP_GGML_F32, 2, dims, table, sizeof table);
    struct gguf_bytes file = gguf_finish(&builder, NULL);
    assert_int_equal(rp_gguf_open_memory(file.data, file.size, "file", &gguf, NULL), RP_OK);
    struct rp_site site = {.config = &config, .n_positions = 2, .err = &err};
    struct rp_embed args = {
        .gguf = gguf, .table = rp_gguf_tensor(gguf, 0), .tokens = tokens, .y = y};
    assert_int_equal(rp_ops_default()->embed(NULL, &site, &args), RP_OK);
    expect_near(y, expected, 4);
    args.tokens = outside;
    assert_int_equal(rp_ops_default()->embed(NULL, &site, &args), RP_ERR_ARGUMENT);
    assert_string_equal(err.message,
                        "1 rows from row 3 of tensor 'token_embd.weight', which has 3");
    args.tokens = negative;
    assert_int_equal(rp_ops_default()->embed(NULL, &site, &args), RP_ERR_ARGUMENT);
    rp_gguf_close(gguf);
    free(file.data);
}

#define MAX_IN 37
#define MAX_OUT 5
#define MAX_N 67 /* more than the positions that matmul takes at a time */

/* -1 .. 1, reproducible; seed is advanced. */
static float pseudo_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) / 8388608.0f - 1.0f;
}

static void every_shape_of_matrix_product_is_right(void **state)
{
    (void)state;
    static float weight[MAX_OUT * MAX_IN], x[MAX_N * MAX_IN], y[MAX_N * (MAX_OUT + 1)];
    static const size_t ns[] = {1, 2, 3, 64, 65, MAX_N};
    uint32_t seed = 1;
    for (size_t i = 0; i < MAX_OUT * MAX_IN; i++)
        weight[i] = pseudo_random(&seed);
    for (size_t i = 0; i < MAX_N * MAX_IN; i++)
        x[i] = pseudo_random(&seed);
    for (size_t n_in = 1; n_in <= MAX_IN; n_in++) {
        for (size_t n_out = 1; n_out <= MAX_OUT; n_out++) {
            for (size_t i = 0; i < sizeof ns / sizeof *ns; i++) {
                size_t n = ns[i], stride = n_out + 1;
                for (size_t j = 0; j < n * stride; j++)
                    y[j] = -99;
                rp_matmul(weight, n_out, n_in, x, n, y, stride);
                for (size_t p = 0; p < n; p++) {
                    for (size_t o = 0; o < n_out; o++) {
                        double sum = 0;
                        for (size_t k = 0; k < n_in; k++)
                            sum += (double)weight[o * n_in + k] * (double)x[p * n_in + k];
                        /* 37 products below 1, each rounded at 6e-8 of a partial sum below 8 */
                        assert_true(fabs((double)y[p * stride + o] - sum) < 2e-6);
                    }
                    assert_true(y[p * stride + n_out] == -99); /* what stands between the rows */
                }
            }
        }
    }
}

#if !defined(RP_HAVE_CBLAS)
static void a_position_does_not_depend_on_its_batch(void **state)
{
    (void)state;
    static float weight[3 * MAX_IN], x[MAX_N * MAX_IN], batch[MAX_N * 3], single[3];
    uint32_t seed = 2;
    for (size_t i = 0; i < 3 * MAX_IN; i++)
        weight[i] = pseudo_random(&seed);
    for (size_t i = 0; i < MAX_N * MAX_IN; i++)
        x[i] = pseudo_random(&seed);
    rp_matmul(weight, 3, MAX_IN, x, MAX_N, batch, 3);
    for (size_t p = 0; p < MAX_N; p++) {
        rp_matmul(weight, 3, MAX_IN, x + p * MAX_IN, 1, single, 3);
        assert_memory_equal(single, batch + p * 3, sizeof single);
        assert_true(single[2] == rp_dot(weight + (size_t)2 * MAX_IN, x + p * MAX_IN, MAX_IN));
    }
}
#endif

static void weights_have_their_gguf_names(void **state)
{
    (void)state;
    assert_string_equal(rp_weight_name(RP_ATTN_NORM), "attn_norm");
    assert_string_equal(rp_weight_name(RP_ROPE_FREQS), "rope_freqs");
    assert_string_equal(rp_weight_name(RP_N_WEIGHTS), "unknown");
    for (unsigned i = 0; i < RP_N_WEIGHTS; i++)
        assert_string_not_equal(rp_weight_name((enum rp_weight_id)i), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rms_norm_divides_by_the_root_of_the_mean_square),
        cmocka_unit_test(rms_norm_adds_eps_to_the_mean_square),
        cmocka_unit_test(rope_pairs_halves_or_neighbours),
        cmocka_unit_test(rope_at_position_0_changes_nothing),
        cmocka_unit_test(rope_divides_frequencies_by_their_factors),
        cmocka_unit_test(rope_leaves_what_is_not_rotated),
        cmocka_unit_test(rope_rounds_angles_as_hf_does),
        cmocka_unit_test(attention_weighs_values_by_softmax),
        cmocka_unit_test(attention_sees_no_later_key),
        cmocka_unit_test(query_heads_share_kv_heads_in_groups),
        cmocka_unit_test(large_scores_do_not_overflow),
        cmocka_unit_test(ffn_activation_is_silu_of_gate_times_up),
        cmocka_unit_test(residual_add_adds_in_place),
        cmocka_unit_test(embed_copies_the_tokens_rows),
        cmocka_unit_test(every_shape_of_matrix_product_is_right),
#if !defined(RP_HAVE_CBLAS)
        cmocka_unit_test(a_position_does_not_depend_on_its_batch),
#endif
        cmocka_unit_test(weights_have_their_gguf_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
