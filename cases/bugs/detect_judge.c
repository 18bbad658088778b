/* See detect_judge.h. */
#include "detect_judge.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "refparity/compare.h"
#include "refparity/explain.h"
#include "refparity/replay.h"

/* A reported first position is right where the bug's error is over the limit, and none before is.
 * Where it is within this factor of the limit, either answer is. */
#define POSITION_SLACK 1.5

#define MAX_LAYERS 64

/* A run's dump of one level. */
struct dumped {
    const struct rp_detect_trial *trial;
    const struct rp_recorded *recorded;
    enum rp_slot_level level;
    struct rp_tensor_set *set;
};

static enum rp_detect_answer answer(bool yes)
{
    return yes ? RP_DETECT_YES : RP_DETECT_NO;
}

static void say(struct rp_detect_result *result, const char *text)
{
    size_t used = strlen(result->report);
    snprintf(result->report + used, sizeof result->report - used, "%s%s", used ? "; " : "", text);
}

static void remove_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL) {
        char path[2 * RP_DETECT_PATH];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    if (dir)
        closedir(dir);
    rmdir(folder);
}

/* ---- end to end ---- */

static enum rp_status reports(const struct rp_comparison *comparison, enum rp_detect_answer *result,
                              struct rp_error *err)
{
    struct rp_pair_result pair;
    enum rp_status status = rp_compare_pair(comparison, &pair, err);
    if (status != RP_OK)
        return status;
    *result = answer(pair.tokens.verdict == RP_FAIL || pair.verdict == RP_FAIL ||
                     pair.verdict == RP_ERROR);
    rp_pair_result_free(&pair);
    return RP_OK;
}

static enum rp_status judge_end_to_end(const struct rp_detect_trial *trial,
                                       struct rp_tensor_set *dump, struct rp_detect_result *result,
                                       struct rp_error *err)
{
    static const int64_t position_0[] = {0};
    struct rp_comparison comparison = {
        .reference = trial->on->fixture,
        .engine = dump,
        .limits = rp_limits_default(),
        .n_layers = (int)rp_model_config(trial->on->model)->n_layers,
    };
    enum rp_status status;
    if (trial->variant->first_position != 0)
        return RP_OK; /* the references begin at position 0 */
    status = reports(&comparison, &result->rule_5pct, err);
    comparison.positions = position_0;
    comparison.n_positions = 1;
    if (status == RP_OK)
        status = reports(&comparison, &result->pos0_rule, err);
    return status;
}

/* ---- replay ---- */

/* What replay says of the whole dump: the layers, then emb, post_norm and logits. */
struct replayed {
    struct rp_replay *replay;
    struct rp_replay_layer steps[MAX_LAYERS + 3];
    size_t n_layers, n_steps;
};

static const enum rp_slot_part outer_parts[] = {RP_PART_EMB, RP_PART_POST_NORM, RP_PART_LOGITS};

static void close_replayed(struct replayed *replayed)
{
    for (size_t i = 0; i < replayed->n_steps; i++)
        rp_replay_layer_free(&replayed->steps[i]);
    rp_replay_close(replayed->replay);
}

static enum rp_status open_replayed(const struct rp_detect_trial *trial, struct rp_tensor_set *dump,
                                    struct replayed *replayed, struct rp_error *err)
{
    const struct rp_replay_options options = {.numerics = trial->declared, .mode = trial->mode};
    enum rp_status status =
        rp_replay_open(trial->on->model, dump, &options, &replayed->replay, err);
    replayed->n_layers = rp_model_config(trial->on->model)->n_layers;
    replayed->n_steps = 0;
    if (status == RP_OK && replayed->n_layers > MAX_LAYERS)
        return rp_fail(err, RP_ERR_UNSUPPORTED, NULL, -1, "more than %d layers", MAX_LAYERS);
    for (size_t layer = 0; layer < replayed->n_layers && status == RP_OK; layer++)
        status = rp_replay_run_layer(replayed->replay, layer, &replayed->steps[replayed->n_steps++],
                                     err);
    for (size_t i = 0; i < 3 && status == RP_OK; i++)
        status = rp_replay_run_part(replayed->replay, outer_parts[i],
                                    &replayed->steps[replayed->n_steps++], err);
    return status;
}

