/* See explain/probe.h. */
#include "explain/probe.h"

#include <stdlib.h>
#include <string.h>

#include "explain/slices.h"

size_t rp_row_of(const int64_t *positions, size_t n, int64_t position)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (positions[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && positions[low] == position ? low : n;
}

bool rp_place_has(const struct rp_place *place, int64_t position)
{
    switch (place->kind) {
    case RP_PLACE_ALL: break;
    case RP_PLACE_ONLY: return position == place->position;
    case RP_PLACE_FROM: return position >= place->position;
    case RP_PLACE_LISTED:
        return rp_row_of(place->listed, place->n_listed, position) < place->n_listed;
    }
    return true;
}

static bool has_head(const struct rp_place *place, enum rp_heads heads, size_t head)
{
    size_t first = heads == RP_HEADS_Q ? place->first_q : place->first_kv;
    size_t n = heads == RP_HEADS_Q ? place->n_q : place->n_kv;
    return head >= first && head - first < n;
}

/* What the heads of an operation held at one time. */
struct snapshot {
    float *data[RP_MAX_HEAD_VIEWS]; /* [n_rows][n_heads][width], without gaps */
};

static void copy_view(const struct rp_head_view *view, float *packed, bool to_packed)
{
    size_t width = view->n_heads * view->width;
    for (size_t row = 0; row < view->n_rows; row++) {
        if (to_packed)
            memcpy(packed + row * width, view->data + row * view->stride, width * sizeof *packed);
        else
            memcpy(view->data + row * view->stride, packed + row * width, width * sizeof *packed);
    }
}

static enum rp_status snapshot_take(const struct rp_head_view *views, size_t n_views,
                                    struct snapshot *snapshot, struct rp_error *err)
{
    for (size_t i = 0; i < n_views; i++) {
        size_t n = views[i].n_rows * views[i].n_heads * views[i].width;
        snapshot->data[i] = malloc((n + 1) * sizeof *snapshot->data[i]);
        if (!snapshot->data[i])
            return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu values", n);
        copy_view(&views[i], snapshot->data[i], true);
    }
    return RP_OK;
}

static void snapshot_put_back(const struct rp_head_view *views, size_t n_views,
                              const struct snapshot *snapshot)
{
    for (size_t i = 0; i < n_views; i++)
        copy_view(&views[i], snapshot->data[i], false);
}

static void snapshot_free(struct snapshot *snapshot)
{
    for (size_t i = 0; i < RP_MAX_HEAD_VIEWS; i++)
        free(snapshot->data[i]);
}

/* Heads outside the place get back what the plain operation had written. */
static void keep_other_heads(const struct rp_place *place, const struct rp_head_view *views,
                             size_t n_views, const struct snapshot *plain)
{
    for (size_t i = 0; i < n_views; i++) {
        const struct rp_head_view *view = &views[i];
        for (size_t row = 0; row < view->n_rows; row++) {
            for (size_t head = 0; head < view->n_heads; head++) {
                size_t at = head * view->width;
                if (!has_head(place, view->heads, head))
                    memcpy(view->data + row * view->stride + at,
                           plain->data[i] + row * view->n_heads * view->width + at,
                           view->width * sizeof *view->data);
            }
        }
    }
}

/* How many positions from first on are on the same side of the place as first. */
static size_t run_length(const struct rp_place *place, const struct rp_site *site, size_t first)
{
    bool is_open = rp_place_has(place, site->positions[first]);
    size_t n = 1;
    while (first + n < site->n_positions &&
           rp_place_has(place, site->positions[first + n]) == is_open)
        n++;
    return n;
}

static enum rp_status out_of_memory(const struct rp_site *site)
{
    return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions",
                   site->n_positions);
}

/* Transforms the rows where the place is, then notes them. */
static enum rp_status finish_slot(struct rp_probe *probe, const struct rp_site *site, size_t dim,
                                  float *rows)
{
    struct rp_change *change = &probe->change;
    enum rp_status status = RP_OK;
    if (change->transform) {
        size_t size = site->n_positions * dim * sizeof *rows;
        float *plain = malloc(size + 1);
        if (!plain)
            return out_of_memory(site);
        memcpy(plain, rows, size);
        status = change->transform(change, site, dim, rows);
        for (size_t i = 0; i < site->n_positions; i++) {
            if (!rp_place_has(&probe->place, site->positions[i]))
                memcpy(rows + i * dim, plain + i * dim, dim * sizeof *rows);
        }
        free(plain);
    }
    for (size_t i = 0; i < site->n_positions && probe->rows; i++) {
        size_t row = rp_row_of(probe->positions, probe->n_rows, site->positions[i]);
        if (row == probe->n_rows)
            continue;
        memcpy(probe->rows + row * dim, rows + i * dim, dim * sizeof *rows);
        probe->is_noted[row] = true;
    }
    return status;
}

/* The slot that an operation completes; RP_PART_OTHER: none. */
static enum rp_slot_part norm_part(enum rp_weight_id which)
{
    return which == RP_FFN_NORM      ? RP_PART_PREFFN
           : which == RP_OUTPUT_NORM ? RP_PART_POST_NORM
                                     : RP_PART_OTHER;
}

static enum rp_slot_part add_part(enum rp_weight_id which)
{
    return which == RP_FFN_DOWN ? RP_PART_OUTPUT : RP_PART_POSTATTN;
}

