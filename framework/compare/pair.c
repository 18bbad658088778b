/* A whole pair: its tokens, then every slot (see refparity/compare.h). */
#include "compare/verdict.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAY(result, ...) snprintf((result)->message, sizeof(result)->message, __VA_ARGS__)

/* Ids at index, or "end of the prompt", as text. */
static const char *id_text(const int64_t *ids, size_t n, size_t index, char *buf, size_t size)
{
    if (index < n)
        snprintf(buf, size, "id %lld", (long long)ids[index]);
    else
        snprintf(buf, size, "no id (it has %zu)", n);
    return buf;
}

void rp_compare_tokens(const struct rp_comparison *comparison, struct rp_tokens_result *result)
{
    memset(result, 0, sizeof *result);
    result->first_difference = -1;
    const int64_t *ref, *engine;
    struct rp_error err;
    if (rp_tensor_set_tokens(comparison->reference, &ref, &result->n_ref, &err) ||
        rp_tensor_set_tokens(comparison->engine, &engine, &result->n_engine, &err)) {
        char text[sizeof result->message];
        result->verdict = RP_ERROR;
        SAY(result, "%s", rp_error_text(&err, text, sizeof text));
        return;
    }
    if (!ref || !engine) {
        result->verdict = RP_SKIP;
        SAY(result, "not compared: the %s no token ids",
            ref ? "engine's dump has" : "reference has");
        return;
    }
    const size_t shorter = result->n_ref < result->n_engine ? result->n_ref : result->n_engine;
    size_t i = 0;
    while (i < shorter && ref[i] == engine[i])
        i++;
    if (i == result->n_ref && i == result->n_engine) {
        result->verdict = RP_PASS;
        SAY(result, "%zu token ids are the same", i);
        return;
    }
    char a[64], b[64];
    result->verdict = RP_FAIL;
    result->first_difference = (long long)i;
    SAY(result,
        "token ids differ from position %zu on: the reference has %s, the engine %s; counts "
        "%zu and %zu%s",
        i, id_text(ref, result->n_ref, i, a, sizeof a),
        id_text(engine, result->n_engine, i, b, sizeof b), result->n_ref, result->n_engine,
        i == result->n_engine ? ": the engine's prompt is truncated" : "");
}

/* The slots to compare: what is required, and the evidence that either side has. */
struct slot_list {
    char (*names)[RP_SLOT_NAME_SIZE]; /* [n] */
    size_t n, capacity;
};

static enum rp_status list_add(struct slot_list *list, const char *name)
{
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity ? 2 * list->capacity : 64;
        void *grown = realloc(list->names, capacity * sizeof *list->names);
        if (!grown)
            return RP_ERR_MEMORY;
        list->names = grown;
        list->capacity = capacity;
    }
    snprintf(list->names[list->n++], RP_SLOT_NAME_SIZE, "%s", name);
    return RP_OK;
}

static enum rp_status list_add_set(struct slot_list *list, const struct rp_tensor_set *set)
{
    for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
        const enum rp_status status = list_add(list, rp_tensor_set_slot(set, i)->name);
        if (status)
            return status;
    }
    return RP_OK;
}

static int by_order(const void *a, const void *b)
{
    return rp_slot_order(a, b);
}

static enum rp_status list_slots(const struct rp_comparison *comparison, struct slot_list *list)
{
    char name[RP_SLOT_NAME_SIZE];
    enum rp_status status = RP_OK;
    for (size_t i = 0; !status && rp_required_slot(comparison->n_layers, i, name); i++)
        status = list_add(list, name);
    if (!status)
        status = list_add_set(list, comparison->reference);
    if (!status)
        status = list_add_set(list, comparison->engine);
    if (status || list->n == 0)
        return status;
    qsort(list->names, list->n, sizeof *list->names, by_order);
    size_t kept = 0;
    for (size_t i = 0; i < list->n; i++)
        if (kept == 0 || strcmp(list->names[kept - 1], list->names[i]) != 0)
            memmove(list->names[kept++], list->names[i], RP_SLOT_NAME_SIZE);
    list->n = kept;
    return RP_OK;
}

