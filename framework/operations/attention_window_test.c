/* Attention over a window: each position sees the last ones alone, whatever the arithmetic. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "operations/attention_bound.h"
#include "operations/operations.h"

#define N 9
#define DIM 4
#define HEADS 2
#define WIDTH (HEADS * DIM)

struct call {
    float q[N * WIDTH], k[N * DIM], v[N * DIM], y[N * WIDTH], scores[N];
    int64_t positions[N];
    struct rp_site site;
    struct rp_attention args;
};

static void make(struct call *call, size_t window)
{
    uint32_t seed = 1;
    for (size_t i = 0; i < N * WIDTH; i++) {
        seed = seed * 1664525u + 1013904223u;
        call->q[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
        call->k[i % (N * DIM)] = call->q[i] * 0.5f;
        call->v[i % (N * DIM)] = 1.0f - call->q[i];
    }
    for (size_t p = 0; p < N; p++)
        call->positions[p] = 100 + (int64_t)p;
    call->site = (struct rp_site){.layer = 0, .n_positions = N, .positions = call->positions};
    call->args = (struct rp_attention){.n_heads = HEADS,
                                       .n_kv_heads = 1,
                                       .head_dim = DIM,
                                       .scale = 0.5f,
                                       .is_causal = true,
                                       .window = window,
                                       .q = call->q,
                                       .n_keys = N,
                                       .keys = call->k,
                                       .values = call->v,
                                       .key_positions = call->positions,
                                       .scores = call->scores,
                                       .y = call->y};
}

static void a_position_sees_its_window_and_nothing_else(void **state)
{
    (void)state;
    static const struct {
        size_t window, p, first, end;
    } cases[] = {{0, 5, 0, 6}, {1, 5, 5, 6}, {3, 5, 3, 6},
                 {3, 1, 0, 2}, {N, 8, 0, 9}, {8, 8, 1, 9}};
    struct call call;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t first, end;
        make(&call, cases[i].window);
        rp_attention_visible(&call.site, &call.args, cases[i].p, &first, &end);
        assert_int_equal(first, cases[i].first);
        assert_int_equal(end, cases[i].end);
    }
}

/* A value outside of the window changes nothing, and the last one inside does. */
static void values_outside_the_window_do_not_matter(void **state)
{
    (void)state;
    struct call plain, changed;
    make(&plain, 3);
    assert_int_equal(rp_op_attention(NULL, &plain.site, &plain.args), RP_OK);
    make(&changed, 3);
    changed.v[2 * DIM] += 10;
    assert_int_equal(rp_op_attention(NULL, &changed.site, &changed.args), RP_OK);
    for (size_t p = 0; p < N; p++) {
        bool is_same = true;
        for (size_t i = p * WIDTH; i < (p + 1) * WIDTH; i++)
            is_same = is_same && plain.y[i] == changed.y[i];
        assert_int_equal(is_same, p < 2 || p > 4);
    }
}

/* A window over everything is none, to the bit; a smaller one is another result. */
static void a_window_over_all_positions_is_none(void **state)
{
    (void)state;
    struct call none, all, less;
    make(&none, 0);
    make(&all, N);
    make(&less, N - 1);
    assert_int_equal(rp_op_attention(NULL, &none.site, &none.args), RP_OK);
    assert_int_equal(rp_op_attention(NULL, &all.site, &all.args), RP_OK);
    assert_int_equal(rp_op_attention(NULL, &less.site, &less.args), RP_OK);
    assert_memory_equal(none.y, all.y, sizeof none.y);
    assert_memory_not_equal(none.y, less.y, sizeof none.y);
}

/* The last position with a window of 3, and the last 3 keys alone without any. */
static void the_bound_of_a_window_is_that_of_its_keys(void **state)
{
    (void)state;
    const struct rp_numerics plain = {.kv_cache = RP_KV_CACHE_F32};
    float sigma[N * WIDTH], of_three[WIDTH];
    double tips[N];
    struct call windowed, three;
    make(&windowed, 3);
    make(&three, 0);
    three.site.n_positions = 1;
    three.site.positions = three.positions + N - 1;
    three.args.q = three.q + (N - 1) * WIDTH;
    three.args.n_keys = 3;
    three.args.keys = three.k + (N - 3) * DIM;
    three.args.values = three.v + (N - 3) * DIM;
    three.args.key_positions = three.positions + N - 3;
    assert_int_equal(rp_op_attention(NULL, &windowed.site, &windowed.args), RP_OK);
    assert_int_equal(rp_op_attention(NULL, &three.site, &three.args), RP_OK);
    assert_int_equal(rp_attention_bound(&plain, &windowed.site, &windowed.args, windowed.k,
                                        windowed.v, sigma, tips),
                     RP_OK);
    assert_int_equal(rp_attention_bound(&plain, &three.site, &three.args, three.args.keys,
                                        three.args.values, of_three, tips),
                     RP_OK);
    for (size_t i = 0; i < WIDTH; i++) {
        assert_true(windowed.y[(N - 1) * WIDTH + i] == three.y[i]);
        assert_true(of_three[i] > 0 && sigma[(N - 1) * WIDTH + i] == of_three[i]);
    }
}

static void the_bound_of_a_window_over_everything_is_that_of_none(void **state)
{
    (void)state;
    const struct rp_numerics plain = {.kv_cache = RP_KV_CACHE_F32};
    float sigma[N * WIDTH], of_all[N * WIDTH];
    double tips[N];
    struct call windowed, all;
    make(&windowed, N);
    make(&all, 0);
    assert_int_equal(rp_op_attention(NULL, &windowed.site, &windowed.args), RP_OK);
    assert_int_equal(rp_op_attention(NULL, &all.site, &all.args), RP_OK);
    assert_int_equal(rp_attention_bound(&plain, &windowed.site, &windowed.args, windowed.k,
                                        windowed.v, sigma, tips),
                     RP_OK);
    assert_int_equal(rp_attention_bound(&plain, &all.site, &all.args, all.k, all.v, of_all, tips),
                     RP_OK);
    for (size_t i = 0; i < N * WIDTH; i++)
        assert_true(sigma[i] > 0 && sigma[i] < 1.01f * of_all[i] && of_all[i] < 1.01f * sigma[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_position_sees_its_window_and_nothing_else),
        cmocka_unit_test(values_outside_the_window_do_not_matter),
        cmocka_unit_test(a_window_over_all_positions_is_none),
        cmocka_unit_test(the_bound_of_a_window_is_that_of_its_keys),
        cmocka_unit_test(the_bound_of_a_window_over_everything_is_that_of_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
