/* Slot names: their parts and their order. See refparity/tensor_set.h. */
#include "tensor/set.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAX_LAYER 99999

#define SUFFIX(constant, suffix) [constant] = suffix,
static const char *const layer_suffixes[] = {RP_LAYER_SLOTS(SUFFIX)};

static bool is_of_layer(enum rp_slot_part part)
{
    return part >= RP_PART_IN && part <= RP_PART_OUTPUT;
}

enum rp_slot_part rp_slot_parse(const char *slot, int *layer)
{
    int number = 0;
    const char *p = slot + 1;
    *layer = -1;
    if (strcmp(slot, "emb") == 0)
        return RP_PART_EMB;
    if (strcmp(slot, "post_norm") == 0)
        return RP_PART_POST_NORM;
    if (strcmp(slot, "logits") == 0)
        return RP_PART_LOGITS;
    if (slot[0] != 'h' || *p < '0' || *p > '9' || (p[0] == '0' && p[1] >= '0' && p[1] <= '9'))
        return RP_PART_OTHER;
    for (; *p >= '0' && *p <= '9'; p++) {
        number = number * 10 + (*p - '0');
        if (number > MAX_LAYER)
            return RP_PART_OTHER;
    }
    for (enum rp_slot_part part = RP_PART_IN; part <= RP_PART_OUTPUT; part++) {
        if (strcmp(p, layer_suffixes[part]) == 0) {
            *layer = number;
            return part;
        }
    }
    return RP_PART_OTHER;
}

char *rp_slot_name(enum rp_slot_part part, int layer, char *out)
{
    if (is_of_layer(part))
        snprintf(out, RP_SLOT_NAME_SIZE, "h%d%s", layer, layer_suffixes[part]);
    else
        snprintf(out, RP_SLOT_NAME_SIZE, "%s",
                 part == RP_PART_EMB         ? "emb"
                 : part == RP_PART_POST_NORM ? "post_norm"
                 : part == RP_PART_LOGITS    ? "logits"
                                             : "");
    return out;
}

int rp_slot_order(const char *a, const char *b)
{
    int layer_a, layer_b;
    enum rp_slot_part part_a = rp_slot_parse(a, &layer_a), part_b = rp_slot_parse(b, &layer_b);
    if (layer_a >= 0 && layer_b >= 0 && layer_a != layer_b)
        return layer_a < layer_b ? -1 : 1;
    if (part_a != part_b)
        return part_a < part_b ? -1 : 1;
    return part_a == RP_PART_OTHER ? strcmp(a, b) : 0;
}

int rp_slot_is_required(const char *slot)
{
    int layer;
    enum rp_slot_part part = rp_slot_parse(slot, &layer);
    return part != RP_PART_OTHER && (!is_of_layer(part) || part == RP_PART_OUTPUT);
}

static const char *const level_names[] = {
    [RP_SLOTS_LAYERS] = "layers", [RP_SLOTS_OPERATIONS] = "operations"};

bool rp_slot_level_has(enum rp_slot_level level, enum rp_slot_part part)
{
    static const bool is_of_layers[RP_PART_OTHER + 1] = {
        [RP_PART_EMB] = true,       [RP_PART_IN] = true,     [RP_PART_POSTATTN] = true,
        [RP_PART_PREFFN] = true,    [RP_PART_FFNOUT] = true, [RP_PART_OUTPUT] = true,
        [RP_PART_POST_NORM] = true, [RP_PART_LOGITS] = true};
    return level == RP_SLOTS_OPERATIONS || is_of_layers[part];
}

const char *rp_slot_level_name(enum rp_slot_level level)
{
    return level_names[level];
}

enum rp_status rp_slot_level_parse(const char *name, enum rp_slot_level *out, struct rp_error *err)
{
    for (enum rp_slot_level level = RP_SLOTS_LAYERS; level <= RP_SLOTS_OPERATIONS; level++) {
        if (strcmp(level_names[level], name) == 0) {
            *out = level;
            return RP_OK;
        }
    }
    return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "slots '%s' is none of %s, %s", name,
                   level_names[RP_SLOTS_LAYERS], level_names[RP_SLOTS_OPERATIONS]);
}

char *rp_required_slot(int n_layers, size_t index, char *out)
{
    const size_t n = n_layers > 0 ? (size_t)n_layers : 0;
    if (index >= 1 && index <= n)
        return rp_slot_name(RP_PART_OUTPUT, (int)index - 1, out);
    if (index > n + 2)
        return NULL;
    return rp_slot_name(index == 0       ? RP_PART_EMB
                        : index == n + 1 ? RP_PART_POST_NORM
                                         : RP_PART_LOGITS,
                        -1, out);
}

int rp_slot_is_name(const char *name, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        int letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c != '_' && (i == 0 || (c != '.' && c != '-')))
            return 0;
    }
    return n > 0 && n < RP_SLOT_NAME_SIZE;
}
