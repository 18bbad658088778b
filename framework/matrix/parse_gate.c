/* What an engine or entry computes in (activations, kv_cache, attention, state) and dumps (slots), and what
 * decides on an entry whose weights are quantized (gate, replay). See refparity/matrix.h. */
#include "matrix/parse.h"

#include <string.h>

#include "matrix/keys.h"

#define MAX_CHOICES 8
#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *const gates[] = {[RP_GATE_STRICT] = "strict", [RP_GATE_EXPLAINED] = "explained"};

const char *rp_gate_name(enum rp_gate gate)
{
    return gates[gate];
}

/* object's member key as the index of its value among names[n]; *index keeps its value when there is
 * none. */
static enum rp_status read_choice(const struct rp_json *json, const cJSON *object, const char *key,
                                  const char *const *names, size_t n, size_t *index,
                                  struct rp_error *err)
{
    char shown[RP_SUGGESTION_SIZE];
    char suggestion[RP_SUGGESTION_SIZE];
    const char *text = NULL;
    enum rp_status status = rp_read_string(json, object, key, &text, err);
    if (status != RP_OK || !text)
        return status;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i], text) == 0) {
            *index = i;
            return RP_OK;
        }
    }
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return rp_json_fail(json, value, err, RP_ERR_FORMAT, "expected a known \"%s\", found %s%s", key,
                        rp_json_shown(value, shown), rp_suggest_value(text, names, n, suggestion));
}

enum rp_status rp_parse_numerics(struct rp_matrix *matrix, const cJSON *object,
                                 struct rp_numerics *numerics, struct rp_error *err)
{
    const char *names[MAX_CHOICES];
    size_t n = RP_ACTIVATIONS_Q8_K + 1;
    size_t found = numerics->activations;
    for (size_t i = 0; i < n; i++)
        names[i] = rp_activations_name((enum rp_activations)i);
    enum rp_status status = read_choice(matrix->json, object, "activations", names, n, &found, err);
    numerics->activations = (enum rp_activations)found;

    n = RP_KV_CACHE_Q4_0 + 1;
    found = numerics->kv_cache;
    for (size_t i = 0; i < n; i++)
        names[i] = rp_kv_cache_name((enum rp_kv_cache)i);
    if (status == RP_OK)
        status = read_choice(matrix->json, object, "kv_cache", names, n, &found, err);
    numerics->kv_cache = (enum rp_kv_cache)found;

    n = RP_ATTENTION_FLASH + 1;
    found = numerics->attention;
    for (size_t i = 0; i < n; i++)
        names[i] = rp_attention_name((enum rp_attention_kernel)i);
    if (status == RP_OK)
        status = read_choice(matrix->json, object, "attention", names, n, &found, err);
    numerics->attention = (enum rp_attention_kernel)found;

    n = RP_STATE_F16 + 1;
    found = numerics->state;
    for (size_t i = 0; i < n; i++)
        names[i] = rp_state_name((enum rp_state)i);
    if (status == RP_OK)
        status = read_choice(matrix->json, object, "state", names, n, &found, err);
    numerics->state = (enum rp_state)found;
    return status;
}

enum rp_status rp_parse_slots(struct rp_matrix *matrix, const cJSON *object,
                              const struct rp_engine *engine, struct rp_wanted_slots *slots,
                              struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "slots");
    const char *names[] = {rp_slot_level_name(RP_SLOTS_LAYERS),
                           rp_slot_level_name(RP_SLOTS_OPERATIONS)};
    size_t found = 0;
    if (!value)
        return RP_OK;
    enum rp_status status =
        read_choice(matrix->json, object, "slots", names, COUNT(names), &found, err);
    if (status != RP_OK)
        return status;
    if (!rp_engine_uses(engine, "slots"))
        return rp_json_fail(
            matrix->json, value, err, RP_ERR_FORMAT,
            "expected no \"slots\": engine \"%s\" uses {slots} nowhere, so it would "
            "dump the same",
            engine->name);
    *slots = (struct rp_wanted_slots){.replayed = (enum rp_slot_level)found,
                                      .compared = (enum rp_slot_level)found};
    return RP_OK;
}

/* The gate "exact" of earlier versions held an engine against the C model run end to end. */
static enum rp_status read_gate(struct rp_matrix *matrix, const cJSON *object,
                                struct rp_entry *entry, struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "gate");
    size_t gate = RP_GATE_STRICT;
    if (cJSON_IsString(value) && strcmp(value->valuestring, "exact") == 0)
        return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                            "expected a known \"gate\", found \"exact\": write \"gate\": "
                            "\"explained\", \"replay\": true, which says more");
    const enum rp_status status =
        read_choice(matrix->json, object, "gate", gates, COUNT(gates), &gate, err);
    entry->gate = (enum rp_gate)gate;
    entry->replay = entry->gate != RP_GATE_STRICT;
    return status;
}

/* true, false, or a list of the entry's modes. */
static enum rp_status read_replay(struct rp_matrix *matrix, const cJSON *object,
                                  struct rp_entry *entry, struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "replay");
    char shown[RP_SUGGESTION_SIZE];
    char suggestion[RP_SUGGESTION_SIZE];
    size_t n = 0;
    if (!cJSON_IsArray(value))
        return rp_read_flag(matrix->json, object, "replay", &entry->replay, err);
    enum rp_status status =
        rp_check_array(matrix->json, value, "replay", 1, RP_MATRIX_MAX_MODES, &n, err);
    if (status != RP_OK)
        return status;
    entry->replay = 1;
    entry->replay_modes = rp_matrix_alloc(n, sizeof *entry->replay_modes, err);
    if (!entry->replay_modes)
        return RP_ERR_MEMORY;
    for (const cJSON *child = value->child; child; child = child->next) {
        size_t i = 0;
        while (i < entry->n_modes &&
               (!cJSON_IsString(child) || strcmp(entry->modes[i], child->valuestring) != 0))
            i++;
        if (i == entry->n_modes)
            return rp_json_fail(matrix->json, child, err, RP_ERR_FORMAT,
                                "expected one of the entry's \"modes\" in \"replay\", found %s%s",
                                rp_json_shown(child, shown),
                                rp_suggest(cJSON_IsString(child) ? child->valuestring : "",
                                           entry->modes, entry->n_modes, suggestion));
        entry->replay_modes[entry->n_replay_modes++] = entry->modes[i];
    }
    return RP_OK;
}

enum rp_status rp_parse_gate(struct rp_matrix *matrix, const cJSON *object, struct rp_entry *entry,
                             struct rp_error *err)
{
    entry->numerics = entry->engine->numerics;
    entry->slots = entry->engine->slots;
    enum rp_status status = rp_parse_numerics(matrix, object, &entry->numerics, err);
    if (status == RP_OK)
        status = rp_parse_slots(matrix, object, entry->engine, &entry->slots, err);
    if (status == RP_OK)
        status = read_gate(matrix, object, entry, err);
    if (status == RP_OK)
        status = read_replay(matrix, object, entry, err);
    if (status != RP_OK || entry->engine_gguf)
        return status;
    const char *key = entry->gate != RP_GATE_STRICT ? "gate" : entry->replay ? "replay" : NULL;
    if (!key)
        return RP_OK;
    return rp_json_fail(
        matrix->json, cJSON_GetObjectItemCaseSensitive(object, key), err, RP_ERR_FORMAT,
        "expected \"engine_gguf\" in an entry with \"%s\": the engine's own weights "
        "are what it is held against",
        key);
}
