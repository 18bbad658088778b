/* Replays a dump as `refparity replay` does, and runs the same tokens through the C model, in turn.
 * Prints one line: seconds of replay in the layers, in the slowest layer, and outside the layers; CPU
 * seconds of all of replay; seconds of one plain run of the model; MiB at most while replaying, mapped
 * files' pages among them; slots compared, slots that fail. Not for verdicts: what it replays is known
 * to be right. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "refparity/replay.h"

struct measured {
    double layers_s, slowest_s, outside_s, cpu_s, forward_s;
    double peak_mib;
    size_t n_compared, n_failing;
};

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* A line of /proc/self/status, in MiB; 0: there is none. */
static double status_mib(const char *key)
{
    char line[256];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) == 0)
            kib = strtol(line + strlen(key), NULL, 10);
    }
    if (file)
        fclose(file);
    return (double)kib / 1024;
}

static void count(struct measured *measured, struct rp_replay_layer *result)
{
    for (size_t i = 0; i < result->n_slots; i++) {
        enum rp_verdict verdict = result->slots[i].verdict;
        measured->n_compared += verdict != RP_SKIP;
        measured->n_failing += verdict != RP_SKIP && verdict != RP_PASS;
    }
    rp_replay_layer_free(result);
}

static enum rp_status measure_replay(struct rp_replay *replay, struct measured *measured,
                                     struct rp_error *err)
{
    static const enum rp_slot_part outside[] = {RP_PART_EMB, RP_PART_POST_NORM, RP_PART_LOGITS};
    size_t n_layers = rp_model_config(rp_replay_model(replay))->n_layers;
    struct rp_replay_layer result;
    enum rp_status status = RP_OK;
    double cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    for (size_t i = 0; status == RP_OK && i < n_layers; i++) {
        double start = now(CLOCK_MONOTONIC);
        status = rp_replay_run_layer(replay, i, &result, err);
        double seconds = now(CLOCK_MONOTONIC) - start;
        measured->layers_s += seconds;
        measured->slowest_s = seconds > measured->slowest_s ? seconds : measured->slowest_s;
        if (status == RP_OK)
            count(measured, &result);
    }
    double start = now(CLOCK_MONOTONIC);
    for (size_t i = 0; status == RP_OK && i < sizeof outside / sizeof *outside; i++) {
        status = rp_replay_run_part(replay, outside[i], &result, err);
        if (status == RP_OK)
            count(measured, &result);
    }
    measured->outside_s = now(CLOCK_MONOTONIC) - start;
    measured->cpu_s = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    measured->peak_mib = status_mib("VmHWM:");
    return status;
}

static enum rp_status measure_forward(const struct rp_model *model, const int64_t *ids, size_t n,
                                      struct measured *measured, struct rp_error *err)
{
    int32_t *tokens = calloc(n + 1, sizeof *tokens);
    if (!tokens)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu tokens", n);
    for (size_t i = 0; i < n; i++)
        tokens[i] = (int32_t)ids[i];
    const struct rp_run run = {.tokens = tokens, .n_tokens = n, .mode = RP_MODE_BATCHED};
    double start = now(CLOCK_MONOTONIC);
    enum rp_status status = rp_model_run(model, &run, err);
    measured->forward_s = now(CLOCK_MONOTONIC) - start;
    free(tokens);
    return status;
}

static enum rp_status measure(const char *gguf, const char *dump, const char *activations,
                              struct rp_error *err)
{
    struct rp_replay_options options = {.mode = RP_MODE_BATCHED};
    struct measured m = {0};
    struct rp_model *model = NULL;
    struct rp_tensor_set *set = NULL;
    struct rp_replay *replay = NULL;
    const int64_t *ids = NULL;
    size_t n_tokens = 0;
    enum rp_status status = rp_activations_parse(activations, &options.numerics.activations, err);
    if (status == RP_OK)
        status = rp_model_open(gguf, &model, err);
    if (status == RP_OK)
        status = rp_tensor_set_open(dump, RP_LAYOUT_AUTO, 0, &set, err);
    if (status == RP_OK)
        status = rp_tensor_set_tokens(set, &ids, &n_tokens, err);
    if (status == RP_OK)
        status = rp_replay_open(model, set, &options, &replay, err);
    if (status == RP_OK)
        status = measure_replay(replay, &m, err);
    if (status == RP_OK)
        status = measure_forward(model, ids, n_tokens, &m, err);
    if (status == RP_OK)
        printf("%.2f %.3f %.2f %.2f %.2f %.0f %zu %zu\n", m.layers_s, m.slowest_s, m.outside_s,
               m.cpu_s, m.forward_s, m.peak_mib, m.n_compared, m.n_failing);
    rp_replay_close(replay);
    rp_tensor_set_close(set);
    rp_model_close(model);
    return status;
}

int main(int argc, char **argv)
{
    struct rp_error err = {.code = RP_OK};
    char text[1024];
    if (argc != 4) {
        fprintf(stderr, "usage: %s GGUF DUMP ACTIVATIONS\n", argv[0]);
        return 2;
    }
    if (measure(argv[1], argv[2], argv[3], &err) != RP_OK) {
        fprintf(stderr, "%s: %s\n", argv[0], rp_error_text(&err, text, sizeof text));
        return 2;
    }
    return 0;
}
