/* See replay/forced.h. */
#include "replay/forced.h"

#include <stdlib.h>
#include <string.h>

#include "refparity/metrics.h"

void rp_dumped_open(struct rp_dumped *dumped, struct rp_tensor_set *set, enum rp_slot_part part,
                    int layer)
{
    *dumped = (struct rp_dumped){.err = {.code = RP_OK}};
    rp_slot_name(part, layer, dumped->slot);
    dumped->info = rp_tensor_set_find(set, dumped->slot);
    if (!dumped->info)
        return;
    dumped->err = dumped->info->error;
    if (dumped->err.code == RP_OK)
        rp_tensor_load(set, dumped->slot, &dumped->tensor, &dumped->err);
    if (dumped->err.code != RP_OK)
        dumped->tensor = (struct rp_tensor){.data = NULL};
}

void rp_dumped_close(struct rp_dumped *dumped)
{
    rp_tensor_release(&dumped->tensor);
    dumped->info = NULL;
}

const void *rp_dumped_row(const struct rp_dumped *dumped, int64_t position)
{
    const struct rp_tensor *tensor = &dumped->tensor;
    size_t low = 0, high = tensor->n_positions;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (tensor->positions[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == tensor->n_positions || tensor->positions[low] != position)
        return NULL;
    return (const unsigned char *)tensor->data + low * tensor->dim * sizeof(float);
}

bool rp_dumped_is_finite(const struct rp_dumped *dumped, int64_t position)
{
    const void *row = rp_dumped_row(dumped, position);
    return row && rp_metrics_count_nonfinite(row, dumped->tensor.dim) == 0;
}

/* ---- what is known ---- */

/* The next position after the given one that any of the layer's slots has; -1: none. */
static int64_t next_position(const struct rp_forced *forced, int64_t after)
{
    int64_t next = -1;
    for (size_t k = 0; k <= RP_N_FORCED_PARTS; k++) {
        const struct rp_tensor *tensor =
            k < RP_N_FORCED_PARTS ? &forced->parts[k].tensor : &forced->before.tensor;
        size_t low = 0, high = tensor->n_positions;
        while (low < high) {
            const size_t middle = low + (high - low) / 2;
            if (tensor->positions[middle] <= after)
                low = middle + 1;
            else
                high = middle;
        }
        if (low < tensor->n_positions && (next < 0 || tensor->positions[low] < next))
            next = tensor->positions[low];
    }
    return next;
}

static enum rp_status collect_positions(struct rp_forced *forced, size_t max_rows,
                                        struct rp_error *err)
{
    size_t capacity = 0;
    for (size_t k = 0; k < RP_N_FORCED_PARTS; k++)
        capacity += forced->parts[k].tensor.n_positions;
    capacity += forced->before.tensor.n_positions;
    forced->positions = calloc(capacity + 1, sizeof *forced->positions);
    if (!forced->positions)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", capacity);
    for (int64_t at = next_position(forced, -1); at >= 0; at = next_position(forced, at)) {
        if (max_rows > 0 && forced->n == max_rows)
            break;
        forced->positions[forced->n++] = at;
    }
    return RP_OK;
}

/* The engine's row where it has one, else whether what was computed for it was founded. */
static unsigned char known_after(const struct rp_forced *forced, enum rp_slot_part part, size_t i)
{
    const struct rp_dumped *dumped = &forced->parts[rp_forced_index(part)];
    if (rp_dumped_row(dumped, forced->positions[i]))
        return rp_dumped_is_finite(dumped, forced->positions[i]);
    return forced->founded[rp_forced_index(part)][i];
}

/* Sets row i of input; false where the engine's input is not known. */
static bool set_input(struct rp_forced *forced, size_t i)
{
    const int64_t position = forced->positions[i];
    const struct rp_dumped *in = &forced->parts[0];
    const void *row = rp_dumped_row(in, position);
    const bool is_in = row != NULL;
    if (!is_in)
        row = rp_dumped_row(&forced->before, position);
    if (!row || !rp_dumped_is_finite(is_in ? in : &forced->before, position))
        return false;
    memcpy(forced->input + i * forced->dim, row, forced->dim * sizeof(float));
    return true;
}

static void find_founded(struct rp_forced *forced, int64_t first_position)
{
    unsigned char **founded = forced->founded;
    bool is_prefix = first_position >= 0;
    for (size_t i = 0; i < forced->n; i++) {
        const int64_t position = forced->positions[i];
        const bool is_known = set_input(forced, i);
        if (is_prefix && (position != first_position + (int64_t)i || !is_known)) {
            is_prefix = false;
            forced->gap_is_invalid = position == first_position + (int64_t)i &&
                                     (rp_dumped_row(&forced->parts[0], position) ||
                                      rp_dumped_row(&forced->before, position));
            forced->gap = first_position + (int64_t)i;
        }
        forced->n_prefix += is_prefix;
        founded[0][i] = rp_dumped_is_finite(&forced->before, position);
        founded[1][i] = is_prefix;
        founded[2][i] = known_after(forced, RP_PART_POSTATTN, i);
        founded[3][i] = known_after(forced, RP_PART_PREFFN, i);
        founded[4][i] =
            known_after(forced, RP_PART_POSTATTN, i) && known_after(forced, RP_PART_FFNOUT, i);
    }
}

enum rp_status rp_forced_open(struct rp_forced *forced, const struct rp_model *model,
                              struct rp_tensor_set *dump, size_t layer, int64_t first_position,
                              size_t max_rows, struct rp_error *err)
{
    *forced = (struct rp_forced){
        .model = model, .layer = layer, .dim = rp_model_config(model)->hidden_size, .gap = -1};
    if (layer == 0)
        rp_dumped_open(&forced->before, dump, RP_PART_EMB, -1);
    else
        rp_dumped_open(&forced->before, dump, RP_PART_OUTPUT, (int)layer - 1);
    for (size_t k = 0; k < RP_N_FORCED_PARTS; k++)
        rp_dumped_open(&forced->parts[k], dump, rp_forced_part(k), (int)layer);
    enum rp_status status = collect_positions(forced, max_rows, err);
    if (status != RP_OK)
        return status;
    if (forced->n > SIZE_MAX / sizeof(float) / forced->dim)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", forced->n);
    forced->input = calloc(forced->n * forced->dim + 1, sizeof *forced->input);
    bool has_memory = forced->input != NULL;
    for (size_t k = 0; k < RP_N_FORCED_PARTS; k++) {
        forced->founded[k] = calloc(forced->n + 1, 1);
        has_memory &= forced->founded[k] != NULL;
    }
    if (!has_memory)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", forced->n);
    find_founded(forced, first_position);
    return RP_OK;
}

void rp_forced_close(struct rp_forced *forced)
{
    rp_dumped_close(&forced->before);
    for (size_t k = 0; k < RP_N_FORCED_PARTS; k++) {
        rp_dumped_close(&forced->parts[k]);
        free(forced->founded[k]);
    }
    free(forced->positions);
    free(forced->input);
    *forced = (struct rp_forced){.model = NULL};
}

const char *rp_forced_from(const struct rp_forced *forced, enum rp_slot_part part)
{
    for (int k = (int)rp_forced_index(part) - 1; k >= 0; k--) {
        if (forced->parts[k].tensor.n_positions > 0)
            return forced->parts[k].slot;
    }
    return forced->before.slot;
}

/* ---- the run ---- */

struct forcing {
    const struct rp_forced *forced;
    const struct rp_forced_run *run;
};

static enum rp_status force(void *context, const struct rp_tap *tap, struct rp_error *err)
{
    (void)err;
    const struct forcing *forcing = context;
    const struct rp_forced *forced = forcing->forced;
    const struct rp_forced_run *run = forcing->run;
    const size_t k = rp_forced_index(tap->part), dim = forced->dim;
    if (rp_forced_part(k) != tap->part)
        return RP_OK;
    for (size_t i = 0; i < forced->n; i++) {
        float *row = tap->rows + i * dim;
        const void *handed = row;
        if (tap->part == RP_PART_IN && forced->founded[0][i])
            handed = rp_dumped_row(&forced->before, forced->positions[i]);
        if (run->computed[k])
            memcpy(run->computed[k] + i * dim, handed, dim * sizeof *row);
        if (run->distance[k])
            run->distance[k][i] = rp_metrics_row(run->against[k] + i * dim, handed, dim).l2_rel;
        if (rp_dumped_is_finite(&forced->parts[k], forced->positions[i]))
            memcpy(row, rp_dumped_row(&forced->parts[k], forced->positions[i]), dim * sizeof *row);
    }
    return RP_OK;
}

enum rp_status rp_forced_forward(const struct rp_forced *forced, const struct rp_forced_run *run,
                                 struct rp_error *err)
{
    struct forcing forcing = {.forced = forced, .run = run};
    const struct rp_forward forward = {.model = forced->model,
                                       .ops = run->ops,
                                       .mode = run->mode,
                                       .tap = force,
                                       .tap_context = &forcing};
    struct rp_layer_state *state = NULL;
    const size_t n_values = forced->n * forced->dim;
    if (forced->n == 0)
        return RP_OK;
    float *hidden = calloc(n_values, sizeof *hidden);
    if (!hidden)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", forced->n);
    memcpy(hidden, forced->input, n_values * sizeof *hidden);
    enum rp_status status =
        rp_layer_state_open(forced->model, forced->layer, forced->n, &state, err);
    if (status == RP_OK)
        status = rp_layer_forward(&forward, forced->layer, run->weights, state, forced->n,
                                  forced->positions, hidden, err);
    rp_layer_state_close(state);
    free(hidden);
    return status;
}
