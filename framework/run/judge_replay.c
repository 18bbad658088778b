/* See judge_replay.h. */
#include "run/judge_replay.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "explain/damaged_dump.h"
#include "explain/other_weights.h"
#include "run/completeness.h"
#include "run/judge_internal.h"
#include "run/stored.h"

struct rp_judge_replay {
    const struct rp_judge *judge;
    struct rp_judgement prerequisites; /* PASS: replay can be used */
    struct rp_model *model;
    struct rp_replay *replay;
};

/* Per token or batched? Only what the operations are told: the C model computes the same in both. */
static enum rp_mode mode_of(const struct rp_pair *pair)
{
    return pair->mode && strcmp(pair->mode, "per-token") == 0 ? RP_MODE_PER_TOKEN : RP_MODE_BATCHED;
}

static enum rp_status open_replay(struct rp_judge_replay *replay, struct rp_error *err)
{
    const struct rp_judge *judge = replay->judge;
    const struct rp_entry *entry = judge->pair->entry;
    const size_t n_listed = entry->n_positions; /* the entry asks for no others */
    struct rp_replay_options options = {.numerics = rp_pair_numerics(judge->pair),
                                        .mode = mode_of(judge->pair)};
    char gguf[RP_PATH_SIZE];
    const int64_t *ids = NULL;
    size_t n_ids = 0;
    char why[256];
    enum rp_status status = rp_entry_gguf(judge->context->matrix, entry, judge->context->models_dir,
                                          gguf, sizeof gguf, err);
    if (!status)
        status = rp_model_open(gguf, &replay->model, err);
    if (!status)
        status = rp_tensor_set_tokens(judge->comparison.engine, &ids, &n_ids, err);
    if (!status && !ids && judge->comparison.reference)
        status = rp_tensor_set_tokens(judge->comparison.reference, &options.tokens,
                                      &options.n_tokens, err);
    if (!status)
        status =
            rp_replay_open(replay->model, judge->comparison.engine, &options, &replay->replay, err);
    if (!status && rp_dump_lacks_positions(judge->comparison.engine, entry->n_layers,
                                           n_listed ? 0
                                           : ids    ? n_ids
                                                    : options.n_tokens,
                                           why, sizeof why))
        status = rp_fail(err, RP_ERR_MISMATCH, judge->paths.dump, -1, "replay: %s", why);
    return status;
}

/* Whether there is a dump to replay. A fixture is not needed: where it is all that is missing, the
 * dump is there all the same. */
static void judge_prerequisites(const struct rp_judge *judge, struct rp_judgement *judgement)
{
    const struct rp_run_record *record = &judge->record;
    const int ran = record->outcome == RP_RUN_RAN || record->outcome == RP_RUN_REUSED;
    if (judge->pair->against)
        rp_judge_decide(judgement, RP_SKIP, "a comparison of two modes has no dump of its own");
    else if (ran && judge->comparison.engine && judge->prerequisites.verdict != RP_ERROR)
        rp_judge_decide(judgement, RP_PASS, "%s", "");
    else
        *judgement = judge->prerequisites;
}

enum rp_status rp_judge_replay_open(const struct rp_judge *judge, struct rp_judge_replay **out,
                                    struct rp_error *err)
{
    struct rp_error why;
    struct rp_judge_replay *replay = calloc(1, sizeof *replay);
    if (!replay)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    replay->judge = judge;
    judge_prerequisites(judge, &replay->prerequisites);
    const enum rp_status status =
        replay->prerequisites.verdict == RP_PASS ? open_replay(replay, &why) : RP_OK;
    if (status == RP_ERR_UNSUPPORTED)
        rp_judge_decide(&replay->prerequisites, RP_SKIP,
                        "the C model: %s; its layers are compared with transformers' all the same "
                        "(refparity diff), and ci/record.sh --replay DUMP --model %s replays it",
                        why.message, judge->pair->entry->hf_model);
    else if (status == RP_ERR_MISSING && !replay->model)
        rp_judge_decide(&replay->prerequisites, rp_judge_missing(judge->context), "%s",
                        why.message);
    else if (status)
        rp_judge_decide_error(&replay->prerequisites, &why);
    *out = replay;
    return RP_OK;
}

void rp_judge_replay_close(struct rp_judge_replay *replay)
{
    if (!replay)
        return;
    rp_replay_close(replay->replay);
    rp_model_close(replay->model);
    free(replay);
}

