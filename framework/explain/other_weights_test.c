/* A dump of another quantization is told from bugs, wrong declarations and damaged dumps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"
#include "explain/other_weights.h"
#include "refparity/gguf.h"
#include "replay/engine_dump_test_util.h"

/* What is said of a dump of an engine that reads the weights of one type, when it is replayed with those of
 * another; "": nothing. */
struct trial {
    const char *model, *engine_type, *type;
    bool is_coarse;
    const struct rp_ops *ops;
    void (*damages)(const char *folder);
};

static bool keeps_layers(const char *slot, int64_t position)
{
    static const char *const kept[] = {"_in", "_postattn", "_preffn", "_ffnout"};
    const char *suffix = strchr(slot, '_');
    (void)position;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (suffix && strcmp(suffix, kept[i]) == 0)
            return true;
    return rp_slot_is_required(slot);
}

struct course {
    struct rp_replay *replay;
    struct rp_products products;
    int last_layer;
};

static void take(void *context, const struct rp_replay_layer *layer)
{
    struct course *course = context;
    struct rp_explanation explanations[RP_N_LAYER_PARTS] = {{.name = ""}};
    struct rp_error err;
    if (layer->layer > course->last_layer)
        return;
    for (size_t i = 0; i < layer->n_slots; i++)
        if (layer->slots[i].verdict == RP_FAIL)
            assert_int_equal(
                rp_explain_slot(course->replay, &layer->slots[i], &explanations[i], &err), RP_OK);
    rp_products_add(&course->products, layer, explanations);
}

static void find_hint(const struct trial *trial, char text[RP_PRODUCTS_TEXT_SIZE])
{
    char path[512];
    snprintf(path, sizeof path, "%s/fixtures/tiny/%s/%s-%s.gguf", RP_SOURCE_DIR, trial->model,
             trial->model, trial->type);
    const struct rp_test_dump_of of = {.model = trial->model,
                                       .type = trial->engine_type,
                                       .ops = trial->ops,
                                       .damages = trial->damages,
                                       .keeps = trial->is_coarse ? keeps_layers : NULL};
    struct rp_test_replayed replayed;
    struct rp_error err;
    rp_test_replayed_open(&replayed, &of);
    rp_replay_close(replayed.replay);
    rp_model_close(replayed.model);
    assert_int_equal(rp_model_open(path, &replayed.model, &err), RP_OK);
    assert_int_equal(
        rp_replay_open(replayed.model, replayed.dump, &of.options, &replayed.replay, &err), RP_OK);
    /* a layer of operations is enough; of layers alone it takes two */
    struct course course = {.replay = replayed.replay, .last_layer = trial->is_coarse ? 1 : 0};
    rp_test_replay_each(&replayed, take, &course);
    rp_products_hint(&course.products, replayed.replay, text);
    rp_test_replayed_close(&replayed);
}

static void other_weights_are_said(void **state)
{
    static const char *const models[] = {"qwen3", "llama", "qwen35"}, *const types[] = {
                                                                          "bf16", "q8_0", "q4_0"};
    (void)state;
    for (size_t i = 0; i < 27; i++) {
        const struct trial trial = {
            .model = models[i / 9], .engine_type = types[i / 3 % 3], .type = types[i % 3]};
        char text[RP_PRODUCTS_TEXT_SIZE];
        find_hint(&trial, text);
        if (trial.engine_type == trial.type)
            assert_string_equal(text, "");
        else
            assert_non_null(strstr(text, "the dump was made with other weights than "));
    }
}

static void two_layers_show_it_where_operations_are_not_dumped(void **state)
{
    (void)state;
    char text[RP_PRODUCTS_TEXT_SIZE];
    const struct trial other = {"qwen3", "q8_0", "q4_0", true, NULL, NULL},
                       same = {"qwen3", "q8_0", "q8_0", true, NULL, NULL};
    find_hint(&other, text);
    assert_non_null(strstr(text, "4 of 4 matrix products fail, at every position"));
    find_hint(&same, text);
    assert_string_equal(text, "");
}

/* As dumps that tell the engine's file. */
static char told[RP_MODEL_FILE_ID_SIZE];

static void tell_model(const char *folder)
{
    char path[512], *text, *at, more[1024];
    size_t n;
    snprintf(path, sizeof path, "%s/dump.json", folder);
    assert_int_equal(rp_file_read(path, 1 << 20, &text, &n, NULL), RP_OK);
    at = strstr(text, "\"n_layers\"");
    assert_non_null(at);
    const int length =
        snprintf(more, sizeof more, "%.*s\"model\": \"%s\", %s", (int)(at - text), text, told, at);
    assert_int_equal(rp_file_write_atomic(path, more, (size_t)length, NULL), RP_OK);
    free(text);
}

