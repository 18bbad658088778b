/* See cli/replay_lacks.h. */
#include "cli/replay_lacks.h"

#include <stdio.h>
#include <string.h>

#include "run/completeness.h"

/* Adds a name to a list of them, while there is room. */
static void add_name(char *list, size_t size, const char *name)
{
    const size_t used = strlen(list);
    if (used + strlen(name) + 3 < size)
        snprintf(list + used, size - used, "%s%s", used ? ", " : "", name);
}

/* A misspelt slot is not replayed, and nobody would see that. */
static void find_unknown(const struct rp_tensor_set *dump, struct rp_replay_counts *counts)
{
    for (size_t i = 0; i < rp_tensor_set_n_slots(dump); i++) {
        const char *name = rp_tensor_set_slot(dump, i)->name;
        int layer;
        if (rp_slot_parse(name, &layer) != RP_PART_OTHER)
            continue;
        add_name(counts->unknown, sizeof counts->unknown, name);
        counts->n_unknown++;
    }
}

/* Required slots have to be there, of the layers that are replayed and of the one before. */
static void find_missing(const struct rp_replay_wanted *wanted, struct rp_tensor_set *dump,
                         struct rp_replay_counts *counts)
{
    char name[RP_SLOT_NAME_SIZE];
    const int64_t *ids;
    size_t n_ids = 0, n_json;
    counts->is_broken_off = !rp_tensor_set_complete(dump);
    if (wanted->tokens)
        n_ids = wanted->n_tokens;
    else if (rp_tensor_set_tokens(dump, &ids, &n_ids, NULL) != RP_OK)
        n_ids = 0;
    counts->has_no_tokens = n_ids == 0 && wanted->first_layer < 0;
    counts->has_no_dump_json = rp_tensor_set_layout(dump) == RP_LAYOUT_NPY &&
                               rp_tensor_set_manifest(dump, &n_json) == NULL;
    (void)rp_dump_lacks_positions(dump, wanted->n_layers, n_ids, counts->positions,
                                  sizeof counts->positions);
    for (size_t i = 0; rp_required_slot(wanted->n_layers, i, name); i++) {
        const bool is_wanted = wanted->first_layer < 0 || (i >= (size_t)wanted->first_layer &&
                                                           i <= (size_t)wanted->last_layer + 1);
        if (!is_wanted || rp_tensor_set_find(dump, name))
            continue;
        add_name(counts->missing, sizeof counts->missing, name);
        counts->n_missing++;
    }
}

void rp_replay_find_lacks(const struct rp_replay_wanted *wanted, struct rp_tensor_set *dump,
                          struct rp_replay_counts *counts)
{
    find_missing(wanted, dump, counts);
    find_unknown(dump, counts);
}
