/* Which slot a name of another recorder is: from a file that a user writes, or from the names that are
 * common. A rule is a pair of names, "model.layers.{l} h{l}"; {l} is a layer's number, {l+1} one more than
 * that. Not for what is in a set, nor for what to do where two names are one slot: set_names.h. */
#ifndef REFPARITY_TENSOR_NAMES_H
#define REFPARITY_TENSOR_NAMES_H

#include <stdbool.h>

#include "refparity/tensor_set.h"

/* What a rule makes of a name. */
enum rp_name_kind {
    RP_NAME_SLOT,          /* target is a slot's name: "h{l}" or "emb" */
    RP_NAME_STACK,         /* an array [layers][positions][dim]: entry l is the target's layer l */
    RP_NAME_HIDDEN_STATE,  /* entry l of transformers' hidden_states: emb, h0, h1 ..., post_norm */
    RP_NAME_HIDDEN_STATES, /* an array of all of them */
    RP_NAME_TOKENS,
    RP_NAME_POSITIONS,
    RP_NAME_LEFT_OUT
};

struct rp_name_rule {
    char *name;   /* theirs: "layer_{l}" */
    char *target; /* ours */
    enum rp_name_kind kind;
    bool is_counted; /* their first layer may be 0 or 1: it is not known which */
    bool is_used;
    int line; /* of the user's file */
};

struct rp_names {
    struct rp_name_rule *rules; /* [n] */
    size_t n, max;
    char *path;
};

/* Reads a file: lines "their_name our_slot", or a JSON object of them. Our slot is emb, h{l}, h{l}_q ...,
 * post_norm, logits; or tokens, positions, hidden_states, hidden_states.{l}, or - for what is to be left out.
 * A '#' begins a comment. On success free with rp_names_free. RP_ERR_MISSING, RP_ERR_IO, RP_ERR_MEMORY,
 * RP_ERR_FORMAT, with the line. */
enum rp_status rp_names_open(const char *path, struct rp_names **names, struct rp_error *err);
enum rp_status rp_names_parse(const char *text, size_t n, const char *where,
                              struct rp_names **names, struct rp_error *err);
/* The names that are common: of transformers' outputs and modules, of llama.cpp's graph, of scripts. */
enum rp_status rp_names_common(struct rp_names **names, struct rp_error *err);
void rp_names_free(struct rp_names *names); /* NULL is allowed */

/* The first rule for that name, and its number l, -1 where it has none; NULL where there is no rule. */
struct rp_name_rule *rp_names_find(struct rp_names *names, const char *name, int *l);
/* The name of a slot of layer l by the rule's target, out[RP_SLOT_NAME_SIZE]. Returns out. */
char *rp_name_target(const struct rp_name_rule *rule, int l, char *out);

/* A rule that fits no name of the sets that were opened with these names; NULL where there is none. */
const struct rp_name_rule *rp_names_unused(const struct rp_names *names);

#endif
