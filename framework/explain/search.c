/* See explain/search.h: the slot's rows, and the trials. The fit of a parameter is in fit.c. */
#include "explain/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_FLOOR 1e-9 /* against a division by zero; floors are at least a few u */
/* A match may have a floor of its own, as sharper softmax amplifies rounding; but not any. */
#define MAX_FLOOR_GROWTH 10.0
#define NEARLY_ALL 0.98 /* of the energy: what is left may be rounding flips */
/* Numerics that round bring a floor of their own: so much of the error, at most. */
#define MAX_FLOOR_SHARE (1.0 / 30)
/* What remains after a match at RP_REPLAY_LIMIT is about 1 in RP_REPLAY_LIMIT^2 of the energy;
 * twice that is allowed. */
#define MIN_SHARE (1.0 - 2.0 / (RP_REPLAY_LIMIT * RP_REPLAY_LIMIT))

static enum rp_status out_of_memory(const struct rp_search *search, struct rp_error *err)
{
    return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows of %zu values", search->n,
                   search->dim);
}

static unsigned stage_of(enum rp_slot_part part)
{
    switch (part) {
    case RP_PART_EMB: return RP_STAGE_EMB;
    case RP_PART_IN: return RP_STAGE_INPUT;
    case RP_PART_POSTATTN: return RP_STAGE_ATTENTION;
    case RP_PART_PREFFN: return RP_STAGE_FFN_NORM;
    case RP_PART_FFNOUT: return RP_STAGE_FFN;
    case RP_PART_OUTPUT: return RP_STAGE_FFN_ADD;
    case RP_PART_POST_NORM: return RP_STAGE_POST_NORM;
    case RP_PART_LOGITS: return RP_STAGE_LOGITS;
    default: break;
    }
    return 0;
}

/* The slot's own stage, and those of the layer's slots between slot->from and it. */
static unsigned stages_to(const struct rp_replay_slot *slot)
{
    unsigned stages = stage_of(slot->part);
    int from_layer;
    enum rp_slot_part from = rp_slot_parse(slot->from, &from_layer);
    if (slot->part <= RP_PART_IN || slot->part > RP_PART_OUTPUT)
        return stages;
    if (from_layer != slot->layer || from < RP_PART_IN || from > RP_PART_OUTPUT)
        from = RP_PART_IN;
    for (int part = (int)from + 1; part < (int)slot->part; part++)
        stages |= stage_of((enum rp_slot_part)part);
    return stages;
}

static double norm_of(const float *row, size_t dim)
{
    double sum = 0;
    for (size_t i = 0; i < dim; i++)
        sum += (double)row[i] * (double)row[i];
    return sqrt(sum);
}

/* ||a - b||^2 */
static double distance2(const float *a, const float *b, size_t dim)
{
    double sum = 0;
    for (size_t i = 0; i < dim; i++) {
        double difference = (double)a[i] - (double)b[i];
        sum += difference * difference;
    }
    return sum;
}

static enum rp_status allocate(struct rp_search *search, struct rp_error *err)
{
    size_t n = search->n + 1;
    search->rows = calloc(n, (search->dim + 1) * sizeof *search->rows);
    search->is_noted = calloc(n, sizeof *search->is_noted);
    search->is_failing = calloc(n, sizeof *search->is_failing);
    search->limit = calloc(n, sizeof *search->limit);
    search->failing = calloc(n, sizeof *search->failing);
    if (!search->rows || !search->is_noted || !search->is_failing || !search->limit ||
        !search->failing)
        return out_of_memory(search, err);
    return RP_OK;
}

enum rp_status rp_search_open(struct rp_search *search, struct rp_replay *replay,
                              const struct rp_replay_layer *result, struct rp_error *err)
{
    const struct rp_replay_slot *slot = result->first_failing;
    *search = (struct rp_search){.replay = replay,
                                 .config = rp_model_config(rp_replay_model(replay)),
                                 .result = result,
                                 .slot = slot,
                                 .layer = result->layer < 0 ? 0 : (size_t)result->layer,
                                 .runs = result->layer >= 0 && slot->part != RP_PART_IN,
                                 .stages = stages_to(slot),
                                 .other_layer = -1,
                                 .n = slot->n_positions};
    search->kind = search->config->layer_kinds[search->layer];
    enum rp_status status = rp_replay_rows(replay, search->layer, slot, &search->computed,
                                           &search->dumped, &search->dim, err);
    if (status == RP_OK)
        status = allocate(search, err);
    if (status == RP_OK && search->runs)
        status = rp_layer_load(rp_replay_model(replay), search->layer, &search->weights, err);
    for (size_t row = 0; row < search->n && status == RP_OK; row++) {
        search->limit[row] = RP_REPLAY_LIMIT * fmax(slot->floor[row], LEAST_FLOOR);
        search->is_failing[row] = !(slot->introduced[row] <= search->limit[row]);
        if (search->is_failing[row])
            search->failing[search->n_failing++] = slot->positions[row];
    }
    if (search->n_failing)
        search->first = rp_row_of(slot->positions, search->n, search->failing[0]);
    return status;
}

