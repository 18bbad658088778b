/* See explain/engine_test_util.h. */
#include "explain/engine_test_util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "model/model_internal.h"
#include "operations/rope_scaling.h"
#include "refparity/dump.h"

#define DEFAULT_TOKENS 24
#define MAX_TOKENS 256

static void check(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "engine with a bug: %s\n", what);
        abort();
    }
}

bool rp_test_bug_is_here(const struct rp_test_bug *bug, const struct rp_site *site)
{
    return site->layer == bug->layer;
}

float *rp_test_copy(const float *values, size_t n)
{
    float *copy = malloc(n * sizeof *copy + 1);
    if (!copy)
        abort();
    memcpy(copy, values, n * sizeof *copy);
    return copy;
}

/* What another order of summation does to a matrix product. */
struct noise {
    struct rp_overlay overlay;
    uint32_t seed;
};

static enum rp_status noisy_linear(void *context, const struct rp_site *site,
                                   const struct rp_linear *args)
{
    struct noise *noise = context;
    const struct rp_ops *below = noise->overlay.below;
    enum rp_status status = below->linear(below->context, site, args);
    for (size_t p = 0; p < site->n_positions; p++) {
        float *y = args->y + p * args->y_stride;
        double square = 0;
        for (size_t i = 0; i < args->n_out; i++)
            square += (double)y[i] * (double)y[i];
        double size = 3e-8 * sqrt(square / (double)args->n_out);
        for (size_t i = 0; i < args->n_out; i++) {
            noise->seed = noise->seed * 1664525u + 1013904223u;
            y[i] = (float)((double)y[i] + size * ((double)(noise->seed >> 8) / 8388608.0 - 1));
        }
    }
    return status;
}

/* A bug at one position: its operations run for that one, the plain ones for the others. */
#define AT_ONE_POSITION(operation, slice)                                                     \
    static enum rp_status one_position_##operation(void *context, const struct rp_site *site, \
                                                   const struct rp_##operation *args)         \
    {                                                                                         \
        struct rp_test_bug *bug = context;                                                    \
        const struct rp_ops *below = bug->overlay.below;                                      \
        struct rp_overlay plain, wrong;                                                       \
        enum rp_status status = RP_OK;                                                        \
        rp_overlay_open(&plain, below);                                                       \
        wrong = bug->overlay;                                                                 \
        bug_of(bug, &wrong.ops);                                                              \
        for (size_t p = 0; p < site->n_positions && status == RP_OK; p++) {                   \
            struct rp_site one = *site;                                                       \
            struct rp_##operation part = *args;                                               \
            one.positions += p;                                                               \
            one.n_positions = 1;                                                              \
            slice;                                                                            \
            if (site->positions[p] == bug->position)                                          \
                status = wrong.ops.operation(bug, &one, &part);                               \
            else                                                                              \
                status = below->operation(below->context, &one, &part);                       \
        }                                                                                     \
        return status;                                                                        \
    }

static void (*installed)(struct rp_ops *ops);

static void bug_of(struct rp_test_bug *bug, struct rp_ops *ops)
{
    struct rp_overlay overlay;
    rp_overlay_open(&overlay, bug->overlay.below);
    *ops = overlay.ops;
    installed(ops);
}

AT_ONE_POSITION(rope, (part.positions += p, part.x += p * args->n_heads * args->head_dim))
AT_ONE_POSITION(rms_norm,
                (part.n_rows = args->n_rows / site->n_positions,
                 part.x += p * part.n_rows * args->dim, part.y += p * part.n_rows * args->dim))
AT_ONE_POSITION(linear, (part.x += p * args->n_in, part.y += p * args->y_stride))
AT_ONE_POSITION(ffn_activation,
                (part.gate += p * args->dim, part.up += p * args->dim, part.y += p * args->dim))

