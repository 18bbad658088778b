/* The gates: what decides on an engine whose weights are quantized. The clean engine passes where HF
 * alone would fail it; one with a bug fails, also where the bug is far below what quantization does. */
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
#include "base/sha256.h"
#include "refparity/gguf.h"
#include "run/judge_replay.h"
#include "run/run.h"
#include "tensor/npz_writer_test_util.h"

#define CLEAN NULL
#define WITH_BUGS(bugs)                                                              \
    "[\"{target:refparity-embedded-bugs}\", \"--model\", \"{gguf}\", \"--tokens\", " \
    "\"{tokens_file}\", \"--dump\", \"{dump}\", " bugs "]"
/* One FFN's output times 0.999: 5e-4 of that layer's output */
#define SMALL_BUG "\"--bug\", \"ffn-half\", \"--layer\", \"1\", \"--magnitude\", \"0.999\""
/* What is not about replay leaves it out: it has tests of its own. */
#define NO_REPLAY ", \"replay\": false"
#define EXPLAINED ", \"gate\": \"explained\""
#define EXACT ", \"gate\": \"exact\""

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
        assert_int_equal(rp_slot_of(&v, "h1")->exact.n_compared, 0);
        rp_verdicts_free(&v);
    }
}

static void explained_passes_it_and_shows_what_is_the_engines_and_what_is_quantization(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ARCHITECTURES; i++) {
        struct rp_verdicts v = judge_q4(architectures[i], CLEAN, EXPLAINED);
        assert_int_equal(v.verdict, RP_MARGINAL);
        assert_string_equal(v.divergence.slot, "");
        for (size_t s = 0; s < v.pair.n_slots; s++) {
            const struct rp_slot_result *slot = &v.pair.slots[s];
            assert_true(slot->verdict == RP_PASS || slot->verdict == RP_MARGINAL);
            assert_int_equal(slot->exact.n_compared, slot->n_compared);
            /* one C model twice, in the two modes: rounding of FP32 */
            assert_true(slot->exact.own_error <= 1e-5);
            assert_true(slot->verdict == RP_PASS || slot->exact.quantization_error >= 0.05);
        }
        assert_contains(rp_slot_of(&v, "h3")->message, "is quantization: that alone is 0.");
        rp_verdicts_free(&v);
    }
}

/* The healthy engine on a file whose converter exchanged two rows of a matrix: the engine lies on the exact
 * reference of that file. */
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
    setenv("REFPARITY_CHECKPOINTS", RP_SOURCE_DIR "/fixtures", 1);
    struct rp_verdicts v = judge(&spec);
    assert_int_equal(v.verdict, RP_FAIL);
    assert_contains(rp_slot_of(&v, "h1")->message,
                    "is no quantization: the engine's file is not the checkpoint: ");
    assert_contains(rp_slot_of(&v, "h1")->message, "blk.1.ffn_down.weight");
    rp_verdicts_free(&v);
    spec.gguf = right;
    v = judge(&spec);
    assert_int_equal(v.verdict, RP_MARGINAL);
    rp_verdicts_free(&v);
    unsetenv("REFPARITY_CHECKPOINTS");
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

static void a_bug_far_below_what_quantization_does_fails(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ARCHITECTURES; i++) {
        struct rp_verdicts v = judge_q4(architectures[i], WITH_BUGS(SMALL_BUG), EXPLAINED);
        const struct rp_slot_result *last = rp_slot_of(&v, "post_norm");
        assert_int_equal(v.verdict, RP_FAIL);
        assert_true(last->exact.own_error < 0.05 * last->exact.quantization_error);
        assert_int_equal(last->verdict, RP_FAIL);
        assert_contains(last->message, "of which quantization is 0.");
        assert_contains(last->message, ": the engine's own error is ");
        rp_verdicts_free(&v);
    }
}

static void the_first_divergence_is_found_beside_the_exact_reference(void **state)
{
    (void)state;
    struct rp_verdicts v =
        judge_q4("qwen3", WITH_BUGS("\"--bug\", \"qk-norm-off\", \"--layer\", \"1\""), EXPLAINED);
    assert_int_equal(v.verdict, RP_FAIL);
    assert_string_equal(v.divergence.slot, "h1");
    assert_string_equal(v.divergence.inner_slot, "h1_postattn");
    assert_contains(v.divergence.explanation, "the input of layer 1 has L2_rel 0");
    rp_verdicts_free(&v);
}