/* The error of slot at position, against HF. */
static double error_at(const struct rp_judge *judge, const char *slot, int64_t position)
{
    struct rp_comparison one = judge->comparison;
    struct rp_slot_result result;
    if (!one.reference || !slot[0])
        return (double)NAN;
    one.gate = NULL;
    one.positions = &position;
    one.n_positions = 1;
    rp_compare_slot(&one, slot, &result);
    return result.n_compared == 1 ? result.worst.metrics.l2_rel : (double)NAN;
}

/* Is the slot's dump damaged, so that what replay finds there is no error of the engine's? */
static int is_damaged(const struct rp_judge *judge, const char *slot,
                      struct rp_slot_result *compared)
{
    struct rp_comparison alone = judge->comparison;
    alone.gate = NULL; /* which asks replay */
    if (!judge->comparison.reference || judge->prerequisites.verdict != RP_PASS ||
        !rp_tensor_set_find(judge->comparison.engine, slot))
        return 0;
    rp_compare_slot(&alone, slot, compared);
    return compared->verdict == RP_ERROR;
}

/* A damaged slot fails, and so does the operation that starts from it. */
static int describe_damage(const struct rp_judge *judge, struct rp_replay_result *result)
{
    const struct rp_replay_slot *slot = result->layer.first_failing;
    struct rp_slot_result compared;
    char name[RP_SLOT_NAME_SIZE];
    if (is_damaged(judge, slot->slot, &compared)) {
        rp_judge_decide(&result->judgement, RP_ERROR, "%s: %s", slot->slot, compared.message);
        return 1;
    }
    for (size_t i = 0; rp_replay_source(slot, i, name); i++) {
        if (!is_damaged(judge, name, &compared))
            continue;
        rp_judge_decide(&result->judgement, RP_SKIP, "%s starts from %s: %s", slot->slot, name,
                        compared.message);
        return 1;
    }
    return 0;
}

/* What the slot's layer was given. */
static char *input_of(const struct rp_replay_slot *slot, char name[RP_SLOT_NAME_SIZE])
{
    name[0] = '\0';
    if (slot->layer < 0)
        (void)rp_replay_source(slot, 0, name);
    else if (slot->layer == 0)
        rp_slot_name(RP_PART_EMB, -1, name);
    else
        rp_slot_name(RP_PART_OUTPUT, slot->layer - 1, name);
    return name;
}

/* Where the cause is other weights, that is said of the first slot, and of the others no more. */
static void say_other_weights(const struct rp_judge_replay *replay, struct rp_replay_result *result)
{
    const struct rp_replay_layer *layer = &result->layer;
    struct rp_products products = {.n_products = 0};
    char text[RP_PRODUCTS_TEXT_SIZE];
    rp_products_add(&products, layer, result->explanations);
    if (!rp_products_hint(&products, replay->replay, text))
        return;
    for (size_t i = 0; i < layer->n_slots; i++)
        if (layer->slots[i].verdict == RP_FAIL)
            snprintf(result->explanations[i].text, sizeof result->explanations[i].text, "%s",
                     &layer->slots[i] == layer->first_failing ? text : "unexplained");
}

static void explain(struct rp_judge_replay *replay, struct rp_replay_result *result)
{
    struct rp_error err;
    for (size_t i = 0; i < result->layer.n_slots; i++) {
        struct rp_explanation *explanation = &result->explanations[i];
        if (result->layer.slots[i].verdict != RP_FAIL ||
            !rp_explain_slot(replay->replay, &result->layer.slots[i], explanation, &err))
            continue;
        memset(explanation, 0, sizeof *explanation);
        snprintf(explanation->text, sizeof explanation->text, "not explained: %.300s", err.message);
    }
    say_other_weights(replay, result);
}

static void describe_failure(struct rp_judge_replay *replay, struct rp_replay_result *result)
{
    const struct rp_replay_slot *slot = result->layer.first_failing;
    struct rp_error err;
    char inherited[64] = "what it inherits is not known", input[RP_SLOT_NAME_SIZE];
    char damage[512];
    if (describe_damage(replay->judge, result))
        return;
    if (!rp_replay_find_damage(replay->replay, &result->layer, slot, damage, &err) && damage[0]) {
        rp_judge_decide(&result->judgement, RP_ERROR, "%s", damage);
        return;
    }
    result->inherited =
        error_at(replay->judge, input_of(slot, input), slot->positions[slot->first]);
    if (!isnan(result->inherited))
        snprintf(inherited, sizeof inherited, "inherits %.3g with %.24s", result->inherited, input);
    rp_judge_decide(&result->judgement, RP_FAIL, "%s, %s: %s; %s", slot->slot, slot->operation,
                    slot->message, inherited);
    explain(replay, result);
}

