/* See tensor/chosen_order.h. */
#include "tensor/chosen_order.h"

#include <stdlib.h>
#include <string.h>

bool rp_part_is_of_experts(enum rp_slot_part part)
{
    return part == RP_PART_EXPERTS || part == RP_PART_EXPERTW || part == RP_PART_GATE ||
           part == RP_PART_UP || part == RP_PART_ACT;
}

enum rp_status rp_chosen_check(const struct rp_slot_info *experts, const struct rp_slot_info *slot,
                               const char *path, struct rp_error *err)
{
    size_t at = 0;
    for (size_t i = 0; i < slot->n_positions; i++) {
        while (at < experts->n_positions && experts->positions[at] < slot->positions[i])
            at++;
        if (at == experts->n_positions || experts->positions[at] != slot->positions[i])
            return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                           "%s has no row at position %lld, where %s has one: which experts' "
                           "values those are is not known",
                           experts->name, (long long)slot->positions[i], slot->name);
    }
    return RP_OK;
}

static float number_at(const unsigned char *row, size_t k)
{
    float value;
    memcpy(&value, row + k * sizeof value, sizeof value);
    return value;
}

/* order [n]: the places of the numbers, the lowest first; of equals, and of what is no number, as they stand. */
static bool sort_numbers(const unsigned char *row, size_t n, size_t *order)
{
    bool is_sorted = true;
    for (size_t k = 0; k < n; k++) {
        const float value = number_at(row, k);
        size_t at = k;
        for (; at > 0 && number_at(row, order[at - 1]) > value; at--)
            order[at] = order[at - 1];
        order[at] = k;
        is_sorted &= at == k;
    }
    return is_sorted;
}

static enum rp_status own_data(struct rp_tensor *tensor, struct rp_error *err)
{
    const size_t n_bytes = tensor->n_positions * tensor->dim * sizeof(float);
    if (tensor->owned == tensor->data && tensor->owned)
        return RP_OK;
    void *copy = malloc(n_bytes + 1);
    if (!copy)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu rows of %zu values",
                       tensor->n_positions, tensor->dim);
    memcpy(copy, tensor->data, n_bytes);
    free(tensor->owned);
    tensor->owned = copy;
    tensor->data = copy;
    return RP_OK;
}

enum rp_status rp_chosen_order(const struct rp_tensor *experts, struct rp_tensor *tensor,
                               struct rp_error *err)
{
    const size_t n = experts->dim, each = n > 0 ? tensor->dim / n : 0;
    const size_t n_bytes = each * sizeof(float);
    enum rp_status status = RP_OK;
    if (n == 0 || each == 0 || tensor->dim % n != 0)
        return RP_OK;
    size_t *order = calloc(n, sizeof *order);
    unsigned char *row = malloc(n * n_bytes);
    if (!order || !row)
        status = rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu experts", n);
    for (size_t p = 0; p < tensor->n_positions && status == RP_OK; p++) {
        const unsigned char *numbers = rp_tensor_row(experts, tensor->positions[p]);
        if (!numbers || sort_numbers(numbers, n, order))
            continue;
        status = own_data(tensor, err);
        if (status != RP_OK)
            break;
        unsigned char *to = (unsigned char *)tensor->owned + p * n * n_bytes;
        memcpy(row, to, n * n_bytes);
        for (size_t k = 0; k < n; k++)
            memcpy(to + k * n_bytes, row + order[k] * n_bytes, n_bytes);
    }
    free(order);
    free(row);
    return status;
}