static void exact_asks_for_the_tight_limit_alone(void **state)
{
    (void)state;
    struct rp_verdicts v = judge_q4("llama", CLEAN, EXACT);
    assert_int_equal(v.verdict, RP_PASS);
    assert_contains(rp_slot_of(&v, "h3")->message, "limit 0.0001 (L2_rel against HF 0.");
    rp_verdicts_free(&v);
    /* h1 is within 5% of HF: only the exact reference shows that it is wrong */
    v = judge(&(struct rp_scratch_spec){.argv = WITH_BUGS(SMALL_BUG), .entry_extra = EXACT});
    const struct rp_slot_result *h1 = rp_slot_of(&v, "h1");
    assert_int_equal(v.verdict, RP_FAIL);
    assert_string_equal(v.divergence.slot, "h1");
    assert_int_equal(h1->verdict, RP_FAIL);
    assert_true(h1->worst.metrics.l2_rel < 0.05);
    assert_contains(h1->message, "own error 0.000");
    rp_verdicts_free(&v);
    v = judge(&(struct rp_scratch_spec){.argv = WITH_BUGS(SMALL_BUG),
                                        .entry_extra = EXPLAINED NO_REPLAY});
    assert_int_equal(v.verdict, RP_PASS);
    rp_verdicts_free(&v);
}

static void threshold_exact_is_the_limit_where_it_is_given(void **state)
{
    (void)state;
    struct rp_verdicts v = judge(&(struct rp_scratch_spec){
        .argv = WITH_BUGS(SMALL_BUG), .entry_extra = EXACT NO_REPLAY ", \"threshold_exact\": 0.9"});
    assert_int_equal(v.verdict, RP_PASS);
    rp_verdicts_free(&v);
}

static void an_engine_that_rounds_is_held_to_what_its_rounding_does(void **state)
{
    (void)state;
    /* not declared: FP32 is the limit. Declared, but not done: within what rounding does. */
    struct rp_verdicts v =
        judge(&(struct rp_scratch_spec){.weights = "q8_0", .entry_extra = EXACT});
    assert_true(rp_slot_of(&v, "h2")->exact.limit == 1e-4);
    rp_verdicts_free(&v);
    v = judge(&(struct rp_scratch_spec){
        .weights = "q8_0", .entry_extra = EXACT NO_REPLAY ", \"activations\": \"by_weight\""});
    assert_int_equal(v.verdict, RP_PASS);
    assert_true(rp_slot_of(&v, "emb")->exact.limit == 1e-4);
    assert_true(rp_slot_of(&v, "h0")->exact.limit > 1e-3);
    assert_true(rp_slot_of(&v, "h0")->exact.own_error > 1e-3);
    rp_verdicts_free(&v);
}