static void limit_to_position(struct rp_overlay *overlay)
{
    struct rp_overlay plain;
    rp_overlay_open(&plain, overlay->below);
    if (overlay->ops.rope != plain.ops.rope)
        overlay->ops.rope = one_position_rope;
    if (overlay->ops.rms_norm != plain.ops.rms_norm)
        overlay->ops.rms_norm = one_position_rms_norm;
    if (overlay->ops.linear != plain.ops.linear)
        overlay->ops.linear = one_position_linear;
    if (overlay->ops.ffn_activation != plain.ops.ffn_activation)
        overlay->ops.ffn_activation = one_position_ffn_activation;
}

struct sink {
    struct rp_dump *dump;
    const struct rp_test_engine *engine;
};

static enum rp_status write_slot(void *context, const struct rp_tap *tap, struct rp_error *err)
{
    struct sink *sink = context;
    (void)err;
    if (!rp_slot_level_has(sink->engine->level, tap->part) ||
        (sink->engine->without && strstr(tap->slot, sink->engine->without)))
        return RP_OK;
    float *rows = rp_test_copy(tap->rows, tap->n_positions * tap->dim);
    for (size_t i = 0; i < tap->n_positions && sink->engine->spoils; i++)
        sink->engine->spoils(tap->slot, tap->positions[i], rows + i * tap->dim, tap->dim);
    check(rp_dump_rows(sink->dump, tap->slot, tap->positions[0], tap->n_positions, tap->dim,
                       rows) == 0,
          "the dump cannot be written");
    free(rows);
    return RP_OK;
}

static void run_engine(const struct rp_test_engine *engine, const struct rp_model *model,
                       const char *folder)
{
    int32_t tokens[MAX_TOKENS];
    size_t n = engine->n_tokens ? engine->n_tokens : DEFAULT_TOKENS;
    struct rp_emulation emulation;
    struct noise noise = {.seed = 5};
    struct rp_test_bug bug = {.layer = engine->layer,
                              .value = engine->value,
                              .option = engine->option,
                              .which = engine->which,
                              .position = engine->at_one_position ? engine->position : -1,
                              .head = engine->head};
    struct rp_layer weights = {.owned = NULL}, own_weights = {.owned = NULL};
    struct sink sink = {.engine = engine};
    struct rp_error err;
    check(n <= MAX_TOKENS, "too many tokens");
    for (size_t i = 0; i < n; i++)
        tokens[i] = (int32_t)((i * 2654435761u >> 7) % 1000);
    check(rp_layer_load(model, (size_t)engine->other_layer, &weights, &err) == RP_OK,
          "the weights cannot be read");
    check(rp_layer_load(model, engine->layer < 0 ? 0 : (size_t)engine->layer, &own_weights, &err) ==
              RP_OK,
          "the weights cannot be read");
    bug.weights = &weights;
    bug.own_weights = &own_weights;
    rp_emulation_open(&emulation, &engine->numerics, NULL);
    rp_overlay_open(&noise.overlay, &emulation.overlay.ops);
    noise.overlay.ops.linear = noisy_linear;
    rp_overlay_open(&bug.overlay, &noise.overlay.ops);
    installed = engine->install;
    if (engine->install)
        engine->install(&bug.overlay.ops);
    if (engine->at_one_position)
        limit_to_position(&bug.overlay);
    sink.dump = rp_dump_open(folder, (int)rp_model_config(model)->n_layers, "test");
    check(rp_dump_tokens(sink.dump, tokens, n) == 0, "the tokens cannot be written");
    struct rp_run run = {.ops = &bug.overlay.ops,
                         .tokens = tokens,
                         .n_tokens = n,
                         .mode = RP_MODE_BATCHED,
                         .tap = write_slot,
                         .tap_context = &sink};
    check(rp_model_run(model, &run, &err) == RP_OK, err.message);
    check(rp_dump_close(sink.dump) == 0, "the dump cannot be finished");
    rp_layer_free(&weights);
    rp_layer_free(&own_weights);
}

