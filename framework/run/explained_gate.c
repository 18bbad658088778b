/* See explained_gate.h. */
#include "run/explained_gate.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare/choice.h"
#include "run/judge_internal.h"
#include "run/judge_replay.h"
#include "run/stored.h"

/* What replay says of all slots between the required slot before this one and this one. */
struct step {
    bool is_known;
    enum rp_verdict verdict;
    size_t n_slots;                 /* that were replayed */
    double resolution;              /* the largest limit of those */
    char coarse[RP_SLOT_NAME_SIZE]; /* the slot with that limit */
    char dump[96];                  /* what to dump to narrow it; "": nothing would */
    char failing[RP_SLOT_NAME_SIZE];
    char message[400];
};

struct rp_explained_gate {
    const struct rp_judge *judge;
    struct rp_tokens_result tokens;
    struct rp_judge_replay *replay; /* opened where something has to be replayed */
    struct step *steps;             /* [n_layers + 3], of the required slots in forward order */
};

enum rp_status rp_explained_gate_open(const struct rp_judge *judge, struct rp_explained_gate **out,
                                      struct rp_error *err)
{
    struct rp_explained_gate *gate = calloc(1, sizeof *gate);
    if (gate)
        gate->steps = calloc((size_t)judge->pair->entry->n_layers + 3, sizeof *gate->steps);
    if (!gate || !gate->steps) {
        rp_explained_gate_close(gate);
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    }
    gate->judge = judge;
    rp_judge_tokens(judge, &gate->tokens);
    *out = gate;
    return RP_OK;
}

void rp_explained_gate_close(struct rp_explained_gate *gate)
{
    if (!gate)
        return;
    rp_judge_replay_close(gate->replay);
    free(gate->steps);
    free(gate);
}

/* ---- a step ---- */

static void note_resolution(struct step *step, const struct rp_replay_slot *slot)
{
    for (size_t i = 0; i < slot->n_positions; i++) {
        if (!(slot->limit[i] > step->resolution))
            continue;
        step->resolution = slot->limit[i];
        snprintf(step->coarse, sizeof step->coarse, "%s", slot->slot);
        snprintf(step->dump, sizeof step->dump, "%s",
                 slot->limit[i] > 2 * slot->bound[i] ? slot->between : "");
    }
}

static void take(struct step *step, const struct rp_replay_result *result)
{
    const struct rp_replay_layer *layer = &result->layer;
    const struct rp_replay_slot *failing = layer->first_failing;
    const size_t room = sizeof step->message;
    bool is_replayed = false; /* the required slot itself */
    step->is_known = true;
    step->verdict = result->judgement.verdict;
    snprintf(step->message, room, "%.*s", (int)room - 1, result->judgement.message);
    for (size_t i = 0; i < layer->n_slots; i++) {
        step->n_slots += layer->slots[i].verdict == RP_PASS;
        is_replayed |= strcmp(layer->slots[i].slot, result->slot) == 0;
        note_resolution(step, &layer->slots[i]);
        /* a dumped slot that nothing could be said of breaks the chain, whatever its layer says */
        if (step->verdict == RP_PASS && layer->slots[i].verdict != RP_PASS) {
            step->verdict = RP_SKIP;
            snprintf(step->message, room, "%s %.300s", layer->slots[i].slot,
                     layer->slots[i].message);
        }
    }
    if (step->verdict == RP_PASS && !is_replayed) {
        step->verdict = RP_SKIP;
        snprintf(step->message, room, "%s is not dumped", result->slot);
    }
    if (step->verdict != RP_FAIL || !failing)
        return;
    snprintf(step->failing, sizeof step->failing, "%s", failing->slot);
    const struct rp_explanation *explanation = &result->explanations[failing - layer->slots];
    const size_t used = strlen(step->message);
    if (explanation->name[0])
        snprintf(step->message + used, room - used, ": %s", explanation->text);
}

static void replay(struct rp_explained_gate *gate, const char *slot, struct step *step)
{
    struct rp_replay_result result;
    struct rp_error err;
    if (rp_stored_replay(gate->judge, slot, &result, NULL)) {
        if (!gate->replay && rp_judge_replay_open(gate->judge, &gate->replay, &err)) {
            step->is_known = true;
            step->verdict = RP_ERROR;
            snprintf(step->message, sizeof step->message, "%.300s", err.message);
            return;
        }
        rp_judge_replay_slot(gate->replay, slot, &result);
        (void)rp_store_replay(gate->judge, &result, NULL);
    }
    take(step, &result);
    rp_replay_result_free(&result);
}

