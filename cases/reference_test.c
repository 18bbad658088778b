/* Another engine in HF's place: it is run once and kept, its tokens decide, a mistake of the judged engine is
 * found against it, and a reference that is missing, damaged or of another file is no pass. The reference
 * engine is the embedded one under another name, fed with the token ids of a file of its own. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "cases/scratch_pair_test_util.h"
#include "report/result_file.h"
#include "report/results.h"
#include "run/fixture.h"
#include "run/reference_record.h"
#include "run/run.h"

#define TINY RP_SOURCE_DIR "/fixtures/tiny/qwen3/qwen3-"
#define HELLO "\"Hello\""

/* In place of the engine's closing brackets: one more engine, which takes its ids from the folder. */
#define OTHER(ids, more)                                                                        \
    "}, \"other\": {\"argv\": [\"sh\", \"-c\", \"printf '" ids "' > ids && exec \\\"$@\\\"\", " \
    "\"-\", \"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--tokens\", "      \
    "\"ids\", "                                                                                 \
    "\"--dump\", \"{dump}\"" more "], \"layout\": \"npy\""
#define FOUR "1\\\\n5\\\\n9\\\\n300\\\\n"
#define BY_OTHER(gguf) ", \"reference\": {\"engine\": \"other\", \"gguf\": \"" gguf "\"}"

static const struct rp_scratch_spec healthy = {
    .engine_extra = OTHER(FOUR, ""), .entry_extra = BY_OTHER(TINY "bf16.gguf"), .prompt = HELLO};

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

static void record(struct rp_scratch_pair *scratch, bool is_new)
{
    struct rp_recorded_reference recorded;
    struct rp_error err;
    if (rp_reference_record(&scratch->context, &scratch->pair, false, &recorded, &err))
        fail_msg("%s", err.message);
    assert_int_equal(recorded.is_new, is_new);
    assert_true(rp_path_exists(recorded.path));
    assert_contains(recorded.path, "tiny--qwen3/main/other-");
}

/* Judged by the spec, after its reference is recorded; v is freed by the caller. */
static void judge(const struct rp_scratch_spec *spec, struct rp_verdicts *v)
{
    struct rp_scratch_pair scratch;
    rp_scratch_pair_open(&scratch, spec);
    record(&scratch, true);
    record(&scratch, false);
    rp_scratch_pair_judge(&scratch, v);
    rp_scratch_pair_close(&scratch);
}

static void a_right_engine_passes_and_the_references_tokens_are_its_own(void **state)
{
    (void)state;
    static const char *const references[] = {BY_OTHER(TINY "bf16.gguf"),
                                             BY_OTHER(TINY "q8_0.gguf")};
    for (size_t i = 0; i < 2; i++) {
        struct rp_scratch_spec spec = healthy;
        struct rp_verdicts v;
        spec.entry_extra = references[i];
        judge(&spec, &v);
        assert_int_equal(v.verdict, RP_PASS);
        assert_int_equal(v.pair.tokens.verdict, RP_PASS);
        assert_int_equal(v.pair.tokens.n_ref, 4);
        assert_int_equal(rp_slot_of(&v, "h3")->n_compared, 4);
        assert_true((rp_slot_of(&v, "h3")->worst.metrics.l2_rel == 0) == (i == 0));
        rp_verdicts_free(&v);
    }
}

#define BUG(layer)                                                                              \
    "[\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--tokens\", "            \
    "\"{tokens_file}\", \"--dump\", \"{dump}\", \"--bug\", \"attention-factor\", \"--layer\", " \
    "\"" layer "\"]"

static void a_bug_of_the_judged_engine_is_found_at_its_layer(void **state)
{
    (void)state;
    struct rp_scratch_spec spec = healthy;
    struct rp_verdicts v;
    spec.argv = BUG("2");
    judge(&spec, &v);
    assert_int_equal(v.verdict, RP_FAIL);
    assert_int_equal(rp_slot_of(&v, "h1")->verdict, RP_PASS);
    assert_int_equal(rp_slot_of(&v, "h2")->verdict, RP_FAIL);
    assert_string_equal(v.divergence.slot, "h2");
    rp_verdicts_free(&v);
}

