/* What a test stores comes back as it was, and nothing else is believed: a file of another run, one that
 * is cut or changed anywhere, another test's. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "base/sha256.h"
#include "run/stored.h"

/* A judge of which only the folder and the state are used. */
static struct rp_judge *open_judge(void)
{
    char folder[256];
    static const struct rp_context context = {.key = "key"};
    static const struct rp_pair pair = {.name = "tiny/p0"};
    struct rp_judge *judge = calloc(1, sizeof *judge);
    assert_non_null(judge);
    judge->context = &context;
    judge->pair = &pair;
    rp_test_make_folder(folder);
    snprintf(judge->paths.dir, sizeof judge->paths.dir, "%s", folder);
    snprintf(judge->paths.verdicts, sizeof judge->paths.verdicts, "%s/verdicts", folder);
    rp_sha256_hex("state", 5, judge->state);
    return judge;
}

static void close_judge(struct rp_judge *judge)
{
    assert_int_equal(rp_remove_tree(judge->paths.dir, NULL), RP_OK);
    free(judge);
}

static void file_of(const struct rp_judge *judge, const char *test, char path[RP_PATH_SIZE])
{
    char name[64];
    snprintf(name, sizeof name, "%s.json", test);
    assert_int_equal(rp_path_join(path, RP_PATH_SIZE, judge->paths.verdicts, name, NULL), RP_OK);
}

/* Fills text[size] to its last byte. */
static void fill(char *text, size_t size)
{
    for (size_t i = 0; i + 1 < size; i++)
        text[i] = (char)(' ' + i % 95);
    text[size - 1] = '\0';
}

static struct rp_position_metrics position_metrics(int64_t position)
{
    return (struct rp_position_metrics){.position = position,
                                        .metrics = {.l2_rel = (double)NAN,
                                                    .cosine = 1.0 / 3,
                                                    .norm_ref = (double)INFINITY,
                                                    .norm_engine = 5e-324,
                                                    .max_abs = 0.1,
                                                    .ref_finite = 1,
                                                    .engine_finite = 1}};
}

/* Every field differs from 0 and from its neighbours. Padding is zeroed. */
static void make_slot(const char *name, struct rp_slot_result *slot)
{
    memset(slot, 0, sizeof *slot);
    snprintf(slot->slot, sizeof slot->slot, "%s", name);
    slot->verdict = RP_ERROR;
    slot->required = 1;
    slot->dim = 2;
    slot->n_compared = 3;
    slot->n_missing = 4;
    slot->n_extra = 5;
    slot->n_failing = 6;
    slot->limit = 0.05;
    slot->worst = position_metrics(7);
    slot->first = position_metrics(-1);
    slot->worst_channel = 8;
    slot->n_top1_equal = 9;
    slot->top_k_overlap = (double)NAN;
    slot->kl_max = (double)INFINITY;
    slot->kl_sum = 0.7;
    slot->information_sum = 0.8;
    slot->n_wrong_size = 14;
    slot->size = 0.01;
    slot->size_excess = 44;
    slot->size_position = 15;
    slot->fixture_is_damaged = 1;
    fill(slot->unchecked, sizeof slot->unchecked);
    snprintf(slot->downstream_of, sizeof slot->downstream_of, "h0");
    fill(slot->message, sizeof slot->message);
}

static void the_result_of_a_slot_comes_back_to_the_last_bit(void **state)
{
    (void)state;
    struct rp_judge *judge = open_judge();
    struct rp_slot_result slots[3];
    make_slot("h1", &slots[0]);
    make_slot("h1_postattn", &slots[1]);
    make_slot("h1_ffnout", &slots[2]);
    const struct rp_slot_test test = {.compared = slots, .n_compared = 3, .seconds = 0.1};
    struct rp_slot_test back;
    assert_int_equal(rp_store_slot(judge, "h1", &test, NULL), RP_OK);
    assert_int_equal(rp_stored_slot(judge, "h1", &back, NULL), RP_OK);
    assert_int_equal(back.n_compared, 3);
    assert_true(back.seconds == 0.1);
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal(&back.compared[i], &slots[i], sizeof slots[i]);
    rp_slot_test_free(&back);
    close_judge(judge);
}

