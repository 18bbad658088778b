/* The gate explained: parity by induction. A right engine on quantized weights passes where the 5% rule alone
 * would fail it; a bug, a wrong file and other tokens fail by name; what could not be checked is said. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "cases/scratch_pair_test_util.h"
#include "refparity/gguf.h"
#include "run/judge_replay.h"
#include "run/run.h"
#include "run/stored.h"

#define CLEAN NULL
#define WITH_BUGS(bugs)                                                              \
    "[\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--tokens\", " \
    "\"{tokens_file}\", \"--dump\", \"{dump}\", " bugs "]"
/* One FFN's output times 0.999: 5e-4 of that layer's output */
#define SMALL_BUG "\"--bug\", \"ffn-half\", \"--layer\", \"1\", \"--magnitude\", \"0.999\""
/* What is not about replay leaves it out: it has tests of its own. */
#define NO_REPLAY ", \"replay\": false"
#define EXPLAINED ", \"gate\": \"explained\""

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
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

static struct rp_verdicts judge_q4(const char *architecture, const char *argv, const char *gate)
{
    return judge(&(struct rp_scratch_spec){.architecture = architecture,
                                           .weights = "q4_0",
                                           .argv = argv,
                                           .entry_extra = gate,
                                           .n_layers = strcmp(architecture, "qwen35") ? 0 : 8});
}

static const char *const architectures[] = {"qwen3", "llama", "qwen35"};
enum { N_ARCHITECTURES = 3 };

static void against_HF_alone_a_healthy_4_bit_engine_fails(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ARCHITECTURES; i++) {
        struct rp_verdicts v = judge_q4(architectures[i], CLEAN, "");
        assert_int_equal(v.verdict, RP_FAIL);
        rp_verdicts_free(&v);
    }
}

/* Where the checkpoints of the tiny models are. */
static int have_checkpoints(void **state)
{
    (void)state;
    return setenv("REFPARITY_CHECKPOINTS", RP_SOURCE_DIR "/fixtures", 1);
}

static void where_tokens_weights_and_operations_are_right_it_is_marginal(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ARCHITECTURES; i++) {
        struct rp_verdicts v = judge_q4(architectures[i], CLEAN, EXPLAINED);
        size_t n_marginal = 0;
        assert_int_equal(v.verdict, RP_MARGINAL);
        assert_string_equal(v.divergence.slot, "");
        for (size_t s = 0; s < v.pair.n_slots; s++) {
            const struct rp_slot_result *slot = &v.pair.slots[s];
            if (!slot->required || slot->verdict == RP_PASS)
                continue;
            n_marginal++;
            assert_int_equal(slot->verdict, RP_MARGINAL);
            assert_string_equal(slot->unchecked, "");
            assert_contains(slot->message, ": tokens, weights and the operations of ");
            assert_contains(slot->message, " slots up to it are right, to ");
            assert_contains(slot->message, "): it is quantization and carried rounding");
        }
        assert_true(n_marginal >= 3);
        for (size_t s = 0; s < v.n_replay; s++)
            assert_int_equal(v.replay[s].judgement.verdict, RP_PASS);
        rp_verdicts_free(&v);
    }
}

/* The healthy engine on a file whose converter exchanged two rows of a matrix: every operation is
 * right, with that file's weights. */
