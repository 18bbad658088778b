/* See record.h. */
#include "run/record.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static const char *const outcomes[] = {"ran", "reused", "skipped", "error", "started"};

/* For its seal. */
static const char *name_record(const struct rp_pair *pair, char *what, size_t size)
{
    snprintf(what, size, "run of %s", pair->name);
    return what;
}

enum rp_status rp_run_record_write(const struct rp_context *context, const struct rp_pair *pair,
                                   const char *path, const struct rp_run_record *record,
                                   struct rp_error *err)
{
    const struct rp_process_result *p = &record->process;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "format", "refparity-run");
    cJSON_AddNumberToObject(root, "version", 1);
    cJSON_AddStringToObject(root, "outcome", outcomes[record->outcome]);
    cJSON_AddStringToObject(root, "reason", record->reason);
    cJSON_AddStringToObject(root, "session", record->session);
    cJSON_AddNumberToObject(root, "exit_code", p->exit_code);
    cJSON_AddNumberToObject(root, "signal", p->signal);
    cJSON_AddBoolToObject(root, "timed_out", p->timed_out);
    cJSON_AddNumberToObject(root, "wall_s", p->wall_s);
    cJSON_AddNumberToObject(root, "max_rss_kib", (double)p->max_rss_kib);
    cJSON_AddNumberToObject(root, "output_bytes", (double)p->output_bytes);
    cJSON_AddNumberToObject(root, "timeout_s", record->timeout_s);
    cJSON_AddNumberToObject(root, "harness_s", record->harness_s);
    cJSON_AddStringToObject(root, "key", record->key);
    cJSON_AddStringToObject(root, "fixture", record->fixture);
    cJSON_AddStringToObject(root, "model", record->model);
    cJSON_AddStringToObject(root, "fixture_state", record->fixture_state);
    cJSON_AddStringToObject(root, "model_state", record->model_state);
    cJSON_AddStringToObject(root, "dump_state", record->dump_state);
    cJSON_AddStringToObject(root, "weights", rp_verdict_name(record->weights));
    cJSON_AddStringToObject(root, "weights_message", record->weights_message);
    cJSON_AddStringToObject(root, "command", record->command);
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    char what[RP_PAIR_NAME_SIZE + 32];
    return rp_seal_write(context->key, name_record(pair, what, sizeof what), path, text, err);
}

static enum rp_status read_text(const struct rp_json *doc, const char *key, char *out, size_t size,
                                struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(rp_json_root(doc), key);
    if (!cJSON_IsString(value))
        return rp_json_fail(doc, value ? value : rp_json_root(doc), err, RP_ERR_FORMAT,
                            "expected a string \"%s\"", key);
    snprintf(out, size, "%s", value->valuestring);
    return RP_OK;
}

static enum rp_status read_number(const struct rp_json *doc, const char *key, double *out,
                                  struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(rp_json_root(doc), key);
    if (!cJSON_IsNumber(value))
        return rp_json_fail(doc, value ? value : rp_json_root(doc), err, RP_ERR_FORMAT,
                            "expected a number \"%s\"", key);
    *out = value->valuedouble;
    return RP_OK;
}

static enum rp_status read_outcome(const struct rp_json *doc, enum rp_run_outcome *outcome,
                                   struct rp_error *err)
{
    char text[16];
    const enum rp_status status = read_text(doc, "outcome", text, sizeof text, err);
    for (size_t i = 0; !status && i < sizeof outcomes / sizeof outcomes[0]; i++) {
        if (strcmp(text, outcomes[i]) == 0) {
            *outcome = (enum rp_run_outcome)i;
            return RP_OK;
        }
    }
    return status ? status
                  : rp_json_fail(doc, rp_json_root(doc), err, RP_ERR_FORMAT,
                                 "unknown outcome \"%s\"", text);
}

static enum rp_status read_weights(const struct rp_json *doc, struct rp_run_record *record,
                                   struct rp_error *err)
{
    char name[16];
    enum rp_status status = read_text(doc, "weights_message", record->weights_message,
                                      sizeof record->weights_message, err);
    if (!status)
        status = read_text(doc, "weights", name, sizeof name, err);
    for (int verdict = RP_PASS; !status && verdict <= RP_ERROR; verdict++) {
        if (strcmp(name, rp_verdict_name((enum rp_verdict)verdict)) == 0) {
            record->weights = (enum rp_verdict)verdict;
            return RP_OK;
        }
    }
    return status ? status
                  : rp_json_fail(doc, rp_json_root(doc), err, RP_ERR_FORMAT,
                                 "unknown verdict of the weights, \"%s\"", name);
}

enum rp_status rp_run_record_read(const struct rp_context *context, const struct rp_pair *pair,
                                  const char *path, struct rp_run_record *record,
                                  struct rp_error *err)
{
    char what[RP_PAIR_NAME_SIZE + 32];
    memset(record, 0, sizeof *record);
    struct rp_json *doc;
    enum rp_status status =
        rp_seal_read(context->key, name_record(pair, what, sizeof what), path, &doc, err);
    if (status)
        return status;
    struct rp_process_result *p = &record->process;
    double exit_code = 0, signal = 0, rss = 0, output = 0;
    const struct {
        const char *key;
        double *out;
    } numbers[] = {{"exit_code", &exit_code},        {"signal", &signal},
                   {"wall_s", &p->wall_s},           {"max_rss_kib", &rss},
                   {"output_bytes", &output},        {"timeout_s", &record->timeout_s},
                   {"harness_s", &record->harness_s}};
    status = read_outcome(doc, &record->outcome, err);
    if (!status)
        status = read_text(doc, "reason", record->reason, sizeof record->reason, err);
    if (!status)
        status = read_text(doc, "session", record->session, sizeof record->session, err);
    if (!status)
        status = read_text(doc, "key", record->key, sizeof record->key, err);
    if (!status)
        status = read_text(doc, "fixture", record->fixture, sizeof record->fixture, err);
    if (!status)
        status = read_text(doc, "model", record->model, sizeof record->model, err);
    if (!status)
        status = read_text(doc, "fixture_state", record->fixture_state,
                           sizeof record->fixture_state, err);
    if (!status)
        status =
            read_text(doc, "model_state", record->model_state, sizeof record->model_state, err);
    if (!status)
        status = read_text(doc, "dump_state", record->dump_state, sizeof record->dump_state, err);
    if (!status)
        status = read_weights(doc, record, err);
    if (!status)
        status = read_text(doc, "command", record->command, sizeof record->command, err);
    for (size_t i = 0; !status && i < sizeof numbers / sizeof numbers[0]; i++)
        status = read_number(doc, numbers[i].key, numbers[i].out, err);
    p->exit_code = (int)exit_code;
    p->signal = (int)signal;
    p->max_rss_kib = (long)rss;
    p->output_bytes = (unsigned long long)output;
    p->timed_out =
        cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(rp_json_root(doc), "timed_out")) != 0;
    rp_json_free(doc);
    return status;
}

int rp_ended_as_accepted(const struct rp_entry *entry, const struct rp_process_result *process)
{
    const struct rp_accepted_exit *accepted = &entry->accept_exit;
    if (!accepted->reason || process->timed_out)
        return 0;
    return accepted->signal ? process->signal == accepted->signal
                            : !process->signal && process->exit_code == accepted->code;
}
