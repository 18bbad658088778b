/* One slot of a dump, by position. Not for reading dumps: that is tensor_set.h. */
#ifndef REFPARITY_REPLAY_DUMPED_H
#define REFPARITY_REPLAY_DUMPED_H

#include <stdbool.h>

#include "refparity/tensor_set.h"

struct rp_dumped {
    char slot[RP_SLOT_NAME_SIZE];
    const struct rp_slot_info *info; /* NULL: the dump has no such slot */
    struct rp_tensor tensor; /* of no positions when it has none, or none that can be read */
    struct rp_error err;     /* why it cannot be read; code RP_OK: it can */
    bool is_all_finite;      /* rp_dumped_check found it so */
};

void rp_dumped_open(struct rp_dumped *dumped, struct rp_tensor_set *set, enum rp_slot_part part,
                    int layer);
void rp_dumped_close(struct rp_dumped *dumped);

/* Looks at all values once, where many are going to be asked for. */
void rp_dumped_check(struct rp_dumped *dumped);

/* The row of position, NULL when there is none. Not aligned. */
const void *rp_dumped_row(const struct rp_dumped *dumped, int64_t position);
/* Whether there is one and all of it is finite. */
bool rp_dumped_is_finite(const struct rp_dumped *dumped, int64_t position);

#endif
