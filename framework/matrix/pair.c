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

/* mode_index is 0 for an entry without modes. */
static void make_pair(const struct rp_entry *entry, size_t mode_index, size_t prompt_index,
                      struct rp_pair *pair)
{
    char mode[RP_MATRIX_NAME_MAX + 1] = "";
    pair->entry = entry;
    pair->mode = entry->n_modes ? entry->modes[mode_index] : NULL;
    pair->prompt = &entry->prompts[prompt_index];
    pair->prompt_index = prompt_index;
    if (pair->mode)
        rp_mode_in_names(pair->mode, mode);
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

static int is_mode(const char *mode, const char *wanted)
{
    char spelled[RP_MATRIX_NAME_MAX + 1];
    return strcmp(mode, wanted) == 0 || strcmp(rp_mode_in_names(mode, spelled), wanted) == 0;
}

enum rp_status rp_matrix_find_pair(const struct rp_matrix *matrix, const char *entry,
                                   const char *mode, const char *prompt_id, struct rp_pair *pair,
                                   struct rp_error *err)
{
    const struct rp_entry *found = rp_matrix_find_entry(matrix, entry);
    size_t mode_index = 0;
    size_t prompt_index = 0;
    if (!found)
        return no_such_entry(matrix, entry, err);
    if (!mode)
        mode = "";
    while (mode_index < found->n_modes && !is_mode(found->modes[mode_index], mode))
        mode_index++;
    if (found->n_modes ? mode_index == found->n_modes : mode[0] != '\0')
        return no_such(matrix, "mode", mode, found->modes, found->n_modes, err);
    while (prompt_index < found->n_prompts &&
           strcmp(found->prompts[prompt_index].id, prompt_id) != 0)
        prompt_index++;
    if (prompt_index == found->n_prompts)
        return no_such_prompt(matrix, found, prompt_id, err);
    make_pair(found, mode_index, prompt_index, pair);
    return RP_OK;
}
