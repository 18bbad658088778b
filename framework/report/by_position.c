/* See by_position.h. */
#include "report/by_position.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Which positions share a column. */
struct columns {
    const int64_t *positions; /* [n_positions] of the reference */
    size_t n_positions, n;
};

static size_t first_of(const struct columns *columns, size_t column)
{
    return column * columns->n_positions / columns->n;
}

/* Three digits are more than a colour shows. */
static cJSON *number_of(double value)
{
    char text[32];
    if (isnan(value))
        return cJSON_CreateString("nan");
    if (value < 0)
        return cJSON_CreateNull();
    snprintf(text, sizeof text, "%.3g", value);
    return cJSON_CreateNumber(strtod(text, NULL));
}

static double worse_of(double a, double b)
{
    return isnan(a) || isnan(b) ? (double)NAN : fmax(a, b);
}

/* The largest L2_rel of the column's positions that both have; -1: there are none. */
static double column_error(const struct columns *columns, size_t column,
                           const struct rp_tensor *reference, const struct rp_tensor *engine)
{
    const size_t end = first_of(columns, column + 1);
    double worst = -1;
    for (size_t i = first_of(columns, column); i < end; i++) {
        const void *of_reference = rp_tensor_row(reference, columns->positions[i]);
        const void *of_engine = rp_tensor_row(engine, columns->positions[i]);
        if (of_reference && of_engine)
            worst = worse_of(worst, rp_metrics_row(of_reference, of_engine, reference->dim).l2_rel);
    }
    return worst;
}

static void add_slot(cJSON *slots, const struct columns *columns, const struct rp_comparison *sets,
                     const char *name)
{
    struct rp_tensor reference = {.data = NULL}, engine = {.data = NULL};
    if (!rp_tensor_load(sets->reference, name, &reference, NULL) &&
        !rp_tensor_load(sets->engine, name, &engine, NULL) && reference.dim == engine.dim) {
        cJSON *slot = cJSON_CreateObject();
        cJSON_AddStringToObject(slot, "slot", name);
        cJSON *errors = cJSON_AddArrayToObject(slot, "l2_rel");
        for (size_t column = 0; column < columns->n; column++)
            cJSON_AddItemToArray(errors,
                                 number_of(column_error(columns, column, &reference, &engine)));
        cJSON_AddItemToArray(slots, slot);
    }
    rp_tensor_release(&reference);
    rp_tensor_release(&engine);
}

static void show_token(const struct rp_vocabulary *vocabulary, int64_t id, char *text, size_t size)
{
    char bytes[96];
    snprintf(text, size, "%lld", (long long)id);
    if (!vocabulary || id < 0 || (uint64_t)id >= vocabulary->n)
        return;
    const size_t n = rp_piece_bytes(vocabulary, &vocabulary->pieces[id], bytes, sizeof bytes);
    if (n <= sizeof bytes)
        rp_bytes_shown(bytes, n, text, size);
}

static void count_columns(struct columns *columns)
{
    columns->n =
        columns->n_positions < RP_REPORT_COLUMNS ? columns->n_positions : RP_REPORT_COLUMNS;
}

static void add_columns(cJSON *object, const struct columns *columns)
{
    cJSON *list = cJSON_AddArrayToObject(object, "columns");
    for (size_t column = 0; column < columns->n; column++) {
        const double ends[2] = {(double)columns->positions[first_of(columns, column)],
                                (double)columns->positions[first_of(columns, column + 1) - 1]};
        cJSON_AddItemToArray(list, cJSON_CreateDoubleArray(ends, 2));
    }
}

static void add_tokens(cJSON *object, const struct columns *columns,
                       const struct rp_comparison *sets, const struct rp_vocabulary *vocabulary)
{
    cJSON *names = cJSON_AddArrayToObject(object, "tokens");
    const int64_t *ids = NULL;
    size_t n_ids = 0;
    if (rp_tensor_set_tokens(sets->reference, &ids, &n_ids, NULL))
        n_ids = 0;
    for (size_t column = 0; column < columns->n; column++) {
        const int64_t first = columns->positions[first_of(columns, column)];
        char text[128] = "";
        if (first >= 0 && (uint64_t)first < n_ids)
            show_token(vocabulary, ids[first], text, sizeof text);
        cJSON_AddItemToArray(names, cJSON_CreateString(text));
    }
}

void rp_report_by_position(cJSON *comparison, const struct rp_comparison *sets,
                           const struct rp_pair_result *pair,
                           const struct rp_divergence *divergence,
                           const struct rp_vocabulary *vocabulary)
{
    const struct rp_slot_info *emb;
    if (!sets->reference || !sets->engine || pair->verdict == RP_SKIP ||
        !(emb = rp_tensor_set_find(sets->reference, "emb")) || emb->n_positions == 0)
        return;
    struct columns columns = {.positions = sets->n_positions ? sets->positions : emb->positions,
                              .n_positions =
                                  sets->n_positions ? sets->n_positions : emb->n_positions};
    count_columns(&columns);
    cJSON *object = cJSON_AddObjectToObject(comparison, "by_position");
    add_columns(object, &columns);
    add_tokens(object, &columns, sets, vocabulary);
    cJSON *slots = cJSON_AddArrayToObject(object, "slots");
    for (size_t i = 0; i < pair->n_slots; i++) {
        int layer;
        (void)rp_slot_parse(pair->slots[i].slot, &layer);
        const bool is_inner = divergence->slot[0] && layer >= 0 && layer == divergence->layer;
        if (pair->slots[i].n_compared > 0 && (pair->slots[i].required || is_inner))
            add_slot(slots, &columns, sets, pair->slots[i].slot);
    }
}

static size_t index_of(const struct rp_replay_slot *slot, int64_t position)
{
    size_t i = 0;
    while (i < slot->n_positions && slot->positions[i] < position)
        i++;
    return i < slot->n_positions && slot->positions[i] == position ? i : slot->n_positions;
}

static double column_introduced(const struct columns *columns, size_t column,
                                const struct rp_replay_slot *slot)
{
    const size_t end = first_of(columns, column + 1);
    double worst = -1;
    for (size_t i = first_of(columns, column); i < end; i++) {
        const size_t at = index_of(slot, columns->positions[i]);
        if (at < slot->n_positions)
            worst = worse_of(worst, slot->introduced[at]);
    }
    return worst;
}

void rp_report_replay_by_position(cJSON *object, const struct rp_replay_layer *layer)
{
    struct columns columns = {.n_positions = 0};
    for (size_t s = 0; s < layer->n_slots; s++) {
        if (layer->slots[s].n_positions <= columns.n_positions)
            continue;
        columns.positions = layer->slots[s].positions;
        columns.n_positions = layer->slots[s].n_positions;
    }
    count_columns(&columns);
    if (columns.n == 0)
        return;
    cJSON *by = cJSON_AddObjectToObject(object, "by_position");
    add_columns(by, &columns);
    cJSON *slots = cJSON_AddArrayToObject(by, "slots");
    for (size_t s = 0; s < layer->n_slots; s++) {
        cJSON *slot = cJSON_CreateObject();
        cJSON_AddStringToObject(slot, "slot", layer->slots[s].slot);
        cJSON *introduced = cJSON_AddArrayToObject(slot, "introduced");
        for (size_t column = 0; column < columns.n; column++)
            cJSON_AddItemToArray(introduced,
                                 number_of(column_introduced(&columns, column, &layer->slots[s])));
        cJSON_AddItemToArray(slots, slot);
    }
}
