/* What a matrix declares of an engine: an end that is accepted, no token ids, modes that are compared
 * with each other. Each with its twin that must fail. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cases/scratch_pair_test_util.h"
#include "run/run.h"

/* A shell that runs the engine, and then what: in it, $D is the dump folder. */
#define WRAPPED(what)                                                                             \
    "[\"sh\", \"-c\", \"D=$1; shift; \\\"$@\\\"; " what "\", \"sh\", \"{dump}\", "                \
    "\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", \"{tokens_file}\", " \
    "\"--dump\", \"{dump}\"]"
/* The same for an engine that dumps NAME_p{pos}.bin; before: what the shell does first. */
#define WRAPPED_BIN(before, what)                                                            \
    "[\"sh\", \"-c\", \"D=$1; T=$2; shift 2; " before "; \\\"$@\\\"; " what "\", \"sh\", "   \
    "\"{dump}\", \"{tokens_file}\", \"" RP_SOURCE_DIR "/cases/bin_engine.sh\", \"{dump}\", " \
    "\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", \"{tokens_file}\"]"

#define NO_IDS ", \"tokens\": false"
#define ACCEPT(end) ", \"accept_exit\": {" end ", \"reason\": \"frees twice at exit\"}"

static struct rp_verdicts judge(const struct rp_scratch_spec *spec)
{
    struct rp_scratch_pair scratch;
    struct rp_verdicts verdicts;
    rp_scratch_pair_open(&scratch, spec);
    rp_scratch_pair_judge(&scratch, &verdicts);
    rp_scratch_pair_close(&scratch);
    return verdicts;
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

static void assert_engine(const struct rp_scratch_spec *spec, enum rp_verdict verdict,
                          const char *message)
{
    struct rp_verdicts v = judge(spec);
    assert_contains(v.engine.message, message);
    assert_int_equal(v.engine.verdict, verdict);
    assert_int_equal(v.verdict, verdict);
    assert_int_equal(rp_slot_of(&v, "h1")->verdict, RP_PASS);
    rp_verdicts_free(&v);
}

/* ---- accept_exit ---- */

static void an_end_that_the_entry_accepts_passes_after_a_complete_dump(void **state)
{
    (void)state;
    assert_engine(&(struct rp_scratch_spec){.argv = WRAPPED("kill -ABRT $$"),
                                            .entry_extra = ACCEPT("\"signal\": \"SIGABRT\"")},
                  RP_PASS, "which the entry accepts: frees twice at exit");
    assert_engine(&(struct rp_scratch_spec){.argv = WRAPPED("kill -SEGV $$"),
                                            .entry_extra = ACCEPT("\"signal\": 11")},
                  RP_PASS, "was killed by signal 11 (Segmentation fault)");
    assert_engine(
        &(struct rp_scratch_spec){.argv = WRAPPED("exit 3"), .entry_extra = ACCEPT("\"code\": 3")},
        RP_PASS, "exited with 3 after");
}

static void another_end_than_the_accepted_one_is_an_error(void **state)
{
    (void)state;
    assert_engine(&(struct rp_scratch_spec){.argv = WRAPPED("kill -SEGV $$"),
                                            .entry_extra = ACCEPT("\"signal\": \"SIGABRT\"")},
                  RP_ERROR, "was killed by signal 11");
    assert_engine(
        &(struct rp_scratch_spec){.argv = WRAPPED("exit 4"), .entry_extra = ACCEPT("\"code\": 3")},
        RP_ERROR, "exited with 4");
    assert_engine(&(struct rp_scratch_spec){.argv = WRAPPED("kill -KILL $$"),
                                            .entry_extra = ACCEPT("\"code\": 9")},
                  RP_ERROR, "was killed by signal 9");
}

static void running_into_the_time_limit_is_never_accepted(void **state)
{
    (void)state;
    assert_engine(&(struct rp_scratch_spec){.argv = WRAPPED("sleep 600"),
                                            .engine_extra = ", \"timeout_s\": 2",
                                            .entry_extra = ACCEPT("\"signal\": \"SIGKILL\"")},
                  RP_ERROR, "ran into its time limit");
}

static void an_accepted_end_with_an_incomplete_dump_is_an_error(void **state)
{
    (void)state;
    assert_engine(
        &(struct rp_scratch_spec){
            .argv = WRAPPED("sed -i 's/\\\\\\\"complete\\\\\\\": true/\\\\\\\"complete\\\\\\\": "
                            "false/' $D/dump.json; kill -ABRT $$"),
            .entry_extra = ACCEPT("\"signal\": \"SIGABRT\"")},
        RP_ERROR,
        "which the entry accepts after a complete dump, but its dump is incomplete: rp_dump_close "
        "was not reached");
    /* without dump.json it is known by its slots alone; with one, it may lack some */
    assert_engine(
        &(struct rp_scratch_spec){
            .argv = WRAPPED("rm $D/dump.json $D/h3*.npy $D/post_norm.npy; kill -ABRT $$"),
            .entry_extra = ACCEPT("\"signal\": \"SIGABRT\"")},
        RP_ERROR, "but its dump is incomplete: it has no h3");
    assert_engine(&(struct rp_scratch_spec){.argv = WRAPPED("rm $D/h2.npy; kill -ABRT $$"),
                                            .entry_extra = ACCEPT("\"signal\": \"SIGABRT\"")},
                  RP_ERROR, "but its dump is incomplete: it has no h2");
}

static void an_end_that_could_be_accepted_says_how(void **state)
{
    (void)state;
    assert_engine(&(struct rp_scratch_spec){.argv = WRAPPED("kill -ABRT $$")}, RP_ERROR,
                  "(the dump is complete: \"accept_exit\" of the entry can accept this end)");
}

static void a_bin_dump_is_complete_with_every_slot_at_every_position(void **state)
{
    (void)state;
    const char *accept = ACCEPT("\"signal\": \"SIGABRT\"");
    assert_engine(&(struct rp_scratch_spec){.argv = WRAPPED_BIN(":", "kill -ABRT $$"),
                                            .layout = "bin",
                                            .engine_extra = NO_IDS,
                                            .entry_extra = accept},
                  RP_PASS, "which the entry accepts");
    /* engines often compute the last position's logits alone */
    assert_engine(
        &(struct rp_scratch_spec){.argv = WRAPPED_BIN(":", "rm $D/logits_p?.bin; kill -ABRT $$"),
                                  .layout = "bin",
                                  .engine_extra = NO_IDS,
                                  .entry_extra = accept},
        RP_PASS, "which the entry accepts");
}

static void a_bin_dump_that_lacks_a_position_or_a_slot_is_incomplete(void **state)
{
    (void)state;
    const char *accept = ACCEPT("\"signal\": \"SIGABRT\"");
    assert_engine(
        &(struct rp_scratch_spec){.argv = WRAPPED_BIN(":", "rm $D/h3_p23.bin; kill -ABRT $$"),
                                  .layout = "bin",
                                  .engine_extra = NO_IDS,
                                  .entry_extra = accept},
        RP_ERROR, "but its dump is incomplete: h3 lacks position 23");
    assert_engine(
        &(struct rp_scratch_spec){.argv = WRAPPED_BIN(":", "rm $D/post_norm*; kill -ABRT $$"),
                                  .layout = "bin",
                                  .engine_extra = NO_IDS,
                                  .entry_extra = accept},
        RP_ERROR, "but its dump is incomplete: it has no post_norm");
    assert_engine(&(struct rp_scratch_spec){.argv = WRAPPED_BIN(
                                                ":", "truncate -s 7 $D/h2_p5.bin; kill -ABRT $$"),
                                            .layout = "bin",
                                            .engine_extra = NO_IDS,
                                            .entry_extra = accept},
                  RP_ERROR, "but its dump is incomplete: h2: expected one or more float32 values");
}

/* ---- tokens ---- */

static void assert_tokens(const struct rp_scratch_spec *spec, enum rp_verdict verdict,
                          const char *message, enum rp_verdict layers)
{
    struct rp_verdicts v = judge(spec);
    assert_contains(v.pair.tokens.message, message);
    assert_int_equal(v.pair.tokens.verdict, verdict);
    assert_int_equal(rp_slot_of(&v, "h1")->verdict, layers);
    rp_verdicts_free(&v);
}

static void a_dump_without_ids_that_nobody_declared_is_an_error_of_the_tokens_alone(void **state)
{
    (void)state;
    assert_tokens(&(struct rp_scratch_spec){.argv = WRAPPED_BIN(":", ":"), .layout = "bin"},
                  RP_ERROR,
                  "the engine's dump has no token ids: dump them (rp_dump_tokens, or a tokens.txt "
                  "with an id a line), or declare \"tokens\": false for engine test in the matrix",
                  RP_PASS);
    assert_tokens(
        &(struct rp_scratch_spec){.argv = WRAPPED_BIN(":", "cp $T $D/tokens.txt"), .layout = "bin"},
        RP_PASS, "24 token ids are the same", RP_PASS);
}

static void without_ids_the_positions_are_counted(void **state)
{
    (void)state;
    assert_tokens(&(struct rp_scratch_spec){.argv = WRAPPED_BIN(":", ":"),
                                            .layout = "bin",
                                            .engine_extra = NO_IDS},
                  RP_PASS, "24 positions on both sides; token ids are not compared", RP_PASS);
    assert_tokens(
        &(struct rp_scratch_spec){
            .argv = WRAPPED_BIN("sed -i '$d' $T", ":"), .layout = "bin", .engine_extra = NO_IDS},
        RP_FAIL, "the engine ran 23 positions, the reference 24: its prompt is truncated", RP_SKIP);
    /* an engine that runs the token that it generates, too */
    assert_tokens(&(struct rp_scratch_spec){.argv = WRAPPED_BIN("echo 5 >> $T", ":"),
                                            .layout = "bin",
                                            .engine_extra = NO_IDS},
                  RP_PASS, "25 positions, more than the reference", RP_PASS);
}

static void one_position_can_be_neither_compared_nor_counted(void **state)
{
    (void)state;
    assert_tokens(&(struct rp_scratch_spec){.argv = WRAPPED_BIN("export SINGLE=3", ":"),
                                            .layout = "bin",
                                            .engine_extra = NO_IDS ", \"single_position\": true",
                                            .entry_extra = ", \"positions\": [3]"},
                  RP_SKIP, "and only the positions that the entry lists", RP_PASS);
}

/* The engine gets ids that edit makes of the fixture's, one a line. */
static void assert_fault(const char *edit, const char *architecture, const char *message)
{
    char argv[1024];
    snprintf(argv, sizeof argv,
             "[\"sh\", \"-c\", \"%s; D=$1; shift 2; \\\"$@\\\"\", \"sh\", \"{dump}\", "
             "\"{tokens_file}\", \"{target:refparity-embedded}\", \"--model\", \"{gguf}\", "
             "\"--tokens\", \"{tokens_file}\", \"--dump\", \"{dump}\"]",
             edit);
    assert_tokens(&(struct rp_scratch_spec){.argv = argv, .architecture = architecture}, RP_FAIL,
                  message, RP_SKIP);
}

static void a_tokenizers_fault_is_named_with_the_pieces_of_the_models_vocabulary(void **state)
{
    (void)state;
    assert_fault(
        "sed -i 1d $2", "llama",
        "the reference has id 1022 \"<|begin_of_text|>\", the engine id 457 \"The\"; counts "
        "25 and 24: the engine lacks the BOS");
    assert_fault("sed -i '1i 1022' $2", "llama",
                 "the engine begins with one id too many, a second BOS");
    assert_fault(
        "echo 1023 >> $2", "qwen3",
        "the engine id 1023 \"<|im_end|>\"; counts 24 and 25: the engine adds an EOS at the "
        "end");
    assert_fault("sed -i 5,24d $2", "qwen3",
                 "the engine's prompt is truncated, 20 ids are missing");
    /* "The" in three letters */
    assert_fault("sed -i '1c 51\\\\n71\\\\n68' $2", "qwen3",
                 "a different merge of the same text: the engine has \"T\" \"h\" \"e\", the "
                 "reference \"The\"");
}

/* ---- mode against mode ---- */

/* The fox, as ids: an engine that asks for no fixture. */
#define FOX_IDS "457,220,398,291,74,281,81,377,77,468,87,220,73"
#define BOTH_MODES                                                                  \
    ", \"modes\": [\"per-token\", \"batched\"], \"compare_modes\": [[\"batched\", " \
    "\"per-token\"]], \"threshold_modes_l2_rel\": 1e-5"
#define ENGINE_BY_IDS(target, more)                                                               \
    "[\"{target:" target "}\", \"--model\", \"{gguf}\", \"--ids\", \"" FOX_IDS "\", \"--mode\", " \
    "\"{mode}\", \"--dump\", \"{dump}\"" more "]"
/* The same in a shell, that does what afterwards; $1 is the dump folder, $2 the mode. */
#define ENGINE_AND_THEN(what)                                                                     \
    "[\"sh\", \"-c\", \"D=$1; M=$2; shift 2; \\\"$@\\\"; " what "\", \"sh\", \"{dump}\", "        \
    "\"{mode}\", \"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--ids\", \"" FOX_IDS \
    "\", \"--mode\", \"{mode}\", \"--dump\", \"{dump}\"]"

static struct rp_verdicts judge_modes(const char *argv, const char *mode)
{
    return judge(&(struct rp_scratch_spec){
        .argv = argv, .entry_extra = BOTH_MODES, .mode = mode, .stores = ""});
}

static void a_clean_engines_modes_agree_without_any_fixture(void **state)
{
    (void)state;
    struct rp_verdicts v =
        judge_modes(ENGINE_BY_IDS("refparity-embedded", ""), "batched-vs-per-token");
    assert_int_equal(v.verdict, RP_PASS);
    assert_int_equal(v.pair.n_required_compared, RP_TINY_LAYERS + 3);
    assert_int_equal(v.pair.tokens.verdict, RP_PASS);
    assert_string_equal(v.pair.tokens.message,
                        "batched against per-token: 13 token ids are the same");
    assert_contains(rp_slot_of(&v, "h2")->message, "batched against per-token: L2_rel ");
    rp_verdicts_free(&v);
}

static void a_bug_in_the_batched_path_alone_is_found_without_any_fixture(void **state)
{
    (void)state;
    struct rp_verdicts v =
        judge_modes(ENGINE_BY_IDS("refparity-embedded-bugs",
                                  ", \"--bug\", \"rope-batched-only\", \"--layer\", \"1\""),
                    "batched-vs-per-token");
    assert_int_equal(v.verdict, RP_FAIL);
    assert_string_equal(v.divergence.slot, "h1");
    assert_string_equal(v.divergence.inner_slot, "h1_postattn");
    assert_int_equal(rp_slot_of(&v, "h0")->verdict, RP_PASS);
    assert_contains(rp_slot_of(&v, "h1")->message, "batched against per-token: L2_rel ");
    assert_string_equal(rp_slot_of(&v, "h2")->downstream_of, "h1");
    rp_verdicts_free(&v);
}

static void without_a_fixture_the_engine_is_judged_and_the_layers_skip(void **state)
{
    (void)state;
    struct rp_verdicts v = judge_modes(ENGINE_BY_IDS("refparity-embedded", ""), "batched");
    assert_int_equal(v.verdict, RP_SKIP);
    assert_int_equal(v.engine.verdict, RP_PASS);
    assert_int_equal(v.pair.tokens.verdict, RP_SKIP);
    assert_int_equal(rp_slot_of(&v, "h2")->verdict, RP_SKIP);
    assert_contains(rp_slot_of(&v, "h2")->message, "record it with `ci/record.sh tiny`");
    rp_verdicts_free(&v);
}

static void an_engine_that_takes_the_fixtures_ids_skips_its_modes_too(void **state)
{
    (void)state;
    struct rp_verdicts v = judge_modes("[\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", "
                                       "\"--tokens\", \"{tokens_file}\", \"--mode\", \"{mode}\", "
                                       "\"--dump\", \"{dump}\"]",
                                       "batched-vs-per-token");
    assert_int_equal(v.verdict, RP_SKIP);
    assert_contains(rp_slot_of(&v, "h2")->message, "per-token: no fixture ");
    rp_verdicts_free(&v);
}

static void modes_that_run_different_prompts_are_not_comparable(void **state)
{
    (void)state;
    struct rp_verdicts v = judge_modes(
        "[\"sh\", \"-c\", \"test $1 = batched && I=457,220 || I=457,220,398; shift; exec "
        "\\\"$@\\\" "
        "--ids $I\", \"sh\", \"{mode}\", \"{target:refparity-embedded}\", \"--model\", \"{gguf}\", "
        "\"--dump\", \"{dump}\"]",
        "batched-vs-per-token");
    assert_int_equal(v.verdict, RP_FAIL);
    assert_contains(v.pair.tokens.message, "batched against per-token: token ids differ from");
    assert_contains(rp_slot_of(&v, "h1")->message,
                    "not comparable: batched against per-token: token ids differ");
    rp_verdicts_free(&v);
}

static void what_the_mode_that_is_the_reference_lacks_is_an_error(void **state)
{
    (void)state;
    struct rp_verdicts v =
        judge_modes(ENGINE_AND_THEN("test $M = batched || rm $D/h2.npy"), "batched-vs-per-token");
    assert_int_equal(v.verdict, RP_ERROR);
    assert_int_equal(rp_slot_of(&v, "h1")->verdict, RP_PASS);
    assert_string_equal(rp_slot_of(&v, "h2")->message,
                        "batched against per-token: missing: the dump that is the reference has no "
                        "h2");
    rp_verdicts_free(&v);
}

static void NaN_in_the_mode_that_is_the_reference_fails(void **state)
{
    (void)state;
    struct rp_verdicts v =
        judge_modes(ENGINE_AND_THEN("test $M = batched || {{ truncate -s -4 $D/logits.npy; printf "
                                    "'\\\\000\\\\000\\\\300\\\\177' >> $D/logits.npy; }}"),
                    "batched-vs-per-token");
    assert_int_equal(v.verdict, RP_FAIL);
    assert_string_equal(rp_slot_of(&v, "logits")->message,
                        "batched against per-token: the dump that is the reference holds NaN or "
                        "infinity at position 12");
    rp_verdicts_free(&v);
}

static void a_mode_that_crashed_is_named_where_a_slot_is_missing(void **state)
{
    (void)state;
    struct rp_verdicts v =
        judge_modes(ENGINE_AND_THEN("test $M = batched || {{ rm $D/logits.npy; kill -ABRT $$; }}"),
                    "batched-vs-per-token");
    assert_int_equal(v.verdict, RP_ERROR);
    assert_int_equal(rp_slot_of(&v, "h3")->verdict, RP_PASS);
    assert_contains(rp_slot_of(&v, "logits")->message, "(the engine was killed by signal 6");
    rp_verdicts_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_end_that_the_entry_accepts_passes_after_a_complete_dump),
        cmocka_unit_test(another_end_than_the_accepted_one_is_an_error),
        cmocka_unit_test(running_into_the_time_limit_is_never_accepted),
        cmocka_unit_test(an_accepted_end_with_an_incomplete_dump_is_an_error),
        cmocka_unit_test(an_end_that_could_be_accepted_says_how),
        cmocka_unit_test(a_bin_dump_is_complete_with_every_slot_at_every_position),
        cmocka_unit_test(a_bin_dump_that_lacks_a_position_or_a_slot_is_incomplete),
        cmocka_unit_test(a_dump_without_ids_that_nobody_declared_is_an_error_of_the_tokens_alone),
        cmocka_unit_test(without_ids_the_positions_are_counted),
        cmocka_unit_test(one_position_can_be_neither_compared_nor_counted),
        cmocka_unit_test(a_tokenizers_fault_is_named_with_the_pieces_of_the_models_vocabulary),
        cmocka_unit_test(a_clean_engines_modes_agree_without_any_fixture),
        cmocka_unit_test(a_bug_in_the_batched_path_alone_is_found_without_any_fixture),
        cmocka_unit_test(without_a_fixture_the_engine_is_judged_and_the_layers_skip),
        cmocka_unit_test(an_engine_that_takes_the_fixtures_ids_skips_its_modes_too),
        cmocka_unit_test(modes_that_run_different_prompts_are_not_comparable),
        cmocka_unit_test(what_the_mode_that_is_the_reference_lacks_is_an_error),
        cmocka_unit_test(NaN_in_the_mode_that_is_the_reference_fails),
        cmocka_unit_test(a_mode_that_crashed_is_named_where_a_slot_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
