/* Running a model: its paths agree, one replaced operation is seen from its layer on, and calls that
 * cannot be are refused. Not whether the numbers are right: that is hf_parity_test.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/model_builder.h"
#include "model/recording.h"

#define N_TOKENS 9

static const int32_t tokens[N_TOKENS] = {3, 1, 4, 1, 5, 9, 2, 6, 10};

/* Records a run over tokens; options says the rest. */
static void run(const struct rp_model *model, struct rp_run options, struct recording *recording)
{
    options.tokens = tokens;
    options.n_tokens = N_TOKENS;
    record_run(model, options, recording);
}

static void slots_come_in_forward_order(void **state)
{
    (void)state;
    struct recording recording = {.n_slots = 0};
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    run(model, (struct rp_run){.mode = RP_MODE_PER_TOKEN}, &recording);
    size_t n_slots = 3; /* emb, post_norm, logits */
    for (size_t layer = 0; layer < N_LAYERS; layer++) {
        for (int part = RP_PART_IN; part <= RP_PART_OUTPUT; part++)
            n_slots += rp_model_slot_width(model, (enum rp_slot_part)part, layer) > 0;
    }
    assert_int_equal(recording.n_slots, n_slots);
    assert_string_equal(recording.slots[0].name, "emb");
    assert_string_equal(recording.slots[recording.n_slots - 1].name, "logits");
    for (size_t i = 0; i < recording.n_slots; i++) {
        const struct recorded_slot *slot = &recording.slots[i];
        int layer;
        const enum rp_slot_part part = rp_slot_parse(slot->name, &layer);
        assert_int_equal(slot->n_rows, N_TOKENS);
        assert_int_equal(slot->dim, rp_model_slot_width(model, part, (size_t)layer));
        if (i > 0)
            assert_true(rp_slot_order(recording.slots[i - 1].name, recording.slots[i].name) < 0);
    }
    forget(&recording);
    rp_model_close(model);
}

/* Equal to the bit without a BLAS. With one, sgemm sums 32 products in another order: 2e-7 each, and
 * three layers pass it on. */
#if defined(RP_HAVE_CBLAS)
#define SAME_ARITHMETIC 5e-6
#else
#define SAME_ARITHMETIC 0
#endif

static void all_paths_and_batch_sizes_agree(void **state)
{
    (void)state;
    static const struct variant variants[] = {
        {.architecture = "qwen3"},
        {.architecture = "llama", .untied = true, .freq_factor = 8},
        {.architecture = "qwen35"},
    };
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        struct recording one = {.n_slots = 0}, other = {.n_slots = 0};
        struct rp_model *model = open_variant(&variants[i]);
        run(model, (struct rp_run){.mode = RP_MODE_PER_TOKEN}, &one);
        for (size_t chunk = 0; chunk <= N_TOKENS + 1; chunk++) {
            run(model, (struct rp_run){.mode = RP_MODE_BATCHED, .chunk = chunk}, &other);
            expect_same(&other, &one, SAME_ARITHMETIC);
            forget(&other);
        }
        forget(&one);
        rp_model_close(model);
    }
}

/* RoPE is relative: what is rotated differs, and of everything else only the rounding of the angles, at
 * 1e-5 for positions near 100. */
static void shifting_all_positions_changes_nothing(void **state)
{
    (void)state;
    struct recording at_0 = {.n_slots = 0}, at_100 = {.n_slots = 0};
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    run(model, (struct rp_run){.mode = RP_MODE_BATCHED}, &at_0);
    run(model, (struct rp_run){.mode = RP_MODE_BATCHED, .first_position = 100}, &at_100);
    for (size_t i = 0; i < at_0.n_slots; i++) {
        const struct recorded_slot *slot = &at_0.slots[i];
        const double worst = worst_l2_rel(&at_100.slots[i], slot);
        if (strstr(slot->name, "rope"))
            assert_true(worst > 0.1);
        else if (!(worst <= 1e-4))
            fail_msg("%s differs by %g", slot->name, worst);
    }
    forget(&at_0);
    forget(&at_100);
    rp_model_close(model);
}

/* ---- replaced operations ---- */

struct replacement {
    int layer;
    enum rp_mode mode;
    int n_calls;
};

static enum rp_status double_ffn(void *context, const struct rp_site *site,
                                 const struct rp_residual_add *args)
{
    struct replacement *replacement = context;
    float twice[N_TOKENS * HIDDEN];
    struct rp_residual_add changed = *args;
    if (site->layer != replacement->layer || site->mode != replacement->mode ||
        args->which != RP_FFN_DOWN)
        return rp_ops_default()->residual_add(NULL, site, args);
    replacement->n_calls++;
    for (size_t i = 0; i < site->n_positions * args->dim; i++)
        twice[i] = 2 * args->branch[i];
    changed.branch = twice;
    return rp_ops_default()->residual_add(NULL, site, &changed);
}

