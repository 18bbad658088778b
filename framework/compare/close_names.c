/* See close_names.h. A layer's name is told by its number; the rest by a word. */
#include "compare/close_names.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* A name with one number in it: prefix, number, rest. */
struct numbered {
    size_t prefix; /* characters before the number */
    int number;
    const char *rest;
};

static bool split(const char *name, struct numbered *out)
{
    const size_t prefix = strcspn(name, "0123456789");
    const char *p = name + prefix;
    if (!*p)
        return false;
    out->prefix = prefix;
    out->number = 0;
    for (; isdigit((unsigned char)*p); p++) {
        if (out->number > 9999)
            return false;
        out->number = out->number * 10 + (*p - '0');
    }
    out->rest = p;
    return p[strcspn(p, "0123456789")] == '\0';
}

static bool has_word(const char *name, const char *word)
{
    const size_t n = strlen(word);
    for (; *name; name++) {
        size_t i = 0;
        while (i < n && tolower((unsigned char)name[i]) == word[i])
            i++;
        if (i == n)
            return true;
    }
    return false;
}

static bool is_unknown(const char *name)
{
    int layer;
    return rp_slot_parse(name, &layer) == RP_PART_OTHER;
}

/* Does set have the name's sibling with that number? Leading zeros are not tried. */
static bool has_sibling(const struct rp_tensor_set *set, const char *name,
                        const struct numbered *parts, int number)
{
    char sibling[2 * RP_SLOT_NAME_SIZE];
    snprintf(sibling, sizeof sibling, "%.*s%d%s", (int)parts->prefix, name, number, parts->rest);
    return rp_tensor_set_find(set, sibling) != NULL;
}

/* The number of layer 0: 1 where numbers begin with it, and where 0 is the embeddings, as among
 * transformers' hidden_states. */
static int first_number(const struct rp_tensor_set *set, const char *name,
                        const struct numbered *parts, int n_layers)
{
    return !has_sibling(set, name, parts, 0) || has_sibling(set, name, parts, n_layers) ? 1 : 0;
}

static bool looks_like(const struct rp_tensor_set *set, const char *name, enum rp_slot_part part,
                       int layer, int n_layers)
{
    struct numbered parts;
    const bool is_numbered = split(name, &parts);
    switch (part) {
    case RP_PART_OUTPUT:
        return is_numbered && parts.number == layer + first_number(set, name, &parts, n_layers);
    case RP_PART_EMB:
        return has_word(name, "emb") ||
               (is_numbered && parts.number == 0 && has_sibling(set, name, &parts, n_layers));
    case RP_PART_POST_NORM: return !is_numbered && has_word(name, "norm");
    case RP_PART_LOGITS: return has_word(name, "logit") || has_word(name, "lm_head");
    default: return false;
    }
}

const char *rp_close_name(const struct rp_tensor_set *set, const char *slot, int n_layers,
                          size_t dim)
{
    const char *best = NULL;
    int layer;
    const enum rp_slot_part part = rp_slot_parse(slot, &layer);
    if (rp_tensor_set_find(set, slot))
        return NULL;
    for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
        const struct rp_slot_info *info = rp_tensor_set_slot(set, i);
        if (!is_unknown(info->name) || (dim > 0 && info->dim != dim) ||
            !looks_like(set, info->name, part, layer, n_layers))
            continue;
        if (!best || strlen(info->name) < strlen(best)) /* layer_0, not layer_0_attn */
            best = info->name;
    }
    return best;
}