void rp_search_close(struct rp_search *search)
{
    rp_layer_free(&search->weights);
    rp_layer_free(&search->other_weights);
    for (size_t i = 0; i < search->n_slots; i++)
        free(search->slots[i]);
    free(search->slots);
    free(search->candidates);
    free(search->failing);
    free(search->limit);
    free(search->is_failing);
    free(search->is_noted);
    free(search->rows);
    free(search->computed);
    free(search->dumped);
    *search = (struct rp_search){.replay = NULL};
}

enum rp_status rp_search_add(struct rp_search *search, const struct rp_candidate *candidate,
                             struct rp_error *err)
{
    if (!(candidate->stages & search->stages))
        return RP_OK;
    if (search->n_candidates == search->candidates_capacity) {
        size_t capacity = 2 * search->candidates_capacity + 64;
        struct rp_candidate *more = realloc(search->candidates, capacity * sizeof *more);
        if (!more)
            return out_of_memory(search, err);
        search->candidates = more;
        search->candidates_capacity = capacity;
    }
    search->candidates[search->n_candidates++] = *candidate;
    return RP_OK;
}

/* Row i is of position positions[i]; false where one of them is missing. */
static bool gather_rows(const struct rp_search *search, const struct rp_tensor *tensor, float *out)
{
    for (size_t i = 0; i < search->n; i++) {
        size_t row = rp_row_of(tensor->positions, tensor->n_positions, search->slot->positions[i]);
        if (row == tensor->n_positions)
            return false;
        memcpy(out + i * search->dim,
               (const unsigned char *)tensor->data + row * search->dim * sizeof *out,
               search->dim * sizeof *out);
    }
    return true;
}

enum rp_status rp_search_new_rows(struct rp_search *search, float **rows, struct rp_error *err)
{
    float **more = realloc(search->slots, (search->n_slots + 1) * sizeof *more);
    if (!more)
        return out_of_memory(search, err);
    search->slots = more;
    *rows = calloc(search->n * search->dim + 1, sizeof **rows);
    if (!*rows)
        return out_of_memory(search, err);
    search->slots[search->n_slots++] = *rows;
    return RP_OK;
}

enum rp_status rp_search_slot_rows(struct rp_search *search, const char *slot, const float **rows,
                                   struct rp_error *err)
{
    struct rp_tensor_set *dump = rp_replay_dump(search->replay);
    const struct rp_slot_info *info = rp_tensor_set_find(dump, slot);
    struct rp_tensor tensor;
    float *copy = NULL;
    *rows = NULL;
    if (!info || info->error.code != RP_OK || info->dim != search->dim)
        return RP_OK;
    if (rp_tensor_load(dump, slot, &tensor, NULL) != RP_OK)
        return RP_OK; /* replay has reported it */
    enum rp_status status = rp_search_new_rows(search, &copy, err);
    if (status == RP_OK && gather_rows(search, &tensor, copy))
        *rows = copy;
    rp_tensor_release(&tensor);
    return status;
}

enum rp_status rp_search_base(struct rp_search *search, const float **rows, struct rp_error *err)
{
    char name[RP_SLOT_NAME_SIZE];
    int layer = search->result->layer;
    enum rp_status status = RP_OK;
    *rows = NULL;
    if (search->slot->part == RP_PART_OUTPUT) {
        status =
            rp_search_slot_rows(search, rp_slot_name(RP_PART_POSTATTN, layer, name), rows, err);
        if (status != RP_OK || *rows)
            return status;
    } else if (search->slot->part != RP_PART_POSTATTN) {
        return RP_OK;
    }
    status = rp_search_slot_rows(search, rp_slot_name(RP_PART_IN, layer, name), rows, err);
    if (status == RP_OK && !*rows) {
        rp_slot_name(layer > 0 ? RP_PART_OUTPUT : RP_PART_EMB, layer > 0 ? layer - 1 : -1, name);
        status = rp_search_slot_rows(search, name, rows, err);
    }
    return status;
}

