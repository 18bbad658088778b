/* See tensor/set_names.h. */
#include "tensor/set_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/names.h"

/* What a slot is to be called. */
struct claim {
    struct rp_name_rule *rule; /* NULL: it keeps its name */
    int l;                     /* the rule's number; -1: none */
    char target[RP_SLOT_NAME_SIZE];
    bool is_dropped; /* it holds what another slot of that name holds */
};

struct naming {
    struct rp_tensor_set *set;
    struct claim *claims; /* [set->n_slots] */
    bool is_users;        /* the rules are the user's, who has to be told what does not work */
    struct rp_error *err;
};

#define HOW_TO_SAY "say it in a file for --names"

enum rp_set_array rp_names_array(struct rp_names *names, const char *name, size_t n)
{
    char text[RP_FILE_NAME_SIZE];
    int l;
    if (!names || n >= sizeof text)
        return RP_SET_SLOT;
    memcpy(text, name, n);
    text[n] = '\0';
    const struct rp_name_rule *rule = rp_names_find(names, text, &l);
    return rule && rule->kind == RP_NAME_TOKENS      ? RP_SET_TOKENS
           : rule && rule->kind == RP_NAME_POSITIONS ? RP_SET_POSITIONS
                                                     : RP_SET_SLOT;
}

static bool is_known(const char *name)
{
    int layer;
    return name[0] != '\0' && rp_slot_parse(name, &layer) != RP_PART_OTHER;
}

/* An array of many slots is read as one by its name alone: the users' rules, or transformers' name. */
static bool is_stack(const struct claim *claim)
{
    return claim->rule &&
           (claim->rule->kind == RP_NAME_STACK || claim->rule->kind == RP_NAME_HIDDEN_STATES);
}

static enum rp_status find_claims(struct naming *naming, struct rp_names *names)
{
    struct rp_tensor_set *set = naming->set;
    for (size_t i = 0; i < set->n_slots; i++) {
        struct rp_slot *slot = &set->slots[i];
        struct claim *claim = &naming->claims[i];
        if (!naming->is_users && is_known(slot->info.name))
            continue;
        claim->rule = rp_names_find(names, slot->file_name, &claim->l);
        if (is_stack(claim) && naming->is_users && slot->stack.n_stacked >= 2)
            slot->rows = slot->stack; /* [entries][1][dim] may be rows, too */
        if (is_stack(claim) && slot->rows.n_stacked < 2 && naming->is_users)
            return rp_fail(naming->err, RP_ERR_MISMATCH, set->path, -1,
                           "%s is to be read as %s: expected shape (entries, positions, dim)",
                           slot->file_name, claim->rule->target);
        if (is_stack(claim) && slot->rows.n_stacked < 2)
            claim->rule = NULL;
        if (claim->rule && claim->rule->kind == RP_NAME_SLOT)
            rp_name_target(claim->rule, claim->l, claim->target);
    }
    return RP_OK;
}

/* ---- families: the slots of one rule ---- */

struct family {
    size_t n;
    int first, last; /* numbers */
    const char *first_name, *last_name;
};

static struct family find_family(const struct naming *naming, const struct rp_name_rule *rule)
{
    struct family family = {.n = 0};
    for (size_t i = 0; i < naming->set->n_slots; i++) {
        const struct claim *claim = &naming->claims[i];
        if (claim->rule != rule)
            continue;
        if (family.n == 0 || claim->l < family.first) {
            family.first = claim->l;
            family.first_name = naming->set->slots[i].file_name;
        }
        if (family.n == 0 || claim->l > family.last) {
            family.last = claim->l;
            family.last_name = naming->set->slots[i].file_name;
        }
        family.n++;
    }
    return family;
}

static void hidden_state_name(int entry, int last, char *out)
{
    rp_slot_name(entry == 0      ? RP_PART_EMB
                 : entry == last ? RP_PART_POST_NORM
                                 : RP_PART_OUTPUT,
                 entry - 1, out);
}

