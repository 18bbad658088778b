/* The engine that detect's trials are run on: another summation order than the C model's own, the
 * declared rounding, the trial's bugs; its dump, and what each bug changes. Not for judging dumps. */
#ifndef REFPARITY_CASES_DETECT_ENGINE_H
#define REFPARITY_CASES_DETECT_ENGINE_H

#include "bugs.h"
#include "variants.h"

#define RP_DETECT_MAX_BUGS 2
#define RP_DETECT_PATH 1024

/* A model's file and a prompt, with what is computed from them once. */
struct rp_detect_model {
    const char *architecture, *weights; /* "qwen3", "q8_0" */
    char gguf[RP_DETECT_PATH];
    struct rp_model *model;
    struct rp_tensor_set *fixture; /* HF's, FP32 on the original weights */
    int32_t *tokens;               /* [n_tokens], the fixture's */
    size_t n_tokens;
};

struct rp_detect_trial {
    const struct rp_detect_model *on;
    enum rp_mode mode;
    const struct rp_variant *variant; /* of a clean trial; the first one where there are bugs */
    struct rp_numerics declared;
    struct rp_bug_choice bugs[RP_DETECT_MAX_BUGS];
    size_t n_bugs; /* 0: a clean trial */
};

struct rp_recorded_slot {
    char name[RP_SLOT_NAME_SIZE];
    size_t dim, n_rows;
    float *rows; /* [n_rows][dim] */
};

/* A run's slots in memory. */
struct rp_recorded {
    struct rp_recorded_slot *slots; /* [n_slots], in forward order */
    size_t n_slots;
    int64_t *positions; /* [n_positions], of every slot */
    size_t n_positions;
    int32_t *tokens; /* [n_tokens] that were run */
    size_t n_tokens;
};
void rp_recorded_free(struct rp_recorded *recorded);
const struct rp_recorded_slot *rp_recorded_find(const struct rp_recorded *recorded,
                                                const char *slot); /* NULL: it has none */

/* Runs the trial's engine. *recorded is to be freed, also after an error. */
enum rp_status rp_detect_run(const struct rp_detect_trial *trial, struct rp_recorded *recorded,
                             struct rp_error *err);

/* Writes its slots of that level as a dump into folder, which is made. */
enum rp_status rp_detect_dump(const struct rp_detect_trial *trial,
                              const struct rp_recorded *recorded, enum rp_slot_level level,
                              const char *folder, struct rp_error *err);

/* What bug number `index` changes at the first slot of that level that shows it, whose name slot becomes:
 * change[n_positions], ||with - without|| / ||without||, infinite where a value is not finite. Both are
 * computed from the values that entered the layer in this run.
 * RP_SLOTS_OPERATIONS: the wrong operation has the same inputs in both, by the same arithmetic.
 * RP_SLOTS_LAYERS: operations follow before the slot is reached, and round what they read. "Without" is
 * then the nearest of the clean variants' arithmetic, the C model's among them: two of them differ, now
 * and then by a whole rounding step, which is not the bug's doing. The smaller of what that is with the
 * declared rounding and without any, because a step that is crossed is not the bug's size either. */
enum rp_status rp_detect_change(const struct rp_detect_trial *trial,
                                const struct rp_recorded *recorded, size_t index,
                                enum rp_slot_level level, char slot[RP_SLOT_NAME_SIZE],
                                double *change, struct rp_error *err);

/* Positions per call of the operations. */
size_t rp_detect_chunk(const struct rp_detect_trial *trial, size_t n);

#endif
