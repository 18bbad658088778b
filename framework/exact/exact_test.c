/* The exact reference: what it writes, what it refuses, and the limits that it gives. The committed tiny
 * models and their fixtures are the ground. */
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
#include "exact/exact.h"
#include "exact/limits.h"
#include "refparity/compare.h"

#define TINY RP_SOURCE_DIR "/fixtures/tiny/"
#define FOX                                                   \
    RP_SOURCE_DIR "/fixtures/store/tiny--qwen3/main/float32/" \
                  "the-quick-brown-fox-jumps-over-t-ef537f25.npz"

struct made {
    char folder[256], path[300];
    struct rp_tensor_set *fixture, *exact;
    struct rp_exact_spec spec; /* the fox's tokens, all positions */
    struct rp_error err;
    enum rp_status status;
};

static void prepare(struct made *made, const char *gguf)
{
    memset(made, 0, sizeof *made);
    rp_test_make_folder(made->folder);
    snprintf(made->path, sizeof made->path, "%s/exact", made->folder);
    made->spec.gguf = gguf;
    assert_int_equal(rp_tensor_set_open(FOX, RP_LAYOUT_NPZ, 0, &made->fixture, &made->err), RP_OK);
    assert_int_equal(
        rp_tensor_set_tokens(made->fixture, &made->spec.tokens, &made->spec.n_tokens, &made->err),
        RP_OK);
}

static void make(struct made *made)
{
    assert_int_equal(rp_remove_tree(made->path, NULL), RP_OK);
    made->status = rp_exact_compute(&made->spec, made->path, &made->err);
    if (!made->status)
        assert_int_equal(rp_tensor_set_open(made->path, RP_LAYOUT_AUTO, 0, &made->exact, NULL),
                         RP_OK);
}

