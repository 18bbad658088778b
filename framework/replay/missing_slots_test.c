/* Dumps that lack slots or positions: what is left is replayed from the nearest slots that are there, and
 * nothing is blamed for what is missing. Rows that are not finite are in invalid_rows_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "replay/engine_dump_test_util.h"

static const char *const models[] = {"qwen3", "llama", "qwen35"};

static void expect_clean(const struct rp_test_findings *findings)
{
    if (findings->n_failing > 0)
        fail_msg("%s: %s", findings->failing[0], findings->message);
    assert_true(findings->n_slots > 0);
}

/* ---- each slot in turn ---- */

enum { MAX_SLOTS = 200, N_POSITIONS = 12 };

struct seen_slot {
    char slot[RP_SLOT_NAME_SIZE], from[160], between[96];
    bool is_carried;
    enum rp_verdict verdict;
    size_t n;
    double introduced[N_POSITIONS], limit[N_POSITIONS];
};

struct seen {
    struct seen_slot slots[MAX_SLOTS];
    size_t n;
};

static void see(void *context, const struct rp_replay_layer *result)
{
    struct seen *seen = context;
    for (size_t i = 0; i < result->n_slots; i++) {
        const struct rp_replay_slot *slot = &result->slots[i];
        assert_true(seen->n < MAX_SLOTS && slot->n_positions <= N_POSITIONS);
        struct seen_slot *one = &seen->slots[seen->n++];
        *one = (struct seen_slot){.is_carried = slot->is_carried, .verdict = slot->verdict};
        memcpy(one->slot, slot->slot, sizeof one->slot);
        memcpy(one->from, slot->from, sizeof one->from);
        memcpy(one->between, slot->between, sizeof one->between);
        one->n = slot->n_positions;
        memcpy(one->introduced, slot->introduced, one->n * sizeof *one->introduced);
        memcpy(one->limit, slot->limit, one->n * sizeof *one->limit);
        if (slot->verdict == RP_FAIL)
            fail_msg("%s: %s", slot->slot, slot->message);
    }
}

static const char *left_out;

static bool keeps_others(const char *slot, int64_t position)
{
    (void)position;
    return !left_out || strcmp(slot, left_out) != 0;
}

/* Whether name stands in the list "a, b, c". */
static bool lists(const char *list, const char *name)
{
    const size_t length = strlen(name);
    for (const char *at = strstr(list, name); at; at = strstr(at + 1, name)) {
        if ((at == list || at[-1] == ' ') && (at[length] == '\0' || at[length] == ','))
            return true;
    }
    return false;
}

/* What a slot says where one that it was computed from is gone. What entered the layer is known anyway,
 * and where it is compared there is nothing to compare it with. */
static void expect_without(const struct seen_slot *before, const struct seen_slot *now)
{
    const char *what = strchr(left_out, '_');
    if (what && strcmp(what, "_in") == 0) {
        assert_int_equal(now->verdict, RP_PASS);
        assert_false(now->is_carried);
    } else if (strstr(before->slot, "_in")) {
        assert_int_equal(now->verdict, RP_SKIP);
    } else if (strcmp(before->slot, "post_norm") == 0) {
        assert_int_equal(now->verdict, RP_SKIP);
    } else {
        assert_int_equal(now->verdict, RP_PASS);
        assert_int_equal(now->n, N_POSITIONS);
        assert_true(now->is_carried);
        assert_true(lists(now->between, left_out));
        assert_false(lists(now->from, left_out));
    }
}

