/* See completeness.h. */
#include "run/completeness.h"

#include <stdio.h>

/* Positions that are expected: list[n], or 0 .. n-1 where list is NULL. */
struct expected {
    const int64_t *list;
    size_t n;
};

static int64_t expected_position(const struct expected *expected, size_t i)
{
    return expected->list ? expected->list[i] : (int64_t)i;
}

static bool find_expected(const struct rp_tensor_set *dump, const struct rp_entry *entry,
                          const struct rp_tensor_set *fixture, struct expected *expected)
{
    const int64_t *ids;
    const struct rp_slot_info *emb = rp_tensor_set_find(dump, "emb");
    *expected = (struct expected){entry->positions, entry->n_positions};
    if (entry->n_positions)
        return true;
    if (fixture && !rp_tensor_set_tokens(fixture, &ids, &expected->n, NULL) && expected->n > 0)
        return true;
    if (emb && !emb->error.code)
        *expected = (struct expected){emb->positions, emb->n_positions};
    return expected->n > 0;
}

static bool has_slot(const struct rp_tensor_set *dump, const char *name,
                     const struct expected *expected, size_t first, char *why, size_t size)
{
    const struct rp_slot_info *slot = rp_tensor_set_find(dump, name);
    if (!slot) {
        snprintf(why, size, "it has no %s", name);
        return false;
    }
    if (slot->error.code) {
        snprintf(why, size, "%s: %s", name, slot->error.message);
        return false;
    }
    size_t row = 0;
    for (size_t i = first; i < expected->n; i++) {
        const int64_t position = expected_position(expected, i);
        while (row < slot->n_positions && slot->positions[row] < position)
            row++;
        if (row == slot->n_positions || slot->positions[row] != position) {
            snprintf(why, size, "%s lacks position %lld", name, (long long)position);
            return false;
        }
    }
    return true;
}

bool rp_dump_is_complete(const struct rp_tensor_set *dump, const struct rp_entry *entry,
                         const struct rp_tensor_set *fixture, char *why, size_t size)
{
    struct expected expected;
    char name[RP_SLOT_NAME_SIZE];
    if (!rp_tensor_set_complete(dump)) {
        snprintf(why, size, "rp_dump_close was not reached");
        return false;
    }
    if (!find_expected(dump, entry, fixture, &expected)) {
        snprintf(why, size, "it has no emb");
        return false;
    }
    const size_t last = entry->n_positions ? 0 : expected.n - 1;
    for (size_t i = 0; rp_required_slot(entry->n_layers, i, name); i++) {
        const bool is_behind_attention = i >= (size_t)entry->n_layers; /* of the last layer */
        if (!has_slot(dump, name, &expected, is_behind_attention ? last : 0, why, size))
            return false;
    }
    return true;
}

bool rp_dump_lacks_positions(const struct rp_tensor_set *dump, int n_layers, size_t n_tokens,
                             char *why, size_t size)
{
    char name[RP_SLOT_NAME_SIZE];
    for (size_t i = 0; (int)i < n_layers && rp_required_slot(n_layers, i, name); i++) {
        const struct rp_slot_info *slot = rp_tensor_set_find(dump, name);
        if (!slot || slot->error.code || slot->n_positions == 0)
            continue;
        if (slot->n_positions == 1 && slot->positions[0] == 0) {
            snprintf(why, size,
                     "%s has position 0 alone, where RoPE, mask and cache change nothing", name);
            return true;
        }
        if (slot->n_positions < n_tokens) {
            snprintf(why, size, "%s has %zu of the prompt's %zu positions", name, slot->n_positions,
                     n_tokens);
            return true;
        }
    }
    return false;
}
