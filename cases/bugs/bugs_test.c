/* Each bug of the catalogue, on the committed models: it changes what its entry says, in the layer
 * where it is put, and nothing before. Not whether the comparer finds it: that is the must-fail
 * matrix. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "bugs.h"
#include "model/recording.h"

#define N_TOKENS 12

static const char *const architectures[] = {"qwen3", "llama", "qwen35"};

static void run(const struct rp_model *model, const struct rp_ops *ops, enum rp_mode mode,
                struct recording *recording)
{
    static const int32_t tokens[N_TOKENS] = {17, 300, 41, 8, 511, 17, 90, 250, 33, 700, 5, 64};
    struct rp_run options = {.ops = ops, .tokens = tokens, .n_tokens = N_TOKENS, .mode = mode};
    record_run(model, options, recording);
}

/* Large enough to be no rounding: the smallest change that a bug makes here is 1e-3. */
static bool differs(const struct recorded_slot *a, const struct recorded_slot *b, size_t position)
{
    size_t at = position * b->dim;
    return !(l2_rel(a->rows + at, b->rows + at, b->dim) < 1e-5);
}

/* The first slot that differs at any position, in forward order; n_slots when none does. */
static size_t first_difference(const struct recording *a, const struct recording *b)
{
    for (size_t slot = 0; slot < b->n_slots; slot++) {
        for (size_t position = 0; position < N_TOKENS; position++) {
            if (differs(&a->slots[slot], &b->slots[slot], position))
                return slot;
        }
    }
    return b->n_slots;
}

static struct rp_model *open_model(const char *architecture)
{
    char path[1024];
    struct rp_model *model = NULL;
    struct rp_error err;
    snprintf(path, sizeof path, "%s/fixtures/tiny/%s/%s-bf16.gguf", RP_SOURCE_DIR, architecture,
             architecture);
    if (rp_model_open(path, &model, &err) != RP_OK)
        fail_msg("%s: %s", path, err.message);
    return model;
}

static void check_bug(const struct rp_bug *bug, const struct rp_model *model, int layer,
                      enum rp_mode mode)
{
    struct recording clean = {.n_slots = 0}, buggy = {.n_slots = 0};
    struct rp_bug_site site;
    char expected[RP_SLOT_NAME_SIZE];
    bool is_shown = mode == RP_MODE_BATCHED ? bug->in_batched : bug->in_per_token;
    run(model, rp_ops_default(), mode, &clean);
    rp_bug_install(bug, layer, rp_ops_default(), &site);
    run(model, &site.overlay.ops, mode, &buggy);
    size_t first = first_difference(&buggy, &clean);
    if (!is_shown) {
        assert_int_equal(first, clean.n_slots);
    } else {
        assert_true(first < clean.n_slots);
        assert_string_equal(clean.slots[first].name,
                            rp_slot_name(bug->first_part, layer, expected));
        for (size_t slot = first; slot < clean.n_slots; slot++) {
            if (bug->spares_position_0)
                assert_false(differs(&buggy.slots[slot], &clean.slots[slot], 0));
        }
        if (!bug->spares_position_0)
            assert_true(differs(&buggy.slots[first], &clean.slots[first], 0));
    }
    forget(&buggy);
    forget(&clean);
}

/* The first, the middle and the last of the layers that the bug can be in; how many of them differ. */
static size_t choose_layers(const struct rp_bug *bug, const struct rp_model_config *config,
                            int layers[3])
{
    size_t n = 0, n_chosen = 0;
    for (size_t layer = 0; layer < config->n_layers; layer++)
        n += rp_bug_applies_to_layer(bug, config, layer);
    for (size_t layer = 0, i = 0; layer < config->n_layers; layer++) {
        if (!rp_bug_applies_to_layer(bug, config, layer))
            continue;
        if (i == 0 || i == n / 2 || i == n - 1)
            layers[n_chosen++] = (int)layer;
        i++;
    }
    return n_chosen;
}

static void every_bug_shows_where_its_entry_says(void **state)
{
    (void)state;
    size_t n_checked = 0;
    for (size_t a = 0; a < sizeof architectures / sizeof *architectures; a++) {
        struct rp_model *model = open_model(architectures[a]);
        for (size_t i = 0; i < rp_n_bugs; i++) {
            const struct rp_bug *bug = &rp_bugs[i];
            int layers[3];
            if (!bug->replace || !rp_bug_applies(bug, architectures[a]))
                continue;
            size_t n_layers = choose_layers(bug, rp_model_config(model), layers);
            assert_true(n_layers >= 2); /* the hybrid has two layers of full attention */
            for (size_t l = 0; l < n_layers; l++) {
                check_bug(bug, model, layers[l], RP_MODE_PER_TOKEN);
                check_bug(bug, model, layers[l], RP_MODE_BATCHED);
                n_checked += 2;
            }
        }
        rp_model_close(model);
    }
    assert_true(n_checked > 0);
}