static size_t expect_left_out(struct rp_test_dump_of of, const struct seen *all)
{
    struct rp_test_replayed replayed;
    static struct seen without;
    size_t n_successors = 0, k = 0;
    without.n = 0;
    of.keeps = keeps_others;
    rp_test_replayed_open(&replayed, &of);
    rp_test_replay_each(&replayed, see, &without);
    rp_test_replayed_close(&replayed);
    assert_int_equal(without.n, all->n - 1);
    for (size_t i = 0; i < all->n; i++) {
        const struct seen_slot *before = &all->slots[i], *now = &without.slots[k];
        if (strcmp(before->slot, left_out) == 0)
            continue;
        k++;
        assert_string_equal(now->slot, before->slot);
        if (lists(before->from, left_out)) {
            n_successors++;
            expect_without(before, now);
            continue;
        }
        assert_string_equal(now->from, before->from);
        assert_int_equal(now->verdict, RP_PASS);
        assert_false(now->is_carried);
        assert_int_equal(now->n, before->n);
        assert_memory_equal(now->introduced, before->introduced, sizeof now->introduced);
        assert_memory_equal(now->limit, before->limit, sizeof now->limit);
    }
    return n_successors;
}

/* The engine sums in another order, so that nothing is 0. */
static void expect_each_left_out(const char *model, const char *type, struct rp_numerics numerics)
{
    struct rp_test_engine_ops ops;
    struct rp_emulation emulation;
    struct rp_test_replayed replayed;
    static struct seen all;
    size_t n_successors = 0;
    rp_test_engine_ops_open(&ops, RP_TEST_SEQUENTIAL);
    rp_emulation_open(&emulation, &numerics, &ops.overlay.ops);
    const struct rp_test_dump_of of = {.model = model,
                                       .type = type,
                                       .n_tokens = N_POSITIONS,
                                       .ops = &emulation.overlay.ops,
                                       .options = {.numerics = numerics}};
    all.n = 0;
    left_out = NULL;
    rp_test_replayed_open(&replayed, &of);
    rp_test_replay_each(&replayed, see, &all);
    rp_test_replayed_close(&replayed);
    for (size_t i = 0; i < all.n; i++) {
        int layer;
        assert_int_equal(all.slots[i].verdict, RP_PASS);
        rp_slot_parse(all.slots[i].slot, &layer);
        if (layer != 0 && layer != 2) { /* -1, 1, 3: of all kinds */
            left_out = all.slots[i].slot;
            n_successors += expect_left_out(of, &all);
        }
    }
    left_out = NULL;
    assert_true(n_successors > 40);
}

static void without_a_slot_its_successors_are_carried_and_nothing_else_changes(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        expect_each_left_out(models[i], "bf16", (struct rp_numerics){.state = RP_STATE_F32});
        expect_each_left_out(models[i], "q8_0",
                             (struct rp_numerics){.activations = RP_ACTIVATIONS_BY_WEIGHT,
                                                  .kv_cache = RP_KV_CACHE_F16});
    }
}

/* ---- coarse dumps ---- */

static bool keeps_required(const char *slot, int64_t position)
{
    (void)position;
    return rp_slot_is_required(slot);
}

static bool keeps_layers(const char *slot, int64_t position)
{
    int layer;
    (void)position;
    return rp_slot_level_has(RP_SLOTS_LAYERS, rp_slot_parse(slot, &layer));
}

static void a_dump_of_required_slots_alone_is_carried_through_whole_layers(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const size_t n_layers = i == 2 ? 8 : 4;
        const struct rp_test_dump_of of = {.model = models[i], .keeps = keeps_required};
        const struct rp_test_findings findings = rp_test_replay(&of);
        struct rp_replay_layer layer;
        expect_clean(&findings);
        assert_int_equal(findings.n_slots, n_layers + 3);
        assert_int_equal(findings.n_carried, n_layers);
        assert_int_equal(findings.n_skipped, 0);
        rp_test_replay_layer(&of, 1, &layer);
        assert_int_equal(layer.n_slots, 1);
        assert_string_equal(layer.slots[0].from, "h0");
        assert_string_equal(layer.slots[0].operation, "the RMS norm attn_norm to the residual add");
        rp_replay_layer_free(&layer);
    }
}

