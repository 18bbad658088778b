/* See cli/replay_jobs.h. */
#include "cli/replay_jobs.h"

#include <pthread.h>
#include <stdlib.h>

#include "operations/matmul.h"

struct job {
    enum rp_slot_part part; /* RP_PART_OUTPUT: the layer */
    size_t layer;
    bool is_done;
    enum rp_status status;
    struct rp_error err;
    struct rp_replay_layer result;
};

struct rp_replay_jobs {
    const struct rp_model *model;
    struct rp_replay_jobs_options options;
    pthread_t *threads; /* [options.n_threads], of which n_started run */
    size_t n_started;
    pthread_mutex_t lock;   /* of all below */
    pthread_cond_t is_done; /* a job is */
    struct job *jobs;       /* [n_jobs], in forward order */
    size_t n_jobs;
    size_t n_begun; /* the last job goes first: logits take longest */
    size_t n_taken;
    bool is_stopped;
};

static struct job *begin_job(struct rp_replay_jobs *jobs)
{
    struct job *job = NULL;
    pthread_mutex_lock(&jobs->lock);
    if (!jobs->is_stopped && jobs->n_begun < jobs->n_jobs) {
        job = &jobs->jobs[(jobs->n_begun + jobs->n_jobs - 1) % jobs->n_jobs];
        jobs->n_begun++;
    }
    pthread_mutex_unlock(&jobs->lock);
    return job;
}

static void end_job(struct rp_replay_jobs *jobs, struct job *job)
{
    pthread_mutex_lock(&jobs->lock);
    job->is_done = true;
    pthread_cond_signal(&jobs->is_done);
    pthread_mutex_unlock(&jobs->lock);
}

static void run_job(struct rp_replay *replay, struct job *job)
{
    if (job->part == RP_PART_OUTPUT)
        job->status = rp_replay_run_layer(replay, job->layer, &job->result, &job->err);
    else
        job->status = rp_replay_run_part(replay, job->part, &job->result, &job->err);
}

/* A thread has its own dump and replay: neither is made to be shared. */
static void *work(void *context)
{
    struct rp_replay_jobs *jobs = context;
    const struct rp_replay_jobs_options *options = &jobs->options;
    struct rp_tensor_set *dump = NULL;
    struct rp_replay *replay = NULL;
    struct rp_error err = {.code = RP_OK};
    enum rp_status status = rp_tensor_set_open(options->dump, options->layout, 0, &dump, &err);
    if (status == RP_OK)
        status = rp_replay_open(jobs->model, dump, options->replay, &replay, &err);
    for (struct job *job = begin_job(jobs); job; job = begin_job(jobs)) {
        job->status = status;
        job->err = err;
        if (status == RP_OK)
            run_job(replay, job);
        end_job(jobs, job);
    }
    rp_replay_close(replay);
    rp_tensor_set_close(dump);
    return NULL;
}

static void list_jobs(struct rp_replay_jobs *jobs)
{
    const struct rp_replay_jobs_options *options = &jobs->options;
    if (options->has_outside)
        jobs->jobs[jobs->n_jobs++].part = RP_PART_EMB;
    for (size_t layer = options->first_layer; layer <= options->last_layer; layer++)
        jobs->jobs[jobs->n_jobs++] = (struct job){.part = RP_PART_OUTPUT, .layer = layer};
    if (options->has_outside) {
        jobs->jobs[jobs->n_jobs++].part = RP_PART_POST_NORM;
        jobs->jobs[jobs->n_jobs++].part = RP_PART_LOGITS;
    }
}

enum rp_status rp_replay_jobs_start(const struct rp_model *model,
                                    const struct rp_replay_jobs_options *options,
                                    struct rp_replay_jobs **out, struct rp_error *err)
{
    const size_t n_jobs = options->last_layer - options->first_layer + 1 + 3;
    struct rp_replay_jobs *jobs = calloc(1, sizeof *jobs);
    *out = NULL;
    if (!jobs)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu layers", n_jobs);
    *jobs = (struct rp_replay_jobs){.model = model, .options = *options};
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_cond_init(&jobs->is_done, NULL);
    jobs->jobs = calloc(n_jobs, sizeof *jobs->jobs);
    jobs->threads = calloc(options->n_threads + 1, sizeof *jobs->threads);
    if (!jobs->jobs || !jobs->threads) {
        rp_replay_jobs_stop(jobs);
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu layers", n_jobs);
    }
    list_jobs(jobs);
    if (options->n_threads > 1)
        rp_matmul_one_thread();
    while (jobs->n_started < options->n_threads &&
           pthread_create(&jobs->threads[jobs->n_started], NULL, work, jobs) == 0)
        jobs->n_started++;
    if (jobs->n_started == 0) {
        rp_replay_jobs_stop(jobs);
        return rp_fail(err, RP_ERR_IO, NULL, -1, "no thread can be started");
    }
    *out = jobs;
    return RP_OK;
}

enum rp_status rp_replay_jobs_next(struct rp_replay_jobs *jobs, struct rp_replay_layer *result,
                                   struct rp_error *err)
{
    if (jobs->n_taken == jobs->n_jobs)
        return rp_fail(err, RP_ERR_MISSING, NULL, -1, "there is no other layer");
    struct job *job = &jobs->jobs[jobs->n_taken++];
    pthread_mutex_lock(&jobs->lock);
    while (!job->is_done)
        pthread_cond_wait(&jobs->is_done, &jobs->lock);
    pthread_mutex_unlock(&jobs->lock);
    *result = job->result;
    /* It has a pointer to a slot within itself. */
    if (job->result.first_failing)
        result->first_failing = result->slots + (job->result.first_failing - job->result.slots);
    job->result = (struct rp_replay_layer){.n_slots = 0};
    if (job->status != RP_OK && err)
        *err = job->err;
    return job->status;
}

void rp_replay_jobs_stop(struct rp_replay_jobs *jobs)
{
    if (!jobs)
        return;
    pthread_mutex_lock(&jobs->lock);
    jobs->is_stopped = true;
    pthread_mutex_unlock(&jobs->lock);
    for (size_t i = 0; i < jobs->n_started; i++)
        pthread_join(jobs->threads[i], NULL);
    for (size_t i = 0; i < jobs->n_jobs; i++)
        rp_replay_layer_free(&jobs->jobs[i].result);
    pthread_cond_destroy(&jobs->is_done);
    pthread_mutex_destroy(&jobs->lock);
    free(jobs->jobs);
    free(jobs->threads);
    free(jobs);
}