static void the_results_of_tokens_and_engine_come_back(void **state)
{
    (void)state;
    struct rp_judge *judge = open_judge();
    struct rp_tokens_result tokens, tokens_back;
    struct rp_judgement judgement, judgement_back;
    double seconds;
    memset(&tokens, 0, sizeof tokens);
    tokens.verdict = RP_FAIL;
    tokens.n_ref = 1;
    tokens.n_engine = 2;
    tokens.first_difference = -1;
    fill(tokens.message, sizeof tokens.message);
    memset(&judgement, 0, sizeof judgement);
    judgement.verdict = RP_SKIP;
    fill(judgement.message, sizeof judgement.message);
    judgement.message[5] = '\xe2'; /* as where a message was cut within a letter */
    assert_int_equal(rp_store_tokens(judge, &tokens, 1.5, NULL), RP_OK);
    assert_int_equal(rp_store_engine(judge, &judgement, 0, NULL), RP_OK);
    assert_int_equal(rp_stored_tokens(judge, &tokens_back, &seconds, NULL), RP_OK);
    assert_memory_equal(&tokens_back, &tokens, sizeof tokens);
    assert_true(seconds == 1.5);
    assert_int_equal(rp_stored_engine(judge, &judgement_back, &seconds, NULL), RP_OK);
    assert_memory_equal(&judgement_back, &judgement, sizeof judgement);
    assert_true(seconds == 0);
    close_judge(judge);
}

/* What a slot has for each of its positions. */
struct per_position {
    int64_t positions[3];
    double introduced[3], limit[3], bound[3];
};

static void make_replay_slot(const char *name, struct rp_replay_slot *slot,
                             struct per_position *values)
{
    memset(slot, 0, sizeof *slot);
    snprintf(slot->slot, sizeof slot->slot, "%s", name);
    slot->part = RP_PART_FFNOUT;
    slot->layer = 1;
    fill(slot->operation, sizeof slot->operation);
    fill(slot->from, sizeof slot->from);
    slot->is_carried = true;
    snprintf(slot->between, sizeof slot->between, "h1_act");
    slot->verdict = RP_FAIL;
    slot->n_positions = 3;
    slot->positions = values->positions;
    slot->introduced = values->introduced;
    slot->limit = values->limit;
    slot->bound = values->bound;
    slot->n_failing = 2;
    slot->n_over = 4;
    slot->n_expected = 0.1;
    slot->worst = 2;
    slot->first = 1;
    slot->worst_channel = 6;
    fill(slot->message, sizeof slot->message);
}

/* A layer with three slots, the third of which fails first. */
static void make_replay(struct rp_replay_result *result, struct per_position *values)
{
    memset(result, 0, sizeof *result);
    snprintf(result->slot, sizeof result->slot, "h1");
    result->judgement.verdict = RP_FAIL;
    fill(result->judgement.message, sizeof result->judgement.message);
    result->layer.layer = 1;
    result->layer.verdict = RP_FAIL;
    result->layer.n_slots = 3;
    memset(&result->layer.slots[0], 0, sizeof result->layer.slots[0]);
    result->layer.slots[0].verdict = RP_SKIP; /* nothing was compared */
    make_replay_slot("h1_preffn", &result->layer.slots[1], values);
    make_replay_slot("h1_ffnout", &result->layer.slots[2], values);
    result->layer.first_failing = &result->layer.slots[2];
    result->inherited = (double)NAN;
    fill(result->explanations[1].name, sizeof result->explanations[1].name);
    fill(result->explanations[1].text, sizeof result->explanations[1].text);
    result->explanations[1].share = 0.99;
    result->explanations[1].parameter = (double)NAN;
    result->explanations[1].n_tried = 7;
    fill(result->explanations[1].or_else, sizeof result->explanations[1].or_else);
    result->seconds = 0.25;
}

