/* See scratch_sets_test_util.h. */
#include "compare/scratch_sets_test_util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"

#define REFPARITY_DUMP_IMPLEMENTATION
#include "refparity/dump.h"

static void check(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "scratch sets: %s\n", what);
        abort();
    }
}

static void change_rows(const struct rp_test_side *side, const char *slot, int n, float *rows)
{
    for (size_t c = 0; c < side->n_changes; c++) {
        const struct rp_test_change *change = &side->changes[c];
        if (strcmp(change->slot, slot) != 0)
            continue;
        for (int p = 0; p < n; p++) {
            if (change->position >= 0 && change->position != p + side->first_position)
                continue;
            for (int i = 0; i < RP_TEST_DIM; i++)
                rows[p * RP_TEST_DIM + i] *= change->factor != 0 ? change->factor : 1;
            if (change->zero)
                memset(rows + p * RP_TEST_DIM, 0, RP_TEST_DIM * sizeof *rows);
            else if (change->factor == 0)
                rows[p * RP_TEST_DIM + 4] = change->value;
        }
    }
}

static void write_slot(struct rp_dump *dump, const struct rp_test_side *side, const char *slot)
{
    float rows[RP_TEST_POSITIONS * 2 * RP_TEST_DIM];
    const int n = side->n_positions ? side->n_positions : RP_TEST_POSITIONS;
    if (side->without && strcmp(side->without, slot) == 0)
        return;
    for (int p = 0; p < n; p++)
        for (int i = 0; i < RP_TEST_DIM; i++)
            rows[p * RP_TEST_DIM + i] =
                (float)((p + side->first_position) * 31 + i * 7 % 11 + (int)strlen(slot)) - 15.5f;
    change_rows(side, slot, n, rows);
    check(rp_dump_rows(dump, slot, side->first_position, (size_t)n, RP_TEST_DIM, rows) == 0,
          rp_dump_error(dump));
}

static void write_tokens(struct rp_dump *dump, const struct rp_test_side *side)
{
    int32_t ids[2 * RP_TEST_POSITIONS];
    const int n = side->n_tokens > 0 ? side->n_tokens : RP_TEST_POSITIONS;
    if (side->n_tokens < 0)
        return;
    for (int i = 0; i < n; i++)
        ids[i] = 100 + i;
    if (side->last_token)
        ids[n - 1] = side->last_token;
    check(rp_dump_tokens(dump, ids, (size_t)n) == 0, rp_dump_error(dump));
}

static struct rp_tensor_set *write_side(const char *folder, const char *name,
                                        const struct rp_test_side *side)
{
    static const enum rp_slot_part parts[] = {RP_PART_IN, RP_PART_POSTATTN, RP_PART_PREFFN,
                                              RP_PART_FFNOUT, RP_PART_OUTPUT};
    char path[512], slot[RP_SLOT_NAME_SIZE];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    struct rp_dump *dump = rp_dump_open(path, RP_TEST_LAYERS, "test");
    write_tokens(dump, side);
    write_slot(dump, side, "emb");
    for (int l = 0; l < RP_TEST_LAYERS; l++)
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
            if (side->with_inner_slots || parts[i] == RP_PART_OUTPUT)
                write_slot(dump, side, rp_slot_name(parts[i], l, slot));
    write_slot(dump, side, "post_norm");
    write_slot(dump, side, "logits");
    check(rp_dump_close(dump) == 0, "rp_dump_close");
    struct rp_tensor_set *set;
    struct rp_error err;
    check(rp_tensor_set_open(path, RP_LAYOUT_NPY, 0, &set, &err) == RP_OK, path);
    return set;
}

void rp_test_sets_open(struct rp_test_sets *sets, const struct rp_test_side *reference,
                       const struct rp_test_side *engine)
{
    memset(sets, 0, sizeof *sets);
    rp_test_make_folder(sets->folder);
    sets->comparison.reference = write_side(sets->folder, "reference", reference);
    sets->comparison.engine = write_side(sets->folder, "engine", engine);
    sets->comparison.limits = rp_limits_default();
    sets->comparison.n_layers = RP_TEST_LAYERS;
}

void rp_test_sets_close(struct rp_test_sets *sets)
{
    rp_tensor_set_close(sets->comparison.reference);
    rp_tensor_set_close(sets->comparison.engine);
    check(rp_remove_tree(sets->folder, NULL) == RP_OK, "cannot remove the scratch folder");
}
