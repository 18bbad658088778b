/* See named_list.h. */
#include "report/named_list.h"

#include <stdlib.h>
#include <string.h>

#include "refparity/compare.h"

enum rp_status rp_check_verdict(const struct rp_json *doc, const cJSON *object,
                                struct rp_error *err)
{
    static const enum rp_verdict verdicts[] = {RP_PASS, RP_MARGINAL, RP_XFAIL,
                                               RP_FAIL, RP_SKIP,     RP_ERROR};
    const char *verdict = rp_json_text(object, "verdict");
    for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++)
        if (strcmp(verdict, rp_verdict_name(verdicts[i])) == 0)
            return RP_OK;
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, "verdict");
    return rp_json_fail(doc, item ? item : object, err, RP_ERR_FORMAT,
                        "expected a \"verdict\", PASS to ERROR, found \"%.32s\"", verdict);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct rp_named *)a)->name, ((const struct rp_named *)b)->name);
}

const cJSON *rp_named_find(const struct rp_named_list *list, const char *name)
{
    const struct rp_named key = {.name = name};
    const struct rp_named *found =
        list->n > 0 ? bsearch(&key, list->items, list->n, sizeof *list->items, by_name) : NULL;
    return found ? found->object : NULL;
}

enum rp_status rp_named_list_add(struct rp_named_list *list, const struct rp_json *doc,
                                 const cJSON *array, const char *key, bool verdicts,
                                 struct rp_error *err)
{
    const cJSON *object;
    if (doc && array && !cJSON_IsArray(array))
        return rp_json_fail(doc, array, err, RP_ERR_FORMAT, "expected an array, each with \"%s\"",
                            key);
    const size_t n = (size_t)cJSON_GetArraySize(array);
    struct rp_named *items = realloc(list->items, (list->n + n + 1) * sizeof *items);
    if (!items)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory to compare the runs");
    list->items = items;
    cJSON_ArrayForEach(object, array)
    {
        const char *name = rp_json_text(object, key);
        if (doc && (!cJSON_IsObject(object) || !name[0]))
            return rp_json_fail(doc, object, err, RP_ERR_FORMAT,
                                "expected an object with a text \"%s\"", key);
        const enum rp_status status = doc && verdicts ? rp_check_verdict(doc, object, err) : RP_OK;
        if (status)
            return status;
        items[list->n++] = (struct rp_named){.name = name, .object = object};
    }
    return RP_OK;
}

enum rp_status rp_named_list_sort(struct rp_named_list *list, const struct rp_json *doc,
                                  struct rp_error *err)
{
    if (list->n > 1) /* an empty list has no items, which qsort does not take */
        qsort(list->items, list->n, sizeof *list->items, by_name);
    for (size_t i = 1; doc && i < list->n; i++)
        if (strcmp(list->items[i - 1].name, list->items[i].name) == 0)
            return rp_json_fail(doc, list->items[i].object, err, RP_ERR_FORMAT,
                                "expected \"%.100s\" once, found it again", list->items[i].name);
    return RP_OK;
}

enum rp_status rp_named_list_make(struct rp_named_list *list, const struct rp_json *doc,
                                  const cJSON *array, const char *key, bool verdicts,
                                  struct rp_error *err)
{
    *list = (struct rp_named_list){.items = NULL};
    const enum rp_status status = rp_named_list_add(list, doc, array, key, verdicts, err);
    return status ? status : rp_named_list_sort(list, doc, err);
}

void rp_named_list_free(struct rp_named_list *list)
{
    free(list->items);
    *list = (struct rp_named_list){.items = NULL};
}
