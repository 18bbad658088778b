/* See weights/cause_order.h. */
#include "weights/cause_order.h"

#include <stdio.h>
#include <stdlib.h>

#include "weights/gguf_internal.h"

#define BLOCK 32

struct order {
    const size_t *map; /* NULL: pairs */
    bool is_inverse;
    size_t head_dim, n_rot; /* of pairs: i and i + n_rot / 2 to 2i and 2i + 1 */
};

/* Where number i comes from. n: of the map. */
static size_t ordered(const struct order *order, size_t n, size_t i)
{
    if (order->map && !order->is_inverse)
        return order->map[i];
    if (order->map) {
        for (size_t k = 0; k < n; k++)
            if (order->map[k] == i)
                return k;
        return i;
    }
    const size_t half = order->n_rot / 2, at = i % order->head_dim, head = i - at;
    if (at >= order->n_rot)
        return i;
    if (order->is_inverse)
        return head + (at < half ? 2 * at : 2 * (at - half) + 1);
    return head + at / 2 + (at % 2 ? half : 0);
}

static enum rp_status make_reordered_row(struct rp_cause_search *search, const void *candidate,
                                         size_t sample)
{
    const size_t from = ordered(candidate, search->expected->n_rows, search->indices[sample]);
    return rp_cause_take_row(search, search->expected, from);
}

static enum rp_status make_reordered_columns(struct rp_cause_search *search, const void *candidate,
                                             size_t sample)
{
    const size_t width = search->expected->dims[0];
    const struct order *order = candidate;
    if (search
            ->is_sketched) { /* in the checkpoint's own order they are where its products have them */
        enum rp_status status =
            rp_cause_take_row(search, search->expected, search->indices[sample]);
        if (order->is_inverse)
            search->place.columns = NULL;
        return status;
    }
    for (size_t c = 0; c < width; c++)
        search->made[c] = search->wanted[sample * width + ordered(order, width, c)];
    return RP_OK;
}

enum rp_status rp_try_own_order(struct rp_cause_search *search)
{
    const struct rp_gguf_origin *origin = &search->origin;
    const size_t *map = origin->rows ? origin->rows : origin->columns;
    const char *what = origin->rows ? "rows" : search->expected->n_rows > 1 ? "columns" : "values";
    rp_make_row_fn *make = origin->rows ? make_reordered_row : make_reordered_columns;
    bool holds = false;
    enum rp_status status = RP_OK;
    for (unsigned twice = 0; twice < 2 && map && status == RP_OK; twice++) {
        const struct order order = {.map = map, .is_inverse = !twice};
        status = rp_cause_check(search, make, &order, &holds);
        if (!holds)
            continue;
        if (twice)
            rp_cause_say(search, "its %s are reordered twice: a converter does it once (%s)", what,
                         origin->order);
        else
            rp_cause_say(
                search,
                "its %s are in the checkpoint's own order: the converter's reordering (%s) was "
                "not applied",
                what, origin->order);
        break;
    }
    return status;
}

static size_t setting(const struct rp_cause_search *search, const char *name)
{
    char key[128];
    int64_t value = 0;
    struct rp_gguf_string architecture;
    if (rp_gguf_get_string(search->checkpoint, "general.architecture", &architecture, NULL) !=
        RP_OK)
        return 0;
    snprintf(key, sizeof key, "%.*s.%s", (int)architecture.length, architecture.data, name);
    (void)rp_gguf_get_int(search->checkpoint, key, 1, 1 << 24, &value, NULL);
    return (size_t)value;
}

enum rp_status rp_try_pairs(struct rp_cause_search *search)
{
    struct order order = {.head_dim = setting(search, "attention.key_length"),
                          .n_rot = setting(search, "rope.dimension_count")};
    bool holds = false;
    enum rp_status status = RP_OK;
    if (search->origin.rows || order.head_dim == 0 || order.n_rot == 0 ||
        search->expected->n_rows % order.head_dim != 0)
        return RP_OK;
    for (unsigned inverse = 0; inverse < 2 && status == RP_OK && !holds; inverse++) {
        order.is_inverse = inverse;
        status = rp_cause_check(search, make_reordered_row, &order, &holds);
    }
    if (holds)
        rp_cause_say(
            search,
            "its rows are permuted as Llama's Q and K are, %s: this tensor's have to stay as "
            "they are",
            order.is_inverse ? "backwards" : "the two values of a rotated pair side by side");
    return status;
}

/* Values of a block of 32: those of a byte's halves side by side, where the type has them 16 apart, or the halves
 * exchanged. */
enum packing { NEIGHBOURS, SPREAD, HALVES_EXCHANGED, N_PACKINGS };