/* Fills what the candidate's functions read. */
static enum rp_status set_up(struct rp_search *search, const struct rp_candidate *candidate,
                             struct rp_change *change, struct rp_error *err)
{
    change->transform = candidate->transform;
    change->value = candidate->value;
    change->option = candidate->option;
    change->which = candidate->which;
    change->other = candidate->other;
    change->rows = candidate->rows;
    change->more_rows = candidate->more_rows;
    change->positions = search->slot->positions;
    change->n_rows = search->n;
    change->weights = &search->weights;
    if (candidate->install)
        candidate->install(&change->overlay.ops);
    if (candidate->from_layer < 0)
        return RP_OK;
    if (candidate->from_layer != search->other_layer) {
        rp_layer_free(&search->other_weights);
        search->other_layer = -1;
        enum rp_status status =
            rp_layer_load(rp_replay_model(search->replay), (size_t)candidate->from_layer,
                          &search->other_weights, err);
        if (status != RP_OK)
            return status;
        search->other_layer = candidate->from_layer;
    }
    change->weights = &search->other_weights;
    return RP_OK;
}

/* How many rows of the dump lead to the slot's row `last`. */
static size_t dump_rows(const struct rp_search *search, size_t last)
{
    const struct rp_slot_info *info =
        rp_tensor_set_find(rp_replay_dump(search->replay), search->slot->from);
    int64_t position = search->slot->positions[last];
    size_t n = 0;
    if (!info || last + 1 == search->n)
        return 0;
    while (n < info->n_positions && info->positions[n] <= position)
        n++;
    return n;
}

/* A closed form, on what was computed; nothing is run. */
static enum rp_status transform_rows(struct rp_search *search, struct rp_probe *probe,
                                     struct rp_error *err)
{
    struct rp_site site = {.config = search->config,
                           .layer = search->result->layer,
                           .n_positions = search->n,
                           .positions = search->slot->positions,
                           .err = err};
    memcpy(search->rows, search->computed, search->n * search->dim * sizeof *search->rows);
    enum rp_status status =
        probe->change.transform(&probe->change, &site, search->dim, search->rows);
    for (size_t row = 0; row < search->n; row++) {
        search->is_noted[row] = true;
        if (!rp_place_has(&probe->place, search->slot->positions[row]))
            memcpy(search->rows + row * search->dim, search->computed + row * search->dim,
                   search->dim * sizeof *search->rows);
    }
    return status;
}

static void judge_rows(const struct rp_search *search, size_t last, struct rp_trial *trial)
{
    double before = 0, after = 0, cost = 0;
    size_t n = 0;
    trial->n_over = 0;
    trial->first_is_under = false;
    for (size_t row = 0; row <= last && row < search->n; row++) {
        const float *tried = search->rows + row * search->dim;
        const float *dumped = search->dumped + row * search->dim;
        const float *computed = search->computed + row * search->dim;
        double left = distance2(dumped, tried, search->dim);
        double error = search->is_noted[row] ? sqrt(left) / norm_of(tried, search->dim) : HUGE_VAL;
        bool is_under = error <= search->limit[row];
        double scaled = isfinite(error) ? error / search->limit[row] : 1e12;
        n++;
        cost += log1p(scaled * scaled);
        trial->n_over += !is_under;
        if (row == search->first)
            trial->first_is_under = is_under;
        double norm = norm_of(computed, search->dim), scale = norm > 0 ? 1 / (norm * norm) : 1;
        before += scale * distance2(dumped, computed, search->dim);
        after += isfinite(left) ? scale * left : HUGE_VAL;
    }
    trial->cost = n ? cost / (double)n : HUGE_VAL;
    trial->share = before > 0 && after < before ? 1 - after / before : 0;
}

enum rp_status rp_search_try(struct rp_search *search, const struct rp_candidate *candidate,
                             const struct rp_place *place, size_t last, struct rp_trial *trial,
                             struct rp_error *err)
{
    struct rp_probe probe;
    struct rp_replay_layer result = {.n_slots = 0};
    bool is_run = candidate->install || !candidate->transform;
    size_t last_run = candidate->sees_later || !is_run ? search->n - 1 : last;
    enum rp_status status;
    *trial = (struct rp_trial){.candidate = *candidate, .place = *place, .chi2 = HUGE_VAL};
    rp_probe_open(&probe);
    probe.place = *place;
    status = set_up(search, candidate, &probe.change, err);
    memset(search->is_noted, 0, search->n * sizeof *search->is_noted);
    if (status != RP_OK)
        return status;
    if (!is_run) {
        status = transform_rows(search, &probe, err);
    } else {
        struct rp_replay_variant variant = {.overlay = &probe.overlay,
                                            .weights = &search->weights,
                                            .numerics = candidate->numerics,
                                            .n_positions = dump_rows(search, last_run)};
        probe.part = search->slot->part;
        probe.positions = search->slot->positions;
        probe.n_rows = search->n;
        probe.rows = search->rows;
        probe.is_noted = search->is_noted;
        status = rp_replay_run_variant(search->replay, search->layer, &variant, search->result,
                                       &result, err);
        rp_replay_layer_free(&result);
    }
    judge_rows(search, last_run, trial);
    return status;
}

