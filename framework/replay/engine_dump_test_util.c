/* See engine_dump_test_util.h. */
#include "replay/engine_dump_test_util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/scratch_test_util.h"
#include "refparity/dump.h"

enum { MAX_TOKENS = 256 };

static void require(int is_met, const char *what)
{
    if (!is_met) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

/* ---- the dump ---- */

struct sink {
    struct rp_dump *dump;
    const struct rp_test_dump_of *of;
    float *row;
};

static enum rp_status dump_slot(void *context, const struct rp_tap *tap, struct rp_error *err)
{
    (void)err;
    struct sink *sink = context;
    sink->row = realloc(sink->row, tap->dim * sizeof *sink->row);
    require(sink->row != NULL, "no memory");
    for (size_t i = 0; i < tap->n_positions; i++) {
        float *own = tap->rows + i * tap->dim;
        if (sink->of->errs)
            sink->of->errs(tap->slot, tap->positions[i], own, tap->dim);
        memcpy(sink->row, own, tap->dim * sizeof *sink->row);
        if (sink->of->keeps && !sink->of->keeps(tap->slot, tap->positions[i]))
            continue;
        if (sink->of->spoils)
            sink->of->spoils(tap->slot, tap->positions[i], sink->row, tap->dim);
        rp_dump_rows(sink->dump, tap->slot, tap->positions[i], 1, tap->dim, sink->row);
    }
    return RP_OK;
}

static void write_dump(struct rp_test_replayed *replayed, const struct rp_test_dump_of *of)
{
    const size_t n_layers = rp_model_config(replayed->model)->n_layers;
    const size_t vocab_size = rp_model_config(replayed->model)->vocab_size;
    const size_t n_ids = vocab_size < 295 ? vocab_size - 5 : 290;
    int32_t tokens[MAX_TOKENS];
    const size_t n = of->n_tokens ? of->n_tokens : 24;
    struct rp_error err = {.code = RP_OK};
    require(n <= MAX_TOKENS, "too many tokens");
    for (size_t i = 0; i < n; i++)
        tokens[i] = (int32_t)(5 + (i * i * 7 + i * 31) % n_ids);
    struct sink sink = {.dump = rp_dump_open(replayed->folder, (int)n_layers, "test"), .of = of};
    const struct rp_run run = {.ops = of->ops,
                               .tokens = tokens,
                               .n_tokens = n,
                               .first_position = of->first_position,
                               .mode = of->mode,
                               .tap = dump_slot,
                               .tap_context = &sink};
    if (!of->is_without_tokens)
        rp_dump_tokens(sink.dump, tokens, n);
    require(rp_model_run(replayed->model, &run, &err) == RP_OK, err.message);
    require(rp_dump_close(sink.dump) == 0, "the dump cannot be written");
    free(sink.row);
}

void rp_test_replayed_open(struct rp_test_replayed *replayed, const struct rp_test_dump_of *of)
{
    char path[512];
    struct rp_error err = {.code = RP_OK};
    if (of->path)
        snprintf(path, sizeof path, "%s", of->path);
    else
        snprintf(path, sizeof path, "%s/fixtures/tiny/%s/%s-%s.gguf", RP_SOURCE_DIR, of->model,
                 of->model, of->type ? of->type : "bf16");
    rp_test_make_folder(replayed->folder);
    require(rp_model_open(path, &replayed->model, &err) == RP_OK, err.message);
    write_dump(replayed, of);
    if (of->damages)
        of->damages(replayed->folder);
    require(rp_tensor_set_open(replayed->folder, RP_LAYOUT_NPY, 0, &replayed->dump, &err) == RP_OK,
            err.message);
    require(rp_replay_open(replayed->model, replayed->dump, &of->options, &replayed->replay,
                           &err) == RP_OK,
            err.message);
}

void rp_test_replayed_close(struct rp_test_replayed *replayed)
{
    rp_replay_close(replayed->replay);
    rp_tensor_set_close(replayed->dump);
    rp_model_close(replayed->model);
    rp_remove_tree(replayed->folder, NULL);
}

/* ---- what is found ---- */

static void add(void *context, const struct rp_replay_layer *result)
{
    struct rp_test_findings *findings = context;
    for (size_t i = 0; i < result->n_slots; i++) {
        const struct rp_replay_slot *slot = &result->slots[i];
        findings->n_slots += slot->n_positions > 0;
        findings->n_skipped += slot->verdict == RP_SKIP;
        findings->n_carried += slot->is_carried;
        if (slot->verdict == RP_FAIL && findings->n_failing < 8)
            memcpy(findings->failing[findings->n_failing], slot->slot, sizeof slot->slot);
        if (slot->verdict == RP_FAIL && findings->n_failing++ == 0)
            memcpy(findings->message, slot->message, sizeof slot->message);
        if (slot->n_positions == 0)
            continue;
        const double ratio = slot->introduced[slot->worst] / slot->limit[slot->worst];
        if (!(ratio <= findings->worst)) {
            findings->worst = ratio;
            memcpy(findings->worst_slot, slot->slot, sizeof slot->slot);
        }
    }
}

void rp_test_replay_each(struct rp_test_replayed *replayed, rp_test_layer_fn *see, void *context)
{
    static const enum rp_slot_part parts[] = {RP_PART_EMB, RP_PART_POST_NORM, RP_PART_LOGITS};
    struct rp_replay_layer result = {.n_slots = 0};
    struct rp_error err = {.code = RP_OK};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        require(rp_replay_run_part(replayed->replay, parts[i], &result, &err) == RP_OK,
                err.message);
        see(context, &result);
        rp_replay_layer_free(&result);
    }
    for (size_t i = 0; i < rp_model_config(replayed->model)->n_layers; i++) {
        require(rp_replay_run_layer(replayed->replay, i, &result, &err) == RP_OK, err.message);
        see(context, &result);
        rp_replay_layer_free(&result);
    }
}

struct rp_test_findings rp_test_replay_all(struct rp_test_replayed *replayed)
{
    struct rp_test_findings findings = {.n_slots = 0};
    rp_test_replay_each(replayed, add, &findings);
    return findings;
}

struct rp_test_findings rp_test_replay(const struct rp_test_dump_of *of)
{
    struct rp_test_replayed replayed;
    rp_test_replayed_open(&replayed, of);
    const struct rp_test_findings findings = rp_test_replay_all(&replayed);
    rp_test_replayed_close(&replayed);
    return findings;
}

/* first_failing points into result, so it stays. */
void rp_test_replay_layer(const struct rp_test_dump_of *of, size_t layer,
                          struct rp_replay_layer *result)
{
    struct rp_test_replayed replayed;
    struct rp_error err = {.code = RP_OK};
    rp_test_replayed_open(&replayed, of);
    require(rp_replay_run_layer(replayed.replay, layer, result, &err) == RP_OK, err.message);
    rp_test_replayed_close(&replayed);
}

const struct rp_replay_slot *rp_test_slot(const struct rp_replay_layer *layer, const char *name)
{
    for (size_t i = 0; i < layer->n_slots; i++) {
        if (strcmp(layer->slots[i].slot, name) == 0)
            return &layer->slots[i];
    }
    require(0, name);
    return NULL;
}
