/* See entries.h. */
#include "report/entries.h"

#include <stdio.h>

#include "compare/warnings.h"
#include "report/json.h"
#include "report/test_name.h"
#include "run/weights_result.h"

static cJSON *add_entry(const struct rp_context *context, const struct rp_entry *entry,
                        cJSON *array)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "entry", entry->name);
    cJSON_AddStringToObject(object, "engine", entry->engine->name);
    cJSON_AddStringToObject(object, "hf_model", entry->hf_model);
    cJSON_AddStringToObject(object, "matrix", rp_matrix_path(context->matrix));
    cJSON_AddNumberToObject(object, "line", entry->line);
    cJSON_AddItemToArray(array, object);
    return object;
}

/* False where the session did not run the test. A result that cannot be read is an ERROR of it. */
static bool find_weights(const struct rp_context *context, const struct rp_entry *entry,
                         struct rp_weights_result *result)
{
    struct rp_error err;
    const enum rp_status status = rp_weights_result_read(context, entry, result, &err);
    if (status && status != RP_ERR_MISSING) {
        *result = (struct rp_weights_result){.verdict = RP_ERROR};
        rp_error_text(&err, result->message, sizeof result->message);
    }
    return status != RP_ERR_MISSING;
}

static void add_weights(const struct rp_context *context, const struct rp_entry *entry,
                        const struct rp_weights_result *result, cJSON *object,
                        struct rp_weights_counts *counts)
{
    char reproduce[2 * RP_PATH_SIZE + 256];
    cJSON *weights = cJSON_AddObjectToObject(object, "weights");
    cJSON_AddStringToObject(weights, "verdict", rp_verdict_name(result->verdict));
    cJSON_AddStringToObject(weights, "message", result->message);
    cJSON_AddNumberToObject(weights, "compare_s", result->seconds);
    cJSON_AddStringToObject(
        object, "reproduce",
        rp_test_command(context, entry->name, "weights", reproduce, sizeof reproduce));
    counts->n++;
    counts->n_passed += result->verdict == RP_PASS;
    counts->n_failed += result->verdict == RP_FAIL;
    counts->n_skipped += result->verdict == RP_SKIP;
    counts->n_errors += result->verdict == RP_ERROR;
}

static void add_disabled(const struct rp_entry *entry, cJSON *object)
{
    struct rp_warnings warnings = {.n = 1};
    struct rp_warning *warning = &warnings.list[0];
    warning->kind = RP_WARNING_DISABLED;
    warning->slot[0] = '\0';
    snprintf(
        warning->message, sizeof warning->message,
        "nothing of it was run, though REFPARITY_REQUIRE asks for all: it is _disabled: %.250s",
        entry->disabled_reason ? entry->disabled_reason : "no reason is given");
    cJSON *disabled = cJSON_AddObjectToObject(object, "disabled");
    cJSON_AddStringToObject(disabled, "verdict", rp_verdict_name(RP_SKIP));
    cJSON_AddStringToObject(disabled, "message", warning->message);
    rp_report_json_warnings(object, &warnings);
}

void rp_report_entries(const struct rp_context *context, cJSON *array,
                       struct rp_weights_counts *weights)
{
    *weights = (struct rp_weights_counts){.n = 0};
    for (size_t i = 0; i < rp_matrix_n_entries(context->matrix); i++) {
        const struct rp_entry *entry = rp_matrix_entry(context->matrix, i);
        struct rp_weights_result result;
        const bool has_weights = find_weights(context, entry, &result);
        const bool is_disabled = entry->disabled && context->require;
        if (!has_weights && !is_disabled)
            continue;
        cJSON *object = add_entry(context, entry, array);
        if (has_weights)
            add_weights(context, entry, &result, object, weights);
        if (is_disabled)
            add_disabled(entry, object);
    }
}

const char *rp_report_weights_line(const struct rp_weights_counts *weights, char *buf, size_t size)
{
    buf[0] = '\0';
    if (weights->n > 0)
        snprintf(buf, size,
                 "weights: %zu of %zu files are their checkpoints', %zu are not, %zu errors, %zu "
                 "skipped",
                 weights->n_passed, weights->n, weights->n_failed, weights->n_errors,
                 weights->n_skipped);
    return buf;
}
