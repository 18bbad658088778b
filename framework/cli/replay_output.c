/* See cli/replay_output.h. */
#include "cli/replay_output.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/reading.h"
#include "report/html.h"
#include "report/replay.h"
#include "report/verdict_style.h"

static void add_number(cJSON *object, const char *name, double value)
{
    if (isfinite(value))
        cJSON_AddNumberToObject(object, name, value);
    else
        cJSON_AddNullToObject(object, name);
}

static void add_slot(cJSON *slots, const struct rp_replay_slot *slot)
{
    cJSON *item = cJSON_CreateObject();
    cJSON *positions = cJSON_AddArrayToObject(item, "positions");
    cJSON *introduced = cJSON_AddArrayToObject(item, "introduced");
    cJSON *limit = cJSON_AddArrayToObject(item, "limit");
    cJSON *bound = cJSON_AddArrayToObject(item, "bound");
    cJSON_AddStringToObject(item, "slot", slot->slot);
    cJSON_AddStringToObject(item, "operation", slot->operation);
    cJSON_AddStringToObject(item, "from", slot->from);
    cJSON_AddBoolToObject(item, "carried", slot->is_carried);
    cJSON_AddStringToObject(item, "verdict", rp_verdict_name(slot->verdict));
    cJSON_AddStringToObject(item, "message", slot->message);
    cJSON_AddNumberToObject(item, "n_left_out", (double)slot->n_left_out);
    cJSON_AddNumberToObject(item, "n_failing", (double)slot->n_failing);
    cJSON_AddNumberToObject(item, "n_over", (double)slot->n_over);
    cJSON_AddNumberToObject(item, "n_expected", slot->n_expected);
    if (slot->first < slot->n_positions) {
        cJSON_AddNumberToObject(item, "first_position", (double)slot->positions[slot->first]);
        cJSON_AddNumberToObject(item, "worst_channel", (double)slot->worst_channel);
    }
    for (size_t i = 0; i < slot->n_positions; i++) {
        cJSON_AddItemToArray(positions, cJSON_CreateNumber((double)slot->positions[i]));
        cJSON_AddItemToArray(introduced, isfinite(slot->introduced[i])
                                             ? cJSON_CreateNumber(slot->introduced[i])
                                             : cJSON_CreateNull());
        cJSON_AddItemToArray(limit, cJSON_CreateNumber(slot->limit[i]));
        cJSON_AddItemToArray(bound, cJSON_CreateNumber(slot->bound[i]));
    }
    cJSON_AddItemToArray(slots, item);
}

static const struct rp_column columns[] = {
    {"slot", 16, true},     {"operation", 27, true}, {"introduced", 10, false}, {"limit", 8, false},
    {"position", 8, false}, {"verdict", 8, true},    {"from", 17, true}};

enum { N_COLUMNS = sizeof columns / sizeof columns[0], MOST_PASSING = 24, MOST_FAILING = 40 };

/* "h14_v, _qrope, _krope" of "h14_v, h14_qrope, h14_krope". */
static const char *shorten_from(const struct rp_replay_slot *slot, char *out, size_t size)
{
    const char *from = slot->from;
    const size_t prefix = strcspn(slot->slot, "_");
    size_t n = 0;
    for (size_t i = 0; from[i] && n + 1 < size;) {
        if (i > 0 && from[i - 1] == ' ' && strncmp(from + i, slot->slot, prefix) == 0 &&
            from[i + prefix] == '_')
            i += prefix;
        out[n++] = from[i++];
    }
    out[n] = '\0';
    return out;
}

static void print_row(const struct rp_terminal *terminal, const struct rp_replay_slot *slot)
{
    const char *verdict = rp_verdict_name(slot->verdict);
    const size_t article = strncmp(slot->operation, "the ", 4) == 0 ? 4 : 0;
    char introduced[RP_NUMBER_SIZE] = "-", limit[RP_NUMBER_SIZE] = "-", position[24] = "-",
         from[sizeof slot->from];
    if (slot->n_positions > 0) {
        rp_number_text(introduced, "%.2e", slot->introduced[slot->worst]);
        rp_number_text(limit, "%.2e", slot->limit[slot->worst]);
        snprintf(position, sizeof position, "%lld", (long long)slot->positions[slot->worst]);
    }
    rp_table_row(
        terminal, columns, N_COLUMNS,
        (const struct rp_cell[N_COLUMNS]){{slot->slot, RP_STYLE_PLAIN},
                                          {slot->operation + article, RP_STYLE_PLAIN},
                                          {introduced, RP_STYLE_STRONG},
                                          {limit, RP_STYLE_PLAIN},
                                          {position, RP_STYLE_PLAIN},
                                          {verdict, rp_verdict_style(verdict)},
                                          {shorten_from(slot, from, sizeof from), RP_STYLE_FAINT}});
}