/* The model with another rope scaling; longrope's short factors are 1, 1.25, …, its long ones 1, 1.5, … */
static void scale_rope(struct rp_model *model, const struct rp_rope_scaling *scaling)
{
    const size_t n_rot = model->config.n_rot;
    float *factors = realloc(model->rope_factors, (n_rot + 1) * sizeof *factors);
    float *long_factors = calloc(n_rot + 1, sizeof *long_factors);
    check(factors && long_factors, "no memory for rope factors");
    rp_rope_scaling_factors(scaling, model->config.rope_theta, n_rot, factors);
    for (size_t i = 0; i < n_rot / 2 && scaling->type == RP_ROPE_LONGROPE; i++) {
        factors[i] = 1 + 0.25f * (float)i;
        long_factors[i] = 1 + 0.5f * (float)i;
    }
    model->config.rope_scaling = *scaling;
    model->rope_factors = factors;
    if (scaling->type == RP_ROPE_LONGROPE)
        model->long_rope_factors = long_factors;
    else
        free(long_factors);
}

static const struct rp_replay_slot *find_slot(const struct rp_replay_layer *result,
                                              const char *part)
{
    if (!part)
        return result->first_failing;
    for (size_t i = 0; i < result->n_slots; i++) {
        const char *suffix = strchr(result->slots[i].slot, '_');
        if (suffix && strcmp(suffix, part) == 0)
            return &result->slots[i];
    }
    return NULL;
}

static void report_on(const struct rp_replay_layer *result, struct rp_test_report *report)
{
    for (size_t i = 0; i < result->n_slots; i++)
        report->n_failing += result->slots[i].verdict == RP_FAIL;
}

static void explain(struct rp_replay *replay, const struct rp_test_engine *engine,
                    struct rp_test_report *report)
{
    struct rp_replay_layer result = {.n_slots = 0};
    struct rp_error err = {.message = ""};
    const enum rp_status status =
        engine->is_outside ? rp_replay_run_part(replay, engine->part, &result, &err)
                           : rp_replay_run_layer(replay, (size_t)engine->layer, &result, &err);
    check(status == RP_OK, err.message);
    report_on(&result, report);
    const struct rp_replay_slot *slot = find_slot(&result, engine->of);
    if (slot) {
        snprintf(report->slot, sizeof report->slot, "%s", slot->slot);
        snprintf(report->message, sizeof report->message, "%s", slot->message);
        report->verdict = slot->verdict;
        report->times_limit = slot->introduced[slot->worst] / slot->limit[slot->worst];
        check(rp_explain_slot(replay, slot, &report->explanation, &err) == RP_OK, err.message);
    }
    rp_replay_layer_free(&result);
}

struct rp_test_report rp_test_explain(const char *root, const struct rp_test_engine *engine)
{
    char path[512], folder[256], dump_folder[300];
    struct rp_test_report report = {.slot = ""};
    struct rp_model *model = NULL;
    struct rp_tensor_set *dump = NULL;
    struct rp_replay *replay = NULL;
    struct rp_error err = {.message = ""};
    struct rp_replay_options options = {.numerics = engine->declared, .mode = RP_MODE_BATCHED};
    if (engine->model[0] == '/')
        snprintf(path, sizeof path, "%s", engine->model);
    else
        snprintf(path, sizeof path, "%s/fixtures/tiny/%s/%s-%s.gguf", root, engine->model,
                 engine->model, engine->type ? engine->type : "bf16");
    check(rp_model_open(path, &model, &err) == RP_OK, err.message);
    if (engine->scaling)
        scale_rope(model, engine->scaling);
    rp_test_make_folder(folder);
    snprintf(dump_folder, sizeof dump_folder, "%s/dump", folder);
    run_engine(engine, model, dump_folder);
    check(rp_tensor_set_open(dump_folder, RP_LAYOUT_AUTO, 0, &dump, &err) == RP_OK, err.message);
    check(rp_replay_open(model, dump, &options, &replay, &err) == RP_OK, err.message);
    explain(replay, engine, &report);
    rp_replay_close(replay);
    rp_tensor_set_close(dump);
    rp_model_close(model);
    rp_remove_tree(folder, NULL);
    return report;
}
