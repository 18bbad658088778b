/* See base/json.h. json_scan.c notes where each value starts, in pre-order; cJSON builds the tree,
 * and both are walked in step. */
#include "base/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json_scan.h"
#include "base/utf8.h"

struct rp_json {
    char *where;
    cJSON *root;
    struct rp_json_places places; /* sorted by value */
    uint32_t *lines;              /* [n_lines], the offset at which each line starts */
    size_t n_lines;
};

struct key {
    const char *text; /* unescaped */
    uint32_t offset;
};

/* What reading a document needs beside the document. */
struct reader {
    const char *text; /* [length] */
    size_t length;
    struct rp_json *doc;
    struct key *keys; /* [doc->places.n], scratch */
    struct rp_error *err;
};

static int by_value(const void *a, const void *b)
{
    uintptr_t left = (uintptr_t)((const struct rp_json_place *)a)->value;
    uintptr_t right = (uintptr_t)((const struct rp_json_place *)b)->value;
    return (left > right) - (left < right);
}

static int by_key(const void *a, const void *b)
{
    const struct key *left = a;
    const struct key *right = b;
    int order = strcmp(left->text, right->text);
    return order ? order : (left->offset > right->offset) - (left->offset < right->offset);
}

/* keys is [n_keys], in any order. Fails at the first key, as the text runs, that is a repetition. */
static enum rp_status check_keys(const struct reader *r, struct key *keys, size_t n_keys)
{
    const struct key *repeated = NULL;
    qsort(keys, n_keys, sizeof *keys, by_key);
    for (size_t i = 1; i < n_keys; i++) {
        if (strcmp(keys[i - 1].text, keys[i].text) == 0 &&
            (!repeated || keys[i].offset < repeated->offset))
            repeated = &keys[i];
    }
    if (!repeated)
        return RP_OK;
    char shown[RP_SHOWN_SIZE];
    return rp_json_fail_text(r->text, repeated->offset, r->doc->where, r->err, RP_ERR_FORMAT,
                             "expected each key once, found %s again",
                             rp_shown(repeated->text, shown));
}

static enum rp_status disagree(const struct reader *r)
{
    return rp_fail(r->err, RP_ERR_FORMAT, r->doc->where, -1,
                   "scanner and cJSON disagree on the number of values");
}

/* Gives value and what is below it their places; *next runs through the places in pre-order. The
 * scan has bounded the depth. keys has room for one key per place from *next on. */
static enum rp_status match(const struct reader *r, const cJSON *value, size_t *next,
                            struct key *keys)
{
    const struct rp_json_places *places = &r->doc->places;
    struct rp_json_place *place = &places->items[(*next)++];
    place->value = value;
    if (cJSON_IsNumber(value) && !isfinite(value->valuedouble))
        return rp_json_fail_text(r->text, place->offset, r->doc->where, r->err, RP_ERR_FORMAT,
                                 "expected a number that a double can hold, found a larger one");
    size_t n_keys = 0;
    for (const cJSON *child = value->child; child; child = child->next) {
        if (*next >= places->n)
            return disagree(r);
        if (cJSON_IsObject(value))
            keys[n_keys++] =
                (struct key){.text = child->string, .offset = places->items[*next].key_offset};
        enum rp_status status = match(r, child, next, keys + n_keys);
        if (status != RP_OK)
            return status;
    }
    return check_keys(r, keys, n_keys);
}

static enum rp_status index_lines(const struct reader *r)
{
    struct rp_json *doc = r->doc;
    size_t n_lines = 1;
    for (size_t i = 0; i < r->length; i++)
        n_lines += r->text[i] == '\n';
    doc->lines = malloc(n_lines * sizeof *doc->lines);
    if (!doc->lines)
        return rp_fail(r->err, RP_ERR_MEMORY, doc->where, -1, "no memory for %zu lines", n_lines);
    doc->lines[doc->n_lines++] = 0;
    for (size_t i = 0; i < r->length; i++) {
        if (r->text[i] == '\n')
            doc->lines[doc->n_lines++] = (uint32_t)(i + 1);
    }
    return RP_OK;
}

static enum rp_status read_tree(struct reader *r)
{
    struct rp_json *doc = r->doc;
    r->keys = malloc(doc->places.n * sizeof *r->keys);
    doc->root = cJSON_ParseWithLengthOpts(r->text, r->length, NULL, 0);
    if (!r->keys || !doc->root)
        return rp_fail(r->err, RP_ERR_MEMORY, doc->where, -1, "no memory for %zu JSON values",
                       doc->places.n);
    size_t next = 0;
    enum rp_status status = match(r, doc->root, &next, r->keys);
    if (status == RP_OK && next != doc->places.n)
        status = disagree(r);
    if (status != RP_OK)
        return status;
    qsort(doc->places.items, doc->places.n, sizeof *doc->places.items, by_value);
    return index_lines(r);
}

