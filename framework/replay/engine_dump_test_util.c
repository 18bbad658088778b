/* See engine_dump_test_util.h. */
#include "replay/engine_dump_test_util.h"

#include <math.h>
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
        if (sink->of->keeps && !sink->of->keeps(tap->slot, tap->positions[i]))
            continue;
        memcpy(sink->row, tap->rows + i * tap->dim, tap->dim * sizeof *sink->row);
        if (sink->of->spoils)
            sink->of->spoils(tap->slot, tap->positions[i], sink->row, tap->dim);
        rp_dump_rows(sink->dump, tap->slot, tap->positions[i], 1, tap->dim, sink->row);
    }
    return RP_OK;
}

static void write_dump(struct rp_test_replayed *replayed, const struct rp_test_dump_of *of)
{
    const size_t n_layers = rp_model_config(replayed->model)->n_layers;
    int32_t tokens[MAX_TOKENS];
    const size_t n = of->n_tokens ? of->n_tokens : 24;
    struct rp_error err = {.code = RP_OK};
    require(n <= MAX_TOKENS, "too many tokens");
    for (size_t i = 0; i < n; i++)
        tokens[i] = (int32_t)(5 + (i * i * 7 + i * 31) % 290);
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
    snprintf(path, sizeof path, "%s/fixtures/tiny/%s/%s-%s.gguf", RP_SOURCE_DIR, of->model,
             of->model, of->type ? of->type : "bf16");
    rp_test_make_folder(replayed->folder);
    require(rp_model_open(path, &replayed->model, &err) == RP_OK, err.message);
    write_dump(replayed, of);
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

static void add(struct rp_test_findings *findings, struct rp_replay_layer *result)
{
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
    rp_replay_layer_free(result);
}

struct rp_test_findings rp_test_replay_all(struct rp_test_replayed *replayed)
{
    static const enum rp_slot_part parts[] = {RP_PART_EMB, RP_PART_POST_NORM, RP_PART_LOGITS};
    struct rp_test_findings findings = {.n_slots = 0};
    struct rp_replay_layer result = {.n_slots = 0};
    struct rp_error err = {.code = RP_OK};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        require(rp_replay_run_part(replayed->replay, parts[i], &result, &err) == RP_OK,
                err.message);
        add(&findings, &result);
    }
    for (size_t i = 0; i < rp_model_config(replayed->model)->n_layers; i++) {
        require(rp_replay_run_layer(replayed->replay, i, &result, &err) == RP_OK, err.message);
        add(&findings, &result);
    }
    return findings;
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

/* ---- other orders ---- */

static float dot(enum rp_test_order order, const float *a, const float *b, size_t n)
{
    float sum = 0;
    double exact = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t at = order == RP_TEST_REVERSED ? n - 1 - i : i;
        if (order == RP_TEST_FUSED)
            sum = fmaf(a[at], b[at], sum);
        else
            sum += a[at] * b[at];
        exact += (double)a[at] * (double)b[at];
    }
    return order == RP_TEST_DOUBLE ? (float)exact : sum;
}

static enum rp_status linear(void *context, const struct rp_site *site,
                             const struct rp_linear *args)
{
    const struct rp_test_engine_ops *ops = context;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t i = 0; i < args->n_out; i++)
            args->y[p * args->y_stride + i] = dot(ops->order, args->weight + i * args->n_in,
                                                  args->x + p * args->n_in, args->n_in);
    }
    return RP_OK;
}

static enum rp_status rms_norm(void *context, const struct rp_site *site,
                               const struct rp_rms_norm *args)
{
    const struct rp_test_engine_ops *ops = context;
    (void)site;
    for (size_t row = 0; row < args->n_rows; row++) {
        const float *x = args->x + row * args->dim;
        float *y = args->y + row * args->dim;
        const float mean = dot(ops->order, x, x, args->dim) / (float)args->dim;
        const float scale = 1.0f / sqrtf(mean + args->eps);
        for (size_t i = 0; i < args->dim; i++)
            y[i] = x[i] * scale * args->weight[i];
    }
    return RP_OK;
}

/* theta^(-2/n_rot) to the power i by i multiplications, starting from the position. */
static enum rp_status rope(void *context, const struct rp_site *site, const struct rp_rope *args)
{
    (void)context;
    const bool is_neox = args->ordering == RP_ROPE_NEOX;
    const float step = powf(args->theta, -2.0f / (float)args->n_rot);
    for (size_t p = 0; p < site->n_positions; p++) {
        float angle = (float)args->positions[p];
        for (size_t i = 0; i < args->n_rot / 2; i++) {
            const size_t a = is_neox ? i : 2 * i, b = is_neox ? i + args->n_rot / 2 : 2 * i + 1;
            const float factor = args->freq_factors ? args->freq_factors[i] : 1.0f;
            const float cosine = cosf(angle / factor), sine = sinf(angle / factor);
            for (size_t head = 0; head < args->n_heads; head++) {
                float *x = args->x + (p * args->n_heads + head) * args->head_dim;
                const float first = x[a], second = x[b];
                x[a] = first * cosine - second * sine;
                x[b] = first * sine + second * cosine;
            }
            angle *= step;
        }
    }
    return RP_OK;
}

/* Softmax and sum in one pass, rescaled whenever a larger score comes (arXiv 2205.14135). */
static void attend(const struct rp_test_engine_ops *ops, const struct rp_attention *args,
                   const float *q, size_t kv_at, int64_t position, float *y)
{
    const size_t dim = args->head_dim, kv_dim = args->n_kv_heads * dim;
    float max = -INFINITY, sum = 0;
    memset(y, 0, dim * sizeof *y);
    for (size_t key = 0; key < args->n_keys && args->key_positions[key] <= position; key++) {
        const float *value = args->values + key * kv_dim + kv_at;
        const float score =
            dot(ops->order, q, args->keys + key * kv_dim + kv_at, dim) * args->scale;
        const float larger = score > max ? score : max;
        const float rescale = expf(max - larger), weight = expf(score - larger);
        for (size_t i = 0; i < dim; i++)
            y[i] = y[i] * rescale + weight * value[i];
        sum = sum * rescale + weight;
        max = larger;
    }
    for (size_t i = 0; i < dim; i++)
        y[i] /= sum;
}

static enum rp_status attention(void *context, const struct rp_site *site,
                                const struct rp_attention *args)
{
    const struct rp_test_engine_ops *ops = context;
    const size_t group = args->n_heads / args->n_kv_heads;
    for (size_t p = 0; p < site->n_positions; p++) {
        for (size_t head = 0; head < args->n_heads; head++) {
            const size_t at = (p * args->n_heads + head) * args->head_dim;
            attend(ops, args, args->q + at, head / group * args->head_dim, site->positions[p],
                   args->y + at);
        }
    }
    return RP_OK;
}

void rp_test_engine_ops_open(struct rp_test_engine_ops *ops, enum rp_test_order order)
{
    rp_overlay_open(&ops->overlay, NULL);
    ops->order = order;
    ops->overlay.ops.linear = linear;
    ops->overlay.ops.rms_norm = rms_norm;
    ops->overlay.ops.rope = rope;
    ops->overlay.ops.attention = attention;
}
