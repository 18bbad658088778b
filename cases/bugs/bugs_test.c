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

#define N_TOKENS 20

static const char *const architectures[] = {"qwen3", "llama", "qwen35"};

static void run(const struct rp_model *model, const struct rp_ops *ops, enum rp_mode mode,
                struct recording *recording)
{
    static const int32_t tokens[N_TOKENS] = {17, 300, 41, 8,   511, 17, 90,  250, 33, 700,
                                             5,  64,  99, 420, 12,  3,  811, 77,  5,  600};
    struct rp_run options = {.ops = ops, .tokens = tokens, .n_tokens = N_TOKENS, .mode = mode};
    record_run(model, options, recording);
}

/* Large enough to be no rounding, which is 1e-7 here. */
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

/* The clean runs, by mode, of the model that is being tried. */
struct clean_runs {
    const struct rp_model *model;
    struct recording in_mode[2];
};

static void run_clean(const struct rp_model *model, struct clean_runs *clean)
{
    clean->model = model;
    for (int mode = 0; mode < 2; mode++) {
        clean->in_mode[mode].n_slots = 0;
        run(model, rp_ops_default(), (enum rp_mode)mode, &clean->in_mode[mode]);
    }
}

static void forget_clean(struct clean_runs *clean)
{
    forget(&clean->in_mode[0]);
    forget(&clean->in_mode[1]);
}

static void run_buggy(const struct rp_bug_choice *choice, const struct rp_model *model,
                      enum rp_mode mode, struct recording *recording)
{
    struct rp_bug_site site;
    struct rp_error err = {.code = RP_OK};
    if (rp_bug_install(choice, model, rp_ops_default(), NULL, &site, &err) != RP_OK)
        fail_msg("%s: %s", choice->bug->name, err.message);
    recording->n_slots = 0;
    run(model, site.ops, mode, recording);
    rp_bug_remove(&site);
}

static struct rp_bug_choice choose(const struct rp_bug *bug, int layer)
{
    return (struct rp_bug_choice){
        .bug = bug, .layer = layer, .position = RP_BUG_EVERYWHERE, .head = RP_BUG_EVERYWHERE};
}

static void name_first_slot(const struct rp_bug *bug, const struct rp_model *model, int layer,
                            char name[RP_SLOT_NAME_SIZE])
{
    rp_slot_name(rp_bug_first_part(bug, model, layer, RP_SLOTS_OPERATIONS), layer, name);
}

/* Position 0 is spared where the layers are dumped: a rotation by another factor shows at once, and
 * changes no attention over one key. */
static bool is_of_layers(const struct recorded_slot *slot)
{
    int layer;
    return rp_slot_level_has(RP_SLOTS_LAYERS, rp_slot_parse(slot->name, &layer));
}

static void check_bug(const struct rp_bug *bug, const struct clean_runs *runs, int layer,
                      enum rp_mode mode)
{
    const struct recording *clean = &runs->in_mode[mode];
    const struct rp_bug_choice choice = choose(bug, layer);
    struct recording buggy;
    char expected[RP_SLOT_NAME_SIZE];
    bool is_shown = mode == RP_MODE_BATCHED ? bug->in_batched : bug->in_per_token;
    run_buggy(&choice, runs->model, mode, &buggy);
    size_t first = first_difference(&buggy, clean);
    if (!is_shown) {
        if (first != clean->n_slots)
            fail_msg("%s, layer %d: shows in a mode that it spares", bug->name, layer);
        goto done;
    }
    name_first_slot(bug, runs->model, layer, expected);
    if (first == clean->n_slots || strcmp(clean->slots[first].name, expected) != 0)
        fail_msg("%s, layer %d: first difference in %s, not in %s", bug->name, layer,
                 first == clean->n_slots ? "no slot" : clean->slots[first].name, expected);
    for (size_t slot = first; slot < clean->n_slots && bug->spares_position_0; slot++) {
        if (is_of_layers(&clean->slots[slot]) &&
            differs(&buggy.slots[slot], &clean->slots[slot], 0))
            fail_msg("%s, layer %d: position 0 of %s differs", bug->name, layer,
                     clean->slots[slot].name);
    }
    if (!bug->spares_position_0 && !differs(&buggy.slots[first], &clean->slots[first], 0))
        fail_msg("%s, layer %d: position 0 does not differ", bug->name, layer);
done:
    forget(&buggy);
}