enum rp_status rp_json_parse(const char *text, size_t length, const char *where,
                             struct rp_json **doc, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    struct rp_json *parsed = calloc(1, sizeof *parsed);
    size_t where_size = strlen(where) + 1;
    char *where_copy = malloc(where_size);
    struct reader r = {.text = text, .length = length, .doc = parsed, .err = err};
    if (!parsed || !where_copy) {
        status = rp_fail(err, RP_ERR_MEMORY, where, -1, "no memory for a JSON document");
        goto done;
    }
    parsed->where = memcpy(where_copy, where, where_size);
    where_copy = NULL;
    status = rp_json_scan(text, length, where, &parsed->places, err);
    if (status == RP_OK)
        status = read_tree(&r);
    if (status != RP_OK)
        goto done;
    *doc = parsed;
    parsed = NULL;
done:
    free(r.keys);
    free(where_copy);
    rp_json_free(parsed);
    return status;
}

enum rp_status rp_json_parse_file(const char *path, struct rp_json **doc, struct rp_error *err)
{
    char *text = NULL;
    size_t length = 0;
    enum rp_status status = rp_file_read(path, RP_JSON_MAX_BYTES, &text, &length, err);
    if (status == RP_OK)
        status = rp_json_parse(text, length, path, doc, err);
    free(text);
    return status;
}

const cJSON *rp_json_root(const struct rp_json *doc)
{
    return doc->root;
}

static const struct rp_json_place *find_place(const struct rp_json *doc, const cJSON *value)
{
    struct rp_json_place wanted = {.value = value};
    return bsearch(&wanted, doc->places.items, doc->places.n, sizeof *doc->places.items, by_value);
}

static void locate_offset(const struct rp_json *doc, size_t offset, int *line, int *column)
{
    size_t low = 0;
    size_t high = doc->n_lines;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (doc->lines[middle] <= offset)
            low = middle;
        else
            high = middle;
    }
    *line = (int)low + 1;
    *column = (int)(offset - doc->lines[low]) + 1;
}

void rp_json_locate(const struct rp_json *doc, const cJSON *value, int *line, int *column)
{
    const struct rp_json_place *place = find_place(doc, value);
    locate_offset(doc, place ? place->offset : 0, line, column);
}

static enum rp_status fail_at_offset(const struct rp_json *doc, size_t offset, struct rp_error *err,
                                     enum rp_status code, const char *fmt, va_list args)
{
    char where[sizeof err->where];
    char message[sizeof err->message];
    int line = 1;
    int column = 1;
    locate_offset(doc, offset, &line, &column);
    rp_json_where(doc->where, (size_t)line, (size_t)column, where, sizeof where);
    vsnprintf(message, sizeof message, fmt, args);
    return rp_fail(err, code, where, -1, "%s", message);
}

enum rp_status rp_json_fail(const struct rp_json *doc, const cJSON *value, struct rp_error *err,
                            enum rp_status code, const char *fmt, ...)
{
    const struct rp_json_place *place = find_place(doc, value);
    va_list args;
    va_start(args, fmt);
    fail_at_offset(doc, place ? place->offset : 0, err, code, fmt, args);
    va_end(args);
    return code;
}

enum rp_status rp_json_fail_key(const struct rp_json *doc, const cJSON *value, struct rp_error *err,
                                enum rp_status code, const char *fmt, ...)
{
    const struct rp_json_place *place = find_place(doc, value);
    size_t offset = 0;
    if (place)
        offset = place->key_offset == RP_JSON_NO_KEY ? place->offset : place->key_offset;
    va_list args;
    va_start(args, fmt);
    fail_at_offset(doc, offset, err, code, fmt, args);
    va_end(args);
    return code;
}

void rp_json_free(struct rp_json *doc)
{
    if (!doc)
        return;
    cJSON_Delete(doc->root);
    free(doc->where);
    free(doc->places.items);
    free(doc->lines);
    free(doc);
}

int rp_json_int(const cJSON *value, long long low, long long high, long long *out)
{
    const double exact = 9007199254740992.0; /* 2^53: whole numbers up to here are themselves */
    if (!cJSON_IsNumber(value))
        return 0;
    double number = value->valuedouble;
    if (!(number >= -exact && number <= exact) || floor(number) < number)
        return 0;
    long long whole = (long long)number;
    if (whole < low || whole > high)
        return 0;
    *out = whole;
    return 1;
}

const char *rp_json_text(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return text ? text : "";
}