/* Which slots would settle it: those that a rounding reads. */
static void a_carried_slot_says_what_would_have_to_be_dumped(void **state)
{
    (void)state;
    static const struct {
        const char *model, *slot, *from, *between;
        bool is_required_only;
    } cases[] = {
        {"qwen3", "h1_postattn", "h1_in", "h1_preattn, h1_v, h1_qrope, h1_krope, h1_attn", false},
        {"qwen3", "h1_ffnout", "h1_preffn", "h1_act", false},
        {"qwen35", "h1_postattn", "h1_in", "h1_preattn, h1_mix", false},
        {"qwen35", "h3_postattn", "h3_in", "h3_preattn, h3_v, h3_qrope, h3_krope, h3_mix", false},
        {"llama", "h1", "h0", "h1_preattn, h1_v, h1_qrope, h1_krope, h1_attn, h1_preffn, h1_act",
         true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_replay_layer layer;
        const struct rp_test_dump_of of = {
            .model = cases[i].model,
            .type = "q8_0",
            .keeps = cases[i].is_required_only ? keeps_required : keeps_layers,
            .options = {.numerics = {.activations = RP_ACTIVATIONS_BY_WEIGHT}}};
        rp_test_replay_layer(&of, cases[i].slot[1] == '1' ? 1 : 3, &layer);
        const struct rp_replay_slot *slot = rp_test_slot(&layer, cases[i].slot);
        assert_true(slot->is_carried);
        assert_string_equal(slot->from, cases[i].from);
        assert_string_equal(slot->between, cases[i].between);
        rp_replay_layer_free(&layer);
    }
}

/* ---- a slot at some positions ---- */

static bool keeps_some_qrope(const char *slot, int64_t position)
{
    return strcmp(slot, "h1_qrope") != 0 || position < 10;
}

static int64_t wrong_position;

static void err_in_qrope(const char *slot, int64_t position, float *row, size_t dim)
{
    for (size_t i = 0; i < dim && strcmp(slot, "h1_qrope") == 0 && position == wrong_position; i++)
        row[i] *= 1.001f;
}

/* At the positions that are not dumped, Q is carried. */
static void a_slot_at_some_positions_is_used_there(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct rp_test_dump_of of = {.model = models[i], .keeps = keeps_some_qrope};
        struct rp_replay_layer layer;
        rp_test_replay_layer(&of, 1, &layer);
        const struct rp_replay_slot *slot = rp_test_slot(&layer, "h1_attn");
        assert_int_equal(layer.verdict, RP_PASS);
        assert_int_equal(rp_test_slot(&layer, "h1_qrope")->n_positions, 10);
        assert_int_equal(slot->n_positions, 24);
        assert_true(slot->is_carried);
        assert_string_equal(slot->between, "h1_qrope");
        rp_replay_layer_free(&layer);

        of.errs = err_in_qrope;
        wrong_position = 5;
        rp_test_replay_layer(&of, 1, &layer);
        assert_string_equal(layer.first_failing->slot, "h1_qrope");
        assert_int_equal(layer.first_failing->positions[layer.first_failing->first], 5);
        assert_int_equal(rp_test_slot(&layer, "h1_attn")->verdict, RP_PASS);
        rp_replay_layer_free(&layer);

        wrong_position = 15;
        rp_test_replay_layer(&of, 1, &layer);
        assert_string_equal(layer.first_failing->slot, "h1_attn");
        assert_int_equal(layer.first_failing->n_failing, 1);
        assert_int_equal(layer.first_failing->positions[layer.first_failing->first], 15);
        rp_replay_layer_free(&layer);
    }
}

/* ---- inputs and positions ---- */

static bool keeps_no_in(const char *slot, int64_t position)
{
    (void)position;
    return strstr(slot, "_in") == NULL;
}