/* The first, the middle and the last of the layers that the bug can be in; how many of them differ.
 * Outside the layers: -1. */
static size_t choose_layers(const struct rp_bug *bug, const struct rp_model_config *config,
                            int layers[3])
{
    size_t n = 0, n_chosen = 0;
    if (bug->layers == RP_BUG_IN_NO_LAYER) {
        layers[0] = -1;
        return 1;
    }
    for (size_t layer = 0; layer < config->n_layers; layer++)
        n += rp_bug_applies_to_layer(bug, config, layer);
    for (size_t layer = 0, i = 0; layer < config->n_layers; layer++) {
        if (!rp_bug_applies_to_layer(bug, config, layer))
            continue;
        if (i == 0 || i == n / 2 || i == n - 1)
            layers[n_chosen++] = (int)layer;
        i++;
    }
    assert_true(n_chosen >= 2); /* the hybrid has two layers of full attention */
    return n_chosen;
}

/* Calls check for each bug that changes an operation, on each architecture and layer. */
static void for_each_bug(void (*check)(const struct rp_bug *bug, const struct clean_runs *runs,
                                       int layer))
{
    size_t n_checked = 0;
    for (size_t a = 0; a < sizeof architectures / sizeof *architectures; a++) {
        struct rp_model *model = open_model(architectures[a]);
        struct clean_runs runs;
        run_clean(model, &runs);
        for (size_t i = 0; i < rp_bug_count(); i++) {
            const struct rp_bug *bug = rp_bug_at(i);
            int layers[3];
            if (bug->change_prompt || !rp_bug_applies(bug, architectures[a]))
                continue;
            size_t n_layers = choose_layers(bug, rp_model_config(model), layers);
            for (size_t l = 0; l < n_layers; l++, n_checked++)
                check(bug, &runs, layers[l]);
        }
        forget_clean(&runs);
        rp_model_close(model);
    }
    assert_true(n_checked > 0);
}

static void check_in_both_modes(const struct rp_bug *bug, const struct clean_runs *runs, int layer)
{
    check_bug(bug, runs, layer, RP_MODE_PER_TOKEN);
    check_bug(bug, runs, layer, RP_MODE_BATCHED);
}

static void every_bug_shows_where_its_entry_says(void **state)
{
    (void)state;
    for_each_bug(check_in_both_modes);
}

/* Below 2e-6 of the slot: about ten times what FP32 sums in another order change. */
static void check_last_magnitude(const struct rp_bug *bug, const struct clean_runs *runs, int layer)
{
    struct rp_bug_choice choice = choose(bug, layer);
    struct recording buggy;
    char name[RP_SLOT_NAME_SIZE];
    if (!bug->magnitudes || !bug->in_batched || strcmp(bug->name, "rope-q-ahead") == 0)
        return;
    for (const double *m = bug->magnitudes; *m != 0; m++)
        choice.magnitude = *m;
    run_buggy(&choice, runs->model, RP_MODE_BATCHED, &buggy);
    name_first_slot(bug, runs->model, layer, name);
    for (size_t slot = 0; slot < buggy.n_slots; slot++) {
        const struct recorded_slot *clean = &runs->in_mode[RP_MODE_BATCHED].slots[slot];
        double worst = worst_l2_rel(&buggy.slots[slot], clean);
        if (strcmp(clean->name, name) == 0 && !(worst <= 2e-6))
            fail_msg("%s, layer %d: %g changes %s by %g", bug->name, layer, choice.magnitude, name,
                     worst);
    }
    forget(&buggy);
}

static void magnitudes_go_down_to_what_FP32_cannot_tell(void **state)
{
    (void)state;
    for_each_bug(check_last_magnitude);
}

static void check_at_position(const struct rp_bug *bug, const struct clean_runs *runs, int layer)
{
    enum { POSITION = 7 };
    struct rp_bug_choice choice = choose(bug, layer);
    struct recording buggy;
    const struct recording *clean = &runs->in_mode[RP_MODE_BATCHED];
    char name[RP_SLOT_NAME_SIZE];
    if (!bug->at_position)
        return;
    choice.position = POSITION;
    run_buggy(&choice, runs->model, RP_MODE_BATCHED, &buggy);
    name_first_slot(bug, runs->model, layer, name);
    for (size_t slot = 0; slot < clean->n_slots; slot++) {
        for (size_t position = 0; position < POSITION; position++) {
            if (differs(&buggy.slots[slot], &clean->slots[slot], position))
                fail_msg("%s at position 7 of layer %d: position %zu of %s differs", bug->name,
                         layer, position, clean->slots[slot].name);
        }
        if (strcmp(clean->slots[slot].name, name) == 0 &&
            !differs(&buggy.slots[slot], &clean->slots[slot], POSITION))
            fail_msg("%s at position 7 of layer %d: %s does not differ there", bug->name, layer,
                     name);
    }
    forget(&buggy);
}

