/* Replay without a GGUF: an engine's dump on the checkpoint itself has the verdicts that it has on the GGUF,
 * and a bug is found there as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "replay/engine_dump_test_util.h"

static const char *const models[] = {"qwen3", "llama", "qwen35"};

/* The same dump, on the checkpoint that the model was made from. */
static void use_checkpoint(struct rp_test_replayed *replayed, const struct rp_test_dump_of *of)
{
    char folder[512];
    struct rp_error err;
    snprintf(folder, sizeof folder, "%s/fixtures/tiny/%s", RP_SOURCE_DIR, of->model);
    rp_replay_close(replayed->replay);
    rp_model_close(replayed->model);
    replayed->model = NULL;
    if (rp_model_open(folder, &replayed->model, &err) != RP_OK)
        fail_msg("%s: %s", err.where, err.message);
    if (rp_replay_open(replayed->model, replayed->dump, &of->options, &replayed->replay, &err) !=
        RP_OK)
        fail_msg("%s", err.message);
}

static void compare(const struct rp_test_dump_of *of, size_t n_failing, const char *failing)
{
    struct rp_test_replayed replayed;
    rp_test_replayed_open(&replayed, of);
    const struct rp_test_findings on_gguf = rp_test_replay_all(&replayed);
    use_checkpoint(&replayed, of);
    const struct rp_test_findings on_checkpoint = rp_test_replay_all(&replayed);
    rp_test_replayed_close(&replayed);
    assert_int_equal(on_checkpoint.n_failing, n_failing);
    assert_int_equal(on_gguf.n_failing, n_failing);
    assert_true(on_checkpoint.n_slots > 60);
    assert_int_equal(on_checkpoint.n_slots, on_gguf.n_slots);
    assert_int_equal(on_checkpoint.n_skipped, on_gguf.n_skipped);
    assert_true(n_failing == 0 || strcmp(on_checkpoint.failing[0], failing) == 0);
    assert_true(n_failing == 0 || strcmp(on_gguf.failing[0], failing) == 0);
}

static void a_right_engine_passes_on_the_checkpoint(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++)
        compare(&(struct rp_test_dump_of){.model = models[i]}, 0, "");
}

static void spoil_one_value(const char *slot, int64_t position, float *row, size_t dim)
{
    (void)dim;
    if (strcmp(slot, "h2_up") == 0 && position == 5)
        row[3] += 0.01f * row[3] + 1e-3f;
}

static void a_spoilt_slot_fails_on_the_checkpoint(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++)
        compare(&(struct rp_test_dump_of){.model = models[i], .errs = spoil_one_value}, 1, "h2_up");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_engine_passes_on_the_checkpoint),
        cmocka_unit_test(a_spoilt_slot_fails_on_the_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