static void a_layer_starts_from_the_one_before_where_its_input_is_missing(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct rp_test_dump_of of = {.model = models[i], .keeps = keeps_no_in};
        const struct rp_test_findings findings = rp_test_replay(&of);
        expect_clean(&findings);
        struct rp_replay_layer layer;
        rp_test_replay_layer(&of, 2, &layer);
        assert_string_equal(layer.slots[0].slot, "h2_preattn");
        assert_string_equal(layer.slots[0].from, "h1");
        assert_int_equal(layer.slots[0].n_positions, 24);
        assert_false(layer.slots[0].is_carried);
        assert_string_equal(rp_test_slot(&layer, "h2_postattn")->from, "h1, h2_attnout");
        rp_replay_layer_free(&layer);
    }
}

static bool keeps_three_positions(const char *slot, int64_t position)
{
    (void)slot;
    return position == 0 || position == 5 || position == 9;
}

static void attention_needs_every_earlier_position_and_the_ffn_none(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct rp_test_dump_of of = {.model = models[i], .keeps = keeps_three_positions};
        const struct rp_test_findings findings = rp_test_replay(&of);
        struct rp_replay_layer layer;
        rp_test_replay_layer(&of, 1, &layer);
        expect_clean(&findings);
        for (size_t k = 0; k < layer.n_slots; k++) {
            const struct rp_replay_slot *slot = &layer.slots[k];
            const bool reads_all = slot->part == RP_PART_ATTN || slot->part == RP_PART_CONV ||
                                   slot->part == RP_PART_DELTA;
            assert_int_equal(slot->n_positions, reads_all ? 1 : 3);
            assert_int_equal(
                strstr(slot->message,
                       "2 positions left out: the input at position 1 is not dumped") != NULL,
                reads_all);
        }
        rp_replay_layer_free(&layer);
    }
}

static bool keeps_last_of_the_end(const char *slot, int64_t position)
{
    const bool is_end =
        strcmp(slot, "h3") == 0 || strcmp(slot, "post_norm") == 0 || strcmp(slot, "logits") == 0;
    return !is_end || position == 23;
}

static void the_end_may_be_dumped_for_the_last_position_alone(void **state)
{
    (void)state;
    const struct rp_test_dump_of of = {.model = "qwen3", .keeps = keeps_last_of_the_end};
    const struct rp_test_findings findings = rp_test_replay(&of);
    struct rp_replay_layer layer;
    rp_test_replay_layer(&of, 3, &layer);
    expect_clean(&findings);
    assert_int_equal(findings.n_skipped, 0);
    assert_int_equal(rp_test_slot(&layer, "h3")->n_positions, 1);
    assert_int_equal(rp_test_slot(&layer, "h3_ffnout")->n_positions, 24);
    rp_replay_layer_free(&layer);
}

static void a_sequence_may_begin_at_any_position_when_its_tokens_are_known(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct rp_test_dump_of of = {.model = models[i], .first_position = 100};
        struct rp_test_findings findings = rp_test_replay(&of);
        expect_clean(&findings);
        assert_int_equal(findings.n_skipped, 0);
        of.is_without_tokens = true;
        findings = rp_test_replay(&of);
        expect_clean(&findings);
        /* emb, and in each layer attention, or the convolution and the delta rule. */
        assert_int_equal(findings.n_skipped, i == 2 ? 1 + 2 + 2 * 6 : 1 + 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_slot_its_successors_are_carried_and_nothing_else_changes),
        cmocka_unit_test(a_dump_of_required_slots_alone_is_carried_through_whole_layers),
        cmocka_unit_test(a_carried_slot_says_what_would_have_to_be_dumped),
        cmocka_unit_test(a_slot_at_some_positions_is_used_there),
        cmocka_unit_test(a_layer_starts_from_the_one_before_where_its_input_is_missing),
        cmocka_unit_test(attention_needs_every_earlier_position_and_the_ffn_none),
        cmocka_unit_test(the_end_may_be_dumped_for_the_last_position_alone),
        cmocka_unit_test(a_sequence_may_begin_at_any_position_when_its_tokens_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