static bool is_reported(const struct rp_replay_layer *step)
{
    return step->verdict == RP_FAIL || step->verdict == RP_ERROR;
}

/* The step that the bug is in. */
static size_t step_of(const struct replayed *replayed, const struct rp_bug_choice *choice)
{
    if (choice->bug->layers != RP_BUG_IN_NO_LAYER)
        return (size_t)choice->layer;
    for (size_t i = 0; i < 3; i++) {
        if (outer_parts[i] == choice->bug->first_part)
            return replayed->n_layers + i;
    }
    return replayed->n_layers;
}

static const struct rp_replay_slot *slot_in(const struct rp_replay_layer *step, const char *slot)
{
    for (size_t i = 0; i < step->n_slots; i++) {
        if (strcmp(step->slots[i].slot, slot) == 0)
            return &step->slots[i];
    }
    return NULL;
}

/* change over limit at position index i of the slot, which begins at the run's first position. */
static double ratio_at(const struct rp_replay_slot *slot, const double *change, size_t i)
{
    return change[i] / slot->limit[i];
}

static double largest_ratio(const struct rp_replay_slot *slot, const double *change)
{
    double largest = 0;
    for (size_t i = 0; i < slot->n_positions; i++)
        largest = fmax(largest, ratio_at(slot, change, i));
    return largest;
}

/* Of all that was replayed. */
static double worst_introduced(const struct replayed *replayed)
{
    double worst = 0;
    for (size_t i = 0; i < replayed->n_steps; i++) {
        for (size_t k = 0; k < replayed->steps[i].n_slots; k++) {
            const struct rp_replay_slot *slot = &replayed->steps[i].slots[k];
            if (slot->n_positions > 0)
                worst = fmax(worst, slot->introduced[slot->worst] / slot->limit[slot->worst]);
        }
    }
    return worst;
}

static bool is_first_position_right(const struct rp_replay_slot *slot, const double *change)
{
    if (slot->first >= slot->n_positions ||
        !(ratio_at(slot, change, slot->first) > 1 / POSITION_SLACK))
        return false;
    for (size_t i = 0; i < slot->first; i++) {
        if (ratio_at(slot, change, i) > POSITION_SLACK)
            return false;
    }
    return true;
}

static bool is_accepted(const char *names, const char *given)
{
    size_t length = strlen(given);
    for (const char *at = names; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, given, length) == 0 && (at[length] == ',' || !at[length]))
            return true;
    }
    return false;
}

static void say_slot(struct rp_detect_result *result, const struct rp_replay_layer *step)
{
    const struct rp_replay_slot *slot = step->first_failing;
    char text[RP_SLOT_NAME_SIZE + sizeof slot->message + 1];
    if (slot) {
        snprintf(text, sizeof text, "%s %s", slot->slot, slot->message);
        say(result, text);
    }
}

static enum rp_status explain(struct replayed *replayed, const struct rp_replay_slot *slot,
                              const struct rp_bug *bug, struct rp_detect_result *result,
                              struct rp_error *err)
{
    struct rp_explanation explanation = {.name = ""};
    enum rp_status status = rp_explain_slot(replayed->replay, slot, &explanation, err);
    const char *given = explanation.name[0] ? explanation.name : "unexplained";
    size_t used = strlen(result->name_given);
    if (status != RP_OK)
        return status;
    snprintf(result->name_given + used, sizeof result->name_given - used, "%s%s", used ? "+" : "",
             given);
    if (!is_accepted(bug->names, explanation.name[0] ? explanation.name : "-"))
        result->name_right = RP_DETECT_NO;
    else if (result->name_right == RP_DETECT_NONE)
        result->name_right = RP_DETECT_YES;
    say(result, explanation.text);
    return RP_OK;
}