/* Compares bit by bit what is no pointer. */
static void assert_same_replay(const struct rp_replay_result *a, const struct rp_replay_result *b)
{
    struct rp_replay_result x = *a, y = *b;
    for (size_t i = 0; i < a->layer.n_slots; i++) {
        struct rp_replay_slot *one = &x.layer.slots[i], *other = &y.layer.slots[i];
        assert_int_equal(one->n_positions, other->n_positions);
        if (one->n_positions > 0) {
            const size_t n = one->n_positions;
            assert_memory_equal(one->positions, other->positions, n * sizeof *one->positions);
            assert_memory_equal(one->introduced, other->introduced, n * sizeof *one->introduced);
            assert_memory_equal(one->limit, other->limit, n * sizeof *one->limit);
            assert_memory_equal(one->bound, other->bound, n * sizeof *one->bound);
        }
        one->positions = other->positions = NULL;
        one->introduced = other->introduced = NULL;
        one->limit = other->limit = one->bound = other->bound = NULL;
    }
    x.layer.first_failing = y.layer.first_failing = NULL;
    assert_memory_equal(&x, &y, sizeof x);
    assert_int_equal(a->layer.first_failing ? a->layer.first_failing - a->layer.slots : -1,
                     b->layer.first_failing ? b->layer.first_failing - b->layer.slots : -1);
}

static void the_result_of_a_replay_comes_back_to_the_last_bit(void **state)
{
    (void)state;
    struct rp_judge *judge = open_judge();
    struct per_position values = {.positions = {0, 5, 9},
                                  .introduced = {1e-8, (double)NAN, 1.0 / 3},
                                  .limit = {1e-7, 5e-324, 0.1},
                                  .bound = {1e-8, 0.3, (double)INFINITY}};
    struct rp_replay_result result, back;
    make_replay(&result, &values);
    for (int failing = 0; failing < 2; failing++) {
        assert_int_equal(rp_store_replay(judge, &result, NULL), RP_OK);
        assert_int_equal(rp_stored_replay(judge, "h1", &back, NULL), RP_OK);
        assert_same_replay(&back, &result);
        rp_replay_result_free(&back);
        result.layer.first_failing = NULL;
    }
    close_judge(judge);
}

static void indices_beyond_the_positions_are_not_believed(void **state)
{
    (void)state;
    struct rp_judge *judge = open_judge();
    struct per_position values = {.positions = {0, 5, 9}};
    struct rp_replay_result result, back;
    for (int i = 0; i < 3; i++) {
        make_replay(&result, &values);
        struct rp_replay_slot *slot = &result.layer.slots[2];
        if (i == 0)
            slot->worst = 3;
        else if (i == 1)
            slot->first = 4;
        else
            slot->first = 3; /* of a slot that fails */
        assert_int_equal(rp_store_replay(judge, &result, NULL), RP_OK);
        assert_int_equal(rp_stored_replay(judge, "h1", &back, NULL), RP_ERR_FORMAT);
    }
    close_judge(judge);
}

static void what_was_not_stored_is_missing(void **state)
{
    (void)state;
    struct rp_judge *judge = open_judge();
    struct rp_slot_test slot;
    struct rp_replay_result replay;
    struct rp_tokens_result tokens;
    double seconds;
    assert_int_equal(rp_stored_slot(judge, "h1", &slot, NULL), RP_ERR_MISSING);
    assert_int_equal(rp_stored_replay(judge, "h1", &replay, NULL), RP_ERR_MISSING);
    assert_int_equal(rp_stored_tokens(judge, &tokens, &seconds, NULL), RP_ERR_MISSING);
    close_judge(judge);
}

