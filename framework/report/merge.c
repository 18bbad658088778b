/* See merge.h. Pairs and entries come in the order of the matrix, whatever shard they are from. */
#include "report/merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "report/old_reports.h"

enum { MAX_DIFF = 64 << 20 };

static const cJSON *item_of(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* What the shards have of one name. */
struct found {
    const char *name;
    size_t place; /* of the name in the matrix */
    const cJSON *first,
        *other; /* other: the first with another verdict than first; NULL: there is none */
    const struct rp_shard_file *of_first, *of_other;
};

struct merge {
    const struct rp_shard_files *files;
    const cJSON *matrix;
    struct rp_test_filter *filter;
    const char *out;
    struct rp_results *results;
    bool has_weights; /* some shard has run a test <entry>/weights */
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct found *)a)->name, ((const struct found *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const size_t i = ((const struct found *)a)->place, j = ((const struct found *)b)->place;
    return (i > j) - (i < j);
}

/* The verdict of a pair; of an entry, of its weights test, "" where it has none. */
static const char *verdict_of(const cJSON *item)
{
    const cJSON *weights = item_of(item, "weights");
    const bool is_pair = item_of(item, "pair") != NULL;
    return rp_json_text(is_pair ? item : weights, "verdict");
}

static enum rp_status note(struct found *list, size_t n, const char *name, const cJSON *item,
                           const struct rp_shard_file *file, struct rp_error *err)
{
    const struct found wanted = {.name = name};
    struct found *found = n ? bsearch(&wanted, list, n, sizeof *list, by_name) : NULL;
    if (!found)
        return rp_json_fail(file->doc, item, err, RP_ERR_FORMAT,
                            "expected one of the matrix's names, found \"%s\"", name);
    const bool is_better = found->first && !verdict_of(found->first)[0]; /* not a weights test */
    if (!found->first || is_better) {
        found->first = item;
        found->of_first = file;
    } else if (!found->other && verdict_of(item)[0] &&
               strcmp(verdict_of(found->first), verdict_of(item)) != 0) {
        found->other = item;
        found->of_other = file;
    }
    return RP_OK;
}

/* Makes *list [*n], by place, of the matrix's names in the list of that key, with what the files have of them in
 * theirs: key is "pairs" or "entries", each item's name is its member of name_key. */
static enum rp_status collect(const struct merge *merge, const char *key, const char *name_key,
                              struct found **list, size_t *n, struct rp_error *err)
{
    const cJSON *names = item_of(merge->matrix, key), *item;
    enum rp_status status = RP_OK;
    *n = 0;
    *list = calloc((size_t)cJSON_GetArraySize(names) + 1, sizeof **list);
    if (!*list)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    cJSON_ArrayForEach(item, names)
    {
        (*list)[*n] = (struct found){.name = item->valuestring, .place = *n};
        (*n)++;
    }
    qsort(*list, *n, sizeof **list, by_name);
    for (size_t i = 1; i < *n; i++)
        if (strcmp((*list)[i - 1].name, (*list)[i].name) == 0)
            return rp_fail(err, RP_ERR_FORMAT, merge->files->list[0].path, -1,
                           "\"%s\" is twice in the matrix's \"%s\"", (*list)[i].name, key);
    for (size_t f = 0; f < merge->files->n; f++) {
        const struct rp_shard_file *file = &merge->files->list[f];
        cJSON_ArrayForEach(item, item_of(rp_json_root(file->doc), key))
        {
            if (!status)
                status = note(*list, *n, rp_json_text(item, name_key), item, file, err);
        }
    }
    qsort(*list, *n, sizeof **list, by_place);
    return status;
}

static void say_conflict(const struct found *found, char *message, size_t size)
{
    snprintf(
        message, size,
        "two shards have it, with different verdicts: %s in %.900s, %s in %.900s. Run it again, "
        "in one place",
        verdict_of(found->first), found->of_first->path, verdict_of(found->other),
        found->of_other->path);
}

static const char not_found[] =
    "no shard has it: its shard was lost, has not ended, or was not given. Run that shard again";

static void set_text(cJSON *object, const char *key, const char *text)
{
    cJSON_DeleteItemFromObjectCaseSensitive(object, key);
    cJSON_AddStringToObject(object, key, text);
}

static cJSON *judgement(const char *message)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "verdict", "ERROR");
    cJSON_AddStringToObject(object, "message", message);
    return object;
}

