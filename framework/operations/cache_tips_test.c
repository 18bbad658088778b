/* What tips in Q, K and V over a quantized cache is within the bound, and a bug is not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "operations/attention_engine_test_util.h"

#define N_CALLS 6
#define N_ROWS (N_CALLS * CALL_POSITIONS)

static const struct {
    struct rp_numerics numerics;
    unsigned format;
} caches[] = {{{.kv_cache = RP_KV_CACHE_Q8_0, .attention = RP_ATTENTION_FLASH}, RP_GGML_Q8_0},
              {{.kv_cache = RP_KV_CACHE_Q4_0, .attention = RP_ATTENTION_FLASH}, RP_GGML_Q4_0}};
enum { N_CACHES = sizeof caches / sizeof *caches };

static size_t rows_over(size_t cache, struct attention_engine engine, bool is_sigma_alone)
{
    static struct attention_call call;
    static float y[CALL_POSITIONS * CALL_WIDTH];
    size_t n_over = 0;
    engine.cache_format = caches[cache].format;
    for (unsigned seed = 0; seed < N_CALLS; seed++) {
        attention_call_make(&call, CALL_POSITIONS, seed, &caches[cache].numerics, RP_MODE_BATCHED);
        attention_engine_run(&engine, &call, y);
        n_over += attention_rows_over(&call, y, 1, is_sigma_alone);
    }
    return n_over;
}

static void what_tips_is_within(void **state)
{
    (void)state;
    size_t n_tipped = 0;
    for (size_t cache = 0; cache < N_CACHES; cache++)
        for (enum sum_order order = 0; order < N_SUM_ORDERS; order++) {
            const struct attention_engine engine = {.order = order, .is_one_pass = true};
            assert_int_equal(rows_over(cache, engine, false), 0);
            n_tipped += rows_over(cache, engine, true);
        }
    /* The twin: without the allowance they are outside. */
    assert_true(n_tipped > 10);
}

static void q_that_is_not_rounded_is_outside(void **state)
{
    (void)state;
    for (size_t cache = 0; cache < N_CACHES; cache++)
        assert_true(rows_over(cache, (struct attention_engine){.keeps_q = true}, false) >
                    N_ROWS / 2);
}

static void a_key_that_is_masked_is_outside(void **state)
{
    (void)state;
    for (size_t cache = 0; cache < N_CACHES; cache++)
        assert_true(rows_over(cache, (struct attention_engine){.masks_first_key = true}, false) >
                    N_ROWS * 9 / 10);
}

/* Only what is near the middle may tip. */
static void a_value_of_k_that_could_not_tip_is_outside(void **state)
{
    (void)state;
    for (size_t cache = 0; cache < N_CACHES; cache++) {
        const struct attention_engine engine = {.moved_k = 10};
        assert_true(rows_over(cache, engine, false) > N_ROWS / 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_tips_is_within),
        cmocka_unit_test(q_that_is_not_rounded_is_outside),
        cmocka_unit_test(a_key_that_is_masked_is_outside),
        cmocka_unit_test(a_value_of_k_that_could_not_tip_is_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