/* A closed form on a slot that no layer computes: judged as it is. */
static void confirm_rows(struct rp_search *search, struct rp_trial *trial)
{
    double chi2 = 0;
    judge_rows(search, search->n - 1, trial);
    for (size_t row = 0; row < search->n; row++) {
        const float *tried = search->rows + row * search->dim;
        double error = sqrt(distance2(search->dumped + row * search->dim, tried, search->dim)) /
                       norm_of(tried, search->dim);
        double scaled = RP_REPLAY_LIMIT * error / search->limit[row];
        chi2 += scaled * scaled;
    }
    trial->chi2 = chi2 / (double)search->n;
    trial->matches = trial->n_over == 0 && trial->share >= MIN_SHARE;
}

static const struct rp_replay_slot *find_slot(const struct rp_replay_layer *result,
                                              const char *name)
{
    for (size_t i = 0; i < result->n_slots; i++) {
        if (strcmp(result->slots[i].slot, name) == 0)
            return &result->slots[i];
    }
    return NULL;
}

/* Every row of what was run against floors of its own, which may not have grown out of bounds. */
static void judge_confirmation(const struct rp_search *search, const struct rp_replay_slot *found,
                               struct rp_trial *trial)
{
    double before = 0, after = 0, chi2 = 0;
    trial->n_over = 0;
    for (size_t row = 0; row < search->n; row++) {
        double most = MAX_FLOOR_GROWTH * search->limit[row] / RP_REPLAY_LIMIT;
        if (trial->candidate.numerics)
            most = fmax(most, MAX_FLOOR_SHARE * search->slot->introduced[row]);
        double floor = fmax(fmin(found->floor[row], most), LEAST_FLOOR);
        double error = found->introduced[row];
        trial->n_over += !(error <= RP_REPLAY_LIMIT * floor);
        chi2 += error / floor * (error / floor);
        before += search->slot->introduced[row] * search->slot->introduced[row];
        after += error * error;
    }
    trial->chi2 = chi2 / (double)search->n;
    trial->share = after < before ? 1 - after / before : 0;
    trial->matches = trial->n_over == 0 && trial->share >= MIN_SHARE;
}

enum rp_status rp_search_confirm(struct rp_search *search, struct rp_trial *trial,
                                 struct rp_error *err)
{
    struct rp_probe probe;
    struct rp_replay_layer result = {.n_slots = 0};
    struct rp_replay_variant variant = {.overlay = &probe.overlay,
                                        .weights = &search->weights,
                                        .numerics = trial->candidate.numerics,
                                        .with_flips =
                                            !rp_replay_options(search->replay)->without_flips};
    const struct rp_replay_slot *found;
    enum rp_status status;
    if (!search->runs) {
        status = rp_search_try(search, &trial->candidate, &trial->place, search->n - 1, trial, err);
        if (status == RP_OK)
            confirm_rows(search, trial);
        return status;
    }
    rp_probe_open(&probe);
    probe.place = trial->place;
    probe.part = search->slot->part;
    status = set_up(search, &trial->candidate, &probe.change, err);
    if (status == RP_OK)
        status = rp_replay_run_variant(search->replay, search->layer, &variant, NULL, &result, err);
    if (status == RP_OK) {
        found = find_slot(&result, search->slot->slot);
        if (found && found->n_positions == search->n)
            judge_confirmation(search, found, trial);
    }
    rp_replay_layer_free(&result);
    return status;
}

bool rp_search_is_promising(const struct rp_search *search, const struct rp_trial *trial)
{
    size_t n_run = 0;
    for (size_t row = 0; row < search->n; row++)
        n_run += search->is_failing[row] && search->is_noted[row];
    return trial->share >= NEARLY_ALL || (trial->share > 0 && 2 * trial->n_over <= n_run);
}