static void a_replaced_operation_is_seen_from_its_layer_on(void **state)
{
    (void)state;
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    struct recording clean = {.n_slots = 0}, changed = {.n_slots = 0};
    struct rp_ops ops = *rp_ops_default();
    run(model, (struct rp_run){.mode = RP_MODE_BATCHED}, &clean);
    for (int layer = 0; layer < N_LAYERS; layer++) {
        struct replacement replacement = {.layer = layer, .mode = RP_MODE_BATCHED};
        char first[RP_SLOT_NAME_SIZE];
        ops.context = &replacement;
        ops.residual_add = double_ffn;
        run(model, (struct rp_run){.ops = &ops, .mode = RP_MODE_BATCHED}, &changed);
        assert_int_equal(replacement.n_calls, 1);
        rp_slot_name(RP_PART_OUTPUT, layer, first);
        for (size_t i = 0; i < clean.n_slots; i++) {
            double worst = worst_l2_rel(&changed.slots[i], &clean.slots[i]);
            bool is_after = rp_slot_order(clean.slots[i].name, first) >= 0;
            assert_true(is_after ? worst > 1e-3 : worst == 0);
        }
        forget(&changed);
    }
    forget(&clean);
    rp_model_close(model);
}

static void an_operation_can_be_replaced_in_one_path_only(void **state)
{
    (void)state;
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    struct recording clean = {.n_slots = 0}, changed = {.n_slots = 0};
    struct replacement replacement = {.layer = 1, .mode = RP_MODE_BATCHED};
    struct rp_ops ops = *rp_ops_default();
    ops.context = &replacement;
    ops.residual_add = double_ffn;
    run(model, (struct rp_run){.mode = RP_MODE_PER_TOKEN}, &clean);
    run(model, (struct rp_run){.ops = &ops, .mode = RP_MODE_PER_TOKEN}, &changed);
    expect_same(&changed, &clean, 0);
    assert_int_equal(replacement.n_calls, 0);
    forget(&changed);
    run(model, (struct rp_run){.ops = &ops, .mode = RP_MODE_BATCHED, .chunk = 4}, &changed);
    assert_int_equal(replacement.n_calls, 3);
    assert_true(worst_l2_rel(&changed.slots[changed.n_slots - 1], &clean.slots[clean.n_slots - 1]) >
                1e-3);
    forget(&changed);
    forget(&clean);
    rp_model_close(model);
}

static enum rp_status fail_rope(void *context, const struct rp_site *site,
                                const struct rp_rope *args)
{
    (void)context;
    (void)args;
    return rp_fail(site->err, RP_ERR_UNSUPPORTED, NULL, -1, "no rope in layer %d", site->layer);
}

static enum rp_status fail_tap(void *context, const struct rp_tap *tap, struct rp_error *err)
{
    (void)context;
    if (strcmp(tap->slot, "h1_ffnout") == 0)
        return rp_fail(err, RP_ERR_IO, NULL, -1, "the disk is full");
    return RP_OK;
}

