/* Replay as tests of a pair: bugs in two layers fail the tests of those two and no other, where the
 * comparison with HF fails everything behind the first. */
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
#include "cases/scratch_pair_test_util.h"
#include "report/replay.h"
#include "report/results.h"
#include "run/judge_replay.h"

/* An entry that replays has operations dumped, unless it says otherwise. */
#define ENGINE(bugs)                                                                 \
    "[\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--tokens\", " \
    "\"{tokens_file}\", \"--dump\", \"{dump}\", \"--slots\", \"{slots}\"" bugs "]"
#define LAYERS_ALONE ", \"slots\": \"layers\""
#define BUG(name, layer) ", \"--bug\", \"" name "\", \"--layer\", \"" layer "\""
#define REPLAY ", \"replay\": true"

static void assert_contains(const char *text, const char *part)
{
    assert_non_null(text);
    if (!text || !strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text ? text : "");
}

static struct rp_verdicts judge(const struct rp_scratch_spec *spec)
{
    struct rp_scratch_pair scratch;
    struct rp_verdicts verdicts;
    rp_scratch_pair_open(&scratch, spec);
    rp_scratch_pair_judge(&scratch, &verdicts);
    rp_scratch_pair_close(&scratch);
    return verdicts;
}

static const struct rp_replay_result *replay_of(const struct rp_verdicts *verdicts,
                                                const char *slot)
{
    for (size_t i = 0; i < verdicts->n_replay; i++)
        if (strcmp(verdicts->replay[i].slot, slot) == 0)
            return &verdicts->replay[i];
    fail_msg("%s was not replayed", slot);
    abort(); /* fail_msg does not return */
}

/* Are those of failing, "h1 h3", the slots whose replay fails, and do all others pass? */
static void assert_failing(const struct rp_verdicts *verdicts, const char *failing)
{
    char found[256] = "";
    for (size_t i = 0; i < verdicts->n_replay; i++) {
        const struct rp_replay_result *r = &verdicts->replay[i];
        const size_t used = strlen(found);
        if (r->judgement.verdict == RP_FAIL)
            snprintf(found + used, sizeof found - used, "%s%s", used ? " " : "", r->slot);
        else if (r->judgement.verdict != RP_PASS)
            fail_msg("%s: %s: %s", r->slot, rp_verdict_name(r->judgement.verdict),
                     r->judgement.message);
    }
    assert_string_equal(found, failing);
}

static void a_clean_engine_passes_at_every_step(void **state)
{
    (void)state;
    static const struct {
        const char *architecture, *weights;
        int n_layers;
    } models[] = {{"qwen3", "bf16", 4}, {"llama", "q4_0", 4}, {"qwen35", "q8_0", 8}};
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        struct rp_verdicts v =
            judge(&(struct rp_scratch_spec){.architecture = models[i].architecture,
                                            .weights = models[i].weights,
                                            .n_layers = models[i].n_layers,
                                            .argv = ENGINE(""),
                                            .entry_extra = REPLAY});
        assert_int_equal(v.n_replay, models[i].n_layers + 3);
        assert_failing(&v, "");
        rp_verdicts_free(&v);
    }
}

static void an_entry_without_replay_has_none(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){.argv = ENGINE("")});
    assert_int_equal(v.verdict, RP_PASS);
    assert_int_equal(v.n_replay, 0);
    rp_verdicts_free(&v);
}

static void with_bugs_in_two_layers_exactly_those_two_fail(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .argv = ENGINE(BUG("attention-factor", "1") BUG("ffn-half", "3")), .entry_extra = REPLAY});
    assert_int_equal(v.verdict, RP_FAIL);
    assert_failing(&v, "h1 h3");
    /* against HF, everything behind the first bug is wrong */
    assert_int_equal(rp_slot_of(&v, "h2")->verdict, RP_FAIL);
    const struct rp_replay_result *first = replay_of(&v, "h1"), *second = replay_of(&v, "h3");
    assert_string_equal(first->layer.first_failing->slot, "h1_attnout");
    assert_string_equal(second->layer.first_failing->slot, "h3_ffnout");
    /* what the second inherits stands beside what it adds */
    assert_true(first->inherited < 1e-5);
    assert_true(second->inherited > 0.01);
    assert_contains(second->judgement.message,
                    "h3_ffnout, the product with ffn_down: introduces 0.5 at position 0, limit ");
    assert_contains(second->judgement.message, "; inherits 0.");
    assert_true(strlen(first->explanations[first->layer.first_failing - first->layer.slots].text) >
                0);
    rp_verdicts_free(&v);
}