static void a_bug_stays_out_of_layers_of_another_kind(void **state)
{
    (void)state;
    static const struct {
        const char *bug;
        int layer; /* of the other kind */
    } cases[] = {{"delta-decay-without-exp", 3},
                 {"conv-state-lost", 7},
                 {"attention-gate-missing", 2},
                 {"qk-norm-off", 0},
                 {"rope-interleaved-for-neox", 6}};
    struct recording clean = {.n_slots = 0};
    struct rp_model *model = open_model("qwen35");
    run(model, rp_ops_default(), RP_MODE_PER_TOKEN, &clean);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct rp_bug *bug = rp_bug_find(cases[i].bug);
        struct recording other = {.n_slots = 0};
        struct rp_bug_site site;
        assert_false(rp_bug_applies_to_layer(bug, rp_model_config(model), (size_t)cases[i].layer));
        rp_bug_install(bug, cases[i].layer, rp_ops_default(), &site);
        run(model, &site.overlay.ops, RP_MODE_PER_TOKEN, &other);
        assert_int_equal(first_difference(&other, &clean), clean.n_slots);
        forget(&other);
    }
    forget(&clean);
    rp_model_close(model);
}

static void two_bugs_work_at_once(void **state)
{
    (void)state;
    struct recording clean = {.n_slots = 0}, buggy = {.n_slots = 0};
    struct rp_bug_site first, second;
    struct rp_model *model = open_model("qwen3");
    rp_bug_install(rp_bug_find("ffn-half"), 2, rp_ops_default(), &first);
    rp_bug_install(rp_bug_find("qk-norm-off"), 1, &first.overlay.ops, &second);
    run(model, rp_ops_default(), RP_MODE_BATCHED, &clean);
    run(model, &first.overlay.ops, RP_MODE_BATCHED, &buggy);
    assert_string_equal(clean.slots[first_difference(&buggy, &clean)].name, "h2_ffnout");
    forget(&buggy);
    run(model, &second.overlay.ops, RP_MODE_BATCHED, &buggy);
    assert_string_equal(clean.slots[first_difference(&buggy, &clean)].name, "h1_postattn");
    forget(&clean);
    run(model, &first.overlay.ops, RP_MODE_BATCHED,
        &clean); /* the difference is now layer 1's alone */
    assert_string_equal(clean.slots[first_difference(&buggy, &clean)].name, "h1_postattn");
    forget(&buggy);
    forget(&clean);
    rp_model_close(model);
}

static void dropping_the_last_token_leaves_the_others(void **state)
{
    (void)state;
    int32_t tokens[3] = {5, 6, 7};
    size_t n = 3;
    const struct rp_bug *bug = rp_bug_find("drop-last-token");
    bug->change_prompt(tokens, &n);
    assert_int_equal(n, 2);
    assert_int_equal(tokens[0], 5);
    assert_int_equal(tokens[1], 6);
}

static void the_catalogue_is_consistent(void **state)
{
    (void)state;
    for (size_t i = 0; i < rp_n_bugs; i++) {
        const struct rp_bug *bug = &rp_bugs[i];
        bool applies = false;
        assert_ptr_equal(rp_bug_find(bug->name), bug);
        assert_true(!bug->replace != !bug->change_prompt);
        assert_true((bug->layers != RP_BUG_IN_NO_LAYER) == !!bug->replace);
        assert_true(bug->in_per_token || bug->in_batched);
        assert_true(strlen(bug->description) > 0 && strlen(bug->provenance) > 0);
        for (size_t a = 0; a < sizeof architectures / sizeof *architectures; a++)
            applies |= rp_bug_applies(bug, architectures[a]);
        assert_true(applies);
    }
    assert_null(rp_bug_find("no such bug"));
    assert_false(rp_bug_applies(rp_bug_find("qk-norm-off"), "llama"));
    assert_false(rp_bug_applies(rp_bug_find("ffn-half"), "qwen"));
    assert_true(rp_bug_applies(rp_bug_find("ffn-half"), "llama"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bug_shows_where_its_entry_says),
        cmocka_unit_test(a_bug_stays_out_of_layers_of_another_kind),
        cmocka_unit_test(two_bugs_work_at_once),
        cmocka_unit_test(dropping_the_last_token_leaves_the_others),
        cmocka_unit_test(the_catalogue_is_consistent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