static void print_heading(struct rp_replay_output *output)
{
    if (!output->has_heading)
        rp_table_heading(output->terminal, columns, N_COLUMNS);
    output->has_heading = true;
}

/* One that passes waits for the end. */
static void keep_passing(struct rp_replay_output *output, const struct rp_replay_slot *slot)
{
    const double limit = slot->limit[slot->worst];
    const double share = limit > 0 ? slot->introduced[slot->worst] / limit : 0;
    if (share > output->worst) {
        output->worst = share;
        snprintf(output->worst_slot, sizeof output->worst_slot, "%s", slot->slot);
    }
    if (output->n_passing++ < MOST_PASSING && output->passing.out)
        print_row(&output->passing, slot);
}

/* One that fails, after many that did: rounding that was not declared makes most of a model's fail. */
static bool is_counted_only(const struct rp_replay_output *output,
                            const struct rp_replay_slot *slot)
{
    return slot->verdict == RP_FAIL && !output->shown.all &&
           output->counts.n_failing > MOST_FAILING;
}

static void print_slot(struct rp_replay_output *output, const struct rp_replay_slot *slot)
{
    const bool passes = slot->verdict == RP_PASS && slot->n_positions > 0;
    if (passes && !output->shown.all) {
        keep_passing(output, slot);
        return;
    }
    if (is_counted_only(output, slot))
        return;
    print_heading(output);
    print_row(output->terminal, slot);
    if (output->shown.messages || slot->verdict != RP_PASS)
        rp_print_line(output->terminal, "    %s", slot->message);
}

static void print_passing(struct rp_replay_output *output)
{
    if (output->passing.out)
        fflush(output->passing.out);
    if (output->counts.n_failing > MOST_FAILING && !output->shown.all)
        rp_print_marked_line(output->terminal, RP_STYLE_BAD,
                             "… over their limits: ", "%zu more slots (--all shows them)",
                             output->counts.n_failing - MOST_FAILING);
    if (output->n_passing == 0)
        return;
    if (output->n_passing <= MOST_PASSING && output->passing.out) {
        print_heading(output);
        fputs(output->passing_text, output->terminal->out);
        return;
    }
    char nearest[RP_SLOT_NAME_SIZE + 64] = "";
    if (output->worst_slot[0])
        snprintf(nearest, sizeof nearest, ", the nearest %s at %.2f of its limit",
                 output->worst_slot, output->worst);
    rp_print_marked_line(output->terminal, RP_STYLE_GOOD,
                         "… within their limits: ", "%zu slots%s (--all shows them)",
                         output->n_passing, nearest);
}

void rp_replay_output_notes(struct rp_replay_output *output, const struct rp_tensor_set *dump)
{
    if (output->root)
        rp_cli_add_notes(output->root, "dump_notes", dump);
    else
        rp_cli_print_notes(output->terminal, "dump", dump);
}

void rp_replay_output_slot(struct rp_replay_output *output, const struct rp_replay_slot *slot)
{
    struct rp_replay_counts *counts = &output->counts;
    counts->n_slots += slot->n_positions > 0;
    counts->n_failing += slot->verdict == RP_FAIL;
    counts->n_skipped += slot->verdict == RP_SKIP;
    counts->n_errors += slot->verdict == RP_ERROR;
    /* Without tokens emb is SKIP, and a line of its own says so. */
    counts->n_partial +=
        slot->n_left_out > 0 && !(slot->part == RP_PART_EMB && slot->verdict == RP_SKIP);
    counts->n_carried += slot->is_carried && slot->n_positions > 0;
    const char *resolution = strstr(slot->message, "an error below ");
    if (slot->verdict == RP_PASS && resolution &&
        slot->limit[slot->worst] > counts->coarsest_limit) {
        counts->coarsest_limit = slot->limit[slot->worst];
        snprintf(counts->coarsest, sizeof counts->coarsest, "in %s %s", slot->slot, resolution);
    }
    if (output->slots)
        add_slot(output->slots, slot);
    else
        print_slot(output, slot);
    if (slot->verdict == RP_FAIL && !counts->first_failing[0])
        snprintf(counts->first_failing, sizeof counts->first_failing, "%s", slot->slot);
}