/* clang-format off */
#define PROBE(operation)                                                                        \
    static enum rp_status run_heads_##operation(                                                \
        struct rp_probe *probe, const struct rp_site *site, const struct rp_##operation *args)  \
    {                                                                                           \
        const struct rp_ops *below = probe->overlay.below;                                      \
        struct rp_ops *changed = &probe->change.overlay.ops;                                    \
        struct rp_head_view views[RP_MAX_HEAD_VIEWS];                                           \
        struct snapshot before = {{NULL, NULL}}, plain = {{NULL, NULL}};                        \
        size_t n_views = rp_heads_of_##operation(args, site, views);                            \
        enum rp_status status;                                                                  \
        if (n_views == 0)                                                                       \
            return below->operation(below->context, site, args);                                \
        status = snapshot_take(views, n_views, &before, site->err);                             \
        if (status == RP_OK)                                                                    \
            status = below->operation(below->context, site, args);                              \
        if (status == RP_OK)                                                                    \
            status = snapshot_take(views, n_views, &plain, site->err);                          \
        if (status == RP_OK) {                                                                  \
            snapshot_put_back(views, n_views, &before);                                         \
            status = changed->operation(changed->context, site, args);                          \
        }                                                                                       \
        if (status == RP_OK)                                                                    \
            keep_other_heads(&probe->place, views, n_views, &plain);                             \
        snapshot_free(&before);                                                                 \
        snapshot_free(&plain);                                                                  \
        return status;                                                                          \
    }                                                                                           \
    static enum rp_status run_##operation(struct rp_probe *probe, const struct rp_site *site,   \
                                          const struct rp_##operation *args)                    \
    {                                                                                           \
        const struct rp_ops *below = probe->overlay.below;                                      \
        struct rp_ops *changed = &probe->change.overlay.ops;                                    \
        struct rp_overlay pristine;                                                             \
        enum rp_status status = RP_OK;                                                          \
        rp_overlay_open(&pristine, below);                                                      \
        probe->change.overlay.below = below;                                                    \
        if (changed->operation == pristine.ops.operation)                                       \
            return below->operation(below->context, site, args);                                \
        for (size_t first = 0, n; first < site->n_positions && status == RP_OK; first += n) {   \
            struct rp_site part = *site;                                                        \
            struct rp_##operation sliced;                                                       \
            n = run_length(&probe->place, site, first);                                          \
            sliced = rp_slice_##operation(args, site, first, n);                                \
            part.positions += first;                                                            \
            part.n_positions = n;                                                               \
            if (!rp_place_has(&probe->place, part.positions[0]))                              \
                status = below->operation(below->context, &part, &sliced);                      \
            else if (probe->place.by_head)                                                       \
                status = run_heads_##operation(probe, &part, &sliced);                          \
            else                                                                                \
                status = changed->operation(changed->context, &part, &sliced);                  \
        }                                                                                       \
        return status;                                                                          \
    }                                                                                           \
    static enum rp_status probe_##operation(void *context, const struct rp_site *site,          \
                                            const struct rp_##operation *args)                  \
    {                                                                                           \
        struct rp_probe *probe = context;                                                       \
        enum rp_status status = run_##operation(probe, site, args);                             \
        return status == RP_OK ? note_##operation(probe, site, args) : status;                  \
    }
/* clang-format on */

#define NOTES_NOTHING(operation)                                                               \
    static enum rp_status note_##operation(struct rp_probe *probe, const struct rp_site *site, \
                                           const struct rp_##operation *args)                  \
    {                                                                                          \
        (void)probe;                                                                           \
        (void)site;                                                                            \
        (void)args;                                                                            \
        return RP_OK;                                                                          \
    }

static enum rp_status note_rms_norm(struct rp_probe *probe, const struct rp_site *site,
                                    const struct rp_rms_norm *args)
{
    if (norm_part(args->which) != probe->part)
        return RP_OK;
    return finish_slot(probe, site, args->dim, args->y);
}

static enum rp_status note_linear(struct rp_probe *probe, const struct rp_site *site,
                                  const struct rp_linear *args)
{
    if (args->which != RP_FFN_DOWN || probe->part != RP_PART_FFNOUT)
        return RP_OK;
    return finish_slot(probe, site, args->n_out, args->y);
}

static enum rp_status note_residual_add(struct rp_probe *probe, const struct rp_site *site,
                                        const struct rp_residual_add *args)
{
    if (add_part(args->which) != probe->part)
        return RP_OK;
    return finish_slot(probe, site, args->dim, args->hidden);
}

NOTES_NOTHING(rope)
NOTES_NOTHING(kv_store)
NOTES_NOTHING(attention)
NOTES_NOTHING(split_gate)
NOTES_NOTHING(attention_gate)
NOTES_NOTHING(causal_conv1d)
NOTES_NOTHING(l2_norm)
NOTES_NOTHING(delta_decay)
NOTES_NOTHING(delta_beta)
NOTES_NOTHING(delta_rule)
NOTES_NOTHING(gated_norm)
NOTES_NOTHING(ffn_activation)

RP_OPERATIONS(PROBE)

#define INSTALL(operation) probe->overlay.ops.operation = probe_##operation;

void rp_probe_open(struct rp_probe *probe)
{
    *probe = (struct rp_probe){.part = RP_PART_OTHER};
    rp_overlay_open(&probe->overlay, NULL);
    rp_overlay_open(&probe->change.overlay, NULL);
    RP_OPERATIONS(INSTALL)
}
