/* Damaged dumps are errors, and engines whose bugs look like damage fail: each kind with its twins. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare/toy_damage_test_util.h"

enum { N = 9, DIM = 32, LAYERS = 4 };

/* A model, its reference, and the engine's run, which a test changes. */
struct trial {
    struct rp_toy_model model;
    struct rp_toy_run reference, engine;
    struct rp_comparison options; /* positions and the like for the comparison */
};

static const int tokens[RP_TOY_MAX_POSITIONS] = {5, 17, 42, 5, 9, 33, 60, 2, 21};

static struct trial *open_trial(const struct rp_toy_fault *fault)
{
    struct trial *t = calloc(1, sizeof *t);
    assert_non_null(t);
    rp_toy_make(&t->model, 7, LAYERS, DIM, 1.5);
    rp_toy_run(&t->model, tokens, N, NULL, &t->reference);
    rp_toy_run(&t->model, tokens, N, fault, &t->engine);
    return t;
}

/* Of slot, the same by itself and among all; frees the trial. */
static struct rp_slot_result result_of(struct trial *t, const char *slot,
                                       struct rp_pair_result *pair)
{
    struct rp_toy_sets sets;
    struct rp_slot_result result, same = {.verdict = RP_SKIP};
    rp_toy_sets_open(&sets, &t->reference, &t->engine);
    sets.comparison.positions = t->options.positions;
    sets.comparison.n_positions = t->options.n_positions;
    sets.comparison.reference_is_dump = t->options.reference_is_dump;
    rp_compare_slot(&sets.comparison, slot, &result);
    assert_int_equal(rp_compare_pair(&sets.comparison, pair, NULL), RP_OK);
    for (size_t i = 0; i < pair->n_slots; i++)
        if (strcmp(pair->slots[i].slot, slot) == 0)
            same = pair->slots[i];
    assert_int_equal(same.verdict, result.verdict);
    assert_string_equal(same.message, result.message);
    rp_toy_sets_close(&sets);
    return result;
}

static void assert_error(struct trial *t, const char *slot, const char *const parts[])
{
    struct rp_pair_result pair;
    const struct rp_slot_result r = result_of(t, slot, &pair);
    if (r.verdict != RP_ERROR)
        fail_msg("%s is %s: %s", slot, rp_verdict_name(r.verdict), r.message);
    for (size_t i = 0; parts[i]; i++)
        if (!strstr(r.message, parts[i]))
            fail_msg("expected \"%s\" in \"%s\"", parts[i], r.message);
    assert_int_equal(pair.verdict, RP_ERROR);
    rp_pair_result_free(&pair);
    free(t);
}
#define ASSERT_ERROR(t, slot, ...) \
    assert_error(t, slot, (const char *const[]){"damaged: ", __VA_ARGS__, NULL})

/* The slot fails, and no slot of the pair is an error. */
static void assert_fails(struct trial *t, const char *slot)
{
    struct rp_pair_result pair;
    const struct rp_slot_result r = result_of(t, slot, &pair);
    if (r.verdict != RP_FAIL)
        fail_msg("%s is %s: %s", slot, rp_verdict_name(r.verdict), r.message);
    for (size_t i = 0; i < pair.n_slots; i++)
        if (pair.slots[i].verdict == RP_ERROR)
            fail_msg("%s is an error: %s", pair.slots[i].slot, pair.slots[i].message);
    assert_int_equal(pair.verdict, RP_FAIL);
    rp_pair_result_free(&pair);
    free(t);
}

static void assert_bug_fails(enum rp_toy_bug bug, size_t layer, size_t position, const char *slot)
{
    const struct rp_toy_fault fault = {bug, layer, position};
    assert_fails(open_trial(&fault), slot);
}

/* An engine that computes right, and the damage to one slot of its dump, or to all (NULL). */
static struct trial *damaged(const char *slot, struct rp_toy_damage damage)
{
    struct trial *t = open_trial(NULL);
    for (size_t s = 0; s < t->engine.n_slots; s++)
        if (!slot || strcmp(t->engine.name[s], slot) == 0)
            rp_toy_damage(&t->engine, s, &damage);
    return t;
}
#define DAMAGED(slot, ...) damaged(slot, (struct rp_toy_damage){.kind = __VA_ARGS__})

