/* See replay/expected.h. */
#include "replay/expected.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "replay/dumped.h"
#include "replay/judge.h"

struct rp_expected {
    struct rp_tensor_set *set, *dump;
    struct rp_json *manifest;
    const cJSON *about; /* manifest's "expected" */
    struct rp_numerics numerics;
};

/* The columns of SLOT.limits. */
enum { BOUND, WORTH, OWN, EARLIER, N_LIMITS };

/* ---- does it belong to the dump? ---- */

static enum rp_status read_manifest(struct rp_expected *expected, struct rp_error *err)
{
    const char *path = rp_tensor_set_path(expected->set);
    size_t n;
    const char *text = rp_tensor_set_manifest(expected->set, &n);
    enum rp_status status = RP_OK;
    if (text)
        status = rp_json_parse(text, n, path, &expected->manifest, err);
    if (status != RP_OK)
        return status;
    if (text)
        expected->about =
            cJSON_GetObjectItemCaseSensitive(rp_json_root(expected->manifest), "expected");
    if (!cJSON_IsObject(expected->about) || rp_tensor_set_n_layers(expected->set) < 1)
        return rp_fail(err, RP_ERR_FORMAT, path, -1,
                       "its manifest has no \"expected\": it is not what ci/record.sh --replay "
                       "writes");
    return rp_activations_parse(rp_json_text(expected->about, "activations"),
                                &expected->numerics.activations, err);
}

static enum rp_status check_tokens(const struct rp_expected *expected, struct rp_error *err)
{
    const int64_t *of_dump, *own;
    size_t n_of_dump, n_own;
    enum rp_status status = rp_tensor_set_tokens(expected->dump, &of_dump, &n_of_dump, err);
    if (status == RP_OK)
        status = rp_tensor_set_tokens(expected->set, &own, &n_own, err);
    if (status != RP_OK || n_of_dump == 0 || n_own == 0)
        return status;
    if (n_of_dump != n_own || memcmp(of_dump, own, n_own * sizeof *own) != 0)
        return rp_fail(
            err, RP_ERR_MISMATCH, rp_tensor_set_path(expected->set), -1,
            "it was computed for other tokens than the dump's, %zu for %zu: make it again", n_own,
            n_of_dump);
    return RP_OK;
}

static enum rp_status check_slots(const struct rp_expected *expected, struct rp_error *err)
{
    const char *path = rp_tensor_set_path(expected->dump);
    const int n_layers = rp_tensor_set_n_layers(expected->set);
    const int declared = rp_tensor_set_n_layers(expected->dump);
    size_t n_known = 0;
    if (declared >= 0 && declared != n_layers)
        return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                       "the dump says that it has %d layers; the model has %d", declared, n_layers);
    for (size_t i = 0; i < rp_tensor_set_n_slots(expected->dump); i++) {
        const struct rp_slot_info *info = rp_tensor_set_slot(expected->dump, i);
        const struct rp_slot_info *own = rp_tensor_set_find(expected->set, info->name);
        int layer;
        if (rp_slot_parse(info->name, &layer) == RP_PART_OTHER)
            continue;
        n_known++;
        if (layer >= n_layers)
            return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                           "the dump has %s; the model has %d layers", info->name, n_layers);
        if (own && info->error.code == RP_OK && own->dim != info->dim)
            return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                           "%s has %zu values a position in the dump; in the model it has %zu",
                           info->name, info->dim, own->dim);
    }
    if (n_known == 0)
        return rp_fail(err, RP_ERR_MISSING, path, -1, "the dump has no slot that a layer computes");
    return RP_OK;
}