static void end(struct made *made)
{
    rp_tensor_set_close(made->exact);
    rp_tensor_set_close(made->fixture);
    assert_int_equal(rp_remove_tree(made->folder, NULL), RP_OK);
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

static double worst_of(struct rp_tensor_set *reference, struct rp_tensor_set *other,
                       const char *slot)
{
    struct rp_comparison c = {.reference = reference, .engine = other, .n_layers = 4};
    struct rp_slot_result result;
    c.limits = rp_limits_default();
    rp_compare_slot(&c, slot, &result);
    assert_true(result.n_compared > 0);
    return result.worst.metrics.l2_rel;
}

static void on_the_original_weights_it_is_what_HF_computed_at_every_slot(void **state)
{
    (void)state;
    struct made made;
    prepare(&made, TINY "qwen3/qwen3-bf16.gguf");
    make(&made);
    assert_int_equal(made.status, RP_OK);
    assert_true(rp_tensor_set_complete(made.exact));
    assert_int_equal(rp_tensor_set_n_layers(made.exact), 4);
    assert_int_equal(rp_tensor_set_n_slots(made.exact), rp_tensor_set_n_slots(made.fixture));
    for (size_t i = 0; i < rp_tensor_set_n_slots(made.fixture); i++) {
        const struct rp_slot_info *slot = rp_tensor_set_slot(made.fixture, i);
        /* FP32 rounding is 3e-6 at most here, the smallest known bug 2e-3 */
        assert_true(worst_of(made.fixture, made.exact, slot->name) <= 1e-5);
    }
    end(&made);
}

static void only_the_positions_that_are_asked_for_are_written(void **state)
{
    (void)state;
    static const int64_t positions[] = {1, 2, 7};
    struct made made;
    prepare(&made, TINY "qwen3/qwen3-bf16.gguf");
    made.spec.positions = positions;
    made.spec.n_positions = 3;
    make(&made);
    assert_int_equal(made.status, RP_OK);
    for (size_t i = 0; i < rp_tensor_set_n_slots(made.exact); i++) {
        const struct rp_slot_info *slot = rp_tensor_set_slot(made.exact, i);
        assert_int_equal(slot->n_positions, 3);
        assert_memory_equal(slot->positions, positions, sizeof positions);
        assert_true(worst_of(made.exact, made.fixture, slot->name) <= 1e-5);
    }
    end(&made);
}

static void what_cannot_be_run_is_an_error_and_says_why(void **state)
{
    (void)state;
    static const int64_t unknown[] = {5, 1 << 20}, negative[] = {-1}, past[] = {5000};
    struct made made;
    prepare(&made, TINY "qwen3/qwen3-bf16.gguf");
    made.spec.positions = past;
    made.spec.n_positions = 1;
    make(&made);
    assert_int_equal(made.status, RP_ERR_ARGUMENT);
    assert_contains(made.err.message, "position 5000 is past the prompt of ");
    made.spec.positions = NULL;
    made.spec.tokens = unknown;
    made.spec.n_tokens = 2;
    make(&made);
    assert_int_equal(made.status, RP_ERR_ARGUMENT);
    made.spec.tokens = negative;
    made.spec.n_tokens = 1;
    make(&made);
    assert_int_equal(made.status, RP_ERR_ARGUMENT);
    made.spec.n_tokens = 0;
    make(&made);
    assert_int_equal(made.status, RP_ERR_ARGUMENT);
    made.spec.gguf = "/nowhere.gguf";
    make(&made);
    assert_int_equal(made.status, RP_ERR_MISSING);
    end(&made);
}

/* The path of a copy in which the architecture has another name, in path[300]. */
static void rename_architecture(const char *gguf, const char *folder, char *path)
{
    char *bytes;
    size_t n;
    assert_int_equal(rp_file_read(gguf, 64 << 20, &bytes, &n, NULL), RP_OK);
    for (size_t i = 0; i + 5 <= n && memcmp(bytes + i, "token_embd", 5) != 0; i++)
        if (memcmp(bytes + i, "qwen3", 5) == 0)
            bytes[i + 4] = '9';
    rp_test_write_file(folder, "renamed.gguf", bytes, n);
    snprintf(path, 300, "%s/renamed.gguf", folder);
    free(bytes);
}

static void an_architecture_that_the_C_model_does_not_know_is_unsupported(void **state)
{
    (void)state;
    struct made made;
    char path[300] = "";
    prepare(&made, path);
    rename_architecture(TINY "qwen3/qwen3-bf16.gguf", made.folder, path);
    make(&made);
    assert_int_equal(made.status, RP_ERR_UNSUPPORTED);
    assert_contains(made.err.message, "qwen9");
    end(&made);
}

/* ---- limits ---- */

static double limit_of(const char *path, const struct rp_numerics *numerics, const char *slot)
{
    struct rp_exact_limits *limits;
    struct rp_error err;
    if (rp_exact_limits_open(path, numerics, &limits, &err))
        fail_msg("%s", err.message);
    const double limit = rp_limits_l2_rel(rp_exact_limits_of(limits), slot);
    rp_exact_limits_close(limits);
    return limit;
}

static void in_FP32_the_limit_is_tight_everywhere(void **state)
{
    (void)state;
    struct made made;
    prepare(&made, TINY "qwen3/qwen3-q8_0.gguf");
    make(&made);
    assert_true(limit_of(made.path, &made.spec.numerics, "h0") == RP_EXACT_F32);
    assert_true(limit_of(made.path, &made.spec.numerics, "logits") == RP_EXACT_F32);
    end(&made);
}

static void where_values_are_rounded_it_is_three_times_what_that_does_to_the_slot(void **state)
{
    (void)state;
    struct made rounded, plain;
    prepare(&rounded, TINY "qwen3/qwen3-q8_0.gguf");
    prepare(&plain, TINY "qwen3/qwen3-q8_0.gguf");
    rounded.spec.numerics.activations = RP_ACTIVATIONS_BY_WEIGHT;
    make(&rounded);
    make(&plain);
    static const char *const slots[] = {"h0", "h2_postattn", "h3", "post_norm", "logits"};
    for (size_t i = 0; i < 5; i++) {
        const double done = worst_of(rounded.exact, plain.exact, slots[i]);
        const double limit = limit_of(rounded.path, &rounded.spec.numerics, slots[i]);
        assert_true(done > 1e-3); /* 8-bit blocks: a step is 1/127 of the largest of 32 */
        assert_true(limit > 2.99 * done && limit < 3.01 * done);
    }
    assert_true(limit_of(rounded.path, &rounded.spec.numerics, "emb") == RP_EXACT_F32);
    end(&rounded);
    end(&plain);
}

static void rounding_that_the_weights_do_not_ask_for_leaves_the_limit_tight(void **state)
{
    (void)state;
    struct made made;
    prepare(&made, TINY "qwen3/qwen3-bf16.gguf");
    made.spec.numerics.kv_cache = RP_KV_CACHE_F16;
    make(&made);
    const double f16 = limit_of(made.path, &made.spec.numerics, "h3");
    assert_true(f16 > RP_EXACT_F32 && f16 < 0.02);
    end(&made);
}

static void another_exact_reference_has_but_a_coarse_limit(void **state)
{
    (void)state;
    const struct rp_numerics f32 = {.activations = RP_ACTIVATIONS_F32};
    const struct rp_numerics q8_0 = {.activations = RP_ACTIVATIONS_Q8_0};
    const struct rp_numerics q4_cache = {.kv_cache = RP_KV_CACHE_Q4_0};
    const struct rp_numerics flash = {.attention = RP_ATTENTION_FLASH};
    assert_true(limit_of(FOX, &f32, "h0") == RP_EXACT_F32);
    assert_true(limit_of(FOX, &q8_0, "h0") > limit_of(FOX, &flash, "h0"));
    assert_true(limit_of(FOX, &flash, "h0") > RP_EXACT_F32);
    assert_true(limit_of(FOX, &q4_cache, "h0") > limit_of(FOX, &q8_0, "h0"));
}

static void a_broken_file_of_limits_is_an_error(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "{}", "{\"l2_rel\": 1}", "{\"l2_rel\": {\"h0\": -1}}",
                                        "{\"l2_rel\": {\"h0\": \"x\"}}"};
    const struct rp_numerics q8_0 = {.activations = RP_ACTIVATIONS_Q8_0};
    struct rp_exact_limits *limits;
    char folder[256];
    rp_test_make_folder(folder);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        rp_test_write_file(folder, "rounding.json", texts[i], strlen(texts[i]));
        assert_int_equal(rp_exact_limits_open(folder, &q8_0, &limits, NULL), RP_ERR_FORMAT);
    }
    assert_int_equal(rp_remove_tree(folder, NULL), RP_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_the_original_weights_it_is_what_HF_computed_at_every_slot),
        cmocka_unit_test(only_the_positions_that_are_asked_for_are_written),
        cmocka_unit_test(what_cannot_be_run_is_an_error_and_says_why),
        cmocka_unit_test(an_architecture_that_the_C_model_does_not_know_is_unsupported),
        cmocka_unit_test(in_FP32_the_limit_is_tight_everywhere),
        cmocka_unit_test(where_values_are_rounded_it_is_three_times_what_that_does_to_the_slot),
        cmocka_unit_test(rounding_that_the_weights_do_not_ask_for_leaves_the_limit_tight),
        cmocka_unit_test(another_exact_reference_has_but_a_coarse_limit),
        cmocka_unit_test(a_broken_file_of_limits_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
