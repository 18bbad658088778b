/* See shard.h. Prompts of an entry are dealt out one after the other: neighbours in the matrix, which are often
 * of the same model and as expensive, come to different shards. */
#include "run/shard.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rp_test_filter {
    regex_t regex;
    bool is_set;
};

enum rp_status rp_test_filter_open(const char *text, struct rp_test_filter **filter,
                                   struct rp_error *err)
{
    char why[256];
    *filter = calloc(1, sizeof **filter);
    if (!*filter)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    if (!text || !text[0])
        return RP_OK;
    const int code = regcomp(&(*filter)->regex, text, REG_EXTENDED | REG_NOSUB);
    if (code == 0) {
        (*filter)->is_set = true;
        return RP_OK;
    }
    regerror(code, &(*filter)->regex, why, sizeof why);
    free(*filter);
    *filter = NULL;
    return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1,
                   "the filter '%.200s' is no extended regular expression: %s", text, why);
}

bool rp_test_filter_wants(const struct rp_test_filter *filter, const char *name)
{
    return !filter->is_set || regexec(&filter->regex, name, 0, NULL, 0) == 0;
}

void rp_test_filter_close(struct rp_test_filter *filter)
{
    if (filter && filter->is_set)
        regfree(&filter->regex);
    free(filter);
}

/* A whole number from 1 to RP_MAX_SHARDS at *text, which is left behind it; 0: there is none. */
static size_t read_number(const char **text)
{
    size_t number = 0;
    const size_t n = strspn(*text, "0123456789");
    if (n == 0 || n > 5)
        return 0;
    for (size_t i = 0; i < n; i++)
        number = 10 * number + (size_t)((*text)[i] - '0');
    *text += n;
    return number <= RP_MAX_SHARDS ? number : 0;
}

enum rp_status rp_shard_parse(const char *text, const char *what, struct rp_shard *shard,
                              struct rp_error *err)
{
    const char *at = text;
    shard->index = read_number(&at);
    const bool has_slash = *at == '/';
    at += has_slash;
    shard->count = has_slash ? read_number(&at) : 0;
    if (shard->index >= 1 && shard->index <= shard->count && !*at)
        return RP_OK;
    *shard = (struct rp_shard){0};
    return rp_fail(err, RP_ERR_ARGUMENT, what, -1,
                   "expected a shard as 2/5, the second of five (at most %d), found \"%.40s\"",
                   RP_MAX_SHARDS, text);
}

static bool is_same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool asks_the_same(const struct rp_slurm *a, const struct rp_slurm *b)
{
    return is_same_text(a->mem, b->mem) && is_same_text(a->gres, b->gres) &&
           is_same_text(a->time, b->time);
}

/* A kind of resources: the entries that ask for it, and its shards, first to first + n - 1. */
struct kind {
    const struct rp_slurm *resources;
    size_t n_units; /* prompts of its entries */
    size_t first, n;
    size_t next; /* unit to be dealt */
};

struct plan {
    const struct rp_matrix *matrix;
    const struct rp_test_filter *filter;
    struct rp_shards *shards;
    struct kind *kinds; /* [n_kinds]; there is room for one an entry */
    size_t n_kinds;
    size_t *kind_of; /* [n_entries] */
};

/* Does the filter want one of the modes of the entry's prompt? *first is the entry's first pair. */
static bool wants_unit(const struct plan *plan, const struct rp_entry *entry, size_t prompt)
{
    struct rp_pair pair;
    for (size_t i = entry->first_pair; i < plan->shards->n_pairs; i++) {
        rp_matrix_pair(plan->matrix, i, &pair);
        if (pair.entry != entry)
            return false;
        if (pair.prompt_index == prompt && rp_test_filter_wants(plan->filter, pair.name))
            return true;
    }
    return false;
}

static bool wants_weights(const struct plan *plan, const struct rp_entry *entry)
{
    char name[RP_MATRIX_NAME_MAX + 16];
    snprintf(name, sizeof name, "%s/weights", entry->name);
    return rp_test_filter_wants(plan->filter, name);
}

static size_t n_units_of(const struct plan *plan, const struct rp_entry *entry)
{
    size_t n = 0;
    for (size_t i = 0; i < entry->n_prompts; i++)
        n += wants_unit(plan, entry, i);
    return n;
}

static void find_kinds(struct plan *plan)
{
    for (size_t i = 0; i < plan->shards->n_entries; i++) {
        const struct rp_entry *entry = rp_matrix_entry(plan->matrix, i);
        size_t kind = 0, n = entry->disabled ? 0 : n_units_of(plan, entry);
        if (n == 0 && !entry->disabled && wants_weights(plan, entry))
            n = 1; /* its weights alone */
        while (kind < plan->n_kinds && !asks_the_same(plan->kinds[kind].resources, &entry->slurm))
            kind++;
        if (n == 0)
            continue;
        if (kind == plan->n_kinds)
            plan->kinds[plan->n_kinds++] = (struct kind){.resources = &entry->slurm};
        plan->kinds[kind].n_units += n;
        plan->kind_of[i] = kind;
    }
}