static void a_bug_at_one_position_spares_those_before(void **state)
{
    (void)state;
    for_each_bug(check_at_position);
}

static void check_in_head(const struct rp_bug *bug, const struct clean_runs *runs, int layer)
{
    struct rp_bug_choice choice = choose(bug, layer);
    const struct rp_model_config *config = rp_model_config(runs->model);
    size_t n_heads =
        bug->layers == RP_BUG_IN_LINEAR_ATTENTION ? config->n_linear_v_heads : config->n_heads;
    size_t n_shown = 0;
    if (!bug->in_head)
        return;
    for (size_t head = 0; head < n_heads; head++) {
        struct recording buggy;
        choice.head = (int)head;
        run_buggy(&choice, runs->model, RP_MODE_BATCHED, &buggy);
        n_shown += first_difference(&buggy, &runs->in_mode[RP_MODE_BATCHED]) < buggy.n_slots;
        forget(&buggy);
    }
    if (n_shown == 0)
        fail_msg("%s, layer %d: shows in no single head", bug->name, layer);
}

static void a_bug_in_one_head_shows(void **state)
{
    (void)state;
    for_each_bug(check_in_head);
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
    struct rp_model *model = open_model("qwen35");
    struct clean_runs runs;
    run_clean(model, &runs);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct rp_bug *bug = rp_bug_find(cases[i].bug);
        const struct rp_bug_choice choice = choose(bug, cases[i].layer);
        const struct recording *clean = &runs.in_mode[RP_MODE_PER_TOKEN];
        struct recording other;
        assert_false(rp_bug_applies_to_layer(bug, rp_model_config(model), (size_t)cases[i].layer));
        run_buggy(&choice, model, RP_MODE_PER_TOKEN, &other);
        assert_int_equal(first_difference(&other, clean), clean->n_slots);
        forget(&other);
    }
    forget_clean(&runs);
    rp_model_close(model);
}

static void two_bugs_work_at_once(void **state)
{
    (void)state;
    struct rp_model *model = open_model("qwen3");
    const struct rp_bug_choice in_2 = choose(rp_bug_find("ffn-half"), 2);
    const struct rp_bug_choice in_1 = choose(rp_bug_find("qk-norm-off"), 1);
    struct rp_bug_site first, second;
    struct recording clean = {.n_slots = 0}, one = {.n_slots = 0}, both = {.n_slots = 0};
    assert_int_equal(rp_bug_install(&in_2, model, rp_ops_default(), NULL, &first, NULL), RP_OK);
    assert_int_equal(rp_bug_install(&in_1, model, first.ops, NULL, &second, NULL), RP_OK);
    run(model, rp_ops_default(), RP_MODE_BATCHED, &clean);
    run(model, first.ops, RP_MODE_BATCHED, &one);
    run(model, second.ops, RP_MODE_BATCHED, &both);
    assert_string_equal(clean.slots[first_difference(&one, &clean)].name, "h2_ffnout");
    assert_string_equal(clean.slots[first_difference(&both, &clean)].name, "h1_qnorm");
    assert_string_equal(one.slots[first_difference(&both, &one)].name, "h1_qnorm");
    forget(&clean);
    forget(&one);
    forget(&both);
    rp_bug_remove(&second);
    rp_bug_remove(&first);
    rp_model_close(model);
}