void rp_compare_slot_of_pair_after_tokens(const struct rp_comparison *comparison,
                                          const struct rp_tokens_result *tokens, const char *slot,
                                          struct rp_damage_memory *memory,
                                          struct rp_slot_result *result)
{
    if (tokens->verdict != RP_FAIL) {
        rp_compare_slot_of_pair(comparison, slot, memory, result);
        return;
    }
    memset(result, 0, sizeof *result);
    snprintf(result->slot, sizeof result->slot, "%s", slot);
    result->required = rp_slot_is_required(slot);
    result->worst.position = result->first.position = -1;
    result->verdict = RP_SKIP;
    SAY(result, "not comparable: %.*s", (int)sizeof result->message - 32, tokens->message);
}

enum rp_verdict rp_pair_verdict(const struct rp_pair_result *pair)
{
    int failed = pair->tokens.verdict == RP_FAIL, broken = pair->tokens.verdict == RP_ERROR;
    int explained = 0, known = 0;
    for (size_t i = 0; i < pair->n_slots; i++) {
        const struct rp_slot_result *slot = &pair->slots[i];
        if (!slot->required) {
            int layer; /* a name that refparity does not know is no part of the fixture's contract */
            broken |=
                slot->fixture_is_damaged && rp_slot_parse(slot->slot, &layer) != RP_PART_OTHER;
            continue;
        }
        explained |= slot->verdict == RP_MARGINAL;
        known |= slot->verdict == RP_XFAIL;
        failed |= slot->verdict == RP_FAIL;
        broken |= slot->verdict == RP_ERROR;
    }
    return broken                      ? RP_ERROR
           : failed                    ? RP_FAIL
           : known                     ? RP_XFAIL
           : explained                 ? RP_MARGINAL
           : pair->n_required_compared ? RP_PASS
                                       : RP_SKIP;
}

static void judge_whole(struct rp_pair_result *pair)
{
    for (size_t i = 0; i < pair->n_slots; i++) {
        const struct rp_slot_result *slot = &pair->slots[i];
        pair->n_required += slot->required != 0;
        pair->n_required_compared +=
            slot->required && slot->n_compared > 0 && slot->verdict != RP_SKIP;
    }
    pair->verdict = rp_pair_verdict(pair);
}

enum rp_status rp_compare_pair(const struct rp_comparison *comparison,
                               struct rp_pair_result *result, struct rp_error *err)
{
    struct rp_tokens_result tokens;
    rp_compare_tokens(comparison, &tokens);
    return rp_compare_pair_after_tokens(comparison, &tokens, result, err);
}

enum rp_status rp_compare_pair_after_tokens(const struct rp_comparison *comparison,
                                            const struct rp_tokens_result *tokens,
                                            struct rp_pair_result *result, struct rp_error *err)
{
    struct rp_damage_memory memory = {.right = NULL};
    const enum rp_status status =
        rp_compare_rest_of_pair(comparison, tokens, NULL, 0, &memory, result, err);
    rp_damage_memory_free(&memory);
    return status;
}

static const struct rp_slot_result *find_known(const struct rp_slot_result *known, size_t n_known,
                                               const char *slot)
{
    for (size_t i = 0; i < n_known; i++)
        if (strcmp(known[i].slot, slot) == 0)
            return &known[i];
    return NULL;
}

enum rp_status rp_compare_rest_of_pair(const struct rp_comparison *comparison,
                                       const struct rp_tokens_result *tokens,
                                       const struct rp_slot_result *known, size_t n_known,
                                       struct rp_damage_memory *memory,
                                       struct rp_pair_result *result, struct rp_error *err)
{
    memset(result, 0, sizeof *result);
    struct slot_list list = {0};
    enum rp_status status = list_slots(comparison, &list);
    if (!status) {
        result->slots = calloc(list.n + 1, sizeof *result->slots);
        status = result->slots ? RP_OK : RP_ERR_MEMORY;
    }
    if (status) {
        free(list.names);
        return rp_fail(err, status, NULL, -1, "not enough memory for the list of slots");
    }
    result->n_slots = list.n;
    result->tokens = *tokens;
    for (size_t i = 0; i < list.n; i++) {
        const struct rp_slot_result *there = find_known(known, n_known, list.names[i]);
        if (there)
            result->slots[i] = *there;
        else
            rp_compare_slot_of_pair_after_tokens(comparison, &result->tokens, list.names[i], memory,
                                                 &result->slots[i]);
    }
    judge_whole(result);
    free(list.names);
    return RP_OK;
}

void rp_pair_result_free(struct rp_pair_result *result)
{
    free(result->slots);
    memset(result, 0, sizeof *result);
}