static void swapped_bytes_are_an_error(void **state)
{
    (void)state;
    static const char *const slots[] = {"emb", "h2", "post_norm", "logits"};
    for (size_t i = 0; i < 4; i++) {
        ASSERT_ERROR(
            DAMAGED(slots[i], RP_TOY_SWAPPED_4), slots[i],
            "its bytes are swapped: write FP32 little-endian; undone, L2_rel is 0 at most, "
            "at 9 positions");
        ASSERT_ERROR(DAMAGED(NULL, RP_TOY_SWAPPED_4), slots[i], "its bytes are swapped");
    }
    ASSERT_ERROR(DAMAGED("h1", RP_TOY_SWAPPED_2), "h1", "bytes of each half value are swapped");
    ASSERT_ERROR(DAMAGED("h1", RP_TOY_SWAPPED_HALVES), "h1", "halves of its values are swapped");
}

static void swapped_bytes_of_a_wrong_row_are_a_failure(void **state)
{
    (void)state;
    struct trial *t = open_trial(NULL);
    const size_t s = rp_toy_slot(&t->engine, "h1");
    for (size_t j = 0; j < DIM; j++)
        t->engine.rows[s][4 * DIM + j] *= 1.1f;
    rp_toy_damage(&t->engine, s, &(struct rp_toy_damage){.kind = RP_TOY_SWAPPED_4});
    assert_fails(t, "h1");
}

