/* The order of values within a dump's rows, where it is not HF's: the rules of dump.json's "order", and
 * the turning of rows into HF's order. Not for which engine has which order: the dump says it. */
#ifndef REFPARITY_TENSOR_ORDER_H
#define REFPARITY_TENSOR_ORDER_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "refparity/status.h"

enum rp_order_kind {
    RP_ORDER_HF,                /* nothing to turn */
    RP_ORDER_INTERLEAVED_PAIRS, /* GGUF files of Llama: in a head, (2i, 2i+1) is HF's (i, i+n_rot/2) */
    RP_ORDER_TILED_HEADS /* GGUF files of Qwen3.5: head g + j*n_groups is HF's g*(n_heads/n_groups)+j */
};

struct rp_order {
    enum rp_order_kind kind;
    size_t head_dim; /* values a head */
    size_t
        n_rot; /* interleaved pairs: the head's first values, which are rotated; the others stay */
    size_t n_groups; /* tiled heads */
    size_t first;    /* tiled heads: the row's first value of a head; those before it stay */
};

/* Whether heads fill a row of dim values, and tiled heads fill their groups. */
bool rp_order_fits(const struct rp_order *order, size_t dim);
/* Which value of the dump's row is HF's value i. Only where it fits. */
size_t rp_order_from(const struct rp_order *order, size_t dim, size_t i);

struct rp_json;
struct rp_tensor;
struct rp_tensor_set;

/* Reads rules, dump.json's "order" (NULL: none), and gives each slot of the sorted set its order. A slot
 * whose width a rule does not fit gets that as its own error. A bad rule, a slot that no layer can have
 * and a slot with two rules are RP_ERR_FORMAT, at their line; RP_ERR_MEMORY. */
enum rp_status rp_order_read(struct rp_tensor_set *set, const struct rp_json *doc,
                             const cJSON *rules, struct rp_error *err);

/* Puts tensor's rows into HF's order, in memory that it owns. RP_ERR_MEMORY. */
enum rp_status rp_order_turn(const struct rp_order *order, const char *slot,
                             struct rp_tensor *tensor, struct rp_error *err);

#endif
