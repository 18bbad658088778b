/* See matrix/keys.h. */
#include "matrix/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "refparity/matrix.h"

#define MAX_COMPARED 64 /* longer names are never suggested */
#define MAX_EDITS 2

const char *rp_json_type(const cJSON *value)
{
    if (cJSON_IsObject(value))
        return "an object";
    if (cJSON_IsArray(value))
        return "an array";
    if (cJSON_IsString(value))
        return "a string";
    if (cJSON_IsNumber(value))
        return "a number";
    if (cJSON_IsBool(value))
        return cJSON_IsTrue(value) ? "true" : "false";
    return "null";
}

const char *rp_json_shown(const cJSON *value, char *out)
{
    if (cJSON_IsString(value))
        return rp_shown(value->valuestring, out);
    if (cJSON_IsNumber(value))
        snprintf(out, RP_SUGGESTION_SIZE, "%.17g", value->valuedouble);
    else
        snprintf(out, RP_SUGGESTION_SIZE, "%s", rp_json_type(value));
    return out;
}

/* Levenshtein's distance; MAX_EDITS + 1 stands for anything larger. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t n_a = strlen(a);
    size_t n_b = strlen(b);
    size_t row[MAX_COMPARED + 1]; /* distances from a[0, i) to every prefix of b */
    if (n_a > MAX_COMPARED || n_b > MAX_COMPARED)
        return MAX_EDITS + 1;
    for (size_t j = 0; j <= n_b; j++)
        row[j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n_b] <= MAX_EDITS ? row[n_b] : MAX_EDITS + 1;
}

static const char *find_nearest(const char *found, const char *const *names, size_t n)
{
    const char *nearest = NULL;
    size_t least = MAX_EDITS + 1;
    for (size_t i = 0; i < n; i++) {
        size_t distance = names[i] ? edit_distance(found, names[i]) : least;
        if (distance < least && 2 * distance < strlen(found)) {
            least = distance;
            nearest = names[i];
        }
    }
    return nearest;
}

/* Appends "there is: a, b, c" at out + at. */
static void list(const char *const *names, size_t n, size_t at, char *out)
{
    at += (size_t)snprintf(out + at, RP_SUGGESTION_SIZE - at, "there is");
    const char *separator = ": ";
    for (size_t i = 0; i < n; i++) {
        if (!names[i])
            continue;
        size_t length = strlen(names[i]);
        if (at + length + sizeof ", , ..." > RP_SUGGESTION_SIZE) {
            at += (size_t)snprintf(out + at, RP_SUGGESTION_SIZE - at, "%s...", separator);
            break;
        }
        at += (size_t)snprintf(out + at, RP_SUGGESTION_SIZE - at, "%s%s", separator, names[i]);
        separator = ", ";
    }
    if (*separator == ':')
        snprintf(out + at, RP_SUGGESTION_SIZE - at, " none");
}

const char *rp_suggest(const char *found, const char *const *names, size_t n, char *out)
{
    char shown[RP_SHOWN_SIZE];
    const char *nearest = find_nearest(found, names, n);
    if (nearest)
        snprintf(out, RP_SUGGESTION_SIZE, "; did you mean %s?", rp_shown(nearest, shown));
    else
        list(names, n, (size_t)snprintf(out, RP_SUGGESTION_SIZE, "; "), out);
    return out;
}

const char *rp_suggest_value(const char *found, const char *const *names, size_t n, char *out)
{
    char shown[RP_SHOWN_SIZE];
    const char *nearest = find_nearest(found, names, n);
    if (!nearest)
        return rp_suggest(found, names, n, out);
    list(names, n,
         (size_t)snprintf(out, RP_SUGGESTION_SIZE, "; did you mean %s? ", rp_shown(nearest, shown)),
         out);
    return out;
}

enum rp_status rp_check_keys(const struct rp_json *json, const cJSON *object, const char *what,
                             const char *const *keys, size_t n, struct rp_error *err)
{
    char shown[RP_SUGGESTION_SIZE];
    char suggestion[RP_SUGGESTION_SIZE];
    if (!cJSON_IsObject(object))
        return rp_json_fail(json, object, err, RP_ERR_FORMAT, "expected %s, an object, found %s",
                            what, rp_json_type(object));
    for (const cJSON *member = object->child; member; member = member->next) {
        size_t i = 0;
        while (i < n && strcmp(member->string, keys[i]) != 0)
            i++;
        if (i == n)
            return rp_json_fail_key(
                json, member, err, RP_ERR_FORMAT, "expected a key of %s, found %s%s", what,
                rp_shown(member->string, shown), rp_suggest(member->string, keys, n, suggestion));
    }
    return RP_OK;
}