/* One bug, above the limit or not; *is_above says which. */
static enum rp_status judge_bug(const struct dumped *dumped, struct replayed *replayed,
                                size_t index, bool *is_above, struct rp_detect_result *result,
                                struct rp_error *err)
{
    const struct rp_recorded *recorded = dumped->recorded;
    const struct rp_bug_choice *choice = &dumped->trial->bugs[index];
    const struct rp_replay_layer *step = &replayed->steps[step_of(replayed, choice)];
    char name[RP_SLOT_NAME_SIZE];
    double *change = calloc(recorded->n_positions, sizeof *change), ratio;
    const struct rp_replay_slot *slot;
    enum rp_status status;
    if (!change)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions",
                       recorded->n_positions);
    status = rp_detect_change(dumped->trial, recorded, index, dumped->level, name, change, err);
    slot = slot_in(step, name);
    if (status == RP_OK && (!slot || slot->n_positions != recorded->n_positions))
        status = rp_fail(err, RP_ERR_MISMATCH, NULL, -1, "replay has no whole '%s': %s", name,
                         slot ? slot->message : "");
    if (status != RP_OK)
        goto done;
    ratio = largest_ratio(slot, change);
    *is_above = ratio > 1;
    result->ratio = isnan(result->ratio) ? ratio : fmin(result->ratio, ratio);
    if (!is_reported(step))
        goto done;
    if (slot->verdict != RP_FAIL)
        result->operation_right = RP_DETECT_NO;
    if (slot->verdict != RP_FAIL || !is_first_position_right(slot, change))
        result->position_right = RP_DETECT_NO;
    if (step->first_failing)
        status = explain(replayed, step->first_failing, choice->bug, result, err);
done:
    free(change);
    return status;
}

/* Is one of the trial's bugs in the operation that the slot shows? */
static bool is_of_a_bug(const struct dumped *dumped, const struct rp_replay_slot *slot)
{
    for (size_t b = 0; b < dumped->trial->n_bugs; b++) {
        const struct rp_bug_choice *choice = &dumped->trial->bugs[b];
        const int layer = choice->bug->layers == RP_BUG_IN_NO_LAYER ? -1 : choice->layer;
        if (slot->layer == layer && rp_bug_is_in_part(choice->bug, slot->part, dumped->level))
            return true;
    }
    return false;
}

/* Does a slot fail that no bug is in? */
static bool has_other_failure(const struct dumped *dumped, const struct rp_replay_layer *step)
{
    for (size_t i = 0; i < step->n_slots; i++) {
        const enum rp_verdict verdict = step->slots[i].verdict;
        if ((verdict == RP_FAIL || verdict == RP_ERROR) && !is_of_a_bug(dumped, &step->slots[i]))
            return true;
    }
    return false;
}

static enum rp_status judge_replay(const struct dumped *dumped, struct rp_detect_result *result,
                                   struct rp_error *err)
{
    const struct rp_detect_trial *trial = dumped->trial;
    struct replayed *replayed = calloc(1, sizeof *replayed);
    bool has_bug[MAX_LAYERS + 3] = {false}, is_exempt[MAX_LAYERS + 3] = {false};
    bool all_above = trial->n_bugs > 0, all_found = true;
    enum rp_status status = replayed
                                ? open_replayed(trial, dumped->set, replayed, err)
                                : rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for a replay");
    result->operation_right = result->position_right = RP_DETECT_YES;
    for (size_t b = 0; b < trial->n_bugs && status == RP_OK; b++) {
        size_t step = step_of(replayed, &trial->bugs[b]);
        bool is_above = false;
        has_bug[step] = true;
        status = judge_bug(dumped, replayed, b, &is_above, result, err);
        is_exempt[step] = !is_above;
        all_above &= is_above;
        all_found &= is_reported(&replayed->steps[step]);
    }
    if (status != RP_OK)
        goto done;
    if (trial->n_bugs == 0)
        result->ratio = worst_introduced(replayed);
    result->above = answer(all_above);
    result->detected = RP_DETECT_NO;
    result->layers_right = RP_DETECT_YES;
    for (size_t i = 0; i < replayed->n_steps; i++) {
        bool is_bad = is_reported(&replayed->steps[i]);
        if (is_bad)
            result->detected = RP_DETECT_YES;
        if (is_bad != has_bug[i] && !is_exempt[i])
            result->layers_right = RP_DETECT_NO;
        if (has_other_failure(dumped, &replayed->steps[i]))
            result->operation_right = RP_DETECT_NO;
        if (is_bad)
            say_slot(result, &replayed->steps[i]);
    }
    if (!all_found || result->detected == RP_DETECT_NO)
        result->operation_right = result->position_right = RP_DETECT_NO;
done:
    if (replayed)
        close_replayed(replayed);
    free(replayed);
    return status;
}