static void a_dump_that_tells_its_file_settles_it(void **state)
{
    (void)state;
    char text[RP_PRODUCTS_TEXT_SIZE];
    const struct trial trial = {
        .model = "qwen3", .engine_type = "q8_0", .type = "q4_0", .damages = tell_model};
    rp_model_file_id(RP_SOURCE_DIR "/fixtures/tiny/qwen3/qwen3-q8_0.gguf", told);
    find_hint(&trial, text);
    assert_non_null(strstr(text, "the dump was made with another file, \"qwen3-q8_0.gguf "));
    assert_non_null(strstr(text, ", than qwen3-q4_0.gguf "));
    /* text of a stranger's stays on its line */
    snprintf(told, sizeof told, "%s", "a\\u001b\\nb 0123456789abcdef");
    find_hint(&trial, text);
    assert_non_null(strstr(text, "another file, \"a\\x1B\\x0Ab 0123456789abcdef\", than "));
    /* an engine that read the file, and something else came of it */
    rp_model_file_id(RP_SOURCE_DIR "/fixtures/tiny/qwen3/qwen3-q4_0.gguf", told);
    find_hint(&trial, text);
    assert_non_null(strstr(text, "the dump was made with this very file"));
}

/* Products whose inputs are rounded fail everywhere, too, and have a name. */
static void undeclared_activations_are_no_other_weights(void **state)
{
    (void)state;
    char text[RP_PRODUCTS_TEXT_SIZE];
    const struct rp_numerics numerics = {.activations = RP_ACTIVATIONS_Q8_0};
    struct rp_emulation emulation;
    rp_emulation_open(&emulation, &numerics, NULL);
    const struct trial trial = {"qwen3", "q8_0", "q8_0", false, &emulation.overlay.ops, NULL};
    find_hint(&trial, text);
    assert_string_equal(text, "");
}

/* Another eps: not only products fail. */
static enum rp_status other_eps(void *context, const struct rp_site *site,
                                const struct rp_rms_norm *args)
{
    const struct rp_ops *below = ((struct rp_overlay *)context)->below;
    struct rp_rms_norm changed = *args;
    changed.eps *= 50;
    return below->rms_norm(below->context, site, &changed);
}

static void a_bug_besides_is_no_other_weights_alone(void **state)
{
    (void)state;
    char text[RP_PRODUCTS_TEXT_SIZE];
    struct rp_overlay bug;
    rp_overlay_open(&bug, NULL);
    bug.ops.rms_norm = other_eps;
    struct trial trial = {"qwen3", "q8_0", "q4_0", false, &bug.ops, NULL};
    find_hint(&trial, text);
    assert_string_equal(text, "");
    /* what the dump tells of its file is said all the same */
    trial.damages = tell_model;
    rp_model_file_id(RP_SOURCE_DIR "/fixtures/tiny/qwen3/qwen3-q8_0.gguf", told);
    find_hint(&trial, text);
    assert_non_null(strstr(text, "the dump was made with another file, qwen3-q8_0.gguf "));
    assert_non_null(strstr(text, ": replay it with that one"));
}

/* Every second value of each product is of another sign: no quantization costs so much. */
static enum rp_status wrong_product(void *context, const struct rp_site *site,
                                    const struct rp_linear *args)
{
    const struct rp_ops *below = ((struct rp_overlay *)context)->below;
    const enum rp_status status = below->linear(below->context, site, args);
    for (size_t p = 0; p < site->n_positions; p++)
        for (size_t i = 0; i < args->n_out; i += 2)
            args->y[p * args->y_stride + i] *= -1;
    return status;
}

static void an_error_that_is_no_quantization_is_not_called_one(void **state)
{
    (void)state;
    char text[RP_PRODUCTS_TEXT_SIZE];
    struct rp_overlay bug;
    rp_overlay_open(&bug, NULL);
    bug.ops.linear = wrong_product;
    const struct trial trial = {"qwen3", "bf16", "bf16", false, &bug.ops, NULL};
    find_hint(&trial, text);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_weights_are_said),
        cmocka_unit_test(two_layers_show_it_where_operations_are_not_dumped),
        cmocka_unit_test(a_dump_that_tells_its_file_settles_it),
        cmocka_unit_test(undeclared_activations_are_no_other_weights),
        cmocka_unit_test(a_bug_besides_is_no_other_weights_alone),
        cmocka_unit_test(an_error_that_is_no_quantization_is_not_called_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
