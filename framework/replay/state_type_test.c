/* A declared state that is not the dump's: said before anything is replayed, and of no dump that it is
 * right for. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "formats/half.h"
#include "replay/engine_dump_test_util.h"

static const char *const models[] = {"qwen3", "llama", "qwen35"};

/* HF's decay is FP32 whatever the rest is. */
static void to_bf16(const char *slot, int64_t position, float *row, size_t dim)
{
    (void)position;
    for (size_t i = 0; i < dim && !strstr(slot, "_decay"); i++)
        row[i] = rp_round_bf16(row[i]);
}

static void to_f16(const char *slot, int64_t position, float *row, size_t dim)
{
    (void)position;
    for (size_t i = 0; i < dim && !strstr(slot, "_decay"); i++)
        row[i] = rp_round_f16(row[i]);
}

/* An engine whose products with lm_head, attention and DeltaNet stay in FP32. */
static void to_bf16_here_and_there(const char *slot, int64_t position, float *row, size_t dim)
{
    if (!strstr(slot, "_attn") && !strstr(slot, "_delta") && strcmp(slot, "logits") != 0)
        to_bf16(slot, position, row, dim);
}

static void only_NaN(const char *slot, int64_t position, float *row, size_t dim)
{
    to_bf16(slot, position, row, dim);
    for (size_t i = 0; i < dim && slot[0] == 'h'; i++)
        row[i] = (float)NAN;
}

static bool keeps_required(const char *slot, int64_t position)
{
    (void)position;
    return rp_slot_is_required(slot);
}

/* Opens a replay of a dump whose values are spoilt so. "" where that succeeds. */
static void open_declared(const char *model, enum rp_state declared, bool is_coarse,
                          void (*spoils)(const char *, int64_t, float *, size_t),
                          struct rp_error *err)
{
    const struct rp_test_dump_of of = {
        .model = model, .keeps = is_coarse ? keeps_required : NULL, .spoils = spoils};
    const struct rp_replay_options options = {.numerics = {.state = declared}};
    struct rp_test_replayed replayed;
    struct rp_replay *replay = NULL;
    *err = (struct rp_error){.code = RP_OK};
    rp_test_replayed_open(&replayed, &of);
    const enum rp_status status =
        rp_replay_open(replayed.model, replayed.dump, &options, &replay, err);
    assert_int_equal(status, err->code);
    rp_replay_close(replay);
    rp_test_replayed_close(&replayed);
}

static void values_of_FP32_are_not_of_a_declared_16_bit_state(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++)
        for (unsigned is_coarse = 0; is_coarse < 2; is_coarse++) {
            struct rp_error err;
            open_declared(models[i], RP_STATE_BF16, is_coarse > 0, NULL, &err);
            assert_int_equal(err.code, RP_ERR_MISMATCH);
            assert_non_null(strstr(err.message, is_coarse ? "h0 has" : "h0_preattn has"));
            assert_non_null(strstr(err.message, "values that are no BF16 numbers"));
            assert_non_null(strstr(err.message, "\"state\": \"bf16\" is declared"));
            open_declared(models[i], RP_STATE_F16, is_coarse > 0, NULL, &err);
            assert_non_null(strstr(err.message, "values that are no F16 numbers"));
        }
}

static void the_other_16_bit_type_is_named(void **state)
{
    (void)state;
    struct rp_error err;
    open_declared("qwen3", RP_STATE_F16, false, to_bf16, &err);
    assert_int_equal(err.code, RP_ERR_MISMATCH);
    assert_non_null(strstr(err.message, "are BF16 numbers"));
    assert_non_null(strstr(err.message, "declare \"bf16\""));
    open_declared("qwen3", RP_STATE_BF16, false, to_f16, &err);
    assert_int_equal(err.code, RP_ERR_MISMATCH);
    assert_non_null(strstr(err.message, "are F16 numbers"));
}

static void a_dump_of_the_declared_state_is_replayed(void **state)
{
    (void)state;
    struct rp_error err;
    for (size_t i = 0; i < 3; i++)
        for (unsigned is_coarse = 0; is_coarse < 2; is_coarse++) {
            open_declared(models[i], RP_STATE_F32, is_coarse > 0, NULL, &err);
            assert_int_equal(err.code, RP_OK);
            open_declared(models[i], RP_STATE_BF16, is_coarse > 0, to_bf16, &err);
            assert_int_equal(err.code, RP_OK);
            open_declared(models[i], RP_STATE_F16, is_coarse > 0, to_f16, &err);
            assert_int_equal(err.code, RP_OK);
        }
}

/* Where an engine keeps a few values in more than it declares, each slot is judged for itself. */
static void a_few_slots_in_FP32_are_no_wrong_declaration(void **state)
{
    (void)state;
    struct rp_error err;
    for (size_t i = 0; i < 3; i++) {
        open_declared(models[i], RP_STATE_BF16, false, to_bf16_here_and_there, &err);
        assert_int_equal(err.code, RP_OK);
    }
}

static void values_that_are_not_finite_say_nothing(void **state)
{
    (void)state;
    struct rp_error err;
    open_declared("qwen3", RP_STATE_BF16, false, only_NaN, &err);
    assert_int_equal(err.code, RP_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_FP32_are_not_of_a_declared_16_bit_state),
        cmocka_unit_test(the_other_16_bit_type_is_named),
        cmocka_unit_test(a_dump_of_the_declared_state_is_replayed),
        cmocka_unit_test(a_few_slots_in_FP32_are_no_wrong_declaration),
        cmocka_unit_test(values_that_are_not_finite_say_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