/* Copies the .diff of the pair to out, where the reports are; the pair has none where there is no such file. */
static enum rp_status take_diff(const struct merge *merge, const struct rp_shard_file *file,
                                cJSON *pair, struct rp_error *err)
{
    char from[RP_PATH_SIZE], to[RP_PATH_SIZE], *text = NULL;
    const char *diff = rp_json_text(pair, "diff"), *slash = strrchr(diff, '/');
    const char *name = slash ? slash + 1 : diff;
    const size_t length = strlen(name);
    size_t n = 0;
    if (!item_of(pair, "diff"))
        return RP_OK;
    const bool is_there = length > 5 && name[0] != '.' && strcmp(name + length - 5, ".diff") == 0 &&
                          rp_path_join(from, sizeof from, file->folder, name, NULL) == RP_OK &&
                          rp_file_read_no_link(from, MAX_DIFF, &text, &n, NULL) == RP_OK &&
                          strncmp(text, "pair ", 5) == 0;
    enum rp_status status = RP_OK;
    to[0] = '\0';
    if (is_there)
        status = rp_path_join(to, sizeof to, merge->out, name, err);
    if (is_there && !status)
        status = rp_file_write_atomic(to, text, n, err);
    free(text);
    set_text(pair, "diff", status ? "" : to);
    return status;
}

static cJSON *missing_pair(const struct merge *merge, const struct found *found)
{
    cJSON *pair = cJSON_CreateObject();
    char entry[RP_PAIR_NAME_SIZE];
    snprintf(entry, sizeof entry, "%.*s", (int)strcspn(found->name, "/"), found->name);
    cJSON_AddStringToObject(pair, "pair", found->name);
    cJSON_AddStringToObject(pair, "verdict", "ERROR");
    cJSON_AddStringToObject(pair, "entry", entry);
    cJSON_AddStringToObject(pair, "engine", "");
    cJSON_AddStringToObject(pair, "matrix", rp_json_text(merge->matrix, "path"));
    cJSON_AddItemToObject(pair, "engine_test", judgement(not_found));
    return pair;
}

static bool is_disabled(const struct merge *merge, const char *name)
{
    const cJSON *entry;
    const size_t length = strcspn(name, "/");
    cJSON_ArrayForEach(entry, item_of(merge->matrix, "disabled"))
    {
        if (strlen(entry->valuestring) == length && strncmp(entry->valuestring, name, length) == 0)
            return true;
    }
    return false;
}

/* *pair is NULL where there is none and none is missed. */
static enum rp_status make_pair(const struct merge *merge, const struct found *found, cJSON **pair,
                                struct rp_error *err)
{
    char message[2300];
    *pair = NULL;
    if (!found->first) {
        if (!is_disabled(merge, found->name) && rp_test_filter_wants(merge->filter, found->name))
            *pair = missing_pair(merge, found);
        return RP_OK;
    }
    *pair = cJSON_Duplicate(found->first, 1);
    if (!*pair)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    if (found->other) {
        say_conflict(found, message, sizeof message);
        set_text(*pair, "verdict", "ERROR");
        cJSON_DeleteItemFromObjectCaseSensitive(*pair, "engine_test");
        cJSON_AddItemToObject(*pair, "engine_test", judgement(message));
    }
    return take_diff(merge, found->of_first, *pair, err);
}

static enum rp_status add_pairs(const struct merge *merge, const struct found *list, size_t n,
                                cJSON *pairs, struct rp_error *err)
{
    enum rp_status status = RP_OK;
    for (size_t i = 0; !status && i < n; i++) {
        cJSON *pair;
        status = make_pair(merge, &list[i], &pair, err);
        if (!pair)
            continue;
        rp_results_count_pair(merge->results, pair);
        cJSON_AddItemToArray(pairs, pair);
    }
    merge->results->n_other = n - merge->results->n_pairs;
    return status;
}

static void count_weights(struct rp_weights_counts *counts, const char *verdict)
{
    counts->n++;
    counts->n_passed += strcmp(verdict, "PASS") == 0;
    counts->n_failed += strcmp(verdict, "FAIL") == 0;
    counts->n_skipped += strcmp(verdict, "SKIP") == 0;
    counts->n_errors += strcmp(verdict, "ERROR") == 0;
}

static bool misses_weights(const struct merge *merge, const struct found *found)
{
    char name[RP_PAIR_NAME_SIZE + 16];
    snprintf(name, sizeof name, "%s/weights", found->name);
    return merge->has_weights && !is_disabled(merge, found->name) &&
           rp_test_filter_wants(merge->filter, name) && !verdict_of(found->first)[0];
}