enum rp_status rp_read_string(const struct rp_json *json, const cJSON *object, const char *key,
                              const char **out, struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!value)
        return RP_OK;
    if (!cJSON_IsString(value))
        return rp_json_fail(json, value, err, RP_ERR_FORMAT,
                            "expected a string for \"%s\", found %s", key, rp_json_type(value));
    if (!value->valuestring[0])
        return rp_json_fail(json, value, err, RP_ERR_FORMAT,
                            "expected a string for \"%s\", found an empty one", key);
    *out = value->valuestring;
    return RP_OK;
}

enum rp_status rp_read_flag(const struct rp_json *json, const cJSON *object, const char *key,
                            int *out, struct rp_error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!value)
        return RP_OK;
    if (!cJSON_IsBool(value))
        return rp_json_fail(json, value, err, RP_ERR_FORMAT,
                            "expected true or false for \"%s\", found %s", key,
                            rp_json_type(value));
    *out = cJSON_IsTrue(value);
    return RP_OK;
}

enum rp_status rp_read_int(const struct rp_json *json, const cJSON *object, const char *key,
                           int low, int high, int *out, struct rp_error *err)
{
    char shown[RP_SUGGESTION_SIZE];
    long long number = 0;
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!value)
        return RP_OK;
    if (!rp_json_int(value, low, high, &number))
        return rp_json_fail(json, value, err, RP_ERR_FORMAT,
                            "expected a whole number from %d to %d for \"%s\", found %s", low, high,
                            key, rp_json_shown(value, shown));
    *out = (int)number;
    return RP_OK;
}

enum rp_status rp_check_array(const struct rp_json *json, const cJSON *value, const char *key,
                              size_t min, size_t max, size_t *n, struct rp_error *err)
{
    if (!cJSON_IsArray(value))
        return rp_json_fail(json, value, err, RP_ERR_FORMAT,
                            "expected an array for \"%s\", found %s", key, rp_json_type(value));
    size_t size = 0;
    for (const cJSON *child = value->child; child; child = child->next)
        size++;
    if (size < min || size > max)
        return rp_json_fail(json, value, err, RP_ERR_FORMAT,
                            "expected %zu to %zu elements in \"%s\", found %zu", min, max, key,
                            size);
    *n = size;
    return RP_OK;
}

static int is_letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

enum rp_status rp_check_name(const struct rp_json *json, const cJSON *value, const char *what,
                             const char *text, const char *extra, struct rp_error *err)
{
    char shown[RP_SHOWN_SIZE];
    size_t length = strlen(text);
    int valid = is_letter_or_digit(text[0]) && length <= RP_MATRIX_NAME_MAX &&
                text[length - 1] != '_' && !strstr(text, "__");
    for (const char *c = text; valid && *c; c++)
        valid = is_letter_or_digit(*c) || strchr("._-", *c) || strchr(extra, *c);
    if (valid)
        return RP_OK;
    return rp_json_fail(json, value, err, RP_ERR_FORMAT,
                        "expected for %s at most %d of A-Z a-z 0-9 . _ -%s%s, first a letter or "
                        "digit, \"_\" neither last nor doubled, found %s",
                        what, RP_MATRIX_NAME_MAX, extra[0] ? " " : "", extra,
                        rp_shown(text, shown));
}

struct named {
    const char *name;
    size_t index;
};

static int by_name(const void *a, const void *b)
{
    const struct named *left = a;
    const struct named *right = b;
    int order = strcmp(left->name, right->name);
    return order ? order : (left->index > right->index) - (left->index < right->index);
}

enum rp_status rp_find_repeated(const char *const *names, size_t n, size_t *repeated,
                                struct rp_error *err)
{
    *repeated = n;
    struct named *sorted = calloc(n + 1, sizeof *sorted);
    if (!sorted)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu names", n);
    for (size_t i = 0; i < n; i++)
        sorted[i] = (struct named){.name = names[i], .index = i};
    qsort(sorted, n, sizeof *sorted, by_name);
    for (size_t i = 1; i < n; i++) {
        if (strcmp(sorted[i - 1].name, sorted[i].name) == 0 && sorted[i].index < *repeated)
            *repeated = sorted[i].index;
    }
    free(sorted);
    return RP_OK;
}