static void an_engine_with_another_files_weights_is_told_so(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .weights = "q4_0",
        .argv = "[\"{target:refparity-embedded-bugs}\", \"--model\", \"" RP_SOURCE_DIR
                "/fixtures/tiny/qwen3/qwen3-q8_0.gguf\", \"--tokens\", \"{tokens_file}\", "
                "\"--dump\", \"{dump}\", \"--slots\", \"{slots}\"]",
        .entry_extra = REPLAY});
    assert_failing(&v, "h0 h1 h2 h3");
    const struct rp_replay_result *first = replay_of(&v, "h0");
    assert_string_equal(first->layer.first_failing->slot, "h0_q");
    assert_contains(first->explanations[first->layer.first_failing - first->layer.slots].text,
                    "7 of 7 matrix products fail, at every position, and none of the 11 other "
                    "operations: the dump was made with another file, \"qwen3-q8_0.gguf ");
    rp_verdicts_free(&v);
}

/* The first slot that shows the bug, and what lies between. */
static void dumps_of_the_layers_are_replayed_too(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(
        &(struct rp_scratch_spec){.argv = ENGINE(BUG("attention-factor", "1") BUG("ffn-half", "3")),
                                  .entry_extra = REPLAY LAYERS_ALONE});
    assert_failing(&v, "h1 h3");
    assert_string_equal(replay_of(&v, "h1")->layer.first_failing->slot, "h1_postattn");
    assert_int_equal(replay_of(&v, "h1")->layer.n_slots, 5);
    assert_contains(replay_of(&v, "h3")->judgement.message,
                    "h3_ffnout, the product with ffn_gate to the product with ffn_down: ");
    rp_verdicts_free(&v);
}

static void a_small_bug_fails_where_HF_passes(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .argv = ENGINE(BUG("ffn-half", "2") ", \"--magnitude\", \"0.9999\""),
        .entry_extra = REPLAY});
    assert_int_equal(v.pair.verdict, RP_PASS);
    assert_int_equal(v.verdict, RP_FAIL);
    assert_failing(&v, "h2");
    rp_verdicts_free(&v);
}

/* Its rows one behind: h2_in is right, so the engine's h1 was. */
static void a_damaged_dump_is_no_error_that_a_layer_introduces(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .argv =
            "[\"sh\", \"-c\", \"\\\"$@\\\" && cp $0/h1.npy $0/x && truncate -s -256 $0/h1.npy && "
            "tail -c 256 $0/x >$0/y && head -c -256 $0/x | tail -c +385 >$0/z && head -c 128 $0/x "
            ">$0/h1.npy && cat $0/y $0/z >>$0/h1.npy && head -c 384 $0/x | tail -c 256 "
            ">>$0/h1.npy; rm $0/x $0/y $0/z\", \"{dump}\", \"{target:refparity-embedded}\", "
            "\"--model\", \"{gguf}\", \"--tokens\", \"{tokens_file}\", \"--dump\", "
            "\"{dump}\"]",
        .entry_extra = REPLAY});
    assert_int_equal(replay_of(&v, "h0")->judgement.verdict, RP_PASS);
    assert_int_equal(replay_of(&v, "h1")->judgement.verdict, RP_ERROR);
    assert_contains(replay_of(&v, "h1")->judgement.message, "h1: the dump is damaged: ");
    assert_int_equal(replay_of(&v, "h2")->judgement.verdict, RP_SKIP);
    assert_contains(replay_of(&v, "h2")->judgement.message, "h2_in starts from h1: ");
    assert_int_equal(replay_of(&v, "h3")->judgement.verdict, RP_PASS);
    rp_verdicts_free(&v);
}

