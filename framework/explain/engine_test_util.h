/* An engine with a bug, for the tests of the explanations: a tiny model, run with one operation
 * replaced and with noise of FP32's size, dumped, replayed and explained. */
#ifndef REFPARITY_EXPLAIN_ENGINE_TEST_UTIL_H
#define REFPARITY_EXPLAIN_ENGINE_TEST_UTIL_H

#include "refparity/explain.h"

/* What a bug's operations get as their context. */
struct rp_test_bug {
    struct rp_overlay overlay; /* comes first */
    int layer;
    double value;
    int option;
    enum rp_weight_id which;
    int64_t position; /* the only one with the bug; -1: all */
    int head;
    const struct rp_layer *weights;     /* of other_layer */
    const struct rp_layer *own_weights; /* of layer */
    const float *remembered;            /* from one operation to a later one */
};

/* Whether the bug is in this layer. */
bool rp_test_bug_is_here(const struct rp_test_bug *bug, const struct rp_site *site);
/* The operation without it. */
#define RP_TEST_BELOW(bug, operation, site, args) \
    (bug)->overlay.below->operation((bug)->overlay.below->context, site, args)
/* Of values [n], to be freed; aborts where there is no memory. */
float *rp_test_copy(const float *values, size_t n);

struct rp_test_engine {
    const char *model;                   /* "qwen3", "llama", "qwen35"; or a GGUF's whole path */
    const char *type;                    /* NULL: "bf16" */
    void (*install)(struct rp_ops *ops); /* NULL: no bug */
    int layer;
    double value;
    int option;
    enum rp_weight_id which;
    bool at_one_position;
    int64_t position; /* with at_one_position */
    int head;
    int other_layer;          /* whose weights the bug reads */
    enum rp_slot_level level; /* zeroed: layers */
    const char *without; /* slots of the level that are not dumped: "_postattn"; NULL: all are */
    /* Changes a row of the dump, and not what the engine goes on with; NULL: none. */
    void (*spoils)(const char *slot, int64_t position, float *row, size_t dim);
    const char *of;  /* the slot to explain: "_krope"; NULL: the first that fails */
    bool is_outside; /* not a layer is replayed, but part: emb, post_norm or logits */
    enum rp_slot_part part;
    const struct rp_rope_scaling *scaling; /* of the model; NULL: its own */
    struct rp_numerics numerics;           /* what it computes in */
    struct rp_numerics declared;           /* what is said that it computes in */
    size_t n_tokens;                       /* 0: 24 */
};

struct rp_test_report {
    struct rp_explanation explanation;
    char slot[RP_SLOT_NAME_SIZE]; /* which is explained; "" */
    enum rp_verdict verdict;      /* of that slot, and its message */
    char message[512];
    size_t n_failing;   /* slots of the layer */
    double times_limit; /* the error of the worst position */
};

/* root: the source tree, which only unit tests know (RP_SOURCE_DIR). Aborts where it cannot run. */
struct rp_test_report rp_test_explain(const char *root, const struct rp_test_engine *engine);

#endif
