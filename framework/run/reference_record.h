/* Makes a reference: runs the engine that an entry names in HF's place, and keeps its dump as a fixture.
 * Not for judging with it: fixture.h finds it as any other. */
#ifndef REFPARITY_RUN_REFERENCE_RECORD_H
#define REFPARITY_RUN_REFERENCE_RECORD_H

#include <stdbool.h>

#include "run/context.h"

struct rp_recorded_reference {
    bool is_new;              /* else a valid one was there */
    bool is_of_another_build; /* it was, made by another program than the engine's is now */
    char path[RP_PATH_SIZE];
    double seconds; /* of the engine */
};

/* Records the reference of pair, whose entry has one, into the last of the context's stores, unless a valid one
 * is in a store and force is false. The engine has no time limit: who waits can end it. RP_ERR_MISSING: the
 * engine or its file is not there; the message says how to get it. RP_ERR_FORMAT: the engine failed, or its dump
 * is no reference: slots, positions or tokens are missing, or a value is not finite; its log is kept, and
 * named. RP_ERR_IO, RP_ERR_MEMORY, RP_ERR_ARGUMENT. */
enum rp_status rp_reference_record(const struct rp_context *context, const struct rp_pair *pair,
                                   bool force, struct rp_recorded_reference *recorded,
                                   struct rp_error *err);

#endif