static void another_float_format_is_an_error(void **state)
{
    (void)state;
    static const struct {
        enum rp_toy_damage_kind kind;
        const char *text;
    } cases[] = {{RP_TOY_F16, "it holds F16, not FP32"},
                 {RP_TOY_F16_BY_ROW, "its rows hold F16 in their first half"},
                 {RP_TOY_BF16, "it holds BF16"},
                 {RP_TOY_BF16_BY_ROW, "its rows hold BF16 in their first half"},
                 {RP_TOY_F64, "it holds F64, of which half fits"},
                 {RP_TOY_F64_BY_ROW, "its rows hold F64, of which half fits"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ASSERT_ERROR(DAMAGED("h2", cases[i].kind), "h2", cases[i].text);
        ASSERT_ERROR(DAMAGED(NULL, cases[i].kind), "logits", cases[i].text);
    }
}

/* Files whose size says how many values there are. */
static void another_float_format_in_a_file_of_its_own_size_is_named(void **state)
{
    (void)state;
    static const struct {
        enum rp_toy_damage_kind kind;
        size_t dim;
        const char *text;
    } cases[] = {{RP_TOY_F16, DIM / 2,
                  "h1 has 16 values per position, the reference has 32: it holds "
                  "F16, not FP32 (L2_rel "},
                 {RP_TOY_BF16, DIM / 2, "it holds BF16, not FP32 (L2_rel "},
                 {RP_TOY_F64, DIM * 2,
                  "h1 has 64 values per position, the reference has 32: it "
                  "holds F64, not FP32 (L2_rel "},
                 {RP_TOY_RANDOM, DIM / 2, "h1 has 16 values per position, the reference has 32"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct trial *t = open_trial(NULL);
        struct rp_toy_sets sets;
        struct rp_slot_result r;
        const size_t s = rp_toy_slot(&t->engine, "h1");
        /* for F64: the file as if it had room for all of it */
        t->engine.n *= cases[i].kind == RP_TOY_F64 ? 2 : 1;
        rp_toy_damage(&t->engine, s, &(struct rp_toy_damage){.kind = cases[i].kind});
        t->engine.n = N;
        t->engine.dim[s] = cases[i].dim;
        rp_toy_sets_open(&sets, &t->reference, &t->engine);
        rp_compare_slot(&sets.comparison, "h1", &r);
        assert_int_equal(r.verdict, RP_ERROR);
        if (!strstr(r.message, cases[i].text))
            fail_msg("expected \"%s\" in \"%s\"", cases[i].text, r.message);
        assert_true(cases[i].kind != RP_TOY_RANDOM || !strstr(r.message, "it holds"));
        rp_toy_sets_close(&sets);
        free(t);
    }
}

static void values_rounded_to_F16_pass_and_garbage_fails(void **state)
{
    (void)state;
    struct rp_pair_result pair;
    struct trial *t = DAMAGED(NULL, RP_TOY_ROUNDED_TO_BF16);
    assert_int_equal(result_of(t, "h2", &pair).verdict, RP_PASS);
    assert_int_equal(pair.verdict, RP_PASS);
    rp_pair_result_free(&pair);
    free(t);
    assert_fails(DAMAGED("h2", RP_TOY_RANDOM), "h2");
    assert_fails(DAMAGED("h2", RP_TOY_RANDOM_BITS), "h2");
}

static void transposed_rows_are_an_error(void **state)
{
    (void)state;
    static const char *const slots[] = {"emb", "h2", "post_norm", "logits"};
    for (size_t i = 0; i < 4; i++) {
        ASSERT_ERROR(DAMAGED(slots[i], RP_TOY_TRANSPOSED), slots[i], "it is transposed");
        ASSERT_ERROR(DAMAGED(NULL, RP_TOY_TRANSPOSED), slots[i], "it is transposed");
    }
}

static void an_engine_that_transposes_its_rows_fails(void **state)
{
    (void)state;
    for (size_t l = 0; l < LAYERS; l++) {
        char slot[RP_SLOT_NAME_SIZE];
        assert_bug_fails(RP_TOY_ROWS_TRANSPOSED_AFTER, l, 0,
                         rp_slot_name(RP_PART_OUTPUT, (int)l, slot));
    }
}

static void rows_at_other_positions_are_an_error(void **state)
{
    (void)state;
    static const char *const slots[] = {"emb", "h0", "h3", "post_norm"};
    for (size_t i = 0; i < 4; i++) {
        ASSERT_ERROR(DAMAGED(slots[i], RP_TOY_PERMUTED), slots[i], "rows are permuted",
                     "which is computed from it, is right");
        ASSERT_ERROR(DAMAGED(slots[i], RP_TOY_REVERSED), slots[i], "reverse order");
        ASSERT_ERROR(DAMAGED(slots[i], RP_TOY_ONE_ROW, .by = 4), slots[i],
                     "the row of position 4 is repeated at every position");
        ASSERT_ERROR(DAMAGED(slots[i], RP_TOY_EACH_TWICE), slots[i], "is repeated 2 times");
        ASSERT_ERROR(DAMAGED(slots[i], RP_TOY_SHIFTED, .by = 1), slots[i],
                     "off by 1: position 1 holds the row of position 0");
        ASSERT_ERROR(DAMAGED(slots[i], RP_TOY_SHIFTED, .by = -1), slots[i],
                     "off by -1: position 0 holds the row of position 1");
        ASSERT_ERROR(DAMAGED(slots[i], RP_TOY_SHIFTED, .by = 3), slots[i], "off by 3");
    }
    ASSERT_ERROR(DAMAGED("h1", RP_TOY_TWO_EXCHANGED, .by = 2), "h1",
                 "permuted: position 2 holds the row of position 3");
}

static void rows_at_the_same_other_positions_in_every_slot_are_an_error(void **state)
{
    (void)state;
    static const char *const slots[] = {"emb", "h2", "logits"};
    for (size_t i = 0; i < 3; i++) {
        ASSERT_ERROR(DAMAGED(NULL, RP_TOY_PERMUTED), slots[i],
                     "every slot is damaged like that, and undone every");
        ASSERT_ERROR(DAMAGED(NULL, RP_TOY_REVERSED), slots[i], "reverse order");
        ASSERT_ERROR(DAMAGED(NULL, RP_TOY_SHIFTED, .by = 1), slots[i], "off by 1");
        ASSERT_ERROR(DAMAGED(NULL, RP_TOY_SHIFTED, .by = -1), slots[i], "off by -1");
    }
}

/* The buffer that is dumped holds the last row when the dump is written. */
static void the_last_row_everywhere_in_every_slot_is_an_error(void **state)
{
    (void)state;
    static const char *const slots[] = {"emb", "h2", "logits"};
    for (size_t i = 0; i < 3; i++)
        ASSERT_ERROR(DAMAGED(NULL, RP_TOY_ONE_ROW, .by = N - 1), slots[i],
                     "the row of position 8 is repeated at every position", "every slot is");
}

static void an_engine_that_drops_adds_or_reorders_tokens_fails(void **state)
{
    (void)state;
    static const enum rp_toy_bug bugs[] = {RP_TOY_FIRST_TOKEN_DROPPED, RP_TOY_EXTRA_TOKEN,
                                           RP_TOY_TOKENS_REVERSED, RP_TOY_TOKENS_PERMUTED};
    for (size_t i = 0; i < sizeof bugs / sizeof *bugs; i++) {
        assert_bug_fails(bugs[i], 0, 0, "emb");
        assert_bug_fails(bugs[i], 0, 0, "h3");
        assert_bug_fails(bugs[i], 0, 0, "logits");
    }
}

static void an_engine_that_is_stuck_or_fed_one_token_fails(void **state)
{
    (void)state;
    static const char *const slots[] = {"emb", "h0", "h3", "post_norm", "logits"};
    for (size_t i = 0; i < 5; i++) {
        assert_bug_fails(RP_TOY_ONE_TOKEN, 0, 0, i < 1 ? slots[i] : "h2");
        assert_bug_fails(RP_TOY_FORGETS_ONE_TOKEN, 0, 0, slots[i]);
        assert_bug_fails(RP_TOY_STUCK, 0, 0, slots[i]);
        assert_bug_fails(RP_TOY_STUCK, 0, 5, slots[i]);
    }
    /* as the same dump, all slots with one row: nothing shows that the engine went on */
    assert_fails(DAMAGED(NULL, RP_TOY_ONE_ROW, .by = 0), "h2");
    assert_fails(DAMAGED(NULL, RP_TOY_ONE_ROW, .by = N - 2), "h2");
}

static void an_engine_that_mixes_its_rows_up_fails(void **state)
{
    (void)state;
    for (size_t l = 0; l < LAYERS; l++) {
        char slot[RP_SLOT_NAME_SIZE];
        rp_slot_name(RP_PART_OUTPUT, (int)l, slot);
        assert_bug_fails(RP_TOY_ROWS_PERMUTED_AFTER, l, 0, slot);
        assert_bug_fails(RP_TOY_ROW_REPEATED_AFTER, l, 3, slot);
    }
    assert_bug_fails(RP_TOY_LOGITS_OFF_BY_ONE, 0, 0, "logits");
    assert_bug_fails(RP_TOY_LOGITS_REVERSED, 0, 0, "logits");
}

static void what_was_never_written_is_an_error(void **state)
{
    (void)state;
    static const struct {
        enum rp_toy_damage_kind kind;
        const char *what;
    } cases[] = {{RP_TOY_ZERO_TAIL, "zeros"},
                 {RP_TOY_NAN_TAIL, "NaN"},
                 {RP_TOY_VALUE_TAIL, "one value"},
                 {RP_TOY_MEMORY_TAIL, "what memory held"}};
    static const char *const slots[] = {"emb", "h1", "h3", "post_norm"};
    for (size_t i = 0; i < 4; i++)
        for (size_t s = 0; s < 4; s++) {
            ASSERT_ERROR(DAMAGED(slots[s], cases[i].kind, .at = 5), slots[s],
                         "not written to its end: 4 positions from 5 to 8 hold", cases[i].what,
                         "which is computed from it, is right");
            ASSERT_ERROR(DAMAGED(slots[s], cases[i].kind, .at = 5, .channel = 20), slots[s],
                         "4 positions from 5 to 8 hold", cases[i].what);
            ASSERT_ERROR(DAMAGED(slots[s], cases[i].kind, .at = 0), slots[s],
                         "9 positions from 0 to 8", cases[i].what);
            ASSERT_ERROR(DAMAGED(slots[s], cases[i].kind, .channel = 20, .by_channel = 1), slots[s],
                         "channels from 20 on hold", "at 9 positions from 0 on");
        }
}

static void an_engine_that_computes_zeros_or_NaN_or_cuts_its_prompt_fails(void **state)
{
    (void)state;
    static const size_t from[] = {0, 5, 8};
    for (size_t i = 0; i < 3; i++)
        for (size_t l = 0; l < LAYERS; l++) {
            char slot[RP_SLOT_NAME_SIZE];
            rp_slot_name(RP_PART_OUTPUT, (int)l, slot);
            assert_bug_fails(RP_TOY_NAN, l, from[i], slot);
            assert_bug_fails(RP_TOY_ZEROS, l, from[i], slot);
            assert_bug_fails(RP_TOY_CUT_SHORT, l, from[i], slot);
            assert_bug_fails(RP_TOY_CUT_SHORT, l, from[i], "logits");
        }
    assert_fails(DAMAGED("logits", RP_TOY_NAN_TAIL, .at = 5), "logits");
    assert_fails(DAMAGED("logits", RP_TOY_ZERO_TAIL, .channel = 20, .by_channel = 1), "logits");
}

static void another_slots_rows_are_an_error(void **state)
{
    (void)state;
    ASSERT_ERROR(DAMAGED("h1", RP_TOY_OTHER_SLOT, .by = -1), "h1", "it holds the rows of h0",
                 "h2, which is computed from it, is right");
    ASSERT_ERROR(DAMAGED("h1", RP_TOY_OTHER_SLOT, .by = 2), "h1", "it holds the rows of h3");
    ASSERT_ERROR(DAMAGED("h0", RP_TOY_OTHER_SLOT, .by = -1), "h0", "it holds the rows of emb");
    ASSERT_ERROR(DAMAGED("emb", RP_TOY_OTHER_SLOT, .by = 1), "emb", "it holds the rows of h0");
    ASSERT_ERROR(DAMAGED("h3", RP_TOY_OTHER_SLOT, .by = 1), "h3", "it holds the rows of post_norm");
    ASSERT_ERROR(DAMAGED("post_norm", RP_TOY_OTHER_SLOT, .by = -1), "post_norm",
                 "it holds the rows of h3");
}

/* Each layer's input was dumped as its output; post_norm and logits are right. */
static void every_layers_input_in_the_place_of_its_output_is_an_error(void **state)
{
    (void)state;
    for (int l = 0; l < LAYERS; l++) {
        char slot[RP_SLOT_NAME_SIZE], other[RP_SLOT_NAME_SIZE];
        struct trial *t = open_trial(NULL);
        for (size_t s = LAYERS; s > 0; s--)
            memcpy(t->engine.rows[s], t->engine.rows[s - 1], sizeof t->engine.rows[s]);
        rp_slot_name(l ? RP_PART_OUTPUT : RP_PART_EMB, l - 1, other);
        ASSERT_ERROR(t, rp_slot_name(RP_PART_OUTPUT, l, slot), other, "post_norm, which is");
    }
}

static void an_engine_that_leaves_out_or_exchanges_layers_fails(void **state)
{
    (void)state;
    static const enum rp_toy_bug bugs[] = {RP_TOY_LAYER_SKIPPED, RP_TOY_LAYERS_SWAPPED,
                                           RP_TOY_LAYER_TWICE, RP_TOY_OTHER_WEIGHTS};
    for (size_t l = 0; l < LAYERS; l++)
        for (size_t i = 0; i < sizeof bugs / sizeof *bugs; i++) {
            char slot[RP_SLOT_NAME_SIZE];
            rp_slot_name(RP_PART_OUTPUT,
                         bugs[i] == RP_TOY_LAYERS_SWAPPED && l == LAYERS - 1 ? 0 : (int)l, slot);
            assert_bug_fails(bugs[i], l, 0, slot);
        }
    assert_bug_fails(RP_TOY_LATE, 0, 0, "h0");
    assert_bug_fails(RP_TOY_LATE, 0, 0, "h2");
    assert_bug_fails(RP_TOY_NO_FINAL_NORM, 0, 0, "post_norm");
}

/* What a tester may do to a dump afterwards is no damage unless it is one of the kinds. */
static void an_error_in_one_slot_alone_fails(void **state)
{
    (void)state;
    static const enum rp_toy_damage_kind kinds[] = {RP_TOY_SCALED, RP_TOY_NEGATED, RP_TOY_NOISY,
                                                    RP_TOY_ONE_VALUE, RP_TOY_RANDOM};
    static const char *const slots[] = {"emb", "h1", "h3", "post_norm", "logits"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (size_t s = 0; s < 5; s++)
            if (strcmp(slots[s], "logits") != 0 || kinds[i] == RP_TOY_NEGATED)
                assert_fails(DAMAGED(slots[s], kinds[i]), slots[s]);
}

static void with_quantization_damage_is_known_as_far_as_rows_are(void **state)
{
    (void)state;
    uint32_t random = 3;
    struct trial *t = DAMAGED("h1", RP_TOY_SHIFTED, .by = 1);
    rp_toy_add_noise(&t->engine, 0.01, &random);
    ASSERT_ERROR(t, "h1", "off by 1");
    t = DAMAGED("h1", RP_TOY_OTHER_SLOT, .by = -1);
    rp_toy_add_noise(&t->engine, 0.01, &random);
    ASSERT_ERROR(t, "h1", "it holds the rows of h0");
    t = DAMAGED("h1", RP_TOY_ZERO_TAIL, .at = 5);
    rp_toy_add_noise(&t->engine, 0.01, &random);
    ASSERT_ERROR(t, "h1", "not written");
    t = DAMAGED(NULL, RP_TOY_SHIFTED, .by = 1);
    rp_toy_add_noise(&t->engine, 0.01, &random);
    ASSERT_ERROR(t, "h1", "off by 1", "every slot");
    t = DAMAGED(NULL, RP_TOY_SHIFTED, .by = 1);
    rp_toy_add_noise(&t->engine, 0.03, &random);
    assert_fails(t, "h1");
    t = DAMAGED(NULL, RP_TOY_TRANSPOSED);
    rp_toy_add_noise(&t->engine, 0.01, &random);
    ASSERT_ERROR(t, "h1", "transposed");
}

/* Two tokens exchanged late in a prompt change little else: not told from rows exchanged. */
static void two_rows_exchanged_late_in_every_slot_fail(void **state)
{
    (void)state;
    assert_fails(DAMAGED(NULL, RP_TOY_TWO_EXCHANGED, .by = 6), "h1");
    assert_fails(DAMAGED(NULL, RP_TOY_TWO_EXCHANGED, .by = 6), "emb");
}

static void with_some_positions_the_rows_of_the_others_are_known(void **state)
{
    (void)state;
    static const int64_t some[] = {2, 6};
    struct trial *t = DAMAGED("h1", RP_TOY_SHIFTED, .by = 1);
    t->options.positions = some;
    t->options.n_positions = 2;
    ASSERT_ERROR(t, "h1", "off by 1: position 2 holds the row of position 1");
}

static void of_two_dumps_it_is_not_said_which_one_is_damaged(void **state)
{
    (void)state;
    struct trial *t = DAMAGED("h1", RP_TOY_SWAPPED_4);
    t->options.reference_is_dump = 1;
    ASSERT_ERROR(t, "h1", "one of the two dumps is damaged: its bytes are swapped");
}

static void in_few_dimensions_nothing_is_recognised(void **state)
{
    (void)state;
    struct trial *t = open_trial(NULL);
    rp_toy_make(&t->model, 7, LAYERS, RP_DAMAGE_MIN_VALUES - 1, 1.5);
    rp_toy_run(&t->model, tokens, N, NULL, &t->reference);
    rp_toy_run(&t->model, tokens, N, NULL, &t->engine);
    rp_toy_damage(&t->engine, 2, &(struct rp_toy_damage){.kind = RP_TOY_REVERSED});
    assert_fails(t, "h1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(swapped_bytes_are_an_error),
        cmocka_unit_test(swapped_bytes_of_a_wrong_row_are_a_failure),
        cmocka_unit_test(another_float_format_is_an_error),
        cmocka_unit_test(another_float_format_in_a_file_of_its_own_size_is_named),
        cmocka_unit_test(values_rounded_to_F16_pass_and_garbage_fails),
        cmocka_unit_test(transposed_rows_are_an_error),
        cmocka_unit_test(an_engine_that_transposes_its_rows_fails),
        cmocka_unit_test(rows_at_other_positions_are_an_error),
        cmocka_unit_test(rows_at_the_same_other_positions_in_every_slot_are_an_error),
        cmocka_unit_test(the_last_row_everywhere_in_every_slot_is_an_error),
        cmocka_unit_test(an_engine_that_drops_adds_or_reorders_tokens_fails),
        cmocka_unit_test(an_engine_that_is_stuck_or_fed_one_token_fails),
        cmocka_unit_test(an_engine_that_mixes_its_rows_up_fails),
        cmocka_unit_test(what_was_never_written_is_an_error),
        cmocka_unit_test(an_engine_that_computes_zeros_or_NaN_or_cuts_its_prompt_fails),
        cmocka_unit_test(another_slots_rows_are_an_error),
        cmocka_unit_test(every_layers_input_in_the_place_of_its_output_is_an_error),
        cmocka_unit_test(an_engine_that_leaves_out_or_exchanges_layers_fails),
        cmocka_unit_test(an_error_in_one_slot_alone_fails),
        cmocka_unit_test(with_quantization_damage_is_known_as_far_as_rows_are),
        cmocka_unit_test(two_rows_exchanged_late_in_every_slot_fail),
        cmocka_unit_test(with_some_positions_the_rows_of_the_others_are_known),
        cmocka_unit_test(of_two_dumps_it_is_not_said_which_one_is_damaged),
        cmocka_unit_test(in_few_dimensions_nothing_is_recognised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