enum rp_status rp_expected_open(const char *path, struct rp_tensor_set *dump,
                                struct rp_expected **out, struct rp_error *err)
{
    struct rp_expected *expected = calloc(1, sizeof *expected);
    if (!expected)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for a replay");
    expected->dump = dump;
    enum rp_status status = rp_tensor_set_open(path, RP_LAYOUT_NPZ, 0, &expected->set, err);
    if (status == RP_OK)
        status = read_manifest(expected, err);
    if (status == RP_OK)
        status = check_slots(expected, err);
    if (status == RP_OK)
        status = check_tokens(expected, err);
    if (status == RP_OK)
        *out = expected;
    else
        rp_expected_close(expected);
    return status;
}

void rp_expected_close(struct rp_expected *expected)
{
    if (!expected)
        return;
    rp_json_free(expected->manifest);
    rp_tensor_set_close(expected->set);
    free(expected);
}

int rp_expected_n_layers(const struct rp_expected *expected)
{
    return rp_tensor_set_n_layers(expected->set);
}

const char *rp_expected_model(const struct rp_expected *expected)
{
    return rp_json_text(expected->about, "model");
}

const struct rp_numerics *rp_expected_numerics(const struct rp_expected *expected)
{
    return &expected->numerics;
}

/* ---- one slot ---- */

/* Arrays are [n], in one block that errors begins. */
struct rows {
    struct rp_row_error *errors;
    double *limits[N_LIMITS];
    unsigned char *founded;
    bool has_tips;
};

static void rows_close(struct rows *rows)
{
    free(rows->errors);
    free(rows->limits[0]);
    free(rows->founded);
}

static enum rp_status rows_open(struct rows *rows, size_t n, struct rp_error *err)
{
    *rows =
        (struct rows){.errors = calloc(n + 1, sizeof *rows->errors), .founded = calloc(n + 1, 1)};
    rows->limits[0] = calloc(N_LIMITS * (n + 1), sizeof *rows->limits[0]);
    if (!rows->errors || !rows->founded || !rows->limits[0]) {
        rows_close(rows);
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu positions", n);
    }
    for (size_t i = 1; i < N_LIMITS; i++)
        rows->limits[i] = rows->limits[0] + i * (n + 1);
    return RP_OK;
}

/* limits [N_LIMITS]; false where they are none. */
static bool take_limits(struct rows *rows, size_t i, const void *limits)
{
    float values[N_LIMITS];
    memcpy(values, limits, sizeof values);
    for (size_t k = 0; k < N_LIMITS; k++) {
        if (!isfinite(values[k]) || (k != WORTH && values[k] < 0))
            return false;
        rows->limits[k][i] = fmax((double)values[k], 0);
    }
    rows->has_tips |= values[WORTH] >= 0;
    return true;
}

static void take_row(const struct rp_expected *expected, const struct rp_dumped *dumped,
                     const struct rp_dumped *own, const struct rp_tensor *limits, size_t i,
                     float *aligned, struct rows *rows)
{
    const int64_t position = own->tensor.positions[i];
    const void *engine = rp_dumped_row(dumped, position);
    const void *limits_row = rp_tensor_row(limits, position);
    if (!engine || !limits_row || !rp_dumped_is_finite(own, position) ||
        !take_limits(rows, i, limits_row))
        return;
    memcpy(aligned, rp_dumped_row(own, position), own->tensor.dim * sizeof *aligned);
    rows->errors[i] = rp_row_error_of(&expected->numerics, aligned, engine, own->tensor.dim, 0);
    rows->founded[i] = 1;
}