/* ---- all of them ---- */

/* The operations up to a slot. verdict: PASS; FAIL or ERROR, of the first step that is; SKIP: one was not
 * checked. step: that one, the first that was not checked, or of PASS the coarsest; NULL: none. */
struct chain {
    enum rp_verdict verdict;
    const struct step *step;
    char slot[RP_SLOT_NAME_SIZE]; /* of step, where not PASS */
    size_t n_slots;
};

static struct chain follow(struct rp_explained_gate *gate, const char *slot)
{
    struct chain chain = {.verdict = RP_PASS};
    char name[RP_SLOT_NAME_SIZE];
    const int n_layers = gate->judge->pair->entry->n_layers;
    for (size_t i = 0; rp_required_slot(n_layers, i, name); i++) {
        struct step *step = &gate->steps[i];
        if (rp_slot_order(name, slot) > 0)
            break;
        if (!step->is_known)
            replay(gate, name, step);
        chain.n_slots += step->n_slots;
        const bool is_worse =
            step->verdict != RP_PASS && (chain.verdict == RP_PASS || step->verdict != RP_SKIP);
        const bool is_coarser = chain.verdict == RP_PASS && step->resolution > 0 &&
                                (!chain.step || step->resolution > chain.step->resolution);
        if (is_worse || is_coarser)
            chain.step = step;
        if (is_worse) {
            chain.verdict = step->verdict;
            snprintf(chain.slot, sizeof chain.slot, "%s", name);
        }
        if (chain.verdict == RP_FAIL || chain.verdict == RP_ERROR)
            break;
    }
    return chain;
}

/* ---- the verdict ---- */

#define SAY(result, ...) snprintf((result)->message, sizeof(result)->message, __VA_ARGS__)

/* "L2_rel 0.374 at position 9, limit 0.05" */
static const char *distance(const struct rp_slot_result *result,
                            const struct rp_position_metrics *at, char text[96])
{
    int layer;
    if (rp_slot_parse(result->slot, &layer) == RP_PART_LOGITS)
        snprintf(text, 96, "cosine %.4f at position %lld, limit %g", at->metrics.cosine,
                 (long long)at->position, result->limit);
    else
        snprintf(text, 96, "L2_rel %.4g at position %lld, limit %g", at->metrics.l2_rel,
                 (long long)at->position, result->limit);
    return text;
}

static void add_unchecked(struct rp_slot_result *result, const char *what, const char *why)
{
    const size_t used = strlen(result->unchecked);
    snprintf(result->unchecked + used, sizeof result->unchecked - used, "%s%s (%.128s)",
             used ? "; " : "", what, why);
}

/* What the induction rests on and nobody has looked at. */
static void find_unchecked(const struct rp_explained_gate *gate, const struct chain *chain,
                           struct rp_slot_result *result)
{
    const struct rp_run_record *record = &gate->judge->record;
    const double limit = gate->judge->comparison.limits.l2_rel;
    char what[128], why[256];
    /* Where the dump has no ids, emb was replayed from the reference's. */
    if (gate->tokens.verdict == RP_SKIP &&
        !(gate->tokens.n_ref > 0 && gate->steps[0].verdict == RP_PASS))
        add_unchecked(result, "whether the tokens are the reference's", gate->tokens.message);
    if (record->weights == RP_SKIP)
        add_unchecked(result, "whether the file is the checkpoint", record->weights_message);
    if (chain->verdict == RP_SKIP) {
        snprintf(what, sizeof what, "whether the operations of %s are right", chain->slot);
        add_unchecked(result, what, chain->step->message);
    } else if (chain->step && !(chain->step->resolution < limit)) {
        snprintf(what, sizeof what, "whether %s is right", chain->step->coarse);
        snprintf(why, sizeof why, "replay shows it to %.2g only%s%s", chain->step->resolution,
                 chain->step->dump[0] ? ": dump " : "", chain->step->dump);
        add_unchecked(result, what, why);
    }
}

