/* Caps: of attention's scores, whatever the arithmetic, and of the logits. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operations/attention_engine_test_util.h"
#include "operations/operations.h"

static void the_cap_is_between_the_scale_and_the_mask(void **state)
{
    (void)state;
    static const float q[1] = {3}, keys[3] = {1, -2, 50}, values[3] = {1, 10, 100};
    static const int64_t positions[3] = {0, 1, 2}, own = 1; /* does not see the third key */
    float scores[3], y;
    const struct rp_site site = {.n_positions = 1, .positions = &own};
    const struct rp_attention args = {.n_heads = 1,
                                      .n_kv_heads = 1,
                                      .head_dim = 1,
                                      .scale = 0.5f,
                                      .softcap = 2,
                                      .is_causal = true,
                                      .q = q,
                                      .n_keys = 3,
                                      .keys = keys,
                                      .values = values,
                                      .key_positions = positions,
                                      .scores = scores,
                                      .y = &y};
    assert_int_equal(rp_op_attention(NULL, &site, &args), RP_OK);
    const double a = exp(2 * tanh(1.5 / 2)), b = exp(2 * tanh(-3.0 / 2));
    assert_true(fabs((double)y - (a + 10 * b) / (a + b)) < 1e-6);
}

#define N_CALLS 10
#define CAP 1.5f /* scores are of size 1.5 in the mean: half of them are in tanh's bend */

static const struct rp_numerics fp32,
    plain_f16 = {.kv_cache = RP_KV_CACHE_F16},
    flash_f16 = {.kv_cache = RP_KV_CACHE_F16, .attention = RP_ATTENTION_FLASH},
    q8_0 = {.kv_cache = RP_KV_CACHE_Q8_0};

/* Rows of all calls that are over their limit. */
static size_t over(const struct rp_numerics *numerics, enum rp_mode mode,
                   const struct attention_engine *engine)
{
    static struct attention_call call = {.softcap = CAP};
    static float y[CALL_POSITIONS * CALL_WIDTH];
    size_t n_over = 0;
    for (unsigned seed = 0; seed < N_CALLS; seed++) {
        attention_call_make(&call, CALL_POSITIONS, seed, numerics, mode);
        attention_engine_run(engine, &call, y);
        n_over += attention_rows_over(&call, y, 1, false);
    }
    return n_over;
}

static void other_orders_are_within_the_bound_and_other_caps_outside(void **state)
{
    (void)state;
    const size_t n_most = N_CALLS * CALL_POSITIONS * 95 / 100;
    const struct {
        const struct rp_numerics *numerics;
        enum rp_mode mode;
        struct attention_engine engine;
    } kinds[] = {
        {&fp32, RP_MODE_BATCHED, {.order = SUM_FORWARD}},
        {&plain_f16, RP_MODE_BATCHED, {.weights_in_f16 = true, .q_in_f16 = true}},
        {&flash_f16, RP_MODE_PER_TOKEN, {.sums_in_f16 = true, .q_in_f16 = true}},
        {&flash_f16, RP_MODE_BATCHED, {.is_one_pass = true}},
        {&q8_0, RP_MODE_BATCHED, {.cache_format = RP_GGML_Q8_0}},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct attention_engine engine = kinds[i].engine;
        for (enum sum_order order = 0; order < N_SUM_ORDERS; order++) {
            engine.order = order;
            assert_int_equal(over(kinds[i].numerics, kinds[i].mode, &engine), 0);
        }
        engine.leaves_cap_out = true;
        assert_true(over(kinds[i].numerics, kinds[i].mode, &engine) > n_most);
        engine.leaves_cap_out = false;
        engine.cap_off = 0.05;
        assert_true(over(kinds[i].numerics, kinds[i].mode, &engine) > n_most);
    }
}

/* ---- logits ---- */

enum { N_OUT = 400, N_IN = 64, ROWS = 20 };

struct product {
    float weight[N_OUT * N_IN], x[ROWS * N_IN], y[ROWS * N_OUT], sigma[ROWS * N_OUT];
    double norm[ROWS];
    struct rp_site site;
    struct rp_linear args;
};

static struct product *new_product(float cap)
{
    struct product *product = calloc(1, sizeof *product);
    uint32_t seed = 7;
    assert_non_null(product);
    for (size_t i = 0; i < N_OUT * N_IN + ROWS * N_IN; i++) {
        seed = seed * 1664525u + 1013904223u;
        const float value = (float)(seed >> 8) / 8388608.0f - 1.0f;
        if (i < N_OUT * N_IN)
            product->weight[i] = value;
        else
            product->x[i - N_OUT * N_IN] = value;
    }
    product->site = (struct rp_site){.layer = -1, .n_positions = ROWS};
    product->args = (struct rp_linear){.which = RP_OUTPUT,
                                       .weight = product->weight,
                                       .softcap = cap,
                                       .n_out = N_OUT,
                                       .n_in = N_IN,
                                       .x = product->x,
                                       .y = product->y,
                                       .y_stride = N_OUT};
    assert_int_equal(rp_op_linear(NULL, &product->site, &product->args), RP_OK);
    assert_int_equal(rp_sigma_linear(&product->site, &product->args, product->sigma), RP_OK);
    assert_int_equal(rp_sigma_norm_linear(&product->site, &product->args, product->norm), RP_OK);
    return product;
}

/* Three sigma over a row's L2 norm, of sums in reversed order that are capped at `cap`. */
static size_t rows_over(const struct product *product, float cap)
{
    size_t n_over = 0;
    for (size_t p = 0; p < ROWS; p++) {
        double error = 0;
        for (size_t i = 0; i < N_OUT; i++) {
            float sum = 0;
            for (size_t k = N_IN; k-- > 0;)
                sum += product->weight[i * N_IN + k] * product->x[p * N_IN + k];
            const float y = cap > 0 ? cap * tanhf(sum * (1 / cap)) : sum;
            error += pow((double)y - (double)product->y[p * N_OUT + i], 2);
        }
        n_over += !(sqrt(error) <= 3 * product->norm[p]);
    }
    return n_over;
}

static void capped_logits_have_a_bound_of_their_own(void **state)
{
    (void)state;
    /* sums are of size 2.7: nearly no cap, one that bends, one that all values are at */
    static const float caps[] = {100, 3, 0.01f};
    for (size_t i = 0; i < sizeof caps / sizeof *caps; i++) {
        struct product *product = new_product(caps[i]);
        double square = 0;
        for (size_t k = 0; k < N_OUT; k++) {
            assert_true(product->sigma[k] >= 0 && product->sigma[k] < 1e-5f);
            square += (double)product->sigma[k] * (double)product->sigma[k];
        }
        assert_true(fabs(product->norm[0] - sqrt(square)) < 1e-4 * sqrt(square));
        assert_int_equal(rows_over(product, caps[i]), 0);
        assert_int_equal(rows_over(product, caps[i] * 1.001f), ROWS);
        assert_int_equal(rows_over(product, 0), ROWS);
        free(product);
    }
}

/* What the cap flattens an error of the sum cannot move. */
static void at_the_cap_the_bound_shrinks(void **state)
{
    (void)state;
    struct product *plain = new_product(0), *capped = new_product(1);
    assert_true(capped->norm[0] < 0.5 * plain->norm[0]);
    free(plain);
    free(capped);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cap_is_between_the_scale_and_the_mask),
        cmocka_unit_test(other_orders_are_within_the_bound_and_other_caps_outside),
        cmocka_unit_test(capped_logits_have_a_bound_of_their_own),
        cmocka_unit_test(at_the_cap_the_bound_shrinks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