static void an_error_of_an_operation_or_tap_ends_the_run(void **state)
{
    (void)state;
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    struct rp_ops ops = *rp_ops_default();
    struct rp_error err;
    struct rp_run options = {.tokens = tokens, .n_tokens = N_TOKENS, .ops = &ops};
    ops.rope = fail_rope;
    assert_int_equal(rp_model_run(model, &options, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "no rope in layer 0");
    options.ops = NULL;
    options.tap = fail_tap;
    assert_int_equal(rp_model_run(model, &options, &err), RP_ERR_IO);
    assert_string_equal(err.message, "the disk is full");
    rp_model_close(model);
}

/* ---- one layer by itself ---- */

static void a_layer_alone_computes_what_the_run_did(void **state)
{
    (void)state;
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    struct recording whole = {.n_slots = 0};
    struct rp_forward forward = {.model = model, .mode = RP_MODE_BATCHED};
    struct rp_layer layer = {.owned = NULL};
    struct rp_layer_state *layer_state = NULL;
    float hidden[N_TOKENS * HIDDEN];
    int64_t positions[N_TOKENS];
    run(model, (struct rp_run){.mode = RP_MODE_BATCHED}, &whole);
    const struct recorded_slot *input = recorded(&whole, "h1_in"), *output = recorded(&whole, "h1");
    for (size_t i = 0; i < N_TOKENS; i++)
        positions[i] = (int64_t)i;
    memcpy(hidden, input->rows, sizeof hidden);
    assert_int_equal(rp_layer_load(model, 1, &layer, NULL), RP_OK);
    assert_int_equal(layer.weights[RP_FFN_DOWN].n_in, FFN);
    assert_int_equal(rp_layer_state_open(model, 1, N_TOKENS, &layer_state, NULL), RP_OK);
    assert_int_equal(
        rp_layer_forward(&forward, 1, &layer, layer_state, N_TOKENS, positions, hidden, NULL),
        RP_OK);
    assert_memory_equal(hidden, output->rows, sizeof hidden);
    rp_layer_state_close(layer_state);
    rp_layer_free(&layer);
    forget(&whole);
    rp_model_close(model);
}

static void calls_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const int64_t ahead[2] = {5, 6}, repeated[2] = {7, 7}, behind[1] = {6};
    static const int32_t outside[1] = {VOCAB}, negative[1] = {-1};
    struct rp_model *model = open_variant(&(struct variant){.without = NULL});
    struct rp_forward forward = {.model = model};
    struct rp_layer layer = {.owned = NULL};
    struct rp_layer_state *layer_state = NULL;
    struct rp_error err;
    float hidden[3 * HIDDEN] = {1};
    assert_int_equal(rp_layer_load(model, N_LAYERS, &layer, &err), RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "layer 3 of a model with 3");
    assert_int_equal(rp_layer_state_open(model, N_LAYERS, 1, &layer_state, &err), RP_ERR_ARGUMENT);
    assert_int_equal(rp_layer_load(model, 0, &layer, NULL), RP_OK);
    assert_int_equal(rp_layer_state_open(model, 0, 3, &layer_state, NULL), RP_OK);
    assert_int_equal(rp_layer_forward(&forward, 0, &layer, layer_state, 2, repeated, hidden, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "position 7 does not follow the one before it");
    assert_int_equal(rp_layer_forward(&forward, 0, &layer, layer_state, 2, ahead, hidden, NULL),
                     RP_OK);
    assert_int_equal(rp_layer_forward(&forward, 0, &layer, layer_state, 1, behind, hidden, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "position 6 does not follow the one before it");
    assert_int_equal(rp_layer_forward(&forward, 0, &layer, layer_state, 2, ahead, hidden, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "2 positions for a state that holds 2 of 3");
    assert_int_equal(rp_model_run(model, &(struct rp_run){.tokens = outside, .n_tokens = 1}, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "token 0 is 11, outside the vocabulary of 11");
    assert_int_equal(rp_model_run(model, &(struct rp_run){.tokens = negative, .n_tokens = 1}, &err),
                     RP_ERR_ARGUMENT);
    assert_int_equal(rp_model_run(model, &(struct rp_run){.tokens = outside}, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "there are no tokens to run");
    rp_layer_state_close(layer_state);
    rp_layer_state_close(NULL);
    rp_layer_free(&layer);
    rp_model_close(model);
}

/* Layer 0 is linear attention, layer 1 full. */
static void weights_and_states_of_another_kind_are_refused(void **state)
{
    (void)state;
    static const int64_t positions[1] = {0};
    struct rp_model *model = open_variant(&(struct variant){.architecture = "qwen35"});
    struct rp_forward forward = {.model = model};
    struct rp_layer linear = {.owned = NULL}, full = {.owned = NULL};
    struct rp_layer_state *linear_state = NULL, *full_state = NULL;
    struct rp_error err;
    float hidden[HIDDEN] = {1};
    assert_int_equal(rp_layer_load(model, 0, &linear, NULL), RP_OK);
    assert_int_equal(rp_layer_load(model, 1, &full, NULL), RP_OK);
    assert_int_equal(rp_layer_state_open(model, 0, 2, &linear_state, NULL), RP_OK);
    assert_int_equal(rp_layer_state_open(model, 1, 2, &full_state, NULL), RP_OK);
    assert_int_equal(rp_layer_forward(&forward, 0, &linear, full_state, 1, positions, hidden, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "the state is not one of layer 0's kind");
    assert_int_equal(rp_layer_forward(&forward, 0, &full, linear_state, 1, positions, hidden, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "the weights have no 'attn_qkv', which layer 0 needs");
    assert_int_equal(rp_layer_forward(&forward, 1, &linear, full_state, 1, positions, hidden, &err),
                     RP_ERR_ARGUMENT);
    assert_string_equal(err.message, "the weights have no 'attn_q', which layer 1 needs");
    assert_int_equal(
        rp_layer_forward(&forward, 2, &linear, linear_state, 1, positions, hidden, &err), RP_OK);
    rp_layer_state_close(linear_state);
    rp_layer_state_close(full_state);
    rp_layer_free(&linear);
    rp_layer_free(&full);
    rp_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_come_in_forward_order),
        cmocka_unit_test(all_paths_and_batch_sizes_agree),
        cmocka_unit_test(shifting_all_positions_changes_nothing),
        cmocka_unit_test(a_replaced_operation_is_seen_from_its_layer_on),
        cmocka_unit_test(an_operation_can_be_replaced_in_one_path_only),
        cmocka_unit_test(an_error_of_an_operation_or_tap_ends_the_run),
        cmocka_unit_test(a_layer_alone_computes_what_the_run_did),
        cmocka_unit_test(calls_that_cannot_be_are_refused),
        cmocka_unit_test(weights_and_states_of_another_kind_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder) ? 1 : 0;
}
