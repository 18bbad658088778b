/* See cli/reading.h. */
#include "cli/reading.h"

#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"

bool rp_cli_parse_rows(const char *text, size_t *n_rows)
{
    int64_t value;
    const size_t n = strlen(text);
    if (rp_number_parse(text, n, (int64_t)1 << 24, &value) != n || value < 1)
        return false;
    *n_rows = (size_t)value;
    return true;
}

void rp_cli_take_widths(const struct rp_tensor_set *of, struct rp_tensor_set_options *options)
{
    options->width = options->n_logits = 0;
    for (size_t i = 0; i < rp_tensor_set_n_slots(of); i++) {
        const struct rp_slot_info *slot = rp_tensor_set_slot(of, i);
        int layer;
        const enum rp_slot_part part = rp_slot_parse(slot->name, &layer);
        if (part == RP_PART_LOGITS)
            options->n_logits = slot->dim;
        else if (rp_slot_is_required(slot->name) && options->width == 0)
            options->width = slot->dim;
    }
}

/* Without the other's widths a file of raw values is one position, or all that there are token ids for. */
static enum rp_status check_rows(const struct rp_tensor_set *set,
                                 const struct rp_tensor_set_options *options, struct rp_error *err)
{
    const int64_t *ids;
    size_t n_ids;
    if (rp_tensor_set_layout(set) != RP_LAYOUT_BIN || options->n_rows > 0 || options->width > 0 ||
        options->single_position >= 0 || rp_tensor_set_tokens(set, &ids, &n_ids, NULL) != RP_OK ||
        n_ids < 2)
        return RP_OK;
    for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
        const struct rp_slot_info *slot = rp_tensor_set_slot(set, i);
        if (slot->n_positions != 1 || slot->dim % n_ids != 0)
            return RP_OK;
    }
    return rp_fail(err, RP_ERR_MISMATCH, rp_tensor_set_path(set), -1,
                   "each NAME.bin may hold one position, or all %zu that there are token ids for: "
                   "say it with --rows 1 or --rows %zu",
                   n_ids, n_ids);
}

enum rp_status rp_cli_open_both(const char *reference_path,
                                struct rp_tensor_set_options *of_reference, const char *dump_path,
                                struct rp_tensor_set_options *of_dump,
                                struct rp_tensor_set **reference, struct rp_tensor_set **dump,
                                struct rp_error *err)
{
    enum rp_status status = rp_tensor_set_open_with(reference_path, of_reference, reference, err);
    if (status != RP_OK)
        return status;
    const bool is_raw = rp_tensor_set_layout(*reference) == RP_LAYOUT_BIN;
    if (!is_raw)
        rp_cli_take_widths(*reference, of_dump);
    status = rp_tensor_set_open_with(dump_path, of_dump, dump, err);
    if (status == RP_OK && is_raw && rp_tensor_set_layout(*dump) != RP_LAYOUT_BIN) {
        rp_tensor_set_close(*reference);
        rp_cli_take_widths(*dump, of_reference);
        status = rp_tensor_set_open_with(reference_path, of_reference, reference, err);
    }
    if (status == RP_OK)
        status = check_rows(*reference, of_reference, err);
    return status == RP_OK ? check_rows(*dump, of_dump, err) : status;
}

enum rp_status rp_cli_check_names(const struct rp_names *names, struct rp_error *err)
{
    const struct rp_name_rule *unused = rp_names_unused(names);
    if (!unused)
        return RP_OK;
    return rp_fail(err, RP_ERR_MISSING, names->path, -1,
                   "line %d: nothing is called %s (refparity show FILE lists the names)",
                   unused->line, unused->name);
}

void rp_cli_print_notes(const struct rp_terminal *out, const char *side,
                        const struct rp_tensor_set *set)
{
    for (size_t i = 0; i < rp_tensor_set_n_notes(set); i++)
        rp_print_line(out, "%s: %s", side, rp_tensor_set_note(set, i));
}

void rp_cli_add_notes(cJSON *root, const char *key, const struct rp_tensor_set *set)
{
    cJSON *list = cJSON_AddArrayToObject(root, key);
    for (size_t i = 0; i < rp_tensor_set_n_notes(set); i++)
        cJSON_AddItemToArray(list, cJSON_CreateString(rp_tensor_set_note(set, i)));
}

/* Name number index of those that are no slots; NULL behind the last. */
static const char *other_name(const struct rp_tensor_set *set, const struct rp_tensor_set *other,
                              size_t index)
{
    for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
        const char *name = rp_tensor_set_slot(set, i)->name;
        int layer;
        if (rp_slot_parse(name, &layer) == RP_PART_OTHER &&
            (!other || !rp_tensor_set_find(other, name)) && index-- == 0)
            return name;
    }
    return rp_tensor_set_other(set, index);
}

enum { MOST_SHOWN = 12 };

void rp_cli_print_others(const struct rp_terminal *out, const char *side,
                         const struct rp_tensor_set *set, const struct rp_tensor_set *other)
{
    size_t n = 0;
    while (other_name(set, other, n))
        n++;
    if (n == 0)
        return;
    rp_print(out, RP_STYLE_PLAIN, "not compared: %zu %s of the %s that %s: ", n,
             n == 1 ? "name" : "names", side, n == 1 ? "is no slot" : "are no slots");
    for (size_t i = 0; i < n && i < MOST_SHOWN; i++)
        rp_print(out, RP_STYLE_PLAIN, "%s%s", i ? ", " : "", other_name(set, other, i));
    rp_print_line(out, "%s", n > MOST_SHOWN ? " ..." : "");
}

void rp_cli_add_others(cJSON *root, const char *key, const struct rp_tensor_set *set,
                       const struct rp_tensor_set *other)
{
    cJSON *list = cJSON_AddArrayToObject(root, key);
    const char *name;
    for (size_t i = 0; (name = other_name(set, other, i)) != NULL; i++)
        cJSON_AddItemToArray(list, cJSON_CreateString(name));
}
