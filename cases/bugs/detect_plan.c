/* See detect_plan.h. */
#include "detect_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *const architectures[] = {"qwen3", "llama", "qwen35"};

/* "f32" is the BF16 file with FP32 inputs of products; the others round them as ggml does. */
static const struct {
    const char *name, *file;
    enum rp_activations activations;
    bool only_clean;
} weights[] = {{"f32", "bf16", RP_ACTIVATIONS_F32, false},
               {"q8_0", "q8_0", RP_ACTIVATIONS_BY_WEIGHT, false},
               {"q4_0", "q4_0", RP_ACTIVATIONS_BY_WEIGHT, false},
               {"bf16", "bf16", RP_ACTIVATIONS_BY_WEIGHT, true}};

/* The first prompt has 24 tokens, the second 2 or 3, the last 78. On these two only clean variants, and
 * each bug once. */
static const char *const prompts[] = {"the-quick-brown-fox-jumps-over-t-ef537f25", "hello-185f8db3",
                                      "she-said-it-s-c-temp-home-x-s-aa-d8e881cd"};

/* Bugs that are there at once, in the first and in the last layer where they can be. */
static const struct {
    const char *first, *second;
} pairs[] = {
    {"ffn-half", "attention-scale"},    {"eps", "outlier-channel"},
    {"residual-leak", "ffn-gelu"},      {"qk-norm-off", "ffn-norm-eps"},
    {"rope-theta", "attention-factor"}, {"delta-decay-factor", "ffn-swapped"},
    {"attention-window", "noise"},      {"norm-weight-offset", "kv-head-mapping"},
    {"delta-head-mapping", "ffn-half"}, {"weight-block-scale", "weight-block-scale"},
};

/* What is being planned. */
struct planner {
    struct rp_detect_plan *plan;
    const struct rp_detect_filter *filter;
    size_t n_seen;
    enum rp_status status;
    struct rp_error *err;
};

void rp_detect_kind(const struct rp_detect_trial *trial, char *text, size_t size)
{
    if (trial->n_bugs == 0)
        snprintf(text, size, "clean:%s", trial->variant->name);
    else
        snprintf(text, size, "%s%s%s", trial->bugs[0].bug->name, trial->n_bugs > 1 ? "+" : "",
                 trial->n_bugs > 1 ? trial->bugs[1].bug->name : "");
}

/* Spreads trials evenly, whatever the order that they come in. */
static size_t scatter(size_t index)
{
    uint64_t x = (uint64_t)index * 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9u;
    return (size_t)(x >> 33);
}

static bool is_wanted(struct planner *planner, const struct rp_detect_trial *trial)
{
    const struct rp_detect_filter *filter = planner->filter;
    char kind[128];
    rp_detect_kind(trial, kind, sizeof kind);
    if ((filter->kind && strcmp(filter->kind, kind) != 0) ||
        (filter->only_clean && trial->n_bugs > 0) || (filter->only_bugs && trial->n_bugs == 0))
        return false;
    size_t place = scatter(planner->n_seen++);
    if (filter->every > 1 && place % filter->every != 0)
        return false;
    if (filter->every > 1)
        place /= filter->every;
    return filter->n_shares == 0 || place % filter->n_shares == filter->share;
}

