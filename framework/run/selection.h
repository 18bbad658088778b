/* Which pairs the ctest run under way has selected, and whether it came to its end. ctest tells nobody
 * what it selects: each pair that begins marks itself. The file is made whole at session/begin, so that
 * a mark needs no room on a disk that has become full. Not for results: those are result.json. */
#ifndef REFPARITY_RUN_SELECTION_H
#define REFPARITY_RUN_SELECTION_H

#include <stdbool.h>

#include "run/context.h"

/* Begins with no pair marked. The matrix may be NULL, where it cannot be read: then no pair can be. */
enum rp_status rp_selection_begin(const char *work_dir, const char *session,
                                  const struct rp_matrix *matrix, struct rp_error *err);

/* Marks pair. RP_OK as well where no session is under way. RP_ERR_IO. */
enum rp_status rp_selection_add(const struct rp_context *context, const struct rp_pair *pair,
                                struct rp_error *err);

/* Marks the end: ctest has come to session/end. */
enum rp_status rp_selection_end(const struct rp_context *context, struct rp_error *err);

struct rp_selection {
    bool *selected; /* [n], in the order of the matrix; owned */
    size_t n;       /* pairs of the matrix */
    bool has_ended; /* false, too, where the file is gone or of another session or matrix */
};
/* To be freed with rp_selection_free. RP_ERR_MEMORY alone. */
enum rp_status rp_selection_read(const struct rp_context *context, struct rp_selection *selection,
                                 struct rp_error *err);
void rp_selection_free(struct rp_selection *selection);

#endif