static enum rp_status make_nibbles(struct rp_cause_search *search, const void *candidate,
                                   size_t sample)
{
    const size_t width = search->expected->dims[0];
    const enum packing packing = *(const enum packing *)candidate;
    for (size_t c = 0; c < width; c++) {
        const size_t at = c % BLOCK, half = BLOCK / 2;
        const size_t from = packing == NEIGHBOURS ? at % half * 2 + at / half
                            : packing == SPREAD   ? at / 2 + at % 2 * half
                                                  : (at + half) % BLOCK;
        search->made[c] = search->wanted[sample * width + c - at + from];
    }
    return RP_OK;
}

enum rp_status rp_try_nibbles(struct rp_cause_search *search)
{
    bool holds = false;
    enum rp_status status = RP_OK;
    for (unsigned i = 0; i < N_PACKINGS && status == RP_OK && !holds; i++) {
        const enum packing packing = i;
        if (search->expected->dims[0] % BLOCK != 0)
            break;
        status = rp_cause_check(search, make_nibbles, &packing, &holds);
        if (holds)
            rp_cause_say(
                search, "the values of each block of 32 are packed in another order: %s",
                packing == HALVES_EXCHANGED
                    ? "the low half of a byte is the earlier value, the high half the later"
                    : "the low and the high halves of its bytes are values 16 apart, not "
                      "neighbours");
    }
    return status;
}

/* The transposed matrix's values in a row, read in the tensor's own shape. */
static enum rp_status make_transposed(struct rp_cause_search *search, const void *candidate,
                                      size_t sample)
{
    const size_t width = search->expected->dims[0], n_rows = search->expected->n_rows;
    const float *all = candidate; /* [n_rows][width] */
    for (size_t c = 0; c < width; c++) {
        const size_t i = search->indices[sample] * width + c;
        search->made[c] = all[i % n_rows * width + i / n_rows];
    }
    return RP_OK;
}

enum rp_status rp_try_transposed(struct rp_cause_search *search)
{
    const size_t width = search->expected->dims[0], n_rows = search->expected->n_rows;
    bool holds = false;
    if (width < 2 || n_rows < 2 || (double)width * (double)n_rows > RP_CAUSE_MAX_VALUES)
        return RP_OK;
    float *all = calloc(n_rows * width, sizeof *all);
    if (!all)
        return rp_fail(search->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows", n_rows);
    enum rp_status status =
        rp_gguf_rows(search->checkpoint, search->expected, 0, n_rows, all, search->err);
    if (status == RP_OK)
        status = rp_cause_check(search, make_transposed, all, &holds);
    if (holds)
        rp_cause_say(search, "it is transposed");
    free(all);
    return status;
}

/* ---- other rows ---- */

static enum rp_status make_same_row(struct rp_cause_search *search, const void *candidate,
                                    size_t sample)
{
    return rp_cause_take_row(search, candidate, search->indices[sample]);
}

enum rp_status rp_try_other_tensors(struct rp_cause_search *search)
{
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < rp_gguf_n_tensors(search->checkpoint) && status == RP_OK; i++) {
        const struct rp_gguf_tensor *other = rp_gguf_tensor(search->checkpoint, i);
        bool holds = false;
        if (other == search->expected || other->dims[0] != search->expected->dims[0] ||
            other->n_rows != search->expected->n_rows ||
            rp_cause_is_sketched(search, other) != search->is_sketched)
            continue;
        status = rp_cause_check(search, make_same_row, other, &holds);
        if (holds) {
            rp_cause_say(search, "it is another tensor: what %s has to be (checkpoint: %s)",
                         other->name, rp_gguf_origin(search->checkpoint, other).name);
            break;
        }
    }
    return status;
}

enum rp_status rp_try_other_rows(struct rp_cause_search *search)
{
    const size_t n_rows = search->expected->n_rows, width = search->expected->dims[0];
    size_t found[RP_MAX_FAILING_SAMPLES] = {0}, n_found = 0;
    bool has[RP_MAX_FAILING_SAMPLES] = {false};
    enum rp_status status = RP_OK;
    if (n_rows < 2 || (double)n_rows * (double)width > RP_CAUSE_MAX_VALUES)
        return RP_OK;
    for (size_t r = 0; r < n_rows && n_found < search->n_samples && status == RP_OK; r++) {
        status = rp_cause_take_row(search, search->expected, r);
        for (size_t i = 0; i < search->n_samples && status == RP_OK; i++) {
            bool is_same = false;
            if (!has[i])
                status = rp_cause_compare_row(search, i, &is_same);
            if (!is_same)
                continue;
            has[i] = true;
            found[i] = r;
            n_found++;
        }
    }
    if (status != RP_OK || n_found < search->n_samples || n_found == 0)
        return status;
    if (n_found == 1)
        rp_cause_say(search, "row %zu is the checkpoint's row %zu", search->indices[0], found[0]);
    else
        rp_cause_say(
            search,
            "its rows are the checkpoint's in another order: row %zu is row %zu, row %zu is row "
            "%zu",
            search->indices[0], found[0], search->indices[n_found - 1], found[n_found - 1]);
    return status;
}
