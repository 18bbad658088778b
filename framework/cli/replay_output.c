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

static void print_slot(struct rp_replay_output *output, const struct rp_replay_slot *slot)
{
    if (output->n_lines++ == 0)
        printf("%-14s %-26s %10s %10s %9s  %-7s %s\n", "slot", "operation", "introduced", "limit",
               "position", "verdict", "from");
    if (slot->n_positions > 0)
        printf("%-14s %-26s %10.2e %10.2e %9lld  %-7s %s\n", slot->slot, slot->operation,
               slot->introduced[slot->worst], slot->limit[slot->worst],
               (long long)slot->positions[slot->worst], rp_verdict_name(slot->verdict), slot->from);
    else
        printf("%-14s %-26s %10s %10s %9s  %-7s %s\n", slot->slot, slot->operation, "-", "-", "-",
               rp_verdict_name(slot->verdict), slot->from);
    if (output->is_verbose || slot->verdict != RP_PASS)
        printf("    %s\n", slot->message);
}

void rp_replay_output_notes(struct rp_replay_output *output, const struct rp_tensor_set *dump)
{
    if (output->root)
        rp_cli_add_notes(output->root, "dump_notes", dump);
    else
        rp_cli_print_notes(stdout, "dump", dump);
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
        printf("    %s\n", explanation->text);
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

static void print_unshown(const struct rp_replay_counts *counts)
{
    if (counts->n_prediction_layers > 0)
        printf("left out: %zu layer%s for multi-token prediction, behind the decoder's\n",
               counts->n_prediction_layers, counts->n_prediction_layers == 1 ? "" : "s");
    if (counts->n_unknown > 0)
        printf("not used: %s: %s, as h0_attnout is (README: slots)\n", counts->unknown,
               counts->n_unknown == 1 ? "no slot has that name" : "no slots have such names");
    if (counts->n_missing > 0)
        printf("not shown: the dump has no %s; every required slot has to be there\n",
               counts->missing);
    if (counts->n_partial > 0)
        printf(
            "not shown: some positions of %zu slot%s, whose inputs are not dumped or not finite: "
            "--verbose says which\n",
            counts->n_partial, counts->n_partial == 1 ? "" : "s");
    if (counts->positions[0])
        printf("not shown: %s\n", counts->positions);
    if (counts->has_no_tokens)
        puts("not shown: emb, as the dump has no tokens: give the prompt's ids with --tokens FILE");
    if (counts->has_no_dump_json)
        puts("not known: whether the engine finished its dump, which has no dump.json: its "
             "positions are taken for 0, 1, 2 ...");
    if (counts->is_broken_off)
        puts("not shown: what the engine did not come to: its dump is not complete "
             "(rp_dump_close was not reached)");
}

static void print_end(const struct rp_replay_counts *counts)
{
    if (counts->n_slots == 0)
        puts("nothing could be replayed");
    else if (counts->n_failing > 0)
        printf("the first slot that introduces an error: %s\n", counts->first_failing);
    else if (counts->n_errors > 0)
        puts(
            "no error of the engine's was found, and the dump is damaged: mend it, then run again");
    else
        puts("no operation that was replayed introduces an error");
    printf("%zu slots replayed, %zu of them carried from further back, %zu over the limit, %zu not "
           "replayed, %zu damaged\n",
           counts->n_slots, counts->n_carried, counts->n_failing, counts->n_skipped,
           counts->n_errors);
    if (counts->n_numerics > 1 && 2 * counts->n_numerics > counts->n_explained)
        printf("hint: %zu of %zu explained slots: %s; see --activations, --kv-cache, --attention\n",
               counts->n_numerics, counts->n_explained, counts->numerics);
    if (counts->other_weights[0])
        printf("hint: %s\n", counts->other_weights);
    if (counts->coarsest[0])
        printf("resolution: %s\n", counts->coarsest);
    print_unshown(counts);
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

void rp_replay_output_open(struct rp_replay_output *output, bool is_json, bool is_verbose,
                           const char *html)
{
    *output = (struct rp_replay_output){.is_verbose = is_verbose, .html = html};
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
    else
        print_end(&output->counts);
    const int code = code_of(&output->counts);
    struct rp_error err;
    return output->layers && write_html(output, model, dump, code, &err) ? rp_cli_error(&err)
                                                                         : code;
}

void rp_replay_output_close(struct rp_replay_output *output)
{
    cJSON_Delete(output->root);
    cJSON_Delete(output->layers);
    *output = (struct rp_replay_output){.root = NULL};
}
