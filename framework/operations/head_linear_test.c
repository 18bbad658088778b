/* Products by head: each head has its matrix and a part of its row, and errors stand where the values do. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "operations/operations.h"

enum { POSITIONS = 2, HEADS = 2, IN = 2, STRIDE = 3, OUT = 2 };

/* Of each head's three values the first two are read. */
static const float x[POSITIONS][HEADS][STRIDE] = {{{1, 2, 99}, {3, 4, 99}},
                                                  {{5, 6, 99}, {7, 8, 99}}};
static const float weight[HEADS][OUT][IN] = {{{1, 0}, {1, 1}}, {{0, 10}, {2, -1}}};
static const float expected[POSITIONS][HEADS][OUT] = {{{1, 3}, {40, 2}}, {{5, 11}, {80, 6}}};
static const int64_t positions[POSITIONS] = {0, 1};

static struct rp_head_linear args_of(const float *values, const struct rp_weight *loaded, float *y)
{
    return (struct rp_head_linear){.which = RP_ATTN_K_B,
                                   .type = RP_GGML_F32,
                                   .weight = loaded->data,
                                   .loaded = loaded,
                                   .n_heads = HEADS,
                                   .n_out = OUT,
                                   .n_in = IN,
                                   .x = values,
                                   .x_head_stride = STRIDE,
                                   .y = y};
}

static void each_head_multiplies_its_part_by_its_matrix(void **state)
{
    (void)state;
    float y[POSITIONS][HEADS][OUT], matrices[HEADS * OUT * IN];
    memcpy(matrices, weight, sizeof matrices);
    const struct rp_weight loaded = {
        .data = matrices, .n_out = HEADS * OUT, .n_in = IN, .type = RP_GGML_F32};
    const struct rp_site site = {.n_positions = POSITIONS, .positions = positions};
    const struct rp_head_linear args = args_of(&x[0][0][0], &loaded, &y[0][0][0]);
    assert_int_equal(rp_op_head_linear(NULL, &site, &args), RP_OK);
    assert_memory_equal(y, expected, sizeof y);
}

/* Zeros have no error: of one head at one position alone. */
static void errors_are_those_of_their_head_and_position(void **state)
{
    (void)state;
    float rows[POSITIONS][HEADS][STRIDE], y[POSITIONS][HEADS][OUT], sigma[POSITIONS][HEADS][OUT];
    float matrices[HEADS * OUT * IN];
    memcpy(matrices, weight, sizeof matrices);
    const struct rp_weight loaded = {
        .data = matrices, .n_out = HEADS * OUT, .n_in = IN, .type = RP_GGML_F32};
    const struct rp_site site = {.n_positions = POSITIONS, .positions = positions};
    for (size_t p = 0; p < POSITIONS; p++)
        for (size_t head = 0; head < HEADS; head++) {
            memset(rows, 0, sizeof rows);
            memcpy(rows[p][head], x[p][head], sizeof rows[p][head]);
            const struct rp_head_linear args = args_of(&rows[0][0][0], &loaded, &y[0][0][0]);
            assert_int_equal(rp_op_head_linear(NULL, &site, &args), RP_OK);
            memset(sigma, 0xff, sizeof sigma);
            assert_int_equal(rp_sigma_head_linear(&site, &args, &sigma[0][0][0]), RP_OK);
            for (size_t i = 0; i < POSITIONS * HEADS; i++) {
                const float *of = sigma[i / HEADS][i % HEADS];
                const bool is_here = i == p * HEADS + head;
                for (size_t k = 0; k < OUT; k++)
                    assert_true(is_here ? of[k] > 0 && of[k] < 1e-4f : of[k] == 0);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_head_multiplies_its_part_by_its_matrix),
        cmocka_unit_test(errors_are_those_of_their_head_and_position),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