static void NaN_fails_under_every_gate(void **state)
{
    (void)state;
    static const char *const gates[] = {"", EXPLAINED, EXACT};
    for (size_t i = 0; i < 3; i++) {
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

/* ---- where the C model does not know the architecture ---- */

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

/* What fixtures/hf_reference.py --dequantized would record: of a BF16 file, the fixture's own values. */
static void record_dequantized(const char *store, const char *gguf_sha256)
{
    static const char of_checkpoint[] = "\"weights\": \"checkpoint\"";
    static const char folder[] = "tiny--qwen3/main/float32";
    static const char name[] = "the-quick-brown-fox-jumps-over-t-ef537f25";
    char path[1024], text[4096], replaced[8192];
    struct rp_tensor_set *set;
    struct rp_test_zip zip = {0};
    struct rp_test_bytes npz = {0};
    size_t length;
    const int64_t *ids;
    snprintf(path, sizeof path, "%s/fixtures/store/%s/%s.npz", RP_SOURCE_DIR, folder, name);
    assert_int_equal(rp_tensor_set_open(path, RP_LAYOUT_NPZ, 0, &set, NULL), RP_OK);
    const char *manifest = rp_tensor_set_manifest(set, &length);
    assert_true(length < sizeof text);
    snprintf(text, sizeof text, "%.*s", (int)length, manifest);
    char *at = strstr(text, of_checkpoint);
    assert_non_null(at);
    const int n = snprintf(replaced, sizeof replaced,
                           "%.*s\"weights\": \"gguf\",\n \"gguf_sha256\": \"%s\"%s",
                           (int)(at - text), text, gguf_sha256, at + sizeof of_checkpoint - 1);
    struct rp_test_bytes npy = {0};
    char shape[64];
    snprintf(shape, sizeof shape, "(%d,)", n);
    rp_test_npy(&npy, "|u1", shape, replaced, (size_t)n);
    rp_test_zip_add(&zip, "manifest.npy", npy.data, npy.n, 0);
    rp_test_free(&npy);
    assert_int_equal(rp_tensor_set_tokens(set, &ids, &length, NULL), RP_OK);
    snprintf(shape, sizeof shape, "(%zu,)", length);
    rp_test_npy(&npy, "<i8", shape, ids, length * sizeof *ids);
    rp_test_zip_add(&zip, "tokens.npy", npy.data, npy.n, 0);
    rp_test_free(&npy);
    for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
        const struct rp_slot_info *slot = rp_tensor_set_slot(set, i);
        struct rp_tensor tensor = {0};
        char member[RP_SLOT_NAME_SIZE + 8];
        assert_int_equal(rp_tensor_load(set, slot->name, &tensor, NULL), RP_OK);
        if (i == 0) {
            snprintf(shape, sizeof shape, "(%zu,)", slot->n_positions);
            rp_test_npy(&npy, "<i8", shape, slot->positions,
                        slot->n_positions * sizeof *slot->positions);
            rp_test_zip_add(&zip, "positions.npy", npy.data, npy.n, 0);
            rp_test_free(&npy);
        }
        snprintf(shape, sizeof shape, "(%zu, %zu)", tensor.n_positions, tensor.dim);
        snprintf(member, sizeof member, "%s.npy", slot->name);
        rp_test_npy(&npy, "<f4", shape, tensor.data,
                    tensor.n_positions * tensor.dim * sizeof(float));
        rp_test_zip_add(&zip, member, npy.data, npy.n, 0);
        rp_test_free(&npy);
        rp_tensor_release(&tensor);
    }
    rp_test_zip_finish(&zip, 0, &npz);
    snprintf(path, sizeof path, "%s/%s", store, folder);
    assert_int_equal(rp_make_dirs(path, NULL), RP_OK);
    snprintf(text, sizeof text, "%s.gguf-%.16s.npz", name, gguf_sha256);
    rp_test_write_file(path, text, npz.data, npz.n);
    rp_test_free(&npz);
    rp_tensor_set_close(set);
}

static void HF_on_the_dequantized_weights_stands_in_for_a_model_that_C_does_not_know(void **state)
{
    (void)state;
    char folder[256], gguf[512], stores[1024], sha256[65];
    rp_test_make_folder(folder);
    rename_architecture(RP_SOURCE_DIR "/fixtures/tiny/qwen3/qwen3-bf16.gguf", folder, gguf);
    snprintf(stores, sizeof stores, "\"%s/fixtures/store\", \"%s\"", RP_SOURCE_DIR, folder);
    /* the engine knows the model by its usual name */
    const struct rp_scratch_spec spec = {
        .gguf = gguf,
        .stores = stores,
        .entry_extra = EXACT,
        .argv = "[\"{target:refparity-embedded-bugs}\", \"--model\", \"" RP_SOURCE_DIR
                "/fixtures/tiny/qwen3/qwen3-bf16.gguf\", \"--tokens\", \"{tokens_file}\", "
                "\"--dump\", \"{dump}\", " SMALL_BUG "]"};
    struct rp_verdicts v = judge(&spec);
    assert_int_equal(v.verdict, RP_SKIP);
    assert_contains(rp_slot_of(&v, "h1")->message, "no exact reference: the C model: ");
    assert_contains(rp_slot_of(&v, "h1")->message, "qwen9");
    assert_contains(rp_slot_of(&v, "h1")->message,
                    "record it with `ci/record.sh tiny --dequantized`");
    assert_int_equal(v.replay[1].judgement.verdict, RP_SKIP);
    assert_contains(v.replay[1].judgement.message, "the C model: ");
    rp_verdicts_free(&v);

    assert_int_equal(rp_sha256_file(gguf, sha256, NULL), RP_OK);
    record_dequantized(folder, sha256);
    v = judge(&spec);
    assert_int_equal(v.verdict, RP_FAIL);
    assert_string_equal(v.divergence.slot, "h1");
    assert_int_equal(rp_slot_of(&v, "h0")->verdict, RP_PASS);
    assert_int_equal(rp_slot_of(&v, "h0")->exact.n_compared, 24);
    rp_verdicts_free(&v);

    /* of another file's weights, it is no reference for this one */
    sha256[40] = sha256[40] == '0' ? '1' : '0';
    record_dequantized(folder, sha256);
    v = judge(&spec);
    assert_contains(rp_slot_of(&v, "h1")->message, "was recorded with gguf_sha256 ");
    rp_verdicts_free(&v);
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

/* ---- making and keeping it ---- */

static struct rp_run_record run_only(struct rp_scratch_pair *scratch)
{
    struct rp_run_record record;
    struct rp_error err;
    if (rp_run_pair(&scratch->context, &scratch->pair, &record, &err))
        fail_msg("%s", err.message);
    return record;
}

static void pairs_with_the_same_inputs_share_one(void **state)
{
    (void)state;
    static const char spec[] = EXPLAINED ", \"modes\": [\"per-token\", \"batched\"]";
    struct rp_scratch_pair scratch;
    rp_scratch_pair_open(
        &scratch,
        &(struct rp_scratch_spec){
            .argv = "[\"{target:refparity-embedded}\", \"--model\", \"{gguf}\", \"--tokens\", "
                    "\"{tokens_file}\", \"--dump\", \"{dump}\", \"--mode\", \"{mode}\"]",
            .entry_extra = spec,
            .weights = "q4_0",
            .mode = "batched"});
    const struct rp_run_record first = run_only(&scratch);
    assert_string_equal(first.no_exact, "");
    assert_true(rp_path_exists(first.exact));
    struct rp_error err;
    assert_int_equal(
        rp_matrix_find_pair(scratch.context.matrix, "tiny", "per-token", "p0", &scratch.pair, &err),
        RP_OK);
    const struct rp_run_record second = run_only(&scratch);
    assert_string_equal(second.exact, first.exact);
    assert_string_equal(second.exact_state, first.exact_state); /* not written again */
    rp_scratch_pair_close(&scratch);
}

static void an_exact_reference_that_was_exchanged_is_an_error(void **state)
{
    (void)state;
    struct rp_scratch_pair scratch;
    struct rp_judge *judge = malloc(sizeof *judge);
    assert_non_null(judge);
    rp_scratch_pair_open(&scratch,
                         &(struct rp_scratch_spec){.entry_extra = EXPLAINED, .weights = "q4_0"});
    const struct rp_run_record record = run_only(&scratch);
    rp_test_write_file(record.exact, "h1.npy", "no numbers", 10);
    rp_judge_open(&scratch.context, &scratch.pair, judge);
    assert_int_equal(judge->prerequisites.verdict, RP_ERROR);
    assert_contains(judge->prerequisites.message, "the exact reference has changed since");
    rp_judge_close(judge);
    /* the next run computes it again: nobody has to clean up */
    struct rp_verdicts v;
    rp_scratch_pair_judge(&scratch, &v);
    assert_int_equal(v.verdict, RP_MARGINAL);
    rp_verdicts_free(&v);
    rp_scratch_pair_close(&scratch);
    free(judge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_HF_alone_a_healthy_4_bit_engine_fails),
        cmocka_unit_test(
            explained_passes_it_and_shows_what_is_the_engines_and_what_is_quantization),
        cmocka_unit_test(a_wrong_conversion_is_no_quantization),
        cmocka_unit_test(a_bug_far_below_what_quantization_does_fails),
        cmocka_unit_test(the_first_divergence_is_found_beside_the_exact_reference),
        cmocka_unit_test(exact_asks_for_the_tight_limit_alone),
        cmocka_unit_test(threshold_exact_is_the_limit_where_it_is_given),
        cmocka_unit_test(an_engine_that_rounds_is_held_to_what_its_rounding_does),
        cmocka_unit_test(NaN_fails_under_every_gate),
        cmocka_unit_test(a_dump_cut_short_is_not_explained_by_quantization),
        cmocka_unit_test(HF_on_the_dequantized_weights_stands_in_for_a_model_that_C_does_not_know),
        cmocka_unit_test(pairs_with_the_same_inputs_share_one),
        cmocka_unit_test(an_exact_reference_that_was_exchanged_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