static void store_h1(struct rp_judge *judge)
{
    struct rp_slot_result slot;
    make_slot("h1", &slot);
    assert_int_equal(rp_store_slot(judge, "h1",
                                   &(struct rp_slot_test){.compared = &slot, .n_compared = 1},
                                   NULL),
                     RP_OK);
}

static void a_verdict_of_another_state_is_stale(void **state)
{
    (void)state;
    struct rp_judge *judge = open_judge();
    struct rp_slot_test back;
    store_h1(judge);
    judge->state[0] = judge->state[0] == 'a' ? 'b' : 'a';
    assert_int_equal(rp_stored_slot(judge, "h1", &back, NULL), RP_ERR_MISMATCH);
    judge->state[0] = '\0'; /* of a pair that could not be opened */
    assert_int_equal(rp_stored_slot(judge, "h1", &back, NULL), RP_ERR_MISMATCH);
    assert_int_not_equal(rp_store_slot(judge, "h1", &(struct rp_slot_test){.n_compared = 0}, NULL),
                         RP_OK);
    close_judge(judge);
}

static void a_file_that_is_cut_or_changed_anywhere_is_not_believed(void **state)
{
    (void)state;
    struct rp_judge *judge = open_judge();
    char path[RP_PATH_SIZE], *text;
    size_t length;
    struct rp_slot_test back;
    store_h1(judge);
    file_of(judge, "h1", path);
    assert_int_equal(rp_file_read(path, 1 << 20, &text, &length, NULL), RP_OK);
    for (size_t i = 0; i < length; i++) {
        const char was = text[i];
        assert_int_equal(rp_file_write_atomic(path, text, i, NULL), RP_OK);
        assert_int_equal(rp_stored_slot(judge, "h1", &back, NULL), RP_ERR_FORMAT);
        text[i] = was == '1' ? '2' : '1';
        assert_int_equal(rp_file_write_atomic(path, text, length, NULL), RP_OK);
        assert_int_equal(rp_stored_slot(judge, "h1", &back, NULL), RP_ERR_FORMAT);
        text[i] = was;
    }
    assert_int_equal(rp_file_write_atomic(path, text, length, NULL), RP_OK);
    assert_int_equal(rp_stored_slot(judge, "h1", &back, NULL), RP_OK);
    rp_slot_test_free(&back);
    free(text);
    close_judge(judge);
}

/* Sealed as the tests' own are: another version's, say. */
static void write_sealed(const struct rp_judge *judge, const char *test, const char *rest)
{
    char path[RP_PATH_SIZE], text[8192], what[64];
    file_of(judge, test, path);
    snprintf(what, sizeof what, "verdict of tiny/p0/%s", test);
    const int n = snprintf(text, sizeof text, "{%s", rest);
    assert_true(n > 0 && (size_t)n < sizeof text);
    assert_int_equal(rp_make_dirs(judge->paths.verdicts, NULL), RP_OK);
    assert_int_equal(rp_seal_write(judge->context->key, what, path, strdup(text), NULL), RP_OK);
}