static void declare_layers(struct rp_tensor_set *set, int n_layers)
{
    set->is_hidden_states = true;
    if (set->n_layers < 0)
        set->n_layers = n_layers;
}

/* transformers' entries are the embeddings, each layer's output but the last, and post_norm: which is which
 * is known where all are there. */
static enum rp_status name_hidden_states(struct naming *naming, const struct rp_name_rule *rule,
                                         const struct family *family)
{
    if (family->first != 0 || family->last < 1 || family->n != (size_t)family->last + 1)
        return rp_fail(naming->err, RP_ERR_MISMATCH, naming->set->path, -1,
                       "%s to %s are %zu tensors: as transformers' hidden_states, which are emb, "
                       "h0, h1 ... and "
                       "post_norm, entries 0 to %d are expected; or are they the layers' outputs, "
                       "h%d to h%d? " HOW_TO_SAY ": \"%s h{l}\"",
                       family->first_name, family->last_name, family->n, family->last,
                       family->first, family->last, rule->name);
    for (size_t i = 0; i < naming->set->n_slots; i++)
        if (naming->claims[i].rule == rule)
            hidden_state_name(naming->claims[i].l, family->last, naming->claims[i].target);
    declare_layers(naming->set, family->last);
    return RP_OK;
}

static enum rp_status check_counted(const struct naming *naming, const struct rp_name_rule *rule,
                                    const struct family *family)
{
    const char *number = strstr(rule->name, "{l}");
    if (!rule->is_counted || family->first == 0 || !number)
        return RP_OK;
    const int before = (int)(number - rule->name);
    return rp_fail(naming->err, RP_ERR_MISMATCH, naming->set->path, -1,
                   "%s is h%d where layers count from 1, h%d where they count from 0, and there is "
                   "no layer 0: " HOW_TO_SAY ": \"%.*s{l+1}%s h{l}\" or \"%s h{l}\"",
                   family->first_name, family->first - 1, family->first, before, rule->name,
                   number + 3, rule->name);
}

static enum rp_status name_families(struct naming *naming, struct rp_names *names)
{
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < names->n && status == RP_OK; i++) {
        const struct rp_name_rule *rule = &names->rules[i];
        const struct family family = find_family(naming, rule);
        if (family.n == 0)
            continue;
        status = rule->kind == RP_NAME_HIDDEN_STATE ? name_hidden_states(naming, rule, &family)
                                                    : check_counted(naming, rule, &family);
    }
    return status;
}

/* ---- stacks ---- */

static enum rp_status add_entry(struct naming *naming, size_t of, size_t entry, size_t n,
                                struct rp_error *err)
{
    struct rp_tensor_set *set = naming->set;
    struct rp_slot *added;
    char name[RP_FILE_NAME_SIZE + 32];
    const struct claim *claim = &naming->claims[of];
    if (claim->rule->kind == RP_NAME_STACK)
        rp_name_target(claim->rule, (int)entry, name);
    else
        hidden_state_name((int)entry, (int)n - 1, name);
    const enum rp_status status = rp_set_add_slot(set, name, strlen(name), &added, err);
    if (status != RP_OK)
        return status;
    const struct rp_slot *stack = &set->slots[of];
    snprintf(name, sizeof name, "%.240s[%zu]", stack->file_name, entry);
    memcpy(added->file_name, name, RP_FILE_NAME_SIZE - 1);
    added->rows = stack->rows;
    added->rows.first = entry * stack->rows.stack_stride;
    added->data_offset = stack->data_offset;
    added->member = stack->member;
    added->tensor = stack->tensor;
    added->map = stack->map;
    added->map_size = stack->map_size;
    added->is_borrowed = true;
    added->info.n_positions = stack->rows.n;
    added->info.dim = stack->rows.dim;
    return RP_OK;
}