/* weights: what the checkpoint's sketch does not see of them, or "". */
static void say_explained(const struct rp_comparison *comparison, const struct chain *chain,
                          const char *weights, struct rp_slot_result *result, bool require)
{
    char at[96], coarse[256] = "", sketched[320] = "", other[120], choice[160] = "";
    int layer;
    const bool is_behind = rp_slot_parse(result->slot, &layer) != RP_PART_EMB && layer < 0;
    rp_first_other_choice(comparison, is_behind ? comparison->n_layers - 1 : layer,
                          result->worst.position, other, sizeof other);
    if (other[0])
        snprintf(choice, sizeof choice, " (%s)", other);
    distance(result, &result->worst, at);
    if (result->unchecked[0]) {
        result->verdict = require ? RP_ERROR : RP_MARGINAL;
        SAY(result, "%.72s%.100s: %s: %.255s", at, choice,
            require ? "that it is quantization has to be known, and was not checked"
                    : "quantization and carried rounding, as far as was checked; not checked",
            result->unchecked);
        return;
    }
    if (chain->step)
        snprintf(coarse, sizeof coarse, ", to %.2g at worst (%s%s%s%s)", chain->step->resolution,
                 chain->step->coarse, chain->step->dump[0] ? ": dump " : "", chain->step->dump,
                 chain->step->dump[0] ? " for more" : "");
    if (weights[0])
        snprintf(sketched, sizeof sketched, " (by the checkpoint's sketch: %.256s)", weights);
    result->verdict = RP_MARGINAL;
    SAY(result,
        "%.72s: tokens, weights%.190s and the operations of %zu slots up to it are right%.120s: it "
        "is quantization and carried rounding",
        at, sketched, chain->n_slots, coarse);
    const size_t used = strlen(result->message);
    snprintf(result->message + used, sizeof result->message - used, "%s", choice);
}

static void say_wrong(struct rp_slot_result *result, enum rp_verdict verdict, const char *what,
                      const char *message)
{
    char at[96];
    result->verdict = verdict;
    SAY(result, "%s, %s: %s: %.320s", distance(result, &result->first, at),
        verdict == RP_FAIL ? "is no quantization" : "is not explained", what, message);
}

void rp_explained_gate_decide(void *context, struct rp_slot_result *result)
{
    struct rp_explained_gate *gate = context;
    const struct rp_run_record *record = &gate->judge->record;
    const struct rp_metrics *worst = &result->worst.metrics;
    if (result->verdict != RP_FAIL || !result->required)
        return;
    if (!worst->engine_finite || !worst->ref_finite) {
        if (result->first.position != result->worst.position)
            SAY(result, "NaN or infinity at position %lld", (long long)result->worst.position);
        return;
    }
    if (gate->tokens.verdict == RP_FAIL || gate->tokens.verdict == RP_ERROR) {
        say_wrong(result, gate->tokens.verdict, "the tokens", gate->tokens.message);
        return;
    }
    if (record->weights == RP_FAIL) {
        say_wrong(result, RP_FAIL, "the engine's file is not the checkpoint",
                  record->weights_message);
        return;
    }
    const struct chain chain = follow(gate, result->slot);
    if (chain.verdict == RP_FAIL) {
        say_wrong(result, RP_FAIL, "an operation is wrong", chain.step->message);
        return;
    }
    if (record->weights == RP_ERROR || chain.verdict == RP_ERROR) {
        const bool is_file = record->weights == RP_ERROR;
        say_wrong(result, RP_ERROR,
                  is_file ? "whether the engine's file is the checkpoint" : "replay",
                  is_file ? record->weights_message : chain.step->message);
        return;
    }
    find_unchecked(gate, &chain, result);
    say_explained(&gate->judge->comparison, &chain,
                  record->weights == RP_PASS ? record->weights_message : "", result,
                  gate->judge->context->require != 0);
}

void rp_explained_gate_name_divergence(struct rp_explained_gate *gate,
                                       struct rp_divergence *divergence)
{
    if (!gate || !divergence->slot[0])
        return;
    const struct chain chain = follow(gate, divergence->slot);
    if (chain.verdict != RP_FAIL || !chain.step->failing[0])
        return;
    snprintf(divergence->inner_slot, sizeof divergence->inner_slot, "%s", chain.step->failing);
    snprintf(divergence->explanation, sizeof divergence->explanation, "replay: %s",
             chain.step->message);
}