/* Each kind gets one shard; each further shard goes to the kind whose shards have the most units. */
static void share_out(struct plan *plan)
{
    size_t first = 1;
    for (size_t k = 0; k < plan->n_kinds; k++)
        plan->kinds[k].n = 1;
    for (size_t i = plan->n_kinds; i < plan->shards->count; i++) {
        struct kind *fullest = &plan->kinds[0];
        for (size_t k = 1; k < plan->n_kinds; k++)
            if (plan->kinds[k].n_units * fullest->n > fullest->n_units * plan->kinds[k].n)
                fullest = &plan->kinds[k];
        fullest->n++;
    }
    for (size_t k = 0; k < plan->n_kinds; k++) {
        struct kind *kind = &plan->kinds[k];
        kind->first = first;
        first += kind->n;
        for (size_t i = 0; i < kind->n; i++)
            if (i < kind->n_units)
                plan->shards->parts[kind->first + i].resources = kind->resources;
    }
}

/* Puts the entry's tests into shards. */
static void deal(struct plan *plan, size_t entry_index)
{
    const struct rp_entry *entry = rp_matrix_entry(plan->matrix, entry_index);
    struct kind *kind = &plan->kinds[plan->kind_of[entry_index]];
    struct rp_shards *shards = plan->shards;
    size_t first = 0;
    for (size_t prompt = 0; prompt < entry->n_prompts; prompt++) {
        if (!wants_unit(plan, entry, prompt))
            continue;
        const size_t shard = kind->first + kind->next++ % kind->n;
        first = first ? first : shard;
        for (size_t i = entry->first_pair; i < shards->n_pairs; i++) {
            struct rp_pair pair;
            rp_matrix_pair(plan->matrix, i, &pair);
            if (pair.entry != entry)
                break;
            if (pair.prompt_index != prompt || !rp_test_filter_wants(plan->filter, pair.name))
                continue;
            shards->of_pair[i] = shard;
            shards->parts[shard].n_pairs++;
        }
    }
    if (wants_weights(plan, entry))
        shards->of_entry[entry_index] = first ? first : kind->first + kind->next++ % kind->n;
}

static enum rp_status make_plan(struct plan *plan, const char *filter, struct rp_error *err)
{
    struct rp_shards *shards = plan->shards;
    find_kinds(plan);
    if (plan->n_kinds == 0)
        return rp_fail(err, RP_ERR_ARGUMENT, rp_matrix_path(plan->matrix), -1,
                       "no test of the matrix matches '%.200s': refparity check-matrix --list "
                       "prints the names",
                       filter ? filter : "");
    if (plan->n_kinds > shards->count)
        return rp_fail(err, RP_ERR_ARGUMENT, rp_matrix_path(plan->matrix), -1,
                       "its entries ask for %zu different kinds of resources (\"slurm\"), which "
                       "cannot share a shard: expected at least %zu shards, found %zu",
                       plan->n_kinds, plan->n_kinds, shards->count);
    share_out(plan);
    for (size_t i = 0; i < shards->n_entries; i++)
        if (plan->kind_of[i] < plan->n_kinds)
            deal(plan, i);
    return RP_OK;
}

enum rp_status rp_shards_open(const struct rp_matrix *matrix, size_t count, const char *filter,
                              struct rp_shards *shards, struct rp_error *err)
{
    const size_t n_pairs = rp_matrix_n_pairs(matrix), n_entries = rp_matrix_n_entries(matrix);
    struct rp_test_filter *wanted = NULL;
    *shards = (struct rp_shards){.count = count, .n_pairs = n_pairs, .n_entries = n_entries};
    shards->of_pair = calloc(n_pairs + 1, sizeof *shards->of_pair);
    shards->of_entry = calloc(n_entries + 1, sizeof *shards->of_entry);
    shards->parts = calloc(count + 1, sizeof *shards->parts);
    struct plan plan = {.matrix = matrix,
                        .shards = shards,
                        .kinds = calloc(n_entries + 1, sizeof *plan.kinds),
                        .kind_of = malloc((n_entries + 1) * sizeof *plan.kind_of)};
    enum rp_status status = rp_test_filter_open(filter, &wanted, err);
    if (!status &&
        (!shards->of_pair || !shards->of_entry || !shards->parts || !plan.kinds || !plan.kind_of))
        status = rp_fail(err, RP_ERR_MEMORY, rp_matrix_path(matrix), -1, "not enough memory");
    if (!status) {
        for (size_t i = 0; i < n_entries; i++)
            plan.kind_of[i] = n_entries; /* none */
        plan.filter = wanted;
        status = make_plan(&plan, filter, err);
    }
    rp_test_filter_close(wanted);
    free(plan.kinds);
    free(plan.kind_of);
    if (status)
        rp_shards_free(shards);
    return status;
}

void rp_shards_free(struct rp_shards *shards)
{
    free(shards->of_pair);
    free(shards->of_entry);
    free(shards->parts);
    memset(shards, 0, sizeof *shards);
}