void rp_replay_output_explanation(struct rp_replay_output *output,
                                  const struct rp_replay_slot *slot,
                                  const struct rp_explanation *explanation)
{
    struct rp_replay_counts *counts = &output->counts;
    const bool is_of_numerics = strncmp(explanation->name, "numerics-", 9) == 0;
    counts->n_explained += explanation->name[0] != '\0';
    if (is_of_numerics && counts->n_numerics++ == 0)
        snprintf(counts->numerics, sizeof counts->numerics, "%s", explanation->text);
    if (!output->explanations) {
        if (!is_counted_only(output, slot))
            rp_print_line(output->terminal, "    %s", explanation->text);
        return;
    }
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "slot", slot->slot);
    cJSON_AddStringToObject(item, "name", explanation->name);
    cJSON_AddStringToObject(item, "text", explanation->text);
    cJSON_AddStringToObject(item, "or_else", explanation->or_else);
    add_number(item, "share", explanation->share);
    add_number(item, "parameter", explanation->parameter);
    cJSON_AddItemToArray(output->explanations, item);
}

enum rp_status rp_replay_output_layer(struct rp_replay_output *output,
                                      const struct rp_replay_layer *layer,
                                      const struct rp_explanation *explanations,
                                      struct rp_error *err)
{
    if (!output->layers || layer->n_slots == 0)
        return RP_OK;
    struct rp_replay_result *result = calloc(1, sizeof *result);
    if (!result)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    if (layer->layer >= 0)
        rp_slot_name(RP_PART_OUTPUT, layer->layer, result->slot);
    else
        memcpy(result->slot, layer->slots[0].slot, sizeof result->slot);
    result->judgement.verdict = layer->verdict;
    result->inherited = (double)NAN;
    result->layer = *layer; /* its arrays stay the caller's */
    memcpy(result->explanations, explanations, layer->n_slots * sizeof *explanations);
    rp_report_replay_json(output->layers, result, 1);
    free(result);
    return RP_OK;
}

/* What was not shown is no pass. */
static int code_of(const struct rp_replay_counts *counts)
{
    if (counts->n_errors > 0 || counts->n_slots == 0 || counts->n_missing > 0 ||
        counts->is_broken_off || counts->positions[0] || counts->has_no_tokens)
        return RP_EXIT_ERROR;
    if (counts->n_failing > 0) /* also where what follows from a NaN could not be replayed */
        return RP_EXIT_FAIL;
    return counts->n_partial > 0 ? RP_EXIT_ERROR : RP_EXIT_PASS;
}

static const char *verdict_of(int code)
{
    return code == RP_EXIT_PASS ? "PASS" : code == RP_EXIT_FAIL ? "FAIL" : "ERROR";
}

static void print_unshown(const struct rp_terminal *out, const struct rp_replay_counts *counts)
{
    if (counts->n_prediction_layers > 0)
        rp_print_line(out, "left out: %zu layer%s for multi-token prediction, behind the decoder's",
                      counts->n_prediction_layers, counts->n_prediction_layers == 1 ? "" : "s");
    if (counts->n_unknown > 0)
        rp_print_line(
            out, "not used: %s: %s, as h0_attnout is (docs/slots.md lists them)", counts->unknown,
            counts->n_unknown == 1 ? "no slot has that name" : "no slots have such names");
    if (counts->n_missing > 0)
        rp_print_line(out, "not shown: the dump has no %s; every required slot has to be there",
                      counts->missing);
    if (counts->n_partial > 0)
        rp_print_line(
            out,
            "not shown: some positions of %zu slot%s, whose inputs are not dumped or not finite: "
            "--verbose says which",
            counts->n_partial, counts->n_partial == 1 ? "" : "s");
    if (counts->positions[0])
        rp_print_line(out, "not shown: %s", counts->positions);
    if (counts->has_no_tokens)
        rp_print_line(
            out,
            "not shown: emb, as the dump has no tokens: give the prompt's ids with --tokens FILE");
    if (counts->has_no_dump_json)
        rp_print_line(
            out, "not known: whether the engine finished its dump, which has no dump.json: its "
                 "positions are taken for 0, 1, 2 ...");
    if (counts->is_broken_off)
        rp_print_line(out, "not shown: what the engine did not come to: its dump is not complete "
                           "(rp_dump_close was not reached)");
}