static void a_wrong_conversion_is_no_quantization(void **state)
{
    (void)state;
    static const char right[] = RP_SOURCE_DIR "/fixtures/tiny/qwen3/qwen3-q4_0.gguf";
    char folder[256], wrong[300], *bytes, row[4096];
    size_t n;
    struct rp_gguf *file;
    rp_test_make_folder(folder);
    snprintf(wrong, sizeof wrong, "%s/qwen3-q4_0.gguf", folder);
    assert_int_equal(rp_file_read(right, 1 << 26, &bytes, &n, NULL), RP_OK);
    assert_int_equal(rp_gguf_open(right, &file, NULL), RP_OK);
    const struct rp_gguf_tensor *tensor = rp_gguf_find_tensor(file, "blk.1.ffn_down.weight");
    assert_non_null(tensor);
    assert_true(tensor->row_bytes <= sizeof row);
    char *first = bytes + tensor->offset;
    memcpy(row, first, tensor->row_bytes);
    memcpy(first, first + tensor->row_bytes, tensor->row_bytes);
    memcpy(first + tensor->row_bytes, row, tensor->row_bytes);
    rp_gguf_close(file);
    assert_int_equal(rp_file_write_atomic(wrong, bytes, n, NULL), RP_OK);
    free(bytes);
    struct rp_scratch_spec spec = {.gguf = wrong, .entry_extra = EXPLAINED NO_REPLAY};
    struct rp_verdicts v = judge(&spec);
    assert_int_equal(v.verdict, RP_FAIL);
    assert_contains(rp_slot_of(&v, "h1")->message,
                    ", is no quantization: the engine's file is not the checkpoint: ");
    assert_contains(rp_slot_of(&v, "h1")->message, "blk.1.ffn_down.weight");
    rp_verdicts_free(&v);
    spec.gguf = right;
    v = judge(&spec);
    assert_int_equal(v.verdict, RP_MARGINAL);
    rp_verdicts_free(&v);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void a_bug_far_below_what_quantization_does_fails_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ARCHITECTURES; i++) {
        struct rp_verdicts v = judge_q4(architectures[i], WITH_BUGS(SMALL_BUG), EXPLAINED);
        const struct rp_slot_result *first = rp_slot_of(&v, "h0");
        const struct rp_slot_result *last = rp_slot_of(&v, "post_norm");
        assert_int_equal(v.verdict, RP_FAIL);
        assert_int_equal(first->verdict, RP_MARGINAL); /* before the bug */
        assert_int_equal(last->verdict, RP_FAIL);
        assert_contains(last->message, ", is no quantization: an operation is wrong: h1_ffnout, ");
        assert_string_equal(v.divergence.inner_slot, "h1_ffnout");
        assert_contains(v.divergence.explanation, "replay: h1_ffnout, ");
        rp_verdicts_free(&v);
    }
}

static void a_bug_of_a_pair_whose_slots_are_within_5_percent_fails_by_replay(void **state)
{
    (void)state;
    struct rp_verdicts v =
        judge(&(struct rp_scratch_spec){.argv = WITH_BUGS(SMALL_BUG), .entry_extra = EXPLAINED});
    assert_int_equal(v.pair.verdict, RP_PASS);
    assert_int_equal(v.replay[2].judgement.verdict, RP_FAIL); /* h1 */
    assert_int_equal(v.verdict, RP_FAIL);
    rp_verdicts_free(&v);
}

static void the_operation_is_named_with_its_cause(void **state)
{
    (void)state;
    struct rp_verdicts v =
        judge_q4("qwen3",
                 WITH_BUGS("\"--slots\", \"operations\", \"--bug\", \"qk-norm-off\", \"--layer\", "
                           "\"1\""),
                 EXPLAINED);
    assert_int_equal(v.verdict, RP_FAIL);
    assert_string_equal(v.divergence.slot, "h1");
    assert_string_equal(v.divergence.inner_slot, "h1_qnorm");
    assert_contains(rp_slot_of(&v, "h1")->message, "an operation is wrong: h1_qnorm, ");
    assert_int_equal(rp_slot_of(&v, "h0")->verdict, RP_MARGINAL);
    rp_verdicts_free(&v);
}

static void NaN_fails_under_every_gate(void **state)
{
    (void)state;
    static const char *const gates[] = {"", EXPLAINED};
    for (size_t i = 0; i < 2; i++) {
        struct rp_verdicts v =
            judge_q4("qwen3",
                     "[\"sh\", \"-c\", \"D=$1; shift; \\\"$@\\\"; truncate -s -4 $D/h2.npy; printf "
                     "'\\\\000\\\\000\\\\300\\\\177' >> $D/h2.npy\", \"sh\", \"{dump}\", "
                     "\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", "
                     "\"{tokens_file}\", \"--dump\", \"{dump}\"]",
                     gates[i]);
        assert_int_equal(rp_slot_of(&v, "h2")->verdict, RP_FAIL);
        if (i > 0) /* HF alone fails h2 before that */
            assert_contains(rp_slot_of(&v, "h2")->message, "NaN");
        assert_int_not_equal(v.verdict, RP_PASS);
        assert_int_not_equal(v.verdict, RP_MARGINAL);
        rp_verdicts_free(&v);
    }
}

