/* The catalogue of bugs that refparity has to find: each replaces one operation of the C model, its
 * weights or the prompt, as an engine in the field got it wrong. Not for detecting them, and never
 * linked into the plain embedded engine. The entries are in bugs_*.c, by family. */
#ifndef REFPARITY_CASES_BUGS_H
#define REFPARITY_CASES_BUGS_H

#include "refparity/model.h"
#include "refparity/numerics.h"
#include "refparity/overlay.h"
#include "refparity/tensor_set.h"

#define RP_BUG_ALL_LAYERS (-1)
#define RP_BUG_EVERYWHERE (-1) /* not at one position, or in one head, alone */

/* The layers that a bug can be in, by what they do. */
enum rp_bug_layers {
    RP_BUG_IN_ANY_LAYER,
    RP_BUG_IN_FULL_ATTENTION,
    RP_BUG_IN_LINEAR_ATTENTION,
    RP_BUG_IN_NO_LAYER /* it is in what stands before or after them, or changes the prompt */
};

/* Weights that a bug takes in the place of those that it is given. */
enum rp_bug_weights {
    RP_BUG_NO_WEIGHTS,
    RP_BUG_OWN_WEIGHTS,  /* others of its layer */
    RP_BUG_OTHER_WEIGHTS /* those of the next layer of its kind; the last one takes the one before */
};

struct rp_bug {
    const char *name;
    const char *description;
    const char *provenance;    /* where an engine in the field had it, or one like it */
    const char *architectures; /* where it applies, comma-separated */
    /* Its operations in the place of those that are not NULL; or it rounds as these numerics say, and
     * not as declared; or the prompt is changed. */
    struct rp_ops ops;
    struct rp_numerics numerics;
    void (*change_prompt)(int32_t *tokens, size_t *n_tokens);
    enum rp_weight_id which; /* the norm or product that it is about, for those that ask */
    enum rp_bug_weights weights;
    const double *magnitudes; /* ended by 0, the largest error first; NULL: it has no parameter */
    /* What has to be reported: the slot that the wrong operation writes; of several the first that a
     * layer has. RP_PART_OTHER: none, the tokens. */
    enum rp_slot_part first_part;
    enum rp_bug_layers layers;
    /* Slots of the other operations that it is in, in forward order, ended by 0; NULL: none. */
    const enum rp_slot_part *also;
    /* The names of framework/explain that are right, of the operation that fails first, comma-separated;
     * "-" among them: so is "unexplained", as where no hypothesis is of this kind. */
    const char *names;
    bool in_per_token, in_batched; /* the modes that show it */
    bool spares_position_0;        /* position 0 alone would not show it */
    bool at_position, in_head;     /* it is also tried at one position, or in one head, alone */
    bool has_activations, has_kv_cache; /* what of the numerics is other than declared */
};

/* Where, and how much. */
struct rp_bug_choice {
    const struct rp_bug *bug;
    int layer;                   /* or RP_BUG_ALL_LAYERS; ignored where the bug is in no layer */
    double magnitude;            /* 0: the bug's first */
    int64_t position;            /* the only one, or RP_BUG_EVERYWHERE */
    int head;                    /* the only one, or RP_BUG_EVERYWHERE */
    struct rp_numerics declared; /* what the engine says that it computes in */
};

/* A bug at work: what the replaced operations get as their context. */
struct rp_bug_site {
    struct rp_overlay overlay; /* the bug's operations, over those without */
    struct rp_overlay scope;   /* over it: limits it to a position or a head */
    const struct rp_ops *ops;  /* what to run: one of the two */
    struct rp_bug_choice choice;
    struct rp_numerics numerics;   /* the bug's own */
    struct rp_emulation emulation; /* of them */
    struct rp_layer weights;       /* see enum rp_bug_weights; owned */
    float *kept;                   /* [n_kept][kept_dim], by position: what a later step asks for */
    size_t n_kept, kept_dim;
    const float *kept_weights[2]; /* of Q-norm and K-norm, where they are put off */
    float kept_eps;
    bool is_off; /* the scope is on a position or a run without the bug */
};

size_t rp_bug_count(void);
const struct rp_bug *rp_bug_at(size_t index);       /* index below rp_bug_count() */
const struct rp_bug *rp_bug_find(const char *name); /* NULL: there is none */

/* Whether the bug can be put into that architecture. */
bool rp_bug_applies(const struct rp_bug *bug, const char *architecture);

/* Whether it can be put into that layer, which the model has. */
bool rp_bug_applies_to_layer(const struct rp_bug *bug, const struct rp_model_config *config,
                             size_t layer);

/* The slot that shows a wrong operation in a dump of that level: its own, or the first after it. */
enum rp_slot_part rp_bug_shown_in(enum rp_slot_part part, enum rp_slot_level level);
/* The first slot that has to fail, in a layer that the bug applies to. */
enum rp_slot_part rp_bug_first_part(const struct rp_bug *bug, const struct rp_model *model,
                                    int layer, enum rp_slot_level level);
/* Whether the bug is in the operation that a failing slot shows. */
bool rp_bug_is_in_part(const struct rp_bug *bug, enum rp_slot_part part, enum rp_slot_level level);

/* Puts the bug into *site, whose ops then run it there and below everywhere else. plain: the
 * operations without rounding, for bugs in what is rounded; NULL: below. *site has to outlive its
 * use, must not move, and is to be ended with rp_bug_remove. RP_ERR_MEMORY, or the weights cannot be
 * read. */
enum rp_status rp_bug_install(const struct rp_bug_choice *choice, const struct rp_model *model,
                              const struct rp_ops *below, const struct rp_ops *plain,
                              struct rp_bug_site *site, struct rp_error *err);
void rp_bug_remove(struct rp_bug_site *site);

#endif
