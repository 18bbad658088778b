/* See replay.h. */
#include "report/replay.h"

#include <math.h>

#include "report/by_position.h"
#include "report/verdict_style.h"

/* ---- text ---- */

static const struct rp_column columns[] = {
    {"slot", 16, true},  {"n", 5, false},         {"position", 8, false}, {"introduced", 10, false},
    {"limit", 8, false}, {"inherited", 9, false}, {"status", 8, true},    {"", 0, true}};

enum { N_COLUMNS = sizeof columns / sizeof columns[0] };

static void write_slot(const struct rp_terminal *out, const struct rp_replay_result *result,
                       const struct rp_replay_slot *slot)
{
    const bool is_failing =
        slot->verdict == RP_FAIL || slot->verdict == RP_XFAIL || slot->verdict == RP_ERROR;
    const char *name = rp_verdict_name(slot->verdict);
    char n[24], position[24], numbers[3][RP_NUMBER_SIZE];
    char between[RP_TERMINAL_WIDTH] = "";
    struct rp_cell cells[N_COLUMNS] = {{slot->slot, RP_STYLE_PLAIN},   {"-", RP_STYLE_FAINT},
                                       {"-", RP_STYLE_FAINT},          {"-", RP_STYLE_FAINT},
                                       {"-", RP_STYLE_FAINT},          {"-", RP_STYLE_FAINT},
                                       {name, rp_verdict_style(name)}, {between, RP_STYLE_FAINT}};
    if (slot->n_positions > 0) {
        const bool fails = slot == result->layer.first_failing;
        const size_t at = fails ? slot->first : slot->worst;
        snprintf(n, sizeof n, "%zu", slot->n_positions);
        snprintf(position, sizeof position, "%lld", (long long)slot->positions[at]);
        cells[1].text = n;
        cells[2].text = position;
        cells[3].text = rp_number_text(numbers[0], "%.3g", slot->introduced[at]);
        cells[4].text = rp_number_text(numbers[1], "%.2g", slot->limit[at]);
        cells[5].text = fails && !isnan(result->inherited)
                            ? rp_number_text(numbers[2], "%.3g", result->inherited)
                            : "";
    }
    if (slot->is_carried && !is_failing)
        snprintf(between, sizeof between, "%.12s is not dumped", slot->between);
    rp_table_row(out, columns, N_COLUMNS, cells);
    if (is_failing)
        rp_print_line(out, "    %s", slot->message);
}

void rp_report_replay_text(const struct rp_terminal *out, const struct rp_replay_result *results,
                           size_t n)
{
    if (n == 0)
        return;
    fputc('\n', out->out);
    rp_print_line(out,
                  "replay: what each slot adds, run by the C model on the engine's own values");
    rp_table_heading(out, columns, N_COLUMNS);
    for (size_t i = 0; i < n; i++) {
        const struct rp_replay_layer *layer = &results[i].layer;
        if (layer->n_slots == 0)
            rp_print_line(out, "%-16s %s: %s", results[i].slot,
                          rp_verdict_name(results[i].judgement.verdict),
                          results[i].judgement.message);
        for (size_t s = 0; s < layer->n_slots; s++)
            write_slot(out, &results[i], &layer->slots[s]);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t s = 0; s < results[i].layer.n_slots; s++)
            if (results[i].explanations[s].text[0])
                rp_print_line(out, "%s: %s", results[i].layer.slots[s].slot,
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
