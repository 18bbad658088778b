/* What is replayed, several layers at once: a job is a layer, or a part outside the layers. Results come
 * in forward order, whichever is done first. Not for what is made of them: replay.c. */
#ifndef REFPARITY_CLI_REPLAY_JOBS_H
#define REFPARITY_CLI_REPLAY_JOBS_H

#include "refparity/replay.h"

struct rp_replay_jobs_options {
    const char *dump;                         /* opened for each thread, by rp_replay_jobs_start */
    const struct rp_tensor_set_options *read; /* how */
    const struct rp_replay_options *replay;
    size_t first_layer, last_layer;
    bool has_outside; /* emb, post_norm and logits, too */
    size_t n_threads; /* at least 1; there are fewer where their layers would take over 4 GiB */
};

struct rp_replay_jobs;

/* Starts the threads. Of OpenBLAS each uses one thread from then on, where there is more than one of
 * them. model is the caller's and outlives the jobs, as all that options points to. RP_ERR_MEMORY,
 * RP_ERR_IO, or what the opening of the dump returned. */
enum rp_status rp_replay_jobs_start(const struct rp_model *model,
                                    const struct rp_replay_jobs_options *options,
                                    struct rp_replay_jobs **out, struct rp_error *err);

/* Waits for the next result, which is then the caller's: rp_replay_layer_free. RP_ERR_MISSING after the
 * last one; else what rp_replay_run_layer or rp_replay_run_part returned. */
enum rp_status rp_replay_jobs_next(struct rp_replay_jobs *jobs, struct rp_replay_layer *result,
                                   struct rp_error *err);

/* Waits for the threads; what is not begun is left out. NULL is allowed. */
void rp_replay_jobs_stop(struct rp_replay_jobs *jobs);

#endif