/* Slots of stack number of, added behind the others, with claims of their own. */
static enum rp_status unstack(struct naming *naming, size_t of)
{
    struct rp_tensor_set *set = naming->set;
    const size_t n = set->slots[of].rows.n_stacked, n_before = set->n_slots;
    enum rp_status status = RP_OK;
    if (n > RP_SET_MAX_SLOTS - n_before)
        return rp_fail(naming->err, RP_ERR_UNSUPPORTED, set->path, -1,
                       "%s: expected at most %d entries, found %zu", set->slots[of].file_name,
                       RP_SET_MAX_SLOTS, n);
    struct claim *grown = realloc(naming->claims, (n_before + n) * sizeof *grown);
    if (!grown)
        return rp_fail(naming->err, RP_ERR_MEMORY, set->path, -1, "cannot allocate %zu names", n);
    naming->claims = grown;
    for (size_t i = 0; i < n && status == RP_OK; i++) {
        status = add_entry(naming, of, i, n, naming->err);
        if (status != RP_OK)
            break;
        struct claim *claim = &naming->claims[n_before + i];
        *claim = (struct claim){.rule = naming->claims[of].rule, .l = (int)i};
        memcpy(claim->target, set->slots[n_before + i].info.name, sizeof claim->target);
        set->slots[n_before + i].info.name[0] = '\0'; /* until it is clear that the name is free */
    }
    if (naming->claims[of].rule->kind == RP_NAME_HIDDEN_STATES)
        declare_layers(set, (int)n - 1);
    return status;
}

static enum rp_status unstack_all(struct naming *naming)
{
    enum rp_status status = RP_OK;
    const size_t n = naming->set->n_slots;
    for (size_t i = 0; i < n && status == RP_OK; i++)
        if (is_stack(&naming->claims[i]))
            status = unstack(naming, i);
    return status;
}

/* ---- two names for one slot ---- */

struct named {
    const char *name;
    size_t slot;
};

static int by_name(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    const int order = strcmp(x->name, y->name);
    return order ? order : (x->slot > y->slot) - (x->slot < y->slot);
}

static bool hold_same_values(struct rp_tensor_set *set, const struct rp_slot *a,
                             const struct rp_slot *b)
{
    struct rp_tensor x = {.data = NULL}, y = {.data = NULL};
    const bool same = a->info.n_positions == b->info.n_positions && a->info.dim == b->info.dim &&
                      rp_set_load_slot(set, a, &x, NULL) == RP_OK &&
                      rp_set_load_slot(set, b, &y, NULL) == RP_OK &&
                      memcmp(x.data, y.data, x.n_positions * x.dim * sizeof(float)) == 0;
    rp_tensor_release(&x);
    rp_tensor_release(&y);
    return same;
}

/* Both are to be called name; which of them has the name in the file comes first. */
static enum rp_status settle(struct naming *naming, const char *name, size_t a, size_t b)
{
    struct rp_tensor_set *set = naming->set;
    struct claim *of_a = &naming->claims[a], *of_b = &naming->claims[b];
    if (!of_b->rule) {
        struct claim *other = of_a;
        of_a = of_b;
        of_b = other;
    }
    if (hold_same_values(set, &set->slots[a], &set->slots[b])) {
        of_b->is_dropped = true;
        return rp_set_note(set, naming->err, "%s and %s hold the same values: one is read as %s",
                           set->slots[a].file_name, set->slots[b].file_name, name);
    }
    const bool is_hidden_state = of_b->rule && (of_b->rule->kind == RP_NAME_HIDDEN_STATE ||
                                                of_b->rule->kind == RP_NAME_HIDDEN_STATES);
    if (!of_a->rule && !naming->is_users && !is_hidden_state) {
        of_b->rule = NULL; /* the slot is there under its own name: the other is no slot */
        of_b->target[0] = '\0';
        return RP_OK;
    }
    return rp_fail(naming->err, RP_ERR_MISMATCH, set->path, -1,
                   "%s and %s are both read as %s, and hold other values: " HOW_TO_SAY
                   " which one it is: \"%s %s\", \"%s -\"",
                   set->slots[a].file_name, set->slots[b].file_name, name, set->slots[a].file_name,
                   name, set->slots[b].file_name);
}