static void a_dump_cut_short_is_not_explained_by_quantization(void **state)
{
    (void)state;
    struct rp_verdicts v = judge_q4(
        "qwen3",
        "[\"sh\", \"-c\", \"D=$1; T=$2; shift 2; head -n 20 $T > $T.cut; \\\"$@\\\" --tokens "
        "$T.cut; cp $T.npy $D/tokens.npy 2>/dev/null\", \"sh\", \"{dump}\", \"{tokens_file}\", "
        "\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--dump\", \"{dump}\"]",
        EXPLAINED);
    assert_int_equal(v.pair.tokens.verdict, RP_FAIL);
    assert_int_not_equal(v.verdict, RP_MARGINAL);
    rp_verdicts_free(&v);
}

/* ---- what could not be checked ---- */

static char *read_file(const char *path, size_t *n)
{
    char *bytes;
    assert_int_equal(rp_file_read(path, 64 << 20, &bytes, n, NULL), RP_OK);
    return bytes;
}

/* A copy of a GGUF in which the architecture has a name that nothing knows, as out[512]. */
static void rename_architecture(const char *gguf, const char *folder, char *out)
{
    size_t n;
    char *bytes = read_file(gguf, &n);
    for (size_t i = 0; i + 10 <= n && memcmp(bytes + i, "token_embd", 10) != 0; i++)
        if (memcmp(bytes + i, "qwen3", 5) == 0)
            bytes[i + 4] = '9';
    rp_test_write_file(folder, "renamed.gguf", bytes, n);
    snprintf(out, 512, "%s/renamed.gguf", folder);
    free(bytes);
}

/* The engine knows the model by its usual name. */
#define QWEN3_Q4_0 RP_SOURCE_DIR "/fixtures/tiny/qwen3/qwen3-q4_0.gguf"
#define ENGINE_OF(gguf, options)                                                  \
    "[\"{target:refparity-embedded}\", \"--model\", \"" gguf "\", \"--tokens\", " \
    "\"{tokens_file}\", \"--dump\", \"{dump}\"" options "]"

/* Judges with REFPARITY_REQUIRE set, too: then what is marginal without is an ERROR. */
static void expect_unchecked(struct rp_scratch_spec spec, const char *what, const char *required)
{
    for (int require = 0; require < 2; require++) {
        struct rp_scratch_pair scratch;
        struct rp_verdicts v;
        rp_scratch_pair_open(&scratch, &spec);
        scratch.context.require = require;
        rp_scratch_pair_judge(&scratch, &v);
        const struct rp_slot_result *h3 = rp_slot_of(&v, "h3");
        assert_int_equal(h3->verdict, require ? RP_ERROR : RP_MARGINAL);
        assert_contains(h3->message, require ? required : what);
        if (!require) {
            assert_contains(h3->message,
                            ": quantization and carried rounding, as far as was checked; not "
                            "checked: ");
            assert_contains(h3->unchecked, what);
        }
        assert_int_equal(v.verdict, require ? RP_ERROR : RP_MARGINAL);
        rp_verdicts_free(&v);
        rp_scratch_pair_close(&scratch);
    }
}

/* The store without the checkpoints beside it, nor a sketch in it: a link in folder; as the inside of a JSON
 * array. */
static void hide_checkpoints(const char *folder, char stores[512])
{
    char place[300], link[320];
    snprintf(place, sizeof place, "%s/store/tiny--qwen3/main", folder);
    snprintf(link, sizeof link, "%s/float32", place);
    assert_int_equal(rp_make_dirs(place, NULL), RP_OK);
    assert_int_equal(symlink(RP_SOURCE_DIR "/fixtures/store/tiny--qwen3/main/float32", link), 0);
    snprintf(stores, 512, "\"%s/store\"", folder);
    assert_int_equal(unsetenv("REFPARITY_CHECKPOINTS"), 0);
}

