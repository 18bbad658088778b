/* The catalogue of bugs that refparity has to find: each replaces one operation of the C model, as
 * an engine in the field got it wrong. Not for detecting them, and never linked into the plain
 * embedded engine. */
#ifndef REFPARITY_CASES_BUGS_H
#define REFPARITY_CASES_BUGS_H

#include "refparity/model.h"
#include "refparity/overlay.h"
#include "refparity/tensor_set.h"

#define RP_BUG_ALL_LAYERS (-1)

/* The layers that a bug can be in, by what they do. */
enum rp_bug_layers {
    RP_BUG_IN_ANY_LAYER,
    RP_BUG_IN_FULL_ATTENTION,
    RP_BUG_IN_LINEAR_ATTENTION,
    RP_BUG_IN_NO_LAYER /* it changes the prompt */
};

/* A bug at work: what the replaced operations get as their context. */
struct rp_bug_site {
    struct rp_overlay overlay; /* the operations with the bug, over those without */
    int layer;                 /* or RP_BUG_ALL_LAYERS */
};

struct rp_bug {
    const char *name;
    const char *description;
    const char *provenance;    /* where an engine in the field had it, or one like it */
    const char *architectures; /* where it applies, comma-separated */
    /* Exactly one is not NULL. */
    void (*replace)(struct rp_ops *ops);
    void (*change_prompt)(int32_t *tokens, size_t *n_tokens);
    /* What has to be reported. The first sub-stage that differs; RP_PART_OTHER: none, the tokens. */
    enum rp_slot_part first_part;
    enum rp_bug_layers layers;
    bool in_per_token, in_batched; /* the modes that show it */
    bool spares_position_0;        /* position 0 alone would not show it */
};

extern const struct rp_bug rp_bugs[]; /* [rp_n_bugs] */
extern const size_t rp_n_bugs;

const struct rp_bug *rp_bug_find(const char *name); /* NULL: there is none */

/* Whether the bug can be put into that architecture. */
bool rp_bug_applies(const struct rp_bug *bug, const char *architecture);

/* Whether it can be put into that layer, which the model has. */
bool rp_bug_applies_to_layer(const struct rp_bug *bug, const struct rp_model_config *config,
                             size_t layer);

/* Puts the bug into *site, whose overlay then runs it in that layer and below everywhere else. *site
 * has to outlive its use, and must not move. */
void rp_bug_install(const struct rp_bug *bug, int layer, const struct rp_ops *below,
                    struct rp_bug_site *site);

#endif