static void add(struct planner *planner, const struct rp_detect_trial *trial)
{
    struct rp_detect_plan *plan = planner->plan;
    if (planner->status != RP_OK || !is_wanted(planner, trial))
        return;
    if (plan->n_trials == plan->capacity) {
        size_t more = 2 * plan->capacity + 256;
        struct rp_detect_trial *grown = realloc(plan->trials, more * sizeof *grown);
        if (!grown) {
            planner->status =
                rp_fail(planner->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu trials", more);
            return;
        }
        plan->trials = grown;
        plan->capacity = more;
    }
    plan->trials[plan->n_trials++] = *trial;
}

static size_t count_magnitudes(const struct rp_bug *bug)
{
    size_t n = 0;
    while (bug->magnitudes && bug->magnitudes[n] != 0)
        n++;
    return n;
}

/* The first, the middle and the last of the layers that the bug can be in; one, -1, outside them. */
static size_t choose_layers(const struct rp_bug *bug, const struct rp_model_config *config,
                            int layers[3])
{
    size_t n = 0, n_chosen = 0;
    layers[0] = -1;
    if (bug->layers == RP_BUG_IN_NO_LAYER)
        return 1;
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

static struct rp_bug_choice everywhere(const struct rp_bug *bug, int layer, double magnitude)
{
    return (struct rp_bug_choice){.bug = bug,
                                  .layer = layer,
                                  .magnitude = magnitude,
                                  .position = RP_BUG_EVERYWHERE,
                                  .head = RP_BUG_EVERYWHERE};
}

static bool shows_in(const struct rp_bug *bug, enum rp_mode mode)
{
    return mode == RP_MODE_BATCHED ? bug->in_batched : bug->in_per_token;
}

/* Each magnitude in every third of the (layer, mode) pairs, so that all weights together have all;
 * without a parameter in every one for F32 weights, in every second for the others. */
static void plan_bug(struct planner *planner, const struct rp_detect_trial *base,
                     const struct rp_bug *bug, size_t w)
{
    int layers[3];
    size_t n_magnitudes = count_magnitudes(bug);
    size_t n_layers = choose_layers(bug, rp_model_config(base->on->model), layers);
    size_t step = n_magnitudes ? 3 : w == 0 ? 1 : 2;
    for (size_t m = 0; m < (n_magnitudes ? n_magnitudes : 1); m++) {
        for (size_t l = 0; l < n_layers; l++) {
            for (size_t mode = 0; mode < 2; mode++) {
                struct rp_detect_trial trial = *base;
                bool is_only_mode = !shows_in(bug, (enum rp_mode) !mode);
                if ((2 * l + mode + m + w) % step != 0 && !(is_only_mode && step == 2))
                    continue;
                trial.mode = (enum rp_mode)mode;
                trial.bugs[0] = everywhere(bug, layers[l], n_magnitudes ? bug->magnitudes[m] : 0);
                trial.n_bugs = 1;
                if (shows_in(bug, trial.mode))
                    add(planner, &trial);
            }
        }
    }
}

/* At one position, or in one head, alone: the first magnitude and the fourth. */
static void plan_places(struct planner *planner, const struct rp_detect_trial *base,
                        const struct rp_bug *bug, size_t w)
{
    int layers[3];
    const struct rp_model_config *config = rp_model_config(base->on->model);
    size_t n_layers = choose_layers(bug, config, layers), n_magnitudes = count_magnitudes(bug);
    size_t n_heads =
        bug->layers == RP_BUG_IN_LINEAR_ATTENTION ? config->n_linear_v_heads : config->n_heads;
    for (size_t i = 0; i < 4 && n_layers > 0; i++) {
        struct rp_detect_trial trial = *base;
        size_t m = n_magnitudes > 3 && i % 2 == 1 ? 3 : 0;
        trial.mode = shows_in(bug, (enum rp_mode)((i + w) % 2)) ? (enum rp_mode)((i + w) % 2)
                                                                : (enum rp_mode)((i + w + 1) % 2);
        trial.n_bugs = 1;
        trial.bugs[0] =
            everywhere(bug, layers[(i + w) % n_layers], n_magnitudes ? bug->magnitudes[m] : 0);
        if (bug->at_position) {
            trial.bugs[0].position =
                (int64_t)(i < 2 ? base->on->n_tokens / 2 : base->on->n_tokens - 1);
            add(planner, &trial);
            trial.bugs[0].position = RP_BUG_EVERYWHERE;
        }
        if (bug->in_head) {
            trial.bugs[0].head = (int)(i < 2 ? 1 : n_heads - 1);
            add(planner, &trial);
        }
    }
}

/* The second magnitude of a bug that has several: neither gross nor at the limit. */
static double moderate(const struct rp_bug *bug)
{
    return count_magnitudes(bug) > 1 ? bug->magnitudes[1] : 0;
}

static void plan_pairs(struct planner *planner, const struct rp_detect_trial *base)
{
    const struct rp_model_config *config = rp_model_config(base->on->model);
    for (size_t i = 0; i < COUNT(pairs); i++) {
        const struct rp_bug *first = rp_bug_find(pairs[i].first);
        const struct rp_bug *second = rp_bug_find(pairs[i].second);
        int first_layers[3], second_layers[3];
        if (!first || !second || !rp_bug_applies(first, base->on->architecture) ||
            !rp_bug_applies(second, base->on->architecture))
            continue;
        choose_layers(first, config, first_layers);
        size_t n = choose_layers(second, config, second_layers);
        if (n == 0 || first_layers[0] == second_layers[n - 1])
            continue;
        for (size_t mode = 0; mode < 2; mode++) {
            struct rp_detect_trial trial = *base;
            trial.mode = (enum rp_mode)mode;
            trial.n_bugs = 2;
            trial.bugs[0] = everywhere(first, first_layers[0], moderate(first));
            trial.bugs[1] = everywhere(second, second_layers[n - 1], moderate(second));
            add(planner, &trial);
        }
    }
}

static void plan_clean(struct planner *planner, const struct rp_detect_trial *base)
{
    for (size_t v = 0; v < rp_n_variants; v++) {
        struct rp_detect_trial trial = *base;
        trial.variant = &rp_variants[v];
        trial.mode = trial.variant->is_per_token ? RP_MODE_PER_TOKEN : RP_MODE_BATCHED;
        if (trial.variant->has_numerics)
            trial.declared = trial.variant->declared;
        if (trial.variant->declared.activations == RP_ACTIVATIONS_BY_WEIGHT)
            trial.declared.activations = base->declared.activations;
        add(planner, &trial);
        if (v == 0) {
            trial.mode = RP_MODE_PER_TOKEN;
            add(planner, &trial);
        }
    }
}

static void plan_model(struct planner *planner, const struct rp_detect_model *model, size_t w,
                       bool is_other)
{
    const struct rp_detect_trial base = {.on = model,
                                         .mode = RP_MODE_BATCHED,
                                         .variant = &rp_variants[0],
                                         .declared = {.activations = weights[w].activations}};
    plan_clean(planner, &base);
    if (weights[w].only_clean)
        return;
    for (size_t b = 0; b < rp_bug_count(); b++) {
        const struct rp_bug *bug = rp_bug_at(b);
        if (!rp_bug_applies(bug, model->architecture))
            continue;
        if (!is_other) {
            plan_bug(planner, &base, bug, w);
            plan_places(planner, &base, bug, w);
        } else if (shows_in(bug, RP_MODE_BATCHED)) {
            struct rp_detect_trial trial = base;
            int layers[3];
            size_t n = choose_layers(bug, rp_model_config(model->model), layers);
            if (n == 0)
                continue;
            trial.n_bugs = 1;
            trial.bugs[0] = everywhere(bug, layers[(b + w) % n], 0);
            add(planner, &trial);
        }
    }
    if (!is_other)
        plan_pairs(planner, &base);
}

static enum rp_status open_model(const char *root, const char *architecture, size_t w,
                                 const char *prompt, struct rp_detect_model *model,
                                 struct rp_error *err)
{
    char fixture[RP_DETECT_PATH];
    const int64_t *tokens;
    enum rp_status status;
    *model = (struct rp_detect_model){.architecture = architecture, .weights = weights[w].name};
    snprintf(model->gguf, sizeof model->gguf, "%s/fixtures/tiny/%s/%s-%s.gguf", root, architecture,
             architecture, weights[w].file);
    snprintf(fixture, sizeof fixture, "%s/fixtures/store/tiny--%s/main/float32/%s.npz", root,
             architecture, prompt);
    status = rp_model_open(model->gguf, &model->model, err);
    if (status == RP_OK)
        status = rp_tensor_set_open(fixture, RP_LAYOUT_NPZ, 0, &model->fixture, err);
    if (status == RP_OK)
        status = rp_tensor_set_tokens(model->fixture, &tokens, &model->n_tokens, err);
    if (status != RP_OK)
        return status;
    model->tokens = calloc(model->n_tokens + 1, sizeof *model->tokens);
    if (!model->tokens)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for tokens");
    for (size_t i = 0; i < model->n_tokens; i++)
        model->tokens[i] = (int32_t)tokens[i];
    return RP_OK;
}

enum rp_status rp_detect_plan_open(const char *root, const struct rp_detect_filter *filter,
                                   struct rp_detect_plan *plan, struct rp_error *err)
{
    struct planner planner = {.plan = plan, .filter = filter, .status = RP_OK, .err = err};
    *plan = (struct rp_detect_plan){.n_models = 0};
    plan->models =
        calloc(COUNT(architectures) * COUNT(weights) * COUNT(prompts), sizeof *plan->models);
    if (!plan->models)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for models");
    for (size_t a = 0; a < COUNT(architectures); a++) {
        for (size_t w = 0; w < COUNT(weights); w++) {
            if ((filter->architecture && strcmp(filter->architecture, architectures[a]) != 0) ||
                (filter->weights && strcmp(filter->weights, weights[w].name) != 0))
                continue;
            for (size_t p = 0; p < COUNT(prompts) && planner.status == RP_OK; p++) {
                struct rp_detect_model *model = &plan->models[plan->n_models++];
                planner.status = open_model(root, architectures[a], w, prompts[p], model, err);
                if (planner.status == RP_OK)
                    plan_model(&planner, model, w, p > 0);
            }
        }
    }
    return planner.status;
}

void rp_detect_plan_close(struct rp_detect_plan *plan)
{
    for (size_t i = 0; i < plan->n_models; i++) {
        free(plan->models[i].tokens);
        rp_tensor_set_close(plan->models[i].fixture);
        rp_model_close(plan->models[i].model);
    }
    free(plan->models);
    free(plan->trials);
    *plan = (struct rp_detect_plan){.n_models = 0};
}