/* The judged engine tokenizes by itself, and otherwise than the reference. */
static void other_tokens_than_the_references_fail(void **state)
{
    (void)state;
    struct rp_verdicts v;
    struct rp_scratch_spec spec = healthy;
    spec.argv =
        "[\"sh\", \"-c\", \"printf '1\\\\n5\\\\n8\\\\n300\\\\n' > mine && exec \\\"$@\\\"\", "
        "\"-\", \"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", "
        "\"mine\", \"--dump\", \"{dump}\"]";
    judge(&spec, &v);
    assert_int_equal(v.verdict, RP_FAIL);
    assert_int_equal(v.pair.tokens.verdict, RP_FAIL);
    assert_int_equal(v.pair.tokens.first_difference, 2);
    rp_verdicts_free(&v);
}

static void a_missing_reference_is_a_skip_that_says_how_to_record_it(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    rp_scratch_pair_open(&scratch, &healthy);
    for (int require = 0; require < 2; require++) {
        scratch.context.require = require;
        rp_scratch_pair_judge(&scratch, &v);
        assert_int_equal(v.verdict, require ? RP_ERROR : RP_SKIP);
        assert_contains(v.engine.message, "no reference tiny--qwen3/main/other-");
        assert_contains(v.engine.message, "record it with `refparity record /");
        assert_contains(v.engine.message, "config.json tiny` (needs engine other and ");
        rp_verdicts_free(&v);
    }
    rp_scratch_pair_close(&scratch);
}

static void what_cannot_be_recorded_says_why(void **state)
{
    (void)state;
    static const struct {
        const char *engine, *entry, *message;
        enum rp_status status;
    } wrong[] = {
        {OTHER(FOUR, ""), BY_OTHER("nothing.gguf"), "there is no nothing.gguf", RP_ERR_MISSING},
        {OTHER(FOUR, ", \"--bug\", \"no-such-bug\""), BY_OTHER(TINY "bf16.gguf"),
         "engine other exited with ", RP_ERR_FORMAT},
        {OTHER(FOUR, ", \"--positions\", \"0,1\""), BY_OTHER(TINY "bf16.gguf"), "emb has 2 of 4",
         RP_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct rp_scratch_pair scratch;
        struct rp_recorded_reference recorded;
        struct rp_error err;
        char path[RP_PATH_SIZE];
        struct rp_scratch_spec spec = healthy;
        spec.engine_extra = wrong[i].engine;
        spec.entry_extra = wrong[i].entry;
        rp_scratch_pair_open(&scratch, &spec);
        assert_int_equal(
            rp_reference_record(&scratch.context, &scratch.pair, false, &recorded, &err),
            wrong[i].status);
        assert_contains(err.message, wrong[i].message);
        assert_int_equal(rp_fixture_find(&scratch.context, &scratch.pair, path, NULL),
                         RP_ERR_MISSING);
        rp_scratch_pair_close(&scratch);
    }
}

/* The verdict after something has happened to a recorded reference. */
static void assert_error(struct rp_scratch_pair *scratch, const char *message)
{
    struct rp_verdicts v;
    rp_scratch_pair_judge(scratch, &v);
    assert_int_equal(v.verdict, RP_ERROR);
    size_t i = 0;
    while (i < v.pair.n_slots && !strstr(v.pair.slots[i].message, message))
        i++;
    for (size_t k = 0; k < v.pair.n_slots && i == v.pair.n_slots; k++)
        print_error("%s: %s\n", v.pair.slots[k].slot, v.pair.slots[k].message);
    assert_true(i < v.pair.n_slots);
    rp_verdicts_free(&v);
}

static void a_reference_of_another_file_is_stale_and_recorded_again(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_scratch_spec spec = healthy;
    char path[300];
    spec.entry_extra = BY_OTHER("reference.gguf");
    rp_scratch_pair_open(&scratch, &spec);
    snprintf(path, sizeof path, "%s/reference.gguf", scratch.folder);
    rp_test_copy_file(TINY "bf16.gguf", path);
    record(&scratch, true);
    record(&scratch, false);
    rp_test_copy_file(TINY "q8_0.gguf", path);
    assert_error(&scratch, "the reference was made of reference.gguf ");
    record(&scratch, true);
    record(&scratch, false);
    /* where the file is no longer at hand, its reference still serves */
    assert_int_equal(rp_remove_tree(path, NULL), RP_OK);
    record(&scratch, false);
    struct rp_verdicts v;
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_PASS);
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
}