/* A folder with a copy of QWEN3_Q4_0 that has no checkpoint beside it. */
static void open_hidden(char folder[256], char copy[300], char stores[512])
{
    rp_test_make_folder(folder);
    snprintf(copy, 300, "%s/copy.gguf", folder);
    rp_test_copy_file(QWEN3_Q4_0, copy);
    hide_checkpoints(folder, stores);
}

static void close_hidden(const char *folder)
{
    void *state = NULL;
    assert_int_equal(have_checkpoints(&state), 0);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void without_the_checkpoint_the_file_is_what_was_not_checked(void **state)
{
    (void)state;
    char folder[256], copy[300], stores[512];
    open_hidden(folder, copy, stores);
    expect_unchecked((struct rp_scratch_spec){.gguf = copy,
                                              .stores = stores,
                                              .entry_extra = EXPLAINED,
                                              .argv = ENGINE_OF(QWEN3_Q4_0, "")},
                     "whether the file is the checkpoint (there is no checkpoint of tiny/qwen3",
                     "there is no checkpoint of tiny/qwen3");
    close_hidden(folder);
}

/* A link to itself: root may look into every folder. */
static void a_checkpoint_that_nobody_may_look_for_is_an_error(void **state)
{
    (void)state;
    char folder[256], copy[300], loop[300], stores[512];
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    open_hidden(folder, copy, stores);
    snprintf(loop, sizeof loop, "%s/loop", folder);
    assert_int_equal(symlink(loop, loop), 0);
    assert_int_equal(setenv("REFPARITY_CHECKPOINTS", loop, 1), 0);
    rp_scratch_pair_open(&scratch, &(struct rp_scratch_spec){.gguf = copy,
                                                             .stores = stores,
                                                             .entry_extra = EXPLAINED,
                                                             .argv = ENGINE_OF(QWEN3_Q4_0, "")});
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_ERROR);
    assert_contains(rp_slot_of(&v, "h3")->message, "Too many levels of symbolic links");
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
    close_hidden(folder);
}

/* fixtures/store has one of tiny/qwen3. */
static void what_a_sketch_does_not_see_of_the_weights_is_said(void **state)
{
    (void)state;
    char folder[256], copy[300], link[320], stores[512];
    struct rp_scratch_pair scratch;
    struct rp_verdicts v;
    open_hidden(folder, copy, stores);
    snprintf(link, sizeof link, "%s/store/tiny--qwen3/main/sketch.safetensors", folder);
    assert_int_equal(
        symlink(RP_SOURCE_DIR "/fixtures/store/tiny--qwen3/main/sketch.safetensors", link), 0);
    rp_scratch_pair_open(&scratch, &(struct rp_scratch_spec){.gguf = copy,
                                                             .stores = stores,
                                                             .entry_extra = EXPLAINED,
                                                             .argv = ENGINE_OF(QWEN3_Q4_0, "")});
    for (int again = 0; again < 2; again++) { /* the second time from what is kept */
        rp_scratch_pair_judge(&scratch, &v);
        assert_int_equal(v.verdict, RP_MARGINAL);
        assert_contains(rp_slot_of(&v, "h3")->message,
                        "tokens, weights (by the checkpoint's sketch: a row may be off by L2_rel ");
        assert_contains(rp_slot_of(&v, "h3")->message, "quantization and carried rounding");
        rp_verdicts_free(&v);
    }
    rp_scratch_pair_close(&scratch);
    close_hidden(folder);
}

