/* A run's slots, kept in memory and compared, for the model's tests. Tests only; include cmocka.h
 * first. */
#ifndef REFPARITY_MODEL_RECORDING_H
#define REFPARITY_MODEL_RECORDING_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "refparity/model.h"

#define MAX_SLOTS 256

struct recorded_slot {
    char name[RP_SLOT_NAME_SIZE];
    size_t max_rows, dim, n_rows;
    int64_t next_position;
    float *rows; /* [n_rows][dim] */
};

struct recording {
    struct recorded_slot slots[MAX_SLOTS];
    size_t n_slots;
};

static inline enum rp_status record(void *context, const struct rp_tap *tap, struct rp_error *err)
{
    (void)err;
    struct recording *recording = context;
    struct recorded_slot *slot = NULL;
    for (size_t i = 0; i < recording->n_slots; i++) {
        if (strcmp(recording->slots[i].name, tap->slot) == 0)
            slot = &recording->slots[i];
    }
    if (!slot) {
        assert_true(recording->n_slots < MAX_SLOTS);
        slot = &recording->slots[recording->n_slots++];
        *slot = (struct recorded_slot){.dim = tap->dim, .next_position = tap->positions[0]};
        snprintf(slot->name, sizeof slot->name, "%s", tap->slot);
    }
    assert_int_equal(tap->dim, slot->dim);
    if (slot->n_rows + tap->n_positions > slot->max_rows) {
        slot->max_rows = 2 * (slot->n_rows + tap->n_positions);
        slot->rows = realloc(slot->rows, slot->max_rows * tap->dim * sizeof(float));
        assert_non_null(slot->rows);
    }
    memcpy(slot->rows + slot->n_rows * tap->dim, tap->rows,
           tap->n_positions * tap->dim * sizeof(float));
    for (size_t i = 0; i < tap->n_positions; i++)
        assert_int_equal(tap->positions[i], slot->next_position++);
    slot->n_rows += tap->n_positions;
    return RP_OK;
}

/* Aborts the test when there is none. */
static inline const struct recorded_slot *recorded(const struct recording *recording,
                                                   const char *name)
{
    for (size_t i = 0; i < recording->n_slots; i++) {
        if (strcmp(recording->slots[i].name, name) == 0)
            return &recording->slots[i];
    }
    fail_msg("there is no %s", name);
    return NULL;
}

static inline void forget(struct recording *recording)
{
    for (size_t i = 0; i < recording->n_slots; i++)
        free(recording->slots[i].rows);
    recording->n_slots = 0;
}

/* rp_model_run, recorded; a failure is the test's. */
static inline void record_run(const struct rp_model *model, struct rp_run run_options,
                              struct recording *recording)
{
    struct rp_error err = {.code = RP_OK};
    run_options.tap = record;
    run_options.tap_context = recording;
    if (rp_model_run(model, &run_options, &err) != RP_OK)
        fail_msg("%s", err.message);
}

/* ||a - b|| / ||b|| of one row; NaN where a value is not finite. */
static inline double l2_rel(const float *a, const float *b, size_t dim)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < dim; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / norm);
}

static inline double worst_l2_rel(const struct recorded_slot *a, const struct recorded_slot *b)
{
    double worst = 0;
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->n_rows, b->n_rows);
    assert_int_equal(a->dim, b->dim);
    for (size_t row = 0; row < a->n_rows; row++) {
        double here = l2_rel(a->rows + row * a->dim, b->rows + row * b->dim, a->dim);
        if (!(here <= worst))
            worst = here;
    }
    return worst;
}

static inline void expect_same(const struct recording *a, const struct recording *b, double limit)
{
    assert_int_equal(a->n_slots, b->n_slots);
    for (size_t i = 0; i < a->n_slots; i++) {
        double worst = worst_l2_rel(&a->slots[i], &b->slots[i]);
        if (!(worst <= limit))
            fail_msg("%s differs by %g", a->slots[i].name, worst);
    }
}

#endif
