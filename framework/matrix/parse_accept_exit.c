/* "accept_exit" of an entry: an end that its engine may come to after a complete dump.
 * See refparity/matrix.h. Whether a dump is complete is not known here: see run/judge.h. */
#include "matrix/parse.h"

#include <signal.h>
#include <string.h>

#include "matrix/keys.h"

#define MAX_SIGNAL 64
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Those that end a program. */
static const struct {
    const char *name;
    int number;
} signals[] = {{"SIGABRT", SIGABRT}, {"SIGALRM", SIGALRM}, {"SIGBUS", SIGBUS},
               {"SIGFPE", SIGFPE},   {"SIGHUP", SIGHUP},   {"SIGILL", SIGILL},
               {"SIGINT", SIGINT},   {"SIGKILL", SIGKILL}, {"SIGPIPE", SIGPIPE},
               {"SIGQUIT", SIGQUIT}, {"SIGSEGV", SIGSEGV}, {"SIGSYS", SIGSYS},
               {"SIGTERM", SIGTERM}, {"SIGTRAP", SIGTRAP}};

static enum rp_status read_signal(const struct rp_matrix *matrix, const cJSON *object,
                                  int *signal_number, struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "signal");
    const char *names[COUNT(signals)];
    char shown[RP_SUGGESTION_SIZE];
    char suggestion[RP_SUGGESTION_SIZE];
    if (!cJSON_IsString(value))
        return rp_read_int(matrix->json, object, "signal", 1, MAX_SIGNAL, signal_number, err);
    for (size_t i = 0; i < COUNT(signals); i++) {
        names[i] = signals[i].name;
        if (strcmp(signals[i].name, value->valuestring) == 0) {
            *signal_number = signals[i].number;
            return RP_OK;
        }
    }
    return rp_json_fail(matrix->json, value, err, RP_ERR_FORMAT,
                        "expected a signal's name or number, found %s%s",
                        rp_json_shown(value, shown),
                        rp_suggest(value->valuestring, names, COUNT(names), suggestion));
}

enum rp_status rp_parse_accept_exit(struct rp_matrix *matrix, const cJSON *object,
                                    struct rp_entry *entry, struct rp_error *err)
{
    static const char *const keys[] = {"code", "signal", "reason", "_comment"};
    const struct rp_json *json = matrix->json;
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "accept_exit");
    struct rp_accepted_exit *accepted = &entry->accept_exit;
    if (!value)
        return RP_OK;
    enum rp_status status = rp_check_keys(json, value, "\"accept_exit\"", keys, COUNT(keys), err);
    if (status == RP_OK)
        status = rp_read_int(json, value, "code", 1, 255, &accepted->code, err);
    if (status == RP_OK)
        status = read_signal(matrix, value, &accepted->signal, err);
    if (status == RP_OK)
        status = rp_read_string(json, value, "reason", &accepted->reason, err);
    if (status != RP_OK)
        return status;
    if (!accepted->code == !accepted->signal)
        return rp_json_fail(json, value, err, RP_ERR_FORMAT,
                            "expected either \"code\" or \"signal\" in \"accept_exit\"");
    if (!accepted->reason)
        return rp_json_fail(json, value, err, RP_ERR_MISSING,
                            "expected \"reason\" in \"accept_exit\": why this end is no fault");
    return RP_OK;
}
