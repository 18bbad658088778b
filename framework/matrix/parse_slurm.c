/* "slurm" of an entry: what a job that runs its pairs asks of the cluster. The values become arguments of
 * sbatch: one that is no such value is refused here, with its place. See refparity/matrix.h. */
#include "matrix/parse.h"

#include <stdbool.h>
#include <string.h>

#include "matrix/keys.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define DIGITS "0123456789"
#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

enum { MAX_VALUE = 128 };

static bool is_mem(const char *text)
{
    const size_t n = strspn(text, DIGITS);
    return n > 0 && text[0] != '0' && (!text[n] || (strchr("KMGT", text[n]) && !text[n + 1]));
}

static bool is_gres(const char *text)
{
    return strspn(text, LETTERS) > 0 && !text[strspn(text, LETTERS DIGITS "_.:,/-")];
}

/* Slurm's: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S; all but the first number have one digit or two. */
static bool is_time(const char *text)
{
    bool has_days = false;
    size_t n_numbers = 0;
    for (const char *at = text;; at++) {
        const size_t n = strspn(at, DIGITS);
        if (n == 0 || (n_numbers > 0 && n > 2))
            return false;
        n_numbers++;
        at += n;
        if (!*at)
            return n_numbers <= (has_days ? 4 : 3) && (!has_days || n_numbers > 1);
        if (*at == '-' && n_numbers == 1)
            has_days = true;
        else if (*at != ':' || (has_days && n_numbers == 1))
            return false;
    }
}

enum rp_status rp_parse_slurm(struct rp_matrix *matrix, const cJSON *object, struct rp_entry *entry,
                              struct rp_error *err)
{
    static const char *const keys[] = {"mem", "gres", "time", "_comment"};
    const struct {
        const char *key;
        const char **out;
        bool (*is_right)(const char *);
        const char *example;
    } values[] = {{"mem", &entry->slurm.mem, is_mem, "memory, as \"64G\""},
                  {"gres", &entry->slurm.gres, is_gres, "generic resources, as \"gpu:1\""},
                  {"time", &entry->slurm.time, is_time,
                   "a time limit, as \"2:00:00\" (hours:minutes:seconds)"}};
    const struct rp_json *json = matrix->json;
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "slurm");
    char shown[RP_SUGGESTION_SIZE];
    if (!value)
        return RP_OK;
    enum rp_status status = rp_check_keys(json, value, "\"slurm\"", keys, COUNT(keys), err);
    for (size_t i = 0; status == RP_OK && i < COUNT(values); i++) {
        status = rp_read_string(json, value, values[i].key, values[i].out, err);
        const char *text = *values[i].out;
        if (status == RP_OK && text && (strlen(text) > MAX_VALUE || !values[i].is_right(text))) {
            const cJSON *wrong = cJSON_GetObjectItemCaseSensitive(value, values[i].key);
            status = rp_json_fail(json, wrong, err, RP_ERR_FORMAT, "expected %s, found %s",
                                  values[i].example, rp_json_shown(wrong, shown));
        }
    }
    return status;
}