static enum rp_status settle_all(struct naming *naming)
{
    const struct rp_tensor_set *set = naming->set;
    enum rp_status status = RP_OK;
    size_t n = 0, kept = 0; /* kept: the last of that name which is not dropped */
    struct named *all = malloc((set->n_slots + 1) * sizeof *all);
    if (!all)
        return rp_fail(naming->err, RP_ERR_MEMORY, set->path, -1, "cannot allocate names");
    for (size_t i = 0; i < set->n_slots; i++) {
        const struct claim *claim = &naming->claims[i];
        const char *name = claim->target[0] ? claim->target
                           : claim->rule    ? ""
                                            : set->slots[i].info.name;
        if (name[0])
            all[n++] = (struct named){name, i};
    }
    qsort(all, n, sizeof *all, by_name);
    for (size_t i = 1; i < n && status == RP_OK; i++) {
        if (strcmp(all[i].name, all[kept].name) != 0) {
            kept = i;
            continue;
        }
        status = settle(naming, all[i].name, all[kept].slot, all[i].slot);
        if (naming->claims[all[kept].slot].is_dropped || !all[kept].name[0])
            kept = i;
    }
    free(all);
    return status;
}

/* ---- notes, and the new names ---- */

struct numbered {
    int l;
    const struct claim *claim;
    const char *file_name;
};

static int by_number(const void *a, const void *b)
{
    const struct numbered *x = a, *y = b;
    return (x->l > y->l) - (x->l < y->l);
}

/* How many of slots[n], by number, follow each other as layers of one slot. */
static size_t count_run(const struct numbered *slots, size_t n)
{
    int first_layer, layer;
    const enum rp_slot_part part = rp_slot_parse(slots[0].claim->target, &first_layer);
    size_t run = 1;
    while (first_layer >= 0 && run < n && rp_slot_parse(slots[run].claim->target, &layer) == part &&
           layer == first_layer + (int)run)
        run++;
    return run;
}

static enum rp_status note_run(const struct naming *naming, const struct numbered *slots,
                               size_t run)
{
    const struct claim *first = slots[0].claim;
    const bool is_normed = first->l > 0 && strcmp(first->target, "post_norm") == 0;
    if (first->rule->kind == RP_NAME_LEFT_OUT)
        return rp_set_note(naming->set, naming->err, "%s is left out", slots[0].file_name);
    if (run == 1)
        return rp_set_note(
            naming->set, naming->err, "%s is read as %s%s", slots[0].file_name, first->target,
            is_normed ? ": transformers' last hidden state is taken after the final norm" : "");
    return rp_set_note(naming->set, naming->err, "%s to %s are read as %s to %s",
                       slots[0].file_name, slots[run - 1].file_name, first->target,
                       slots[run - 1].claim->target);
}

/* Layers that follow each other are one sentence. slots: room for those of one rule. */
static enum rp_status note_rule(const struct naming *naming, const struct rp_name_rule *rule,
                                struct numbered *slots)
{
    enum rp_status status = RP_OK;
    size_t n = 0;
    for (size_t i = 0; i < naming->set->n_slots; i++) {
        const struct claim *claim = &naming->claims[i];
        if (claim->rule == rule && !claim->is_dropped &&
            (claim->target[0] || rule->kind == RP_NAME_LEFT_OUT))
            slots[n++] = (struct numbered){claim->l, claim, naming->set->slots[i].file_name};
    }
    qsort(slots, n, sizeof *slots, by_number);
    for (size_t i = 0, run; i < n && status == RP_OK; i += run) {
        run = count_run(slots + i, n - i);
        status = note_run(naming, slots + i, run);
    }
    return status;
}

static enum rp_status note_all(const struct naming *naming, const struct rp_names *names)
{
    enum rp_status status = RP_OK;
    struct numbered *slots = malloc((naming->set->n_slots + 1) * sizeof *slots);
    if (!slots)
        return rp_fail(naming->err, RP_ERR_MEMORY, naming->set->path, -1, "cannot allocate names");
    for (size_t i = 0; i < names->n && status == RP_OK; i++)
        status = note_rule(naming, &names->rules[i], slots);
    free(slots);
    return status;
}