static void a_foreign_file_is_not_believed(void **state)
{
    (void)state;
    struct rp_judge *judge = open_judge();
    struct rp_tokens_result back;
    double seconds;
    static const char ok[] =
        "{\"verdict\":0,\"n_ref\":1,\"n_engine\":1,\"first_difference\":-1,\"message\":\"\"}";
    const struct {
        const char *version, *test, *seconds, *verdict, *more;
        enum rp_status status;
    } files[] = {
        {"2", "tokens", "0.5", ok, "", RP_OK},
        {"3", "tokens", "0.5", ok, "", RP_ERR_FORMAT},
        {"2", "engine", "0.5", ok, "", RP_ERR_FORMAT},
        {"2", "tokens", "-1", ok, "", RP_ERR_FORMAT},
        {"2", "tokens", "\"nan\"", ok, "", RP_ERR_FORMAT},
        {"2", "tokens", "0.5", "{\"verdict\":0}", "", RP_ERR_FORMAT},
        {"2", "tokens", "0.5", "[]", "", RP_ERR_FORMAT},
        {"2", "tokens", "0.5", ok, ",\"more\":1", RP_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char rest[4096];
        snprintf(rest, sizeof rest,
                 "\"of\":{\"version\":%s,\"test\":\"%s\",\"state\":\"%s\",\"seconds\":%s},"
                 "\"verdict\":%s%s}",
                 files[i].version, files[i].test, judge->state, files[i].seconds, files[i].verdict,
                 files[i].more);
        write_sealed(judge, "tokens", rest);
        assert_int_equal(rp_stored_tokens(judge, &back, &seconds, NULL), files[i].status);
    }
    write_sealed(judge, "tokens", "\"a\":1}");
    assert_int_equal(rp_stored_tokens(judge, &back, &seconds, NULL), RP_ERR_FORMAT);
    write_sealed(judge, "tokens", "not JSON");
    assert_int_equal(rp_stored_tokens(judge, &back, &seconds, NULL), RP_ERR_FORMAT);
    close_judge(judge);
}

/* Who forges has not the key; and what is sealed for one pair or test is no other's. */
static void a_file_with_another_seal_is_not_believed(void **state)
{
    (void)state;
    struct rp_judge *judge = open_judge();
    struct rp_context other = {.key = "another key"};
    struct rp_pair pair = {.name = "tiny/p1"};
    const struct rp_context *const context = judge->context;
    const struct rp_pair *const own = judge->pair;
    struct rp_slot_test back;
    struct rp_error err;
    judge->context = &other;
    store_h1(judge);
    judge->context = context;
    assert_int_equal(rp_stored_slot(judge, "h1", &back, &err), RP_ERR_FORMAT);
    assert_non_null(strstr(err.message, "not written by the test h1"));
    judge->pair = &pair;
    store_h1(judge);
    judge->pair = own;
    assert_int_equal(rp_stored_slot(judge, "h1", &back, NULL), RP_ERR_FORMAT);
    store_h1(judge);
    assert_int_equal(rp_stored_slot(judge, "h1", &back, NULL), RP_OK);
    rp_slot_test_free(&back);
    close_judge(judge);
}

static void a_verdict_of_another_slot_is_not_believed(void **state)
{
    (void)state;
    struct rp_judge *judge = open_judge();
    char from[RP_PATH_SIZE], to[RP_PATH_SIZE];
    struct rp_slot_test back;
    store_h1(judge);
    file_of(judge, "h1", from);
    file_of(judge, "h2", to);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(rp_stored_slot(judge, "h2", &back, NULL), RP_ERR_FORMAT);
    /* nor one without a slot, where there is something to compare */
    assert_int_equal(rp_store_slot(judge, "h1", &(struct rp_slot_test){.n_compared = 0}, NULL),
                     RP_OK);
    assert_int_equal(rp_stored_slot(judge, "h1", &back, NULL), RP_ERR_FORMAT);
    judge->prerequisites.verdict = RP_SKIP;
    assert_int_equal(rp_stored_slot(judge, "h1", &back, NULL), RP_OK);
    assert_int_equal(back.n_compared, 0);
    rp_slot_test_free(&back);
    close_judge(judge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_result_of_a_slot_comes_back_to_the_last_bit),
        cmocka_unit_test(the_results_of_tokens_and_engine_come_back),
        cmocka_unit_test(the_result_of_a_replay_comes_back_to_the_last_bit),
        cmocka_unit_test(indices_beyond_the_positions_are_not_believed),
        cmocka_unit_test(what_was_not_stored_is_missing),
        cmocka_unit_test(a_verdict_of_another_state_is_stale),
        cmocka_unit_test(a_file_that_is_cut_or_changed_anywhere_is_not_believed),
        cmocka_unit_test(a_foreign_file_is_not_believed),
        cmocka_unit_test(a_file_with_another_seal_is_not_believed),
        cmocka_unit_test(a_verdict_of_another_slot_is_not_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
