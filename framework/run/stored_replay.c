/* What a test replay/h07 stores (see stored.h). A field that is added to a result of replay needs its row
 * here; its type says how it is stored. */
#include <stdio.h>
#include <string.h>

#include "run/stored.h"

#define N_OF(table) (sizeof(table) / sizeof(table)[0])

#define F(member) RP_FIELD(struct rp_replay_result, member)
static const struct rp_field result_fields[] = {
    F(slot),
    RP_FIELD_ENUM(struct rp_replay_result, judgement.verdict, RP_ERROR),
    F(judgement.message),
    F(layer.layer),
    RP_FIELD_ENUM(struct rp_replay_result, layer.verdict, RP_ERROR),
    F(inherited),
};
#undef F

#define F(member) RP_FIELD(struct rp_explanation, member)
static const struct rp_field explanation_fields[] = {
    F(name), F(text), F(share), F(parameter), F(n_tried), F(or_else),
};
#undef F

#define F(member) RP_FIELD(struct rp_replay_slot, member)
#define PER_POSITION(member) RP_FIELD_ARRAY(struct rp_replay_slot, member, n_positions)
static const struct rp_field slot_fields[] = {
    F(slot),
    RP_FIELD_ENUM(struct rp_replay_slot, part, RP_PART_OTHER),
    F(layer),
    F(operation),
    F(from),
    F(is_carried),
    F(between),
    RP_FIELD_ENUM(struct rp_replay_slot, verdict, RP_ERROR),
    F(n_positions),
    PER_POSITION(positions),
    PER_POSITION(introduced),
    PER_POSITION(limit),
    PER_POSITION(bound),
    F(n_left_out),
    F(n_failing),
    F(n_over),
    F(n_expected),
    F(worst),
    F(first),
    F(worst_channel),
    F(message),
};
#undef PER_POSITION
#undef F

/* "h7" -> "replay-h7" */
static void name_test(const char *slot, char name[RP_SLOT_NAME_SIZE + 16])
{
    snprintf(name, RP_SLOT_NAME_SIZE + 16, "replay-%s", slot);
}

static enum rp_status add_object(cJSON *array, const void *object, const struct rp_field *fields,
                                 size_t n, struct rp_error *err)
{
    cJSON *one = cJSON_CreateObject();
    enum rp_status status = rp_fields_write(object, fields, n, one, err);
    if (!cJSON_AddItemToArray(array, one)) {
        cJSON_Delete(one);
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory to write it");
    }
    return status;
}

enum rp_status rp_store_replay(const struct rp_judge *judge, const struct rp_replay_result *result,
                               struct rp_error *err)
{
    const struct rp_replay_layer *layer = &result->layer;
    char test[RP_SLOT_NAME_SIZE + 16];
    cJSON *content = cJSON_CreateObject();
    cJSON *own = cJSON_AddObjectToObject(content, "result");
    cJSON *slots = cJSON_AddArrayToObject(content, "slots");
    cJSON *explanations = cJSON_AddArrayToObject(content, "explanations");
    enum rp_status status = rp_fields_write(result, result_fields, N_OF(result_fields), own, err);
    for (size_t i = 0; !status && i < layer->n_slots; i++)
        status = add_object(slots, &layer->slots[i], slot_fields, N_OF(slot_fields), err);
    for (size_t i = 0; !status && i < layer->n_slots; i++)
        status = add_object(explanations, &result->explanations[i], explanation_fields,
                            N_OF(explanation_fields), err);
    const size_t first =
        layer->first_failing ? (size_t)(layer->first_failing - layer->slots) : layer->n_slots;
    cJSON_AddNumberToObject(content, "first_failing", (double)first);
    if (status) {
        cJSON_Delete(content);
        return status;
    }
    name_test(result->slot, test);
    return rp_stored_write(judge, test, result->seconds, content, err);
}

/* Indices of positions: of the worst, which is 0 where there is none; of the first that fails, which is
 * n_positions where none does. */
static bool has_sound_indices(const struct rp_replay_slot *slot)
{
    return slot->first <= slot->n_positions &&
           (slot->worst < slot->n_positions || (slot->worst == 0 && slot->n_positions == 0));
}

static enum rp_status read_slots(const struct rp_json *doc, const cJSON *content,
                                 struct rp_replay_layer *layer, struct rp_error *err)
{
    const cJSON *slots = cJSON_GetObjectItemCaseSensitive(content, "slots"), *item;
    const cJSON *first_failing = cJSON_GetObjectItemCaseSensitive(content, "first_failing");
    const size_t n = (size_t)cJSON_GetArraySize(slots);
    long long first = 0;
    if (!cJSON_IsArray(slots) || n > N_OF(layer->slots) ||
        !rp_json_int(first_failing, 0, (long long)n, &first))
        return rp_json_fail(doc, content, err, RP_ERR_FORMAT,
                            "\"slots\" and \"first_failing\" are not what they can be");
    for (item = slots->child; item; item = item->next) {
        struct rp_replay_slot *slot = &layer->slots[layer->n_slots++];
        const enum rp_status status =
            rp_fields_read(doc, item, slot_fields, N_OF(slot_fields), slot, err);
        if (status)
            return status;
        if (!has_sound_indices(slot))
            return rp_json_fail(doc, item, err, RP_ERR_FORMAT, "%s has no such position",
                                slot->slot);
    }
    layer->first_failing = (size_t)first < n ? &layer->slots[first] : NULL;
    if (layer->first_failing && layer->first_failing->first >= layer->first_failing->n_positions)
        return rp_json_fail(doc, first_failing, err, RP_ERR_FORMAT, "it fails nowhere");
    return RP_OK;
}

static enum rp_status read_explanations(const struct rp_json *doc, const cJSON *content,
                                        struct rp_replay_result *result, struct rp_error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(content, "explanations"), *item;
    size_t i = 0;
    if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != result->layer.n_slots)
        return rp_json_fail(doc, content, err, RP_ERR_FORMAT, "expected an explanation a slot");
    for (item = list->child; item; item = item->next) {
        const enum rp_status status =
            rp_fields_read(doc, item, explanation_fields, N_OF(explanation_fields),
                           &result->explanations[i++], err);
        if (status)
            return status;
    }
    return RP_OK;
}

enum rp_status rp_stored_replay(const struct rp_judge *judge, const char *slot,
                                struct rp_replay_result *result, struct rp_error *err)
{
    struct rp_json *doc;
    const cJSON *content;
    char test[RP_SLOT_NAME_SIZE + 16];
    double seconds;
    memset(result, 0, sizeof *result);
    name_test(slot, test);
    enum rp_status status = rp_stored_read(judge, test, &seconds, &doc, &content, err);
    if (status)
        return status;
    status = rp_fields_read(doc, cJSON_GetObjectItemCaseSensitive(content, "result"), result_fields,
                            N_OF(result_fields), result, err);
    result->seconds = seconds;
    if (!status)
        status = read_slots(doc, content, &result->layer, err);
    if (!status)
        status = read_explanations(doc, content, result, err);
    if (!status && (strcmp(result->slot, slot) != 0 || cJSON_GetArraySize(content) != 4))
        status = rp_json_fail(doc, content, err, RP_ERR_FORMAT, "this is not %s", slot);
    if (status)
        rp_replay_result_free(result);
    rp_json_free(doc);
    return status;
}