/* ---- tokens ---- */

static size_t first_other_token(const struct rp_detect_trial *trial,
                                const struct rp_recorded *recorded)
{
    size_t i = 0;
    while (i < recorded->n_tokens && recorded->tokens[i] == trial->on->tokens[i])
        i++;
    return i;
}

/* The prompt's bug has to be found by the tokens, and no layer may be blamed for it. */
static enum rp_status judge_tokens(const struct dumped *dumped, struct rp_detect_result *result,
                                   struct rp_error *err)
{
    const struct rp_comparison comparison = {.reference = dumped->trial->on->fixture,
                                             .engine = dumped->set};
    struct rp_tokens_result tokens;
    struct rp_detect_trial without = *dumped->trial;
    struct dumped clean = *dumped;
    enum rp_status status;
    without.n_bugs = 0;
    clean.trial = &without;
    status = judge_replay(&clean, result, err);
    if (status != RP_OK)
        return status;
    rp_compare_tokens(&comparison, &tokens);
    say(result, tokens.message);
    result->layers_right = answer(result->detected == RP_DETECT_NO);
    result->detected = result->operation_right = answer(tokens.verdict == RP_FAIL);
    result->position_right = answer(tokens.first_difference ==
                                    (long long)first_other_token(dumped->trial, dumped->recorded));
    result->above = RP_DETECT_YES;
    result->ratio = (double)NAN;
    return RP_OK;
}

/* ---- a trial ---- */

/* Judges the run's dump of that level; end to end too where asked. */
static enum rp_status judge_dump(struct dumped *dumped, const char *scratch, bool end_to_end,
                                 struct rp_detect_result *result, struct rp_error *err)
{
    const struct rp_detect_trial *trial = dumped->trial;
    const bool is_prompt = trial->n_bugs == 1 && trial->bugs[0].bug->change_prompt;
    char folder[RP_DETECT_PATH];
    enum rp_status status;
    snprintf(folder, sizeof folder, "%.900s/dump", scratch);
    status = rp_detect_dump(trial, dumped->recorded, dumped->level, folder, err);
    if (status == RP_OK)
        status = rp_tensor_set_open(folder, RP_LAYOUT_NPY, 0, &dumped->set, err);
    if (status == RP_OK && end_to_end)
        status = judge_end_to_end(trial, dumped->set, result, err);
    if (status == RP_OK)
        status = is_prompt ? judge_tokens(dumped, result, err) : judge_replay(dumped, result, err);
    rp_tensor_set_close(dumped->set);
    remove_folder(folder);
    return status;
}

enum rp_status rp_detect_judge(const struct rp_detect_trial *trial, const char *scratch,
                               struct rp_detect_result results[RP_DETECT_LEVELS],
                               struct rp_error *err)
{
    struct rp_recorded recorded = {.slots = NULL};
    enum rp_status status = rp_detect_run(trial, &recorded, err);
    for (int level = 0; level < RP_DETECT_LEVELS; level++) {
        struct dumped dumped = {
            .trial = trial, .recorded = &recorded, .level = (enum rp_slot_level)level};
        results[level] = (struct rp_detect_result){.name_right = RP_DETECT_NONE,
                                                   .pos0_rule = RP_DETECT_NONE,
                                                   .rule_5pct = RP_DETECT_NONE,
                                                   .ratio = (double)NAN};
        if (status == RP_OK)
            status = judge_dump(&dumped, scratch, level == 0, &results[level], err);
    }
    /* the same slots are judged end to end */
    results[RP_SLOTS_OPERATIONS].pos0_rule = results[RP_SLOTS_LAYERS].pos0_rule;
    results[RP_SLOTS_OPERATIONS].rule_5pct = results[RP_SLOTS_LAYERS].rule_5pct;
    rp_recorded_free(&recorded);
    return status;
}