static void of_a_model_that_C_does_not_know_the_operations_were_not_checked_either(void **state)
{
    char folder[256], gguf[512], stores[512];
    rp_test_make_folder(folder);
    rename_architecture(QWEN3_Q4_0, folder, gguf);
    hide_checkpoints(folder, stores);
    expect_unchecked((struct rp_scratch_spec){.gguf = gguf,
                                              .stores = stores,
                                              .entry_extra = EXPLAINED,
                                              .argv = ENGINE_OF(QWEN3_Q4_0, "")},
                     "whether the operations of emb are right (the C model: ",
                     "there is no checkpoint of tiny/qwen3");
    assert_int_equal(have_checkpoints(state), 0);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void where_attention_lacks_positions_the_operations_are_what_was_not_checked(void **state)
{
    (void)state;
    expect_unchecked(
        (struct rp_scratch_spec){.weights = "q4_0",
                                 .entry_extra = EXPLAINED ", \"positions\": [0, 9]",
                                 .argv = ENGINE_OF("{gguf}", ", \"--positions\", \"0,9\"")},
        "whether the operations of h0 are right (",
        "that it is quantization has to be known, and was not checked: whether the operations of "
        "h0");
}

/* Each slot that is dumped is right; nothing shows that h2 comes from what h1 would have been. */
static void a_slot_that_is_missing_breaks_the_induction(void **state)
{
    (void)state;
    struct rp_verdicts v =
        judge_q4("qwen3",
                 "[\"sh\", \"-c\", \"D=$1; shift; \\\"$@\\\"; rm $D/h1.npy\", \"sh\", \"{dump}\", "
                 "\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", "
                 "\"{tokens_file}\", \"--dump\", \"{dump}\"]",
                 EXPLAINED);
    assert_int_equal(rp_slot_of(&v, "h0")->verdict, RP_MARGINAL);
    assert_string_equal(rp_slot_of(&v, "h0")->unchecked, "");
    assert_int_equal(rp_slot_of(&v, "h1")->verdict, RP_ERROR);
    assert_contains(rp_slot_of(&v, "h3")->unchecked,
                    "whether the operations of h1 are right (h1 is not dumped)");
    assert_int_equal(v.verdict, RP_ERROR);
    rp_verdicts_free(&v);
}

/* From layers alone, with inputs rounded to 8 bits, replay shows little; the message says how little. */
static void the_resolution_of_replay_is_said_and_has_to_be_below_the_limit(void **state)
{
    (void)state;
    struct rp_scratch_spec spec = {
        .weights = "q4_0",
        .entry_extra = EXPLAINED ", \"activations\": \"by_weight\"",
        .argv = ENGINE_OF("{gguf}", ", \"--mode\", \"batched\", \"--activations\", "
                                    "\"by_weight\"")};
    struct rp_verdicts v = judge(&spec);
    assert_int_equal(v.verdict, RP_MARGINAL);
    assert_contains(rp_slot_of(&v, "h3")->message, " slots up to it are right, to 0.00");
    assert_contains(rp_slot_of(&v, "h3")->message, " at worst (h");
    rp_verdicts_free(&v);
    spec.entry_extra = EXPLAINED ", \"activations\": \"by_weight\", \"threshold_l2_rel\": 0.001";
    expect_unchecked(spec, " is right (replay shows it to 0.00",
                     " is right (replay shows it to 0.00");
}

/* ---- damaged dumps ---- */

/* HF's rows are too far to recognise these; replay's are not. */
static void a_damaged_dump_of_quantized_weights_is_an_error(void **state)
{
    (void)state;
    static const char *const damages[] = {
        "cp $D/h1.npy $D/h2.npy", /* one buffer for two layers */
        "truncate -s -768 $D/h2.npy; truncate -s +768 $D/h2.npy" /* rows never written */};
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        char argv[1024];
        snprintf(argv, sizeof argv,
                 "[\"sh\", \"-c\", \"D=$1; shift; \\\"$@\\\"; %s\", \"sh\", \"{dump}\", "
                 "\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", "
                 "\"{tokens_file}\", \"--dump\", \"{dump}\"]",
                 damages[i]);
        struct rp_verdicts v = judge_q4("qwen3", argv, EXPLAINED);
        assert_int_equal(rp_slot_of(&v, "h1")->verdict, RP_MARGINAL);
        assert_int_equal(rp_slot_of(&v, "h2")->verdict, RP_ERROR);
        assert_contains(rp_slot_of(&v, "h2")->message, "damaged");
        assert_int_equal(v.verdict, RP_ERROR);
        rp_verdicts_free(&v);
    }
}

