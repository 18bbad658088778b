/* See replay.h. */
#include "report/replay.h"

#include <math.h>

#include "report/by_position.h"

/* ---- text ---- */

static void write_slot(FILE *out, const struct rp_replay_result *result,
                       const struct rp_replay_slot *slot)
{
    fprintf(out, "%-12s", slot->slot);
    if (slot->n_positions == 0) {
        fprintf(out, " %5s %8s %10s %10s %10s", "-", "-", "-", "-", "-");
    } else {
        const int fails = slot == result->layer.first_failing;
        const size_t at = fails ? slot->first : slot->worst;
        fprintf(out, " %5zu %8lld %10.3g %10.2g", slot->n_positions, (long long)slot->positions[at],
                slot->introduced[at], slot->limit[at]);
        if (fails && !isnan(result->inherited))
            fprintf(out, " %10.3g", result->inherited);
        else
            fprintf(out, " %10s", "");
    }
    fprintf(out, "  %s", rp_verdict_name(slot->verdict));
    if (slot->verdict == RP_FAIL || slot->verdict == RP_XFAIL || slot->verdict == RP_ERROR)
        fprintf(out, ": %s", slot->message);
    else if (slot->is_carried)
        fprintf(out, " (%s is not dumped)", slot->between);
    fputc('\n', out);
}

void rp_report_replay_text(FILE *out, const struct rp_replay_result *results, size_t n)
{
    if (n == 0)
        return;
    fprintf(out,
            "\nreplay: what each slot adds, run by the C model on the engine's own values\n"
            "%-12s %5s %8s %10s %10s %10s  %s\n",
            "slot", "n", "worst at", "introduced", "limit", "inherited", "status");
    for (size_t i = 0; i < n; i++) {
        const struct rp_replay_layer *layer = &results[i].layer;
        if (layer->n_slots == 0)
            fprintf(out, "%-12s %s: %s\n", results[i].slot,
                    rp_verdict_name(results[i].judgement.verdict), results[i].judgement.message);
        for (size_t s = 0; s < layer->n_slots; s++)
            write_slot(out, &results[i], &layer->slots[s]);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t s = 0; s < results[i].layer.n_slots; s++)
            if (results[i].explanations[s].text[0])
                fprintf(out, "%s: %s\n", results[i].layer.slots[s].slot,
                        results[i].explanations[s].text);
}

static void write_failing(FILE *out, const struct rp_replay_result *result,
                          const struct rp_replay_slot *slot,
                          const struct rp_explanation *explanation)
{
    const size_t at = slot->first;
    fprintf(out, "  operation: %s: %s, from the engine's own %s\n", slot->slot, slot->operation,
            slot->from[0] ? slot->from : "tokens");
    fprintf(out, "  at position %lld: introduced %.4g, limit %.2g, channel %zu",
            (long long)slot->positions[at], slot->introduced[at], slot->limit[at],
            slot->worst_channel);
    if (slot == result->layer.first_failing && !isnan(result->inherited))
        fprintf(out, "; inherited %.4g", result->inherited);
    if (slot->n_failing > 0)
        fprintf(out, "\n  positions: %zu of %zu over the limit\n", slot->n_failing,
                slot->n_positions);
    else
        fprintf(out,
                "\n  positions: %zu of %zu over the bound %.2g; rounding explains about %.0f\n",
                slot->n_over, slot->n_positions, slot->bound[at], slot->n_expected);
    if (explanation->text[0])
        fprintf(out, "  explanation: %s\n", explanation->text);
    if (explanation->or_else[0])
        fprintf(out, "  or, just as well: %s\n", explanation->or_else);
}

void rp_report_replay_failure(FILE *out, const struct rp_replay_result *result)
{
    for (size_t i = 0; i < result->layer.n_slots; i++) {
        const struct rp_replay_slot *slot = &result->layer.slots[i];
        if (slot->verdict == RP_FAIL && slot->first < slot->n_positions)
            write_failing(out, result, slot, &result->explanations[i]);
    }
}

/* ---- JSON ---- */

static void add_number(cJSON *object, const char *name, double value)
{
    if (isfinite(value))
        cJSON_AddNumberToObject(object, name, value);
    else
        cJSON_AddNullToObject(object, name);
}

static cJSON *slot_json(const struct rp_replay_slot *slot)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "slot", slot->slot);
    cJSON_AddStringToObject(object, "from", slot->from);
    cJSON_AddStringToObject(object, "verdict", rp_verdict_name(slot->verdict));
    cJSON_AddStringToObject(object, "message", slot->message);
    cJSON_AddNumberToObject(object, "n_compared", (double)slot->n_positions);
    cJSON_AddNumberToObject(object, "n_failing", (double)slot->n_failing);
    cJSON_AddStringToObject(object, "operation", slot->operation);
    cJSON_AddBoolToObject(object, "carried", slot->is_carried);
    if (slot->n_positions > 0) {
        add_number(object, "worst_position", (double)slot->positions[slot->worst]);
        add_number(object, "introduced", slot->introduced[slot->worst]);
        add_number(object, "limit", slot->limit[slot->worst]);
    }
    if (slot->first < slot->n_positions)
        add_number(object, "first_position", (double)slot->positions[slot->first]);
    return object;
}

static cJSON *explanation_json(const struct rp_explanation *explanation)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", explanation->name);
    cJSON_AddStringToObject(object, "text", explanation->text);
    cJSON_AddStringToObject(object, "or_else", explanation->or_else);
    add_number(object, "share", explanation->share);
    add_number(object, "parameter", explanation->parameter);
    return object;
}

static cJSON *result_json(const struct rp_replay_result *result)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "slot", result->slot);
    cJSON_AddStringToObject(object, "verdict", rp_verdict_name(result->judgement.verdict));
    cJSON_AddStringToObject(object, "message", result->judgement.message);
    add_number(object, "inherited", result->inherited);
    cJSON *slots = cJSON_AddArrayToObject(object, "slots");
    for (size_t i = 0; i < result->layer.n_slots; i++) {
        cJSON *slot = slot_json(&result->layer.slots[i]);
        if (result->explanations[i].text[0])
            cJSON_AddItemToObject(slot, "explanation", explanation_json(&result->explanations[i]));
        cJSON_AddItemToArray(slots, slot);
    }
    if (result->judgement.verdict == RP_FAIL || result->judgement.verdict == RP_XFAIL)
        rp_report_replay_by_position(object, &result->layer);
    return object;
}

void rp_report_replay_json(cJSON *array, const struct rp_replay_result *results, size_t n)
{
    for (size_t i = 0; i < n; i++)
        cJSON_AddItemToArray(array, result_json(&results[i]));
}