static void print_end(const struct rp_terminal *out, const struct rp_replay_counts *counts)
{
    if (counts->n_slots == 0)
        rp_print_line(out, "nothing could be replayed");
    else if (counts->n_failing > 0)
        rp_print_marked_line(out, RP_STYLE_BAD, "the first slot that introduces an error: ", "%s",
                             counts->first_failing);
    else if (counts->n_errors > 0)
        rp_print_line(
            out,
            "no error of the engine's was found, and the dump is damaged: mend it, then run again");
    else
        rp_print_line(out, "no operation that was replayed introduces an error");
    rp_print_line(
        out,
        "%zu slots replayed, %zu of them carried from further back, %zu over the limit, %zu not "
        "replayed, %zu damaged",
        counts->n_slots, counts->n_carried, counts->n_failing, counts->n_skipped, counts->n_errors);
    if (counts->n_numerics > 1 && 2 * counts->n_numerics > counts->n_explained)
        rp_print_line(
            out, "hint: %zu of %zu explained slots: %s; see --activations, --kv-cache, --attention",
            counts->n_numerics, counts->n_explained, counts->numerics);
    if (counts->other_weights[0])
        rp_print_line(out, "hint: %s", counts->other_weights);
    if (counts->coarsest[0])
        rp_print_line(out, "resolution: %s", counts->coarsest);
    print_unshown(out, counts);
}

static void print_json(struct rp_replay_output *output, const char *model, const char *dump,
                       const struct rp_numerics *numerics)
{
    const struct rp_replay_counts *counts = &output->counts;
    cJSON *root = output->root;
    cJSON_AddStringToObject(root, "model", model);
    cJSON_AddStringToObject(root, "dump", dump);
    cJSON_AddStringToObject(root, "activations", rp_activations_name(numerics->activations));
    cJSON_AddStringToObject(root, "kv_cache", rp_kv_cache_name(numerics->kv_cache));
    cJSON_AddStringToObject(root, "attention", rp_attention_name(numerics->attention));
    cJSON_AddStringToObject(root, "state", rp_state_name(numerics->state));
    cJSON_AddStringToObject(root, "verdict", verdict_of(code_of(counts)));
    cJSON_AddStringToObject(root, "missing", counts->missing);
    cJSON_AddStringToObject(root, "unknown", counts->unknown);
    cJSON_AddStringToObject(root, "missing_positions", counts->positions);
    cJSON_AddNumberToObject(root, "n_partial", (double)counts->n_partial);
    cJSON_AddBoolToObject(root, "complete", !counts->is_broken_off);
    cJSON_AddBoolToObject(root, "has_tokens", !counts->has_no_tokens);
    cJSON_AddBoolToObject(root, "has_dump_json", !counts->has_no_dump_json);
    if (counts->first_failing[0])
        cJSON_AddStringToObject(root, "first_failing", counts->first_failing);
    if (counts->other_weights[0])
        cJSON_AddStringToObject(root, "hint", counts->other_weights);
    char *text = cJSON_Print(root);
    puts(text ? text : "{}");
    free(text);
}

/* Takes the layers. */
static enum rp_status write_html(struct rp_replay_output *output, const char *model,
                                 const char *dump, int code, struct rp_error *err)
{
    char title[RP_PATH_SIZE];
    cJSON *pair = cJSON_CreateObject();
    snprintf(title, sizeof title, "replay of %s", dump);
    cJSON_AddStringToObject(pair, "pair", title);
    cJSON_AddStringToObject(pair, "verdict", verdict_of(code));
    cJSON_AddStringToObject(pair, "hf_model", model);
    cJSON_AddStringToObject(pair, "dump", dump);
    cJSON_AddItemToObject(pair, "replay", output->layers);
    output->layers = NULL;
    const enum rp_status status = rp_report_html_pair(output->html, pair, err);
    cJSON_Delete(pair);
    return status;
}

void rp_replay_output_open(struct rp_replay_output *output, const struct rp_terminal *terminal,
                           bool is_json, struct rp_replay_shown shown, const char *html)
{
    *output = (struct rp_replay_output){.terminal = terminal, .shown = shown, .html = html};
    output->passing = *terminal;
    output->passing.out = open_memstream(&output->passing_text, &output->passing_length);
    if (html)
        output->layers = cJSON_CreateArray();
    if (!is_json)
        return;
    output->root = cJSON_CreateObject();
    output->slots = cJSON_AddArrayToObject(output->root, "slots");
    output->explanations = cJSON_AddArrayToObject(output->root, "explanations");
}

int rp_replay_output_end(struct rp_replay_output *output, const char *model, const char *dump,
                         const struct rp_numerics *numerics)
{
    if (output->root)
        print_json(output, model, dump, numerics);
    else {
        print_passing(output);
        print_end(output->terminal, &output->counts);
    }
    const int code = code_of(&output->counts);
    struct rp_error err;
    return output->layers && write_html(output, model, dump, code, &err) ? rp_cli_error(&err)
                                                                         : code;
}

void rp_replay_output_close(struct rp_replay_output *output)
{
    cJSON_Delete(output->root);
    cJSON_Delete(output->layers);
    if (output->passing.out)
        fclose(output->passing.out);
    free(output->passing_text);
    *output = (struct rp_replay_output){.root = NULL};
}
