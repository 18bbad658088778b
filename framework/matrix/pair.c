/* Pairs of a matrix: their order, their names, finding one. See refparity/matrix.h. */
#include "refparity/matrix.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "matrix/keys.h"
#include "matrix/parse.h"

size_t rp_matrix_n_pairs(const struct rp_matrix *matrix)
{
    return matrix->n_pairs;
}

/* How many ways of running an entry its pairs have: its modes, or one, and its comparisons. */
static size_t n_runs(const struct rp_entry *entry)
{
    return entry->n_modes ? entry->n_modes : 1;
}

/* What stands for the mode in names: "<mode>", or "<mode>-vs-<against>". */
static char *run_in_names(const struct rp_entry *entry, size_t run, char *out)
{
    out[0] = '\0';
    if (run >= n_runs(entry))
        return rp_compared_modes_in_names(&entry->compare_modes[run - n_runs(entry)], out);
    return entry->n_modes ? rp_mode_in_names(entry->modes[run], out) : out;
}

/* run counts the modes (one when there are none), then compare_modes. */
static void make_pair(const struct rp_entry *entry, size_t run, size_t prompt_index,
                      struct rp_pair *pair)
{
    char mode[RP_COMPARED_MODES_SIZE];
    const struct rp_mode_pair *compared =
        run < n_runs(entry) ? NULL : &entry->compare_modes[run - n_runs(entry)];
    pair->entry = entry;
    pair->mode = compared ? compared->mode : entry->n_modes ? entry->modes[run] : NULL;
    pair->against = compared ? compared->against : NULL;
    pair->prompt = &entry->prompts[prompt_index];
    pair->prompt_index = prompt_index;
    pair->index = entry->first_pair + run * entry->n_prompts + prompt_index;
    run_in_names(entry, run, mode);
    snprintf(pair->name, sizeof pair->name, "%s/%s%s%s", entry->name, mode, pair->mode ? "/" : "",
             pair->prompt->id);
    snprintf(pair->report_stem, sizeof pair->report_stem, "%s__%s%sp%zu", entry->name, mode,
             pair->mode ? "__" : "", prompt_index);
}

void rp_matrix_pair(const struct rp_matrix *matrix, size_t index, struct rp_pair *pair)
{
    size_t low = 0;
    size_t high = matrix->n_entries;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (matrix->entries[middle].first_pair <= index)
            low = middle;
        else
            high = middle;
    }
    const struct rp_entry *entry = &matrix->entries[low];
    size_t within = index - entry->first_pair;
    make_pair(entry, within / entry->n_prompts, within % entry->n_prompts, pair);
}

struct rp_numerics rp_pair_numerics(const struct rp_pair *pair)
{
    struct rp_numerics numerics = pair->entry->numerics;
    const char *mode = pair->mode ? pair->mode : "";
    if (numerics.attention != RP_ATTENTION_FLASH)
        return numerics;
    (void)rp_batch_of_mode(mode, &numerics.batch);
    numerics.threads = (size_t)pair->entry->engine->processors;
    return numerics;
}

int rp_pair_is_replayed(const struct rp_pair *pair)
{
    const struct rp_entry *entry = pair->entry;
    size_t i = 0;
    if (!entry->replay || pair->against)
        return 0;
    while (i < entry->n_replay_modes && strcmp(entry->replay_modes[i], pair->mode) != 0)
        i++;
    return entry->n_replay_modes == 0 || i < entry->n_replay_modes;
}

int rp_pair_needs_fixture(const struct rp_pair *pair)
{
    const int has_other_use = pair->entry->n_compare_modes > 0 || rp_pair_is_replayed(pair);
    return !has_other_use || pair->entry->engine->uses_tokens_file;
}

enum rp_slot_level rp_pair_slots(const struct rp_pair *pair)
{
    const struct rp_wanted_slots *slots = &pair->entry->slots;
    return rp_pair_is_replayed(pair) ? slots->replayed : slots->compared;
}

void rp_pair_of_mode(const struct rp_pair *comparison, int against, struct rp_pair *pair)
{
    const struct rp_entry *entry = comparison->entry;
    const char *wanted = against ? comparison->against : comparison->mode;
    size_t run = 0;
    while (run + 1 < entry->n_modes && strcmp(entry->modes[run], wanted) != 0)
        run++;
    make_pair(entry, run, comparison->prompt_index, pair);
}

/* names is [n]. Fills in err with what there is instead of found. */
static enum rp_status no_such(const struct rp_matrix *matrix, const char *what, const char *found,
                              const char *const *names, size_t n, struct rp_error *err)
{
    char shown[RP_SHOWN_SIZE];
    char suggestion[RP_SUGGESTION_SIZE];
    return rp_fail(err, RP_ERR_MISSING, matrix->path, -1, "there is no %s %s%s", what,
                   rp_shown(found, shown), rp_suggest(found, names, n, suggestion));
}

static enum rp_status no_such_entry(const struct rp_matrix *matrix, const char *found,
                                    struct rp_error *err)
{
    const char **names = rp_matrix_alloc(matrix->n_entries, sizeof *names, err);
    if (!names)
        return RP_ERR_MEMORY;
    for (size_t i = 0; i < matrix->n_entries; i++)
        names[i] = matrix->entries[i].name;
    enum rp_status status = no_such(matrix, "entry", found, names, matrix->n_entries, err);
    free(names);
    return status;
}

static enum rp_status no_such_prompt(const struct rp_matrix *matrix, const struct rp_entry *entry,
                                     const char *found, struct rp_error *err)
{
    const char **names = rp_matrix_alloc(entry->n_prompts, sizeof *names, err);
    if (!names)
        return RP_ERR_MEMORY;
    for (size_t i = 0; i < entry->n_prompts; i++)
        names[i] = entry->prompts[i].id;
    enum rp_status status = no_such(matrix, "prompt", found, names, entry->n_prompts, err);
    free(names);
    return status;
}

static int is_run(const struct rp_entry *entry, size_t run, const char *wanted)
{
    char spelled[RP_COMPARED_MODES_SIZE];
    return (run < entry->n_modes && strcmp(entry->modes[run], wanted) == 0) ||
           strcmp(run_in_names(entry, run, spelled), wanted) == 0;
}

enum rp_status rp_matrix_find_pair(const struct rp_matrix *matrix, const char *entry,
                                   const char *mode, const char *prompt_id, struct rp_pair *pair,
                                   struct rp_error *err)
{
    const struct rp_entry *found = rp_matrix_find_entry(matrix, entry);
    size_t run = 0;
    size_t prompt_index = 0;
    if (!found)
        return no_such_entry(matrix, entry, err);
    const size_t n = n_runs(found) + found->n_compare_modes;
    if (!mode)
        mode = "";
    while (run < n && !is_run(found, run, mode))
        run++;
    if (run == n)
        return no_such(matrix, "mode", mode, found->modes, found->n_modes, err);
    while (prompt_index < found->n_prompts &&
           strcmp(found->prompts[prompt_index].id, prompt_id) != 0)
        prompt_index++;
    if (prompt_index == found->n_prompts)
        return no_such_prompt(matrix, found, prompt_id, err);
    make_pair(found, run, prompt_index, pair);
    return RP_OK;
}
