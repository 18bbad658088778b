/* The floor is what FP32 arithmetic in another order adds: not less, or a right engine fails; and not
 * much more, or a wrong one passes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "replay/engine_dump_test_util.h"

static const char *const models[] = {"qwen3", "llama", "qwen35"};

static struct rp_test_findings replay(const char *model, enum rp_test_order order,
                                      int64_t first_position, size_t n_tokens)
{
    struct rp_test_engine_ops ops;
    struct rp_test_replayed replayed;
    rp_test_engine_ops_open(&ops, order);
    const struct rp_test_dump_of of = {.model = model,
                                       .ops = &ops.overlay.ops,
                                       .first_position = first_position,
                                       .n_tokens = n_tokens};
    rp_test_replayed_open(&replayed, &of);
    const struct rp_test_findings findings = rp_test_replay_all(&replayed);
    rp_test_replayed_close(&replayed);
    return findings;
}

static void every_order_of_summation_stays_under_the_limit(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (unsigned order = 0; order < RP_TEST_N_ORDERS; order++) {
            const struct rp_test_findings findings =
                replay(models[i], (enum rp_test_order)order, 0, 48);
            print_message("%s, order %u: %.2f floors at %s\n", models[i], order, findings.worst,
                          findings.worst_slot);
            if (findings.n_failing > 0)
                fail_msg("%s: %s", findings.failing[0], findings.message);
        }
    }
}

/* Angles are rounded in proportion to the position. */
static void so_do_angles_of_late_positions(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct rp_test_findings findings = replay(models[i], RP_TEST_SEQUENTIAL, 4000, 24);
        print_message("%s: %.2f floors at %s\n", models[i], findings.worst, findings.worst_slot);
        if (findings.n_failing > 0)
            fail_msg("%s: %s", findings.failing[0], findings.message);
    }
}

/* The worst of all rows is one of hundreds: were the floor five times too high, it would be below a
 * fifth. */
static void the_floor_is_not_much_higher_than_needed(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++)
        assert_true(replay(models[i], RP_TEST_SEQUENTIAL, 0, 48).worst > 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_order_of_summation_stays_under_the_limit),
        cmocka_unit_test(so_do_angles_of_late_positions),
        cmocka_unit_test(the_floor_is_not_much_higher_than_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
