/* The ctest run under way, and what its verdicts rest on as it was at session/begin: the matrix, each
 * pair's fixture and model file. What changes one of them in between (an engine that raises its own
 * threshold, one that edits a fixture of all) makes no verdict: it is an error by name. Files are
 * told by their size, times and inode, as everywhere: fingerprint.h. */
#ifndef REFPARITY_RUN_SESSION_INPUTS_H
#define REFPARITY_RUN_SESSION_INPUTS_H

#include "run/context.h"

/* Begins: gives the context a session and a key, and notes what is there. Its matrix may be NULL, where it
 * cannot be read; matrix_path is where it was looked for. */
enum rp_status rp_session_begin(struct rp_context *context, const char *matrix_path,
                                struct rp_error *err);

/* Reads the session under way into context: its name, "" where there is none, its key and what was noted.
 * RP_ERR_MISMATCH: something else has written there. */
enum rp_status rp_session_read(struct rp_context *context, struct rp_error *err);

/* Is the matrix, as the context has read it, the one that the session began with? RP_OK as well where no
 * session is under way. RP_ERR_MISMATCH. */
enum rp_status rp_session_check_matrix(const struct rp_context *context, struct rp_error *err);

/* Are the pair's fixture and model file the same as at the session's begin? Likewise. */
enum rp_status rp_session_check_files(const struct rp_context *context, const struct rp_pair *pair,
                                      struct rp_error *err);

#endif
