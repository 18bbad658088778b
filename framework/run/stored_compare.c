/* What `engine`, `tokens` and the slots' tests store (see stored.h): a table of fields for each result. */
#include <stdlib.h>
#include <string.h>

#include "run/stored.h"

#define N_OF(table) (sizeof(table) / sizeof(table)[0])

#define F(member) RP_FIELD(struct rp_judgement, member)
static const struct rp_field judgement_fields[] = {
    RP_FIELD_ENUM(struct rp_judgement, verdict, RP_ERROR),
    F(message),
};
#undef F

#define F(member) RP_FIELD(struct rp_tokens_result, member)
static const struct rp_field tokens_fields[] = {
    RP_FIELD_ENUM(struct rp_tokens_result, verdict, RP_ERROR),
    F(n_ref),
    F(n_engine),
    F(first_difference),
    F(message),
};
#undef F

#define F(member) RP_FIELD(struct rp_slot_result, member)
#define POSITION(of)                                                                    \
    F(of.position), F(of.metrics.l2_rel), F(of.metrics.cosine), F(of.metrics.norm_ref), \
        F(of.metrics.norm_engine), F(of.metrics.max_abs), F(of.metrics.ref_finite),     \
        F(of.metrics.engine_finite)
static const struct rp_field slot_fields[] = {
    F(slot),
    RP_FIELD_ENUM(struct rp_slot_result, verdict, RP_ERROR),
    F(required),
    F(dim),
    F(n_compared),
    F(n_missing),
    F(n_extra),
    F(n_failing),
    F(limit),
    POSITION(worst),
    POSITION(first),
    F(worst_channel),
    F(n_top1_equal),
    F(top_k_overlap),
    F(kl_max),
    F(kl_sum),
    F(information_sum),
    F(n_wrong_size),
    F(size),
    F(size_excess),
    F(size_position),
    F(fixture_is_damaged),
    F(unchecked),
    F(downstream_of),
    F(message),
};
#undef POSITION
#undef F

/* One struct is all that is stored. */
static enum rp_status store_one(const struct rp_judge *judge, const char *test, double seconds,
                                const void *object, const struct rp_field *fields, size_t n,
                                struct rp_error *err)
{
    cJSON *content = cJSON_CreateObject();
    const enum rp_status status = rp_fields_write(object, fields, n, content, err);
    if (status) {
        cJSON_Delete(content);
        return status;
    }
    return rp_stored_write(judge, test, seconds, content, err);
}

static enum rp_status stored_one(const struct rp_judge *judge, const char *test, double *seconds,
                                 void *object, const struct rp_field *fields, size_t n,
                                 struct rp_error *err)
{
    struct rp_json *doc;
    const cJSON *content;
    enum rp_status status = rp_stored_read(judge, test, seconds, &doc, &content, err);
    if (status)
        return status;
    status = rp_fields_read(doc, content, fields, n, object, err);
    rp_json_free(doc);
    return status;
}

enum rp_status rp_store_engine(const struct rp_judge *judge, const struct rp_judgement *judgement,
                               double seconds, struct rp_error *err)
{
    return store_one(judge, "engine", seconds, judgement, judgement_fields, N_OF(judgement_fields),
                     err);
}

enum rp_status rp_stored_engine(const struct rp_judge *judge, struct rp_judgement *judgement,
                                double *seconds, struct rp_error *err)
{
    memset(judgement, 0, sizeof *judgement);
    return stored_one(judge, "engine", seconds, judgement, judgement_fields, N_OF(judgement_fields),
                      err);
}

enum rp_status rp_store_tokens(const struct rp_judge *judge, const struct rp_tokens_result *result,
                               double seconds, struct rp_error *err)
{
    return store_one(judge, "tokens", seconds, result, tokens_fields, N_OF(tokens_fields), err);
}

enum rp_status rp_stored_tokens(const struct rp_judge *judge, struct rp_tokens_result *result,
                                double *seconds, struct rp_error *err)
{
    memset(result, 0, sizeof *result);
    return stored_one(judge, "tokens", seconds, result, tokens_fields, N_OF(tokens_fields), err);
}

enum rp_status rp_store_slot(const struct rp_judge *judge, const char *slot,
                             const struct rp_slot_test *test, struct rp_error *err)
{
    cJSON *content = cJSON_CreateObject();
    cJSON *list = cJSON_AddArrayToObject(content, "compared");
    enum rp_status status = RP_OK;
    for (size_t i = 0; !status && i < test->n_compared; i++) {
        cJSON *one = cJSON_CreateObject();
        status = rp_fields_write(&test->compared[i], slot_fields, N_OF(slot_fields), one, err);
        if (!cJSON_AddItemToArray(list, one)) {
            cJSON_Delete(one);
            status = rp_fail(err, RP_ERR_MEMORY, slot, -1, "not enough memory to write it");
        }
    }
    if (status) {
        cJSON_Delete(content);
        return status;
    }
    return rp_stored_write(judge, slot, test->seconds, content, err);
}

enum rp_status rp_stored_slot(const struct rp_judge *judge, const char *slot,
                              struct rp_slot_test *test, struct rp_error *err)
{
    struct rp_json *doc;
    const cJSON *content, *item;
    memset(test, 0, sizeof *test);
    enum rp_status status = rp_stored_read(judge, slot, &test->seconds, &doc, &content, err);
    if (status)
        return status;
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(content, "compared");
    const size_t n = (size_t)cJSON_GetArraySize(list);
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(content) != 1)
        status = rp_json_fail(doc, content, err, RP_ERR_FORMAT, "expected a list \"compared\"");
    if (!status && !(test->compared = calloc(n + 1, sizeof *test->compared)))
        status = rp_fail(err, RP_ERR_MEMORY, slot, -1, "not enough memory to read it");
    for (item = list ? list->child : NULL; !status && item; item = item->next)
        status = rp_fields_read(doc, item, slot_fields, N_OF(slot_fields),
                                &test->compared[test->n_compared++], err);
    /* Where anything is compared, the test's own slot is the first. */
    if (!status && (n > 0) != (judge->prerequisites.verdict == RP_PASS))
        status = rp_json_fail(doc, list, err, RP_ERR_FORMAT, "%zu slots are compared", n);
    if (!status && n > 0 && strcmp(test->compared[0].slot, slot) != 0)
        status = rp_json_fail(doc, list, err, RP_ERR_FORMAT, "expected %s to be the first", slot);
    if (status)
        rp_slot_test_free(test);
    rp_json_free(doc);
    return status;
}
