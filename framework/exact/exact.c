/* See exact.h. */
#include "exact/exact.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exact/limits.h"
#include "refparity/dump.h"
#include "refparity/metrics.h"
#include "refparity/tensor_set.h"

static int is_wanted(const struct rp_exact_spec *spec, int64_t position)
{
    size_t low = 0, high = spec->n_positions;
    if (!spec->positions)
        return 1;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (spec->positions[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low < spec->n_positions && spec->positions[low] == position;
}

/* *ids [n_tokens] is freed by the caller. The model checks them against its vocabulary. */
static enum rp_status convert_tokens(const struct rp_exact_spec *spec, int32_t **ids,
                                     struct rp_error *err)
{
    *ids = calloc(spec->n_tokens ? spec->n_tokens : 1, sizeof **ids);
    if (!*ids)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu tokens", spec->n_tokens);
    for (size_t i = 0; i < spec->n_tokens; i++) {
        if (spec->tokens[i] < 0 || spec->tokens[i] > INT32_MAX)
            return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "token %zu is %lld, which is no id", i,
                           (long long)spec->tokens[i]);
        (*ids)[i] = (int32_t)spec->tokens[i];
    }
    return RP_OK;
}

static enum rp_status run_model(const struct rp_model *model, const struct rp_exact_spec *spec,
                                const struct rp_numerics *numerics, const int32_t *ids,
                                rp_tap_fn *tap, void *context, struct rp_error *err)
{
    struct rp_emulation emulation;
    rp_emulation_open(&emulation, numerics, NULL);
    const struct rp_run run = {.ops = &emulation.overlay.ops,
                               .tokens = ids,
                               .n_tokens = spec->n_tokens,
                               .mode = RP_MODE_BATCHED,
                               .tap = tap,
                               .tap_context = context};
    return rp_model_run(model, &run, err);
}

/* ---- as declared ---- */

struct writer {
    const struct rp_exact_spec *spec;
    struct rp_dump *dump;
};

static enum rp_status write_failed(const struct writer *writer, struct rp_error *err)
{
    const char *why = rp_dump_error(writer->dump);
    return rp_fail(err, RP_ERR_IO, NULL, -1, "%s", why ? why : "cannot write");
}

static enum rp_status write_rows(void *context, const struct rp_tap *tap, struct rp_error *err)
{
    const struct writer *writer = context;
    if (!rp_slot_level_has(RP_SLOTS_LAYERS, tap->part))
        return RP_OK;
    for (size_t i = 0; i < tap->n_positions; i++) {
        if (is_wanted(writer->spec, tap->positions[i]) &&
            rp_dump_rows(writer->dump, tap->slot, tap->positions[i], 1, tap->dim,
                         tap->rows + i * tap->dim))
            return write_failed(writer, err);
    }
    return RP_OK;
}

static enum rp_status write_dump(const struct rp_model *model, const struct rp_exact_spec *spec,
                                 const int32_t *ids, const char *folder, struct rp_error *err)
{
    struct writer writer = {.spec = spec};
    enum rp_status status = RP_OK;
    writer.dump = rp_dump_open(folder, (int)rp_model_config(model)->n_layers, "refparity exact");
    if (!writer.dump)
        return rp_fail(err, RP_ERR_MEMORY, folder, -1, "cannot open a dump");
    if (rp_dump_tokens(writer.dump, ids, spec->n_tokens))
        status = write_failed(&writer, err);
    if (!status)
        status = run_model(model, spec, &spec->numerics, ids, write_rows, &writer, err);
    if (!status && rp_dump_finish(writer.dump))
        status = write_failed(&writer, err);
    (void)rp_dump_close(writer.dump);
    return status;
}

/* ---- once more, with nothing rounded ---- */

struct roundings {
    struct rp_tensor_set *rounded; /* what write_dump wrote */
    struct rp_rounding *list;      /* [n] */
    size_t n, capacity;
};

static enum rp_status add_slot(struct roundings *roundings, const char *slot, struct rp_error *err)
{
    if (roundings->n > 0 && strcmp(roundings->list[roundings->n - 1].slot, slot) == 0)
        return RP_OK; /* its next chunk */
    if (roundings->n == roundings->capacity) {
        const size_t capacity = roundings->capacity ? 2 * roundings->capacity : 64;
        void *grown = realloc(roundings->list, capacity * sizeof *roundings->list);
        if (!grown)
            return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu slots", capacity);
        roundings->list = grown;
        roundings->capacity = capacity;
    }
    struct rp_rounding *added = &roundings->list[roundings->n++];
    memset(added, 0, sizeof *added);
    snprintf(added->slot, sizeof added->slot, "%s", slot);
    return RP_OK;
}

static enum rp_status compare_rows(void *context, const struct rp_tap *tap, struct rp_error *err)
{
    struct roundings *roundings = context;
    struct rp_tensor rounded = {0};
    if (!rp_slot_level_has(RP_SLOTS_LAYERS, tap->part))
        return RP_OK;
    enum rp_status status = rp_tensor_load(roundings->rounded, tap->slot, &rounded, err);
    if (!status)
        status = add_slot(roundings, tap->slot, err);
    for (size_t i = 0, row = 0; !status && i < tap->n_positions; i++) {
        while (row < rounded.n_positions && rounded.positions[row] < tap->positions[i])
            row++;
        if (row == rounded.n_positions || rounded.positions[row] != tap->positions[i])
            continue;
        struct rp_rounding *here = &roundings->list[roundings->n - 1];
        const struct rp_metrics m =
            rp_metrics_row((const char *)rounded.data + row * rounded.dim * sizeof(float),
                           tap->rows + i * tap->dim, tap->dim);
        if (m.l2_rel > here->l2_rel)
            here->l2_rel = m.l2_rel;
    }
    rp_tensor_release(&rounded);
    return status;
}

static enum rp_status measure_rounding(const struct rp_model *model,
                                       const struct rp_exact_spec *spec, const int32_t *ids,
                                       const char *folder, struct rp_error *err)
{
    const struct rp_numerics nothing = {.activations = RP_ACTIVATIONS_F32};
    struct roundings roundings = {.n = 0};
    if (rp_numerics_are_plain(&spec->numerics))
        return RP_OK;
    enum rp_status status = rp_tensor_set_open(folder, RP_LAYOUT_NPY, 0, &roundings.rounded, err);
    if (!status)
        status = run_model(model, spec, &nothing, ids, compare_rows, &roundings, err);
    if (!status)
        status = rp_exact_rounding_write(folder, roundings.list, roundings.n, err);
    rp_tensor_set_close(roundings.rounded);
    free(roundings.list);
    return status;
}

enum rp_status rp_exact_compute(const struct rp_exact_spec *spec, const char *folder,
                                struct rp_error *err)
{
    struct rp_model *model = NULL;
    int32_t *ids = NULL;
    if (spec->positions && spec->n_positions &&
        spec->positions[spec->n_positions - 1] >= (int64_t)spec->n_tokens)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1,
                       "position %lld is past the prompt of %zu tokens",
                       (long long)spec->positions[spec->n_positions - 1], spec->n_tokens);
    enum rp_status status = convert_tokens(spec, &ids, err);
    if (!status)
        status = rp_model_open(spec->gguf, &model, err);
    if (!status)
        status = write_dump(model, spec, ids, folder, err);
    if (!status)
        status = measure_rounding(model, spec, ids, folder, err);
    rp_model_close(model);
    free(ids);
    return status;
}