/* The messages of slots with that verdict, one behind the other. */
static void describe(struct rp_replay_result *result)
{
    const struct rp_replay_layer *layer = &result->layer;
    const struct rp_replay_slot *worst = NULL;
    char left_out[96] = "";
    size_t n_partial = 0;
    for (size_t i = 0; i < layer->n_slots; i++) {
        const struct rp_replay_slot *slot = &layer->slots[i];
        n_partial += slot->n_left_out > 0;
        if (slot->verdict != layer->verdict)
            continue;
        if (!worst || (slot->n_positions > 0 && worst->n_positions > 0 &&
                       slot->introduced[slot->worst] * worst->limit[worst->worst] >
                           worst->introduced[worst->worst] * slot->limit[slot->worst]))
            worst = slot;
    }
    if (worst && n_partial > (worst->n_left_out > 0))
        snprintf(left_out, sizeof left_out, "; positions of %zu slots could not be replayed",
                 n_partial);
    if (worst)
        rp_judge_decide(&result->judgement, layer->verdict, "%s %s%s", worst->slot, worst->message,
                        left_out);
    else
        rp_judge_decide(&result->judgement, layer->verdict, "%s", "there is nothing to replay");
}

static void replay_slot(struct rp_judge_replay *replay, const char *slot,
                        struct rp_replay_result *result)
{
    struct rp_error err;
    int layer;
    memset(result, 0, sizeof *result);
    snprintf(result->slot, sizeof result->slot, "%s", slot);
    result->inherited = (double)NAN;
    result->layer.layer = -1;
    if (replay->prerequisites.verdict != RP_PASS) {
        result->judgement = replay->prerequisites;
        return;
    }
    const enum rp_slot_part part = rp_slot_parse(slot, &layer);
    const enum rp_status status =
        part == RP_PART_OUTPUT
            ? rp_replay_run_layer(replay->replay, (size_t)layer, &result->layer, &err)
            : rp_replay_run_part(replay->replay, part, &result->layer, &err);
    if (status == RP_ERR_UNSUPPORTED)
        rp_judge_decide(&result->judgement, RP_SKIP, "the C model: %s", err.message);
    else if (status)
        rp_judge_decide_error(&result->judgement, &err);
    else if (result->layer.verdict == RP_FAIL)
        describe_failure(replay, result);
    else
        describe(result);
}

void rp_judge_replay_slot(struct rp_judge_replay *replay, const char *slot,
                          struct rp_replay_result *result)
{
    const double start = rp_clock_seconds();
    replay_slot(replay, slot, result);
    result->seconds = rp_clock_seconds() - start;
}

void rp_replay_result_free(struct rp_replay_result *result)
{
    rp_replay_layer_free(&result->layer);
    memset(result, 0, sizeof *result);
}

/* last: the last slot, NULL: of all. */
static enum rp_status replay_slots(const struct rp_judge *judge, const char *last,
                                   struct rp_replay_result **results, size_t *n,
                                   struct rp_error *err)
{
    char name[RP_SLOT_NAME_SIZE];
    const int n_layers = judge->pair->entry->n_layers;
    struct rp_judge_replay *replay = NULL; /* opened where something has to be replayed */
    struct rp_replay_result *list = calloc((size_t)n_layers + 3, sizeof *list);
    if (!list)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory for replay's results");
    enum rp_status status = RP_OK;
    *n = 0;
    for (size_t i = 0; !status && rp_required_slot(n_layers, i, name); i++) {
        struct rp_replay_result *result = &list[*n];
        const enum rp_status stored = rp_stored_replay(judge, name, result, err);
        if (stored == RP_ERR_FORMAT) {
            status = stored;
        } else if (stored) {
            if (!replay)
                status = rp_judge_replay_open(judge, &replay, err);
            if (!status)
                rp_judge_replay_slot(replay, name, result);
            if (!status && last)
                (void)rp_store_replay(judge, result, NULL);
        }
        *n += !status;
        if (last && strcmp(name, last) == 0)
            break;
    }
    rp_judge_replay_close(replay);
    if (status)
        rp_replay_results_free(list, *n);
    else
        *results = list;
    return status;
}

enum rp_status rp_judge_replay_pair(const struct rp_judge *judge, struct rp_replay_result **results,
                                    size_t *n, struct rp_error *err)
{
    return replay_slots(judge, NULL, results, n, err);
}

enum rp_status rp_judge_replay_until(const struct rp_judge *judge, const char *slot,
                                     struct rp_replay_result **results, size_t *n,
                                     struct rp_error *err)
{
    return replay_slots(judge, slot, results, n, err);
}

void rp_replay_results_free(struct rp_replay_result *results, size_t n)
{
    for (size_t i = 0; i < n; i++)
        rp_replay_result_free(&results[i]);
    free(results);
}