static enum rp_status add_other(struct rp_tensor_set *set, const char *name, struct rp_error *err)
{
    char **grown = realloc(set->others, (set->n_others + 1) * sizeof *grown);
    if (grown)
        set->others = grown;
    if (!grown || !(grown[set->n_others] = strdup(name)))
        return rp_fail(err, RP_ERR_MEMORY, set->path, -1, "cannot allocate a name");
    set->n_others++;
    return RP_OK;
}

/* Its map may be borrowed by others: it stays until the set is closed. */
static enum rp_status drop_slot(struct rp_tensor_set *set, const struct rp_slot *slot,
                                struct rp_error *err)
{
    free(slot->own_positions);
    if (!slot->map || slot->is_borrowed)
        return RP_OK;
    struct rp_orphan *grown = realloc(set->orphans, (set->n_orphans + 1) * sizeof *grown);
    if (!grown)
        return rp_fail(err, RP_ERR_MEMORY, set->path, -1, "cannot allocate a map");
    set->orphans = grown;
    grown[set->n_orphans++] = (struct rp_orphan){slot->map, slot->map_size};
    return RP_OK;
}

static void rename_slot(struct rp_slot *slot, const struct claim *claim)
{
    memcpy(slot->info.name, claim->target, sizeof slot->info.name);
    if (!is_stack(claim)) /* an entry's rows are those of a stack, which is no error */
        return;
    memset(&slot->info.error, 0, sizeof slot->info.error);
    slot->info.error.offset = -1;
}

/* Keeps the slots that have a name. */
static enum rp_status rename_all(struct naming *naming)
{
    struct rp_tensor_set *set = naming->set;
    enum rp_status status = RP_OK;
    size_t n_kept = 0;
    for (size_t i = 0; i < set->n_slots; i++) {
        struct rp_slot slot = set->slots[i];
        const struct claim *claim = &naming->claims[i];
        const bool is_gone = claim->is_dropped || (claim->rule && !claim->target[0]);
        if (claim->rule && !is_gone)
            rename_slot(&slot, claim);
        if (!is_gone && slot.info.name[0]) {
            set->slots[n_kept++] = slot;
            continue;
        }
        enum rp_status dropped = is_gone ? RP_OK : add_other(set, slot.file_name, naming->err);
        if (dropped == RP_OK)
            dropped = drop_slot(set, &slot, naming->err);
        status = status == RP_OK ? dropped : status;
    }
    set->n_slots = n_kept;
    return status;
}

static int by_file_name(const void *a, const void *b)
{
    return strcmp(((const struct rp_slot *)a)->file_name, ((const struct rp_slot *)b)->file_name);
}

enum rp_status rp_set_names_apply(struct rp_tensor_set *set, struct rp_error *err)
{
    struct naming naming = {.set = set, .is_users = set->options.names != NULL, .err = err};
    struct rp_names *names = set->options.names, *common = NULL;
    enum rp_status status = RP_OK;
    if (!names && set->options.with_aliases && !set->manifest) {
        status = rp_names_common(&common, err);
        names = common;
    }
    if (names && set->n_slots > 0) /* a folder is listed in any order */
        qsort(set->slots, set->n_slots, sizeof *set->slots, by_file_name);
    naming.claims = calloc(set->n_slots + 1, sizeof *naming.claims);
    if (status == RP_OK && !naming.claims)
        status = rp_fail(err, RP_ERR_MEMORY, set->path, -1, "cannot allocate names");
    if (status == RP_OK && names) {
        status = find_claims(&naming, names);
        if (status == RP_OK)
            status = name_families(&naming, names);
        if (status == RP_OK)
            status = unstack_all(&naming);
        if (status == RP_OK)
            status = settle_all(&naming);
        if (status == RP_OK)
            status = note_all(&naming, names);
    }
    if (status == RP_OK)
        status = rename_all(&naming);
    rp_names_free(common);
    free(naming.claims);
    return status;
}