/* One byte of the logits, which are the last 16 KB but for the directory, is another. */
static void damage(const char *path)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -10000, SEEK_END), 0);
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    fputc(byte ^ 1, file);
    assert_int_equal(fclose(file), 0);
}

static void a_damaged_reference_is_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    char path[RP_PATH_SIZE];
    rp_scratch_pair_open(&scratch, &healthy);
    record(&scratch, true);
    assert_int_equal(rp_fixture_find(&scratch.context, &scratch.pair, path, NULL), RP_OK);
    damage(path);
    assert_error(&scratch, "is damaged");
    rp_scratch_pair_close(&scratch);
}

/* ---- reports ---- */

/* What stands in result.json of the spec's pair. */
static void report(const struct rp_scratch_spec *spec, const char *what, const char *warning)
{
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    enum rp_verdict verdict;
    struct rp_warnings warnings;
    cJSON *json;
    struct rp_error err;
    rp_scratch_pair_open(&scratch, spec);
    record(&scratch, true);
    rp_scratch_pair_judge(&scratch, &v);
    rp_verdicts_free(&v);
    assert_int_equal(rp_results_make_pair(&scratch.context, &scratch.pair, NULL, &json, &verdict,
                                          &warnings, &err),
                     RP_OK);
    assert_int_equal(verdict, RP_PASS);
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "reference"));
    assert_non_null(text);
    assert_contains(text, what);
    assert_int_equal(warnings.n, warning != NULL);
    if (warning)
        assert_string_equal(rp_warning_name(warnings.list[0].kind), warning);
    cJSON_Delete(json);
    rp_scratch_pair_close(&scratch);
}

static void the_report_says_who_made_the_reference_and_what_its_rounding_means(void **state)
{
    (void)state;
    report(&healthy,
           "BF16 weights (qwen3-bf16.gguf): the engine's own file, whose quantization both have",
           NULL);
    struct rp_scratch_spec spec = healthy;
    spec.entry_extra = BY_OTHER(TINY "q8_0.gguf");
    report(&spec, "Q8_0 weights (qwen3-q8_0.gguf): its own quantization error is in every figure",
           NULL);
    /* off by more than 8 bits explain, of which the reference has fewer */
    spec.entry_extra =
        ", \"threshold_l2_rel\": 0.9, \"threshold_cosine\": 0.5" BY_OTHER(TINY "q4_0.gguf");
    report(&spec, "Q4_0, Q8_0 weights (qwen3-q4_0.gguf): its own", NULL);
}

static void an_engine_that_is_its_own_reference_passes_with_a_warning(void **state)
{
    (void)state;
    struct rp_scratch_spec spec = healthy;
    spec.argv =
        "[\"/bin/sh\", \"-c\", \"exec \\\"$@\\\"\", \"-\", \"{target:refparity-embedded}\", "
        "\"--model\", \"{gguf}\", \"--tokens\", \"{tokens_file}\", \"--dump\", \"{dump}\"]";
    spec.engine_extra =
        "}, \"other\": {\"argv\": [\"/bin/sh\", \"-c\", \"printf '" FOUR
        "' > ids && exec \\\"$@\\\"\", \"-\", \"{target:refparity-embedded}\", \"--model\", "
        "\"{gguf}\", \"--tokens\", \"ids\", \"--dump\", \"{dump}\"], \"layout\": \"npy\"";
    spec.entry_extra = BY_OTHER(TINY "q8_0.gguf");
    report(&spec, "", "own-reference");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_engine_passes_and_the_references_tokens_are_its_own),
        cmocka_unit_test(a_bug_of_the_judged_engine_is_found_at_its_layer),
        cmocka_unit_test(other_tokens_than_the_references_fail),
        cmocka_unit_test(a_missing_reference_is_a_skip_that_says_how_to_record_it),
        cmocka_unit_test(what_cannot_be_recorded_says_why),
        cmocka_unit_test(a_reference_of_another_file_is_stale_and_recorded_again),
        cmocka_unit_test(a_damaged_reference_is_an_error),
        cmocka_unit_test(the_report_says_who_made_the_reference_and_what_its_rounding_means),
        cmocka_unit_test(an_engine_that_is_its_own_reference_passes_with_a_warning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
