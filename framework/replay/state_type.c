/* See replay/state_type.h. */
#include "replay/state_type.h"

#include <math.h>
#include <string.h>

#include "formats/half.h"

/* A value of FP32 is a number of a 16-bit type by chance once in 2^13, and one of F16 is a BF16 number
 * once in 8: so many of them are not, in 2^48. */
#define MANY_VALUES 16

bool rp_find_state(const struct rp_tensor *tensor, size_t first, size_t n, enum rp_state *state)
{
    size_t n_values = 0;
    bool are_bf16 = true, are_f16 = true;
    for (size_t i = first; i < first + n && (are_bf16 || are_f16); i++) {
        const unsigned char *row = rp_tensor_row(tensor, tensor->positions[i]);
        for (size_t k = 0; k < tensor->dim && (are_bf16 || are_f16); k++) {
            float value;
            memcpy(&value, row + k * sizeof value, sizeof value);
            if (value == 0 || !isfinite(value))
                continue;
            n_values++;
            are_bf16 = are_bf16 && value == rp_round_bf16(value);
            are_f16 = are_f16 && value == rp_round_f16(value);
        }
    }
    *state = are_bf16 ? RP_STATE_BF16 : are_f16 ? RP_STATE_F16 : RP_STATE_F32;
    return *state == RP_STATE_F32 || n_values >= MANY_VALUES;
}

const char *rp_state_type(enum rp_state state)
{
    return state == RP_STATE_BF16 ? "BF16" : state == RP_STATE_F16 ? "F16" : "FP32";
}

/* A copy of the file's values is of the file's type, HF keeps the decay in FP32, and small whole numbers are
 * numbers of every type. */
static bool is_computed(enum rp_slot_part part, int layer)
{
    return part != RP_PART_OTHER && part != RP_PART_EMB && part != RP_PART_DECAY &&
           part != RP_PART_EXPERTS && !(part == RP_PART_IN && layer == 0);
}

/* The slot's last row; false: it tells nothing. */
static bool state_of_slot(struct rp_tensor_set *dump, const char *name, enum rp_state *state)
{
    struct rp_tensor tensor;
    if (rp_tensor_load(dump, name, &tensor, NULL) != RP_OK)
        return false;
    const bool tells =
        tensor.n_positions > 0 && rp_find_state(&tensor, tensor.n_positions - 1, 1, state);
    rp_tensor_release(&tensor);
    return tells;
}

/* What the slots' types are: how many are of each, and the first of them. */
struct census {
    size_t n[RP_STATE_F16 + 1];
    const char *first[RP_STATE_F16 + 1];
};

static struct census count_types(struct rp_tensor_set *dump)
{
    struct census census = {.n = {0}};
    for (size_t i = 0; i < rp_tensor_set_n_slots(dump); i++) {
        const struct rp_slot_info *info = rp_tensor_set_slot(dump, i);
        enum rp_state state;
        int layer;
        const enum rp_slot_part part = rp_slot_parse(info->name, &layer);
        if (info->error.code == RP_OK && is_computed(part, layer) &&
            state_of_slot(dump, info->name, &state) && census.n[state]++ == 0)
            census.first[state] = info->name;
    }
    return census;
}

enum rp_status rp_check_state(struct rp_tensor_set *dump, enum rp_state declared,
                              struct rp_error *err)
{
    if (declared == RP_STATE_F32) /* what is not in FP32 fails, and is told then */
        return RP_OK;
    const struct census census = count_types(dump);
    const enum rp_state other = declared == RP_STATE_BF16 ? RP_STATE_F16 : RP_STATE_BF16;
    const enum rp_state found = census.n[other] > census.n[RP_STATE_F32] ? other : RP_STATE_F32;
    const char *path = rp_tensor_set_path(dump), *name = rp_state_name(declared);
    const size_t n_others = census.n[other] + census.n[RP_STATE_F32];
    if (n_others <= census.n[declared])
        return RP_OK;
    if (found == RP_STATE_F32)
        return rp_fail(
            err, RP_ERR_MISMATCH, path, -1,
            "%s has values that are no %s numbers, and so have %zu of the %zu slots that "
            "the engine computes; \"state\": \"%s\" is declared: declare the type that "
            "the engine keeps its values in, \"f32\" for FP32",
            census.first[found], rp_state_type(declared), census.n[found],
            n_others + census.n[declared], name);
    return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                   "all values of %s are %s numbers, and so are those of %zu of the %zu slots that "
                   "the engine computes; \"state\": \"%s\" is declared: declare \"%s\"",
                   census.first[found], rp_state_type(found), census.n[found],
                   n_others + census.n[declared], name, rp_state_name(found));
}