static enum rp_status judge_rows(const struct rp_expected *expected, const struct rp_dumped *dumped,
                                 const struct rp_dumped *own, const struct rp_tensor *limits,
                                 const struct rp_replayed *texts, struct rp_replay_slot *result,
                                 struct rp_error *err)
{
    const size_t n = own->tensor.n_positions;
    struct rows rows = {.errors = NULL};
    struct rp_replayed replayed = *texts;
    float *aligned = calloc(own->tensor.dim + 1, sizeof *aligned);
    enum rp_status status = aligned ? rows_open(&rows, n, err)
                                    : rp_fail(err, RP_ERR_MEMORY, NULL, -1,
                                              "no memory for a row of %zu values", own->tensor.dim);
    if (status != RP_OK) {
        free(aligned);
        return status;
    }
    for (size_t i = 0; i < n; i++)
        take_row(expected, dumped, own, limits, i, aligned, &rows);
    const struct rp_expected_tips tips = {
        .worth = rows.limits[WORTH], .own = rows.limits[OWN], .earlier = rows.limits[EARLIER]};
    replayed.n = n;
    replayed.positions = own->tensor.positions;
    replayed.errors = rows.errors;
    replayed.founded = rows.founded;
    replayed.bound = rows.limits[BOUND];
    replayed.tips = rows.has_tips ? &tips : NULL;
    status = rp_replay_judge(&replayed, result, err);
    rows_close(&rows);
    free(aligned);
    return status;
}

/* Not computed: no verdict, and no pass of its positions either way. */
static void skip(const struct rp_expected *expected, struct rp_replay_slot *result)
{
    const char *why = rp_json_text(expected->about, "unknown");
    result->verdict = RP_SKIP;
    snprintf(result->operation, sizeof result->operation, "-");
    snprintf(result->message, sizeof result->message, "not replayed%s%.400s", why[0] ? ": " : "",
             why);
}

static enum rp_status load_own(struct rp_expected *expected, struct rp_dumped *own,
                               struct rp_tensor *limits, struct rp_error *err)
{
    char name[RP_SLOT_NAME_SIZE + 8];
    snprintf(name, sizeof name, "%s.limits", own->slot);
    if (own->err.code != RP_OK) {
        *err = own->err;
        return own->err.code;
    }
    enum rp_status status = rp_tensor_load(expected->set, name, limits, err);
    if (status == RP_OK &&
        (limits->dim != N_LIMITS || limits->n_positions != own->tensor.n_positions)) {
        rp_tensor_release(limits);
        status =
            rp_fail(err, RP_ERR_FORMAT, rp_tensor_set_path(expected->set), -1,
                    "%s: expected %zu rows of %d values", name, own->tensor.n_positions, N_LIMITS);
    }
    return status;
}

enum rp_status rp_expected_judge(struct rp_expected *expected, const char *slot,
                                 struct rp_replay_slot *result, struct rp_error *err)
{
    int layer;
    const enum rp_slot_part part = rp_slot_parse(slot, &layer);
    const cJSON *about = cJSON_GetObjectItemCaseSensitive(
        cJSON_GetObjectItemCaseSensitive(expected->about, "slots"), slot);
    struct rp_dumped dumped, own;
    struct rp_tensor limits = {.data = NULL};
    enum rp_status status = RP_OK;
    *result = (struct rp_replay_slot){.part = part, .layer = layer};
    snprintf(result->slot, sizeof result->slot, "%s", slot);
    rp_dumped_open(&dumped, expected->dump, part, layer);
    rp_dumped_open(&own, expected->set, part, layer);
    rp_dumped_check(&own);
    const char *left_out = rp_json_text(about, "left_out");
    const struct rp_replayed texts = {.part = part,
                                      .layer = layer,
                                      .operation = rp_json_text(about, "operation"),
                                      .from = rp_json_text(about, "from"),
                                      .between = rp_json_text(about, "between"),
                                      .left_out = left_out[0] ? left_out : NULL,
                                      .dumped = &dumped,
                                      .state = expected->numerics.state};
    if (dumped.err.code != RP_OK)
        status = rp_replay_judge(&texts, result, err);
    else if (!own.info)
        skip(expected, result);
    else
        status = load_own(expected, &own, &limits, err);
    if (limits.data)
        status = judge_rows(expected, &dumped, &own, &limits, &texts, result, err);
    rp_tensor_release(&limits);
    rp_dumped_close(&own);
    rp_dumped_close(&dumped);
    return status;
}
