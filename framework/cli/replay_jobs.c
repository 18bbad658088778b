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

/* A thread has its own dump and replay: neither is made to be shared. */
struct worker {
    struct rp_replay_jobs *jobs;
    pthread_t thread;
    struct rp_tensor_set *dump;
    struct rp_replay *replay;
};

struct rp_replay_jobs {
    struct rp_replay_jobs_options options;
    struct worker *workers; /* [n_workers], of which the threads of n_started run */
    size_t n_workers, n_started;
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

static void *work(void *context)
{
    const struct worker *worker = context;
    if (worker->jobs->n_workers > 1)
        rp_matmul_one_thread(); /* of an OpenBLAS with OpenMP each thread has its own number */
    for (struct job *job = begin_job(worker->jobs); job; job = begin_job(worker->jobs)) {
        run_job(worker->replay, job);
        end_job(worker->jobs, job);
    }
    return NULL;
}

static enum rp_status open_worker(struct rp_replay_jobs *jobs, const struct rp_model *model,
                                  struct worker *worker, struct rp_error *err)
{
    const struct rp_replay_jobs_options *options = &jobs->options;
    worker->jobs = jobs;
    enum rp_status status =
        rp_tensor_set_open_with(options->dump, options->read, &worker->dump, err);
    if (status == RP_OK)
        status = rp_replay_open(model, worker->dump, options->replay, &worker->replay, err);
    return status;
}

/* A layer's weights in FP32, and its rows. */
static size_t bytes_of_layer(const struct rp_model *model, struct rp_tensor_set *dump, size_t layer)
{
    size_t n_positions = 0, width = 0;
    for (size_t i = 0; i < rp_tensor_set_n_slots(dump); i++) {
        const size_t n = rp_tensor_set_slot(dump, i)->n_positions;
        n_positions = n > n_positions ? n : n_positions;
    }
    for (int part = 0; part < RP_PART_OTHER; part++)
        if (part != RP_PART_LOGITS)
            width += rp_model_slot_width(model, (enum rp_slot_part)part, layer);
    return rp_layer_bytes(model, layer) + n_positions * width * sizeof(float);
}

/* Fewer threads than asked for where all of them together would take more than MOST_BYTES. */
#define MOST_BYTES ((size_t)4 << 30)

static size_t most_workers(const struct rp_replay_jobs *jobs, const struct rp_model *model)
{
    const struct rp_replay_jobs_options *options = &jobs->options;
    size_t largest = 1;
    for (size_t layer = options->first_layer; layer <= options->last_layer; layer++) {
        const size_t bytes = bytes_of_layer(model, jobs->workers[0].dump, layer);
        largest = bytes > largest ? bytes : largest;
    }
    return largest < MOST_BYTES ? MOST_BYTES / largest : 1;
}

/* Before any thread runs, as cJSON keeps what it last failed on in a variable of the process. */
static enum rp_status open_workers(struct rp_replay_jobs *jobs, const struct rp_model *model,
                                   struct rp_error *err)
{
    const size_t asked = jobs->n_workers;
    jobs->n_workers = 1;
    enum rp_status status = open_worker(jobs, model, &jobs->workers[0], err);
    const size_t most = status == RP_OK ? most_workers(jobs, model) : 1;
    while (status == RP_OK && jobs->n_workers < asked && jobs->n_workers < most)
        status = open_worker(jobs, model, &jobs->workers[jobs->n_workers++], err);
    return status;
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
    *jobs = (struct rp_replay_jobs){.options = *options};
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_cond_init(&jobs->is_done, NULL);
    jobs->jobs = calloc(n_jobs, sizeof *jobs->jobs);
    enum rp_status status = RP_OK;
    if (jobs->jobs)
        list_jobs(jobs);
    jobs->n_workers = options->n_threads < jobs->n_jobs ? options->n_threads : jobs->n_jobs;
    jobs->workers = calloc(jobs->n_workers, sizeof *jobs->workers);
    if (!jobs->jobs || !jobs->workers)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu layers", n_jobs);
    if (status == RP_OK)
        status = open_workers(jobs, model, err);
    if (status != RP_OK) {
        rp_replay_jobs_stop(jobs);
        return status;
    }
    if (jobs->n_workers > 1)
        rp_matmul_one_thread();
    while (jobs->n_started < jobs->n_workers &&
           pthread_create(&jobs->workers[jobs->n_started].thread, NULL, work,
                          &jobs->workers[jobs->n_started]) == 0)
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
        pthread_join(jobs->workers[i].thread, NULL);
    for (size_t i = 0; jobs->workers && i < jobs->n_workers; i++) {
        rp_replay_close(jobs->workers[i].replay);
        rp_tensor_set_close(jobs->workers[i].dump);
    }
    for (size_t i = 0; i < jobs->n_jobs; i++)
        rp_replay_layer_free(&jobs->jobs[i].result);
    pthread_cond_destroy(&jobs->is_done);
    pthread_mutex_destroy(&jobs->lock);
    free(jobs->jobs);
    free(jobs->workers);
    free(jobs);
}
