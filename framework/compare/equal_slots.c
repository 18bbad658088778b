/* See equal_slots.h. */
#include "compare/equal_slots.h"

#include <stdio.h>
#include <string.h>

#include "compare/dump_damage.h"
#include "compare/damage_rows.h"
#include "refparity/metrics.h"

static const void *row_of(const struct rp_tensor *tensor, size_t row)
{
    return (const char *)tensor->data + row * tensor->dim * sizeof(float);
}

/* Walks the positions that both hold; false where there is none, or differs() of one is true. */
static bool all_rows(const struct rp_tensor *a, const struct rp_tensor *b,
                     bool (*differs)(const void *a, const void *b, size_t dim))
{
    size_t n = 0;
    for (size_t i = 0, j = 0; i < a->n_positions && j < b->n_positions;) {
        if (a->positions[i] < b->positions[j]) {
            i++;
        } else if (a->positions[i] > b->positions[j]) {
            j++;
        } else if (differs(row_of(a, i++), row_of(b, j++), a->dim)) {
            return false;
        } else {
            n++;
        }
    }
    return n > 0;
}

static bool have_other_bytes(const void *a, const void *b, size_t dim)
{
    return memcmp(a, b, dim * sizeof(float)) != 0;
}

static bool are_far(const void *a, const void *b, size_t dim)
{
    return !(rp_metrics_row(a, b, dim).l2_rel < RP_DAMAGE_NEAR);
}

/* differs() of no row of slot a of set x and slot b of set y. */
static bool hold_same(struct rp_tensor_set *x, const char *a, struct rp_tensor_set *y,
                      const char *b, bool (*differs)(const void *a, const void *b, size_t dim))
{
    const struct rp_slot_info *info_a = rp_tensor_set_find(x, a);
    const struct rp_slot_info *info_b = rp_tensor_set_find(y, b);
    struct rp_tensor tensor_a = {.data = NULL}, tensor_b = {.data = NULL};
    if (!info_a || !info_b || info_a->dim != info_b->dim || info_a->dim < RP_DAMAGE_MIN_VALUES)
        return false;
    const bool same = !rp_tensor_load(x, a, &tensor_a, NULL) &&
                      !rp_tensor_load(y, b, &tensor_b, NULL) &&
                      all_rows(&tensor_a, &tensor_b, differs);
    rp_tensor_release(&tensor_a);
    rp_tensor_release(&tensor_b);
    return same;
}

bool rp_slots_are_equal(struct rp_tensor_set *set, const char *a, const char *b)
{
    return hold_same(set, a, set, b, have_other_bytes);
}

#define SAY(result, ...) snprintf((result)->message, sizeof(result)->message, __VA_ARGS__)

/* Slot is the last layer's output: is the reference's the normed one? */
static bool is_reference_normed(const struct rp_comparison *c, const struct rp_slot_result *result)
{
    static const char norm[] = "post_norm";
    if (rp_tensor_set_find(c->reference, norm))
        return rp_slots_are_equal(c->reference, result->slot, norm);
    return result->verdict == RP_FAIL && result->worst.metrics.l2_rel > 4 * RP_DAMAGE_NEAR &&
           hold_same(c->reference, result->slot, c->engine, norm, are_far);
}

/* True where the verdict is found. */
static bool examine_last_layer(const struct rp_comparison *c, struct rp_slot_result *result,
                               rp_compare_one_fn *other)
{
    struct rp_slot_result norm;
    if (is_reference_normed(c, result)) {
        result->verdict = RP_ERROR;
        result->fixture_is_damaged = !c->reference_is_dump;
        SAY(result,
            "%s of the %s holds post_norm: transformers' hidden_states[-1] is taken after the "
            "final "
            "norm; record the last layer's own output, with a hook on that layer",
            result->slot, c->reference_is_dump ? "dump that is the reference" : "reference");
        return true;
    }
    if (!rp_slots_are_equal(c->engine, result->slot, "post_norm"))
        return false;
    other(c, "post_norm", &norm); /* an engine without a final norm has equal bytes, too */
    if (norm.verdict != RP_FAIL) {
        result->verdict = RP_ERROR;
        SAY(result,
            "the dump is damaged: %s and post_norm hold the same bytes; dump %s before the final "
            "norm",
            result->slot, result->slot);
    }
    return result->verdict == RP_ERROR;
}

void rp_examine_equal_slots(const struct rp_comparison *comparison, struct rp_slot_result *result,
                            rp_compare_one_fn *other)
{
    const struct rp_comparison *c = comparison;
    char name[RP_SLOT_NAME_SIZE], names[256] = "";
    int layer;
    if (result->verdict == RP_ERROR || !rp_tensor_set_find(c->engine, result->slot))
        return;
    if (rp_slot_parse(result->slot, &layer) == RP_PART_OUTPUT && layer == c->n_layers - 1 &&
        examine_last_layer(c, result, other))
        return;
    if (result->verdict == RP_FAIL)
        return;
    for (size_t i = 0; rp_required_slot(c->n_layers, i, name); i++) {
        struct rp_slot_result there;
        const size_t used = strlen(names);
        if (strcmp(name, result->slot) == 0 || !rp_slots_are_equal(c->engine, result->slot, name) ||
            rp_slots_are_equal(c->reference, result->slot, name))
            continue;
        other(c, name, &there);
        if (there.verdict != RP_FAIL && used + RP_SLOT_NAME_SIZE < sizeof names)
            snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", name);
    }
    if (!names[0])
        return;
    result->verdict = RP_ERROR;
    SAY(result,
        "the dump is damaged: %s holds the same bytes as %s; was one buffer written for several "
        "slots?",
        result->slot, names);
}