static void a_dump_of_the_layers_shows_a_bug_in_a_later_slot(void **state)
{
    (void)state;
    static const struct {
        const char *bug;
        enum rp_slot_part of_operations, of_layers;
    } cases[] = {{"eps", RP_PART_PREATTN, RP_PART_POSTATTN},
                 {"rope-theta", RP_PART_QROPE, RP_PART_POSTATTN},
                 {"attention-factor", RP_PART_ATTNOUT, RP_PART_POSTATTN},
                 {"ffn-norm-eps", RP_PART_PREFFN, RP_PART_PREFFN},
                 {"ffn-gelu", RP_PART_ACT, RP_PART_FFNOUT},
                 {"residual-leak", RP_PART_OUTPUT, RP_PART_OUTPUT},
                 {"logits-factor", RP_PART_LOGITS, RP_PART_LOGITS},
                 {"drop-last-token", RP_PART_OTHER, RP_PART_OTHER}};
    struct rp_model *model = open_model("qwen3");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct rp_bug *bug = rp_bug_find(cases[i].bug);
        assert_int_equal(rp_bug_first_part(bug, model, 1, RP_SLOTS_OPERATIONS),
                         cases[i].of_operations);
        assert_int_equal(rp_bug_first_part(bug, model, 1, RP_SLOTS_LAYERS), cases[i].of_layers);
        assert_true(rp_bug_is_in_part(bug, cases[i].of_layers, RP_SLOTS_LAYERS));
    }
    const struct rp_bug *rope = rp_bug_find("rope-theta");
    assert_true(rp_bug_is_in_part(rope, RP_PART_KROPE, RP_SLOTS_OPERATIONS));
    assert_false(rp_bug_is_in_part(rope, RP_PART_K, RP_SLOTS_OPERATIONS));
    assert_false(rp_bug_is_in_part(rope, RP_PART_FFNOUT, RP_SLOTS_LAYERS));
    rp_model_close(model);
    /* a layer of another kind has another product first */
    model = open_model("qwen35");
    const struct rp_bug *products = rp_bug_find("activations-f16");
    assert_int_equal(rp_bug_first_part(products, model, 0, RP_SLOTS_OPERATIONS), RP_PART_QKV);
    assert_int_equal(rp_bug_first_part(products, model, 3, RP_SLOTS_OPERATIONS), RP_PART_Q);
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

static bool changes_an_operation(const struct rp_bug *bug)
{
    struct rp_bug_site site;
    const struct rp_bug_choice choice = choose(bug, RP_BUG_ALL_LAYERS);
    struct rp_overlay none;
    assert_int_equal(rp_bug_install(&choice, NULL, rp_ops_default(), NULL, &site, NULL), RP_OK);
    rp_overlay_open(&none, NULL);
    none.ops.context = site.overlay.ops.context;
    bool changes = memcmp(&none.ops, &site.overlay.ops, sizeof none.ops) != 0;
    rp_bug_remove(&site);
    return changes;
}

static void the_catalogue_is_consistent(void **state)
{
    /* Made and tried by families_test.sh. */
    static const char *const without_model[] = {"deepseek2", "gemma2",    "gemma3",
                                                "gpt-oss",   "qwen35moe", "qwen3moe"};
    (void)state;
    for (size_t i = 0; i < rp_bug_count(); i++) {
        const struct rp_bug *bug = rp_bug_at(i);
        bool applies = false;
        assert_ptr_equal(rp_bug_find(bug->name), bug);
        assert_true(changes_an_operation(bug) != !!bug->change_prompt);
        assert_true(bug->in_per_token || bug->in_batched);
        assert_true(strlen(bug->description) > 0 && strlen(bug->names) > 0);
        assert_non_null(strstr(bug->provenance, "github.com/"));
        for (size_t a = 0; a < sizeof architectures / sizeof *architectures; a++)
            applies |= rp_bug_applies(bug, architectures[a]);
        for (size_t a = 0; a < sizeof without_model / sizeof *without_model; a++)
            applies |= rp_bug_applies(bug, without_model[a]);
        assert_true(applies);
    }
    assert_true(rp_bug_count() >= 40);
    assert_null(rp_bug_find("no such bug"));
    assert_false(rp_bug_applies(rp_bug_find("qk-norm-off"), "llama"));
    assert_false(rp_bug_applies(rp_bug_find("ffn-half"), "qwen"));
    assert_true(rp_bug_applies(rp_bug_find("ffn-half"), "llama"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bug_shows_where_its_entry_says),
        cmocka_unit_test(magnitudes_go_down_to_what_FP32_cannot_tell),
        cmocka_unit_test(a_bug_at_one_position_spares_those_before),
        cmocka_unit_test(a_bug_in_one_head_shows),
        cmocka_unit_test(a_bug_stays_out_of_layers_of_another_kind),
        cmocka_unit_test(two_bugs_work_at_once),
        cmocka_unit_test(a_dump_of_the_layers_shows_a_bug_in_a_later_slot),
        cmocka_unit_test(dropping_the_last_token_leaves_the_others),
        cmocka_unit_test(the_catalogue_is_consistent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
