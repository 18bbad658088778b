/* Experts are compared as sets; what belongs to other experts is not compared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "compare/choice.h"
#include "refparity/dump.h"

enum { N = 3, K = 2, EXPERTS = 4, EACH = 2 };

/* At position 1 the engine has expert 3 for 0; at the others the same ones, in another order. */
static const float reference[N][K] = {{2, 1}, {0, 1}, {3, 0}},
                   reordered[N][K] = {{1, 2}, {1, 0}, {3, 0}},
                   other[N][K] = {{1, 2}, {1, 3}, {3, 0}};
static const float logits[EXPERTS] = {0.25f, 0.5f, -1, 0.24f};

static void write_dump(const char *path, const float (*experts)[K], float scale)
{
    struct rp_dump *dump = rp_dump_open(path, 1, "test");
    float rows[N][EXPERTS], gate[N][K * EACH], weights[N][K];
    for (size_t p = 0; p < N; p++) {
        memcpy(rows[p], logits, sizeof logits);
        for (size_t k = 0; k < K; k++) {
            weights[p][k] = scale * (1 + experts[p][k]);
            for (size_t i = 0; i < EACH; i++)
                gate[p][k * EACH + i] = scale * (10 * experts[p][k] + (float)i + 1);
        }
    }
    assert_int_equal(rp_dump_rows(dump, "h0_router", 0, N, EXPERTS, &rows[0][0]), 0);
    assert_int_equal(rp_dump_rows(dump, "h0_experts", 0, N, K, &experts[0][0]), 0);
    assert_int_equal(rp_dump_rows(dump, "h0_expertw", 0, N, K, &weights[0][0]), 0);
    assert_int_equal(rp_dump_rows(dump, "h0_gate", 0, N, K * EACH, &gate[0][0]), 0);
    assert_int_equal(rp_dump_close(dump), 0);
}

struct pair {
    char folder[256];
    struct rp_comparison comparison;
};

static void pair_open(struct pair *pair, const float (*engine)[K], float scale)
{
    char path[300];
    rp_test_make_folder(pair->folder);
    pair->comparison = (struct rp_comparison){.limits = rp_limits_default(), .n_layers = 1};
    snprintf(path, sizeof path, "%s/ref", pair->folder);
    write_dump(path, reference, 1);
    assert_int_equal(rp_tensor_set_open(path, RP_LAYOUT_NPY, 0, &pair->comparison.reference, NULL),
                     RP_OK);
    snprintf(path, sizeof path, "%s/engine", pair->folder);
    write_dump(path, engine, scale);
    assert_int_equal(rp_tensor_set_open(path, RP_LAYOUT_NPY, 0, &pair->comparison.engine, NULL),
                     RP_OK);
}

static void pair_close(struct pair *pair)
{
    rp_tensor_set_close(pair->comparison.reference);
    rp_tensor_set_close(pair->comparison.engine);
    rp_remove_tree(pair->folder, NULL);
}

static struct rp_slot_result compared(const struct pair *pair, const char *slot)
{
    struct rp_slot_result result;
    rp_compare_slot(&pair->comparison, slot, &result);
    return result;
}

static void the_order_of_the_chosen_does_not_count(void **state)
{
    static const char *const slots[] = {"h0_experts", "h0_expertw", "h0_gate"};
    struct pair pair;
    (void)state;
    pair_open(&pair, reordered, 1);
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        const struct rp_slot_result result = compared(&pair, slots[i]);
        assert_int_equal(result.verdict, RP_PASS);
        assert_int_equal(result.n_compared, N);
        assert_true(result.worst.metrics.l2_rel <= 0);
    }
    pair_close(&pair);
}

static void another_expert_is_named_and_is_no_failure(void **state)
{
    char text[128];
    struct pair pair;
    (void)state;
    pair_open(&pair, other, 1);
    const struct rp_slot_result choice = compared(&pair, "h0_experts");
    assert_int_equal(choice.verdict, RP_MARGINAL);
    assert_int_equal(choice.n_failing, 1);
    assert_non_null(
        strstr(choice.message, "expert 3 for 0 at position 1, router logits 0.01 apart"));
    const struct rp_slot_result gate = compared(&pair, "h0_gate");
    assert_int_equal(gate.verdict, RP_PASS);
    assert_int_equal(gate.n_compared, N - 1);
    assert_string_equal(rp_first_other_choice(&pair.comparison, 0, 1, text, sizeof text),
                        "expert 3 for 0 at layer 0, router logits 0.01 apart");
    assert_string_equal(rp_first_other_choice(&pair.comparison, 0, 2, text, sizeof text), "");
    pair_close(&pair);
}

static void wrong_values_of_the_same_experts_fail(void **state)
{
    struct pair pair;
    (void)state;
    pair_open(&pair, reordered, 1.5f);
    assert_int_equal(compared(&pair, "h0_experts").verdict, RP_PASS);
    assert_int_equal(compared(&pair, "h0_gate").verdict, RP_FAIL);
    assert_int_equal(compared(&pair, "h0_expertw").verdict, RP_FAIL);
    pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_of_the_chosen_does_not_count),
        cmocka_unit_test(another_expert_is_named_and_is_no_failure),
        cmocka_unit_test(wrong_values_of_the_same_experts_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