/* ---- replay's verdicts are shared ---- */

static struct rp_judge *open_judge(const struct rp_scratch_pair *scratch)
{
    struct rp_judge *judge = malloc(sizeof *judge);
    assert_non_null(judge);
    rp_judge_open(&scratch->context, &scratch->pair, judge);
    assert_int_equal(judge->prerequisites.verdict, RP_PASS);
    return judge;
}

static void close_judge(struct rp_judge *judge)
{
    rp_judge_close(judge);
    free(judge);
}

static void what_a_slots_test_replays_is_stored_and_what_is_stored_is_believed(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_run_record record;
    struct rp_slot_test test;
    struct rp_replay_result replayed;
    rp_scratch_pair_open(&scratch,
                         &(struct rp_scratch_spec){.weights = "q4_0", .entry_extra = EXPLAINED});
    assert_int_equal(rp_run_pair(&scratch.context, &scratch.pair, &record, NULL), RP_OK);
    struct rp_judge *judge = open_judge(&scratch);
    assert_int_equal(rp_judge_slot(judge, "emb", &test, NULL), RP_OK);
    assert_int_equal(test.result.verdict, RP_PASS);
    rp_slot_test_free(&test);
    assert_int_equal(rp_stored_replay(judge, "emb", &replayed, NULL), RP_ERR_MISSING);
    assert_int_equal(rp_judge_slot(judge, "h2", &test, NULL), RP_OK);
    assert_int_equal(test.result.verdict, RP_MARGINAL);
    rp_slot_test_free(&test);
    assert_int_equal(rp_stored_replay(judge, "h3", &replayed, NULL), RP_ERR_MISSING);
    assert_int_equal(rp_stored_replay(judge, "h1", &replayed, NULL), RP_OK);
    replayed.judgement.verdict = RP_ERROR;
    snprintf(replayed.judgement.message, sizeof replayed.judgement.message, "as stored");
    assert_int_equal(rp_store_replay(judge, &replayed, NULL), RP_OK);
    rp_replay_result_free(&replayed);
    close_judge(judge);
    judge = open_judge(&scratch);
    assert_int_equal(rp_judge_slot(judge, "h2", &test, NULL), RP_OK);
    assert_int_equal(test.result.verdict, RP_ERROR);
    assert_contains(test.result.message, ", is not explained: replay: as stored");
    rp_slot_test_free(&test);
    close_judge(judge);
    rp_scratch_pair_close(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_HF_alone_a_healthy_4_bit_engine_fails),
        cmocka_unit_test(where_tokens_weights_and_operations_are_right_it_is_marginal),
        cmocka_unit_test(a_wrong_conversion_is_no_quantization),
        cmocka_unit_test(a_bug_far_below_what_quantization_does_fails_by_name),
        cmocka_unit_test(a_bug_of_a_pair_whose_slots_are_within_5_percent_fails_by_replay),
        cmocka_unit_test(the_operation_is_named_with_its_cause),
        cmocka_unit_test(NaN_fails_under_every_gate),
        cmocka_unit_test(a_dump_cut_short_is_not_explained_by_quantization),
        cmocka_unit_test(without_the_checkpoint_the_file_is_what_was_not_checked),
        cmocka_unit_test(a_checkpoint_that_nobody_may_look_for_is_an_error),
        cmocka_unit_test(what_a_sketch_does_not_see_of_the_weights_is_said),
        cmocka_unit_test(of_a_model_that_C_does_not_know_the_operations_were_not_checked_either),
        cmocka_unit_test(where_attention_lacks_positions_the_operations_are_what_was_not_checked),
        cmocka_unit_test(a_slot_that_is_missing_breaks_the_induction),
        cmocka_unit_test(the_resolution_of_replay_is_said_and_has_to_be_below_the_limit),
        cmocka_unit_test(a_damaged_dump_of_quantized_weights_is_an_error),
        cmocka_unit_test(what_a_slots_test_replays_is_stored_and_what_is_stored_is_believed),
    };
    return cmocka_run_group_tests(tests, have_checkpoints, NULL) ? 1 : 0;
}