static cJSON *make_entry(const struct merge *merge, const struct found *found)
{
    char message[2300];
    const bool is_missing = misses_weights(merge, found);
    if (!found->first && !is_missing)
        return NULL;
    cJSON *entry = found->first ? cJSON_Duplicate(found->first, 1) : cJSON_CreateObject();
    if (!found->first) {
        cJSON_AddStringToObject(entry, "entry", found->name);
        cJSON_AddStringToObject(entry, "matrix", rp_json_text(merge->matrix, "path"));
    }
    if (!is_missing && !found->other)
        return entry;
    snprintf(message, sizeof message, "%s", not_found);
    if (found->other)
        say_conflict(found, message, sizeof message);
    cJSON_DeleteItemFromObjectCaseSensitive(entry, "weights");
    cJSON_AddItemToObject(entry, "weights", judgement(message));
    return entry;
}

static void add_entries(struct merge *merge, const struct found *list, size_t n, cJSON *entries)
{
    for (size_t i = 0; i < n; i++)
        merge->has_weights |= verdict_of(list[i].first)[0] != '\0';
    for (size_t i = 0; i < n; i++) {
        cJSON *entry = make_entry(merge, &list[i]);
        const char *verdict = verdict_of(entry);
        if (!entry)
            continue;
        merge->results->n_warnings += (size_t)cJSON_GetArraySize(item_of(entry, "warnings"));
        if (verdict[0])
            count_weights(&merge->results->weights, verdict);
        cJSON_AddItemToArray(entries, entry);
    }
}

/* What is known of the run: as results.json of one machine, and which shards it is of. */
static void add_head(const struct merge *merge, cJSON *root)
{
    const cJSON *first = rp_json_root(merge->files->list[0].doc);
    cJSON_AddStringToObject(root, "format", "refparity-results");
    cJSON_AddNumberToObject(root, "version", 1);
    cJSON_AddStringToObject(root, "session", rp_json_text(first, "session"));
    cJSON *shards = cJSON_CreateArray();
    merge->results->has_ended = true;
    for (size_t i = 0; i < merge->files->n; i++) {
        const cJSON *from = rp_json_root(merge->files->list[i].doc);
        const bool has_ended = cJSON_IsTrue(item_of(from, "ended"));
        cJSON *shard = cJSON_CreateObject();
        cJSON_AddStringToObject(shard, "file", merge->files->list[i].path);
        cJSON_AddStringToObject(shard, "shard", rp_json_text(from, "shard"));
        cJSON_AddStringToObject(shard, "session", rp_json_text(from, "session"));
        cJSON_AddBoolToObject(shard, "ended", has_ended);
        cJSON_AddItemToArray(shards, shard);
        merge->results->has_ended &= has_ended;
    }
    cJSON_AddBoolToObject(root, "ended", merge->results->has_ended);
    cJSON_AddStringToObject(root, "refparity", rp_json_text(first, "refparity"));
    cJSON_AddItemToObject(root, "shards", shards);
    cJSON_AddItemToObject(root, "matrix", cJSON_Duplicate(merge->matrix, 1));
}

static enum rp_status merge_all(struct merge *merge, struct rp_error *err)
{
    struct found *pairs = NULL, *entries = NULL;
    size_t n_pairs, n_entries;
    enum rp_status status = collect(merge, "pairs", "pair", &pairs, &n_pairs, err);
    if (!status)
        status = collect(merge, "entries", "entry", &entries, &n_entries, err);
    if (!status)
        status = rp_make_dirs(merge->out, err);
    if (!status) {
        cJSON *root = merge->results->root = cJSON_CreateObject();
        cJSON *pair_list = cJSON_CreateArray(), *entry_list = cJSON_CreateArray();
        rp_remove_old_reports(merge->out);
        add_head(merge, root);
        status = add_pairs(merge, pairs, n_pairs, pair_list, err);
        add_entries(merge, entries, n_entries, entry_list);
        rp_results_add_summary(merge->results, root);
        cJSON_AddItemToObject(root, "pairs", pair_list);
        cJSON_AddItemToObject(root, "entries", entry_list);
        struct rp_error second;
        if (rp_results_write(merge->out, root, &second) && !status) {
            status = second.code;
            if (err)
                *err = second;
        }
    }
    free(pairs);
    free(entries);
    return status;
}

enum rp_status rp_results_merge(const struct rp_shard_files *files, const char *filter,
                                const char *out, struct rp_results *results, struct rp_error *err)
{
    struct merge merge = {.files = files, .out = out, .results = results};
    memset(results, 0, sizeof *results);
    if (files->n == 0)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "there is no shard to put together");
    merge.matrix = item_of(rp_json_root(files->list[0].doc), "matrix");
    enum rp_status status = rp_test_filter_open(filter, &merge.filter, err);
    if (!status)
        status = merge_all(&merge, err);
    rp_test_filter_close(merge.filter);
    return status;
}