static void a_dump_without_a_fixture_is_replayed_all_the_same(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .argv = "[\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--ids\", "
                "\"457,220,398,291,74\", \"--dump\", \"{dump}\", \"--mode\", \"{mode}\"" BUG(
                    "ffn-half", "2") "]",
        .entry_extra = REPLAY ", \"modes\": [\"per-token\", \"batched\"]",
        .mode = "batched",
        .stores = ""});
    assert_int_equal(v.pair.verdict, RP_SKIP);
    assert_int_equal(v.verdict, RP_FAIL);
    assert_failing(&v, "h2");
    assert_true(isnan(replay_of(&v, "h2")->inherited));
    assert_contains(replay_of(&v, "h2")->judgement.message, "what it inherits is not known");
    rp_verdicts_free(&v);
}

static void an_engine_that_could_not_be_run_is_not_replayed(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .argv = "[\"/nowhere/engine\", \"{gguf}\", \"{tokens_file}\", \"{dump}\"]",
        .entry_extra = REPLAY});
    assert_int_equal(v.verdict, RP_SKIP);
    assert_int_equal(replay_of(&v, "h2")->judgement.verdict, RP_SKIP);
    assert_contains(replay_of(&v, "h2")->judgement.message, "/nowhere/engine");
    rp_verdicts_free(&v);
}

static void what_an_engine_rounds_without_declaring_it_is_an_error_of_its_own(void **state)
{
    (void)state;
    /* declared, and not done: the other way round */
    struct rp_verdicts v =
        judge(&(struct rp_scratch_spec){.argv = ENGINE(""),
                                        .weights = "q8_0",
                                        .entry_extra = REPLAY ", \"activations\": \"q8_0\""});
    assert_int_equal(v.pair.verdict, RP_PASS);
    assert_int_equal(v.verdict, RP_FAIL);
    rp_verdicts_free(&v);
}

static char *report_of(const struct rp_verdicts *verdicts)
{
    char *text;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    const struct rp_terminal terminal = rp_terminal_plain(out);
    rp_report_replay_text(&terminal, verdicts->replay, verdicts->n_replay);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void the_report_has_what_each_step_introduces_and_inherits(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .argv = ENGINE(BUG("attention-factor", "1") BUG("ffn-half", "3")), .entry_extra = REPLAY});
    char *text = report_of(&v);
    assert_contains(text, "introduced    limit inherited status\n");
    assert_contains(text, "\nh1_attnout ");
    assert_contains(text, " FAIL\n    introduces ");
    assert_contains(text, "\nh1_attnout: ");
    free(text);
    cJSON *array = cJSON_CreateArray();
    rp_report_replay_json(array, v.replay, v.n_replay);
    assert_int_equal(cJSON_GetArraySize(array), RP_TINY_LAYERS + 3);
    const cJSON *h3 = cJSON_GetArrayItem(array, 4);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(h3, "verdict")),
                        "FAIL");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(h3, "slots")), 18);
    assert_true(cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(h3, "inherited")));
    cJSON_Delete(array);
    rp_verdicts_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_clean_engine_passes_at_every_step),
        cmocka_unit_test(an_entry_without_replay_has_none),
        cmocka_unit_test(an_engine_with_another_files_weights_is_told_so),
        cmocka_unit_test(with_bugs_in_two_layers_exactly_those_two_fail),
        cmocka_unit_test(dumps_of_the_layers_are_replayed_too),
        cmocka_unit_test(a_small_bug_fails_where_HF_passes),
        cmocka_unit_test(a_damaged_dump_is_no_error_that_a_layer_introduces),
        cmocka_unit_test(a_dump_without_a_fixture_is_replayed_all_the_same),
        cmocka_unit_test(an_engine_that_could_not_be_run_is_not_replayed),
        cmocka_unit_test(what_an_engine_rounds_without_declaring_it_is_an_error_of_its_own),
        cmocka_unit_test(the_report_has_what_each_step_introduces_and_inherits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
