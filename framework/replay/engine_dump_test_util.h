/* Dumps of the C model as if it were an engine's, right or spoilt, opened for a replay. */
#ifndef REFPARITY_REPLAY_ENGINE_DUMP_TEST_UTIL_H
#define REFPARITY_REPLAY_ENGINE_DUMP_TEST_UTIL_H

#include "refparity/replay.h"

struct rp_test_dump_of {
    const char *model; /* "qwen3", "llama", "qwen35" */
    const char *type;  /* NULL: "bf16" */
    const char *path;  /* of another model; NULL: the tiny one */
    size_t n_tokens;   /* 0: 24 */
    int64_t first_position;
    const struct rp_ops *ops; /* NULL: the plain ones */
    enum rp_mode mode;
    bool (*keeps)(const char *slot, int64_t position); /* NULL: all rows are dumped */
    /* Changes a row in the dump alone, or the engine's own row, from which it goes on. NULL: none. */
    void (*spoils)(const char *slot, int64_t position, float *row, size_t dim);
    void (*errs)(const char *slot, int64_t position, float *row, size_t dim);
    void (*damages)(const char *folder); /* the finished dump; NULL: none */
    bool is_without_tokens;
    struct rp_replay_options options;
};

struct rp_test_replayed {
    char folder[256];
    struct rp_model *model;
    struct rp_tensor_set *dump;
    struct rp_replay *replay;
};

/* Abort where they cannot. End with rp_test_replayed_close. */
void rp_test_replayed_open(struct rp_test_replayed *replayed, const struct rp_test_dump_of *of);
void rp_test_replayed_close(struct rp_test_replayed *replayed);

/* emb, post_norm and logits, then each layer; result is freed after the call. */
typedef void rp_test_layer_fn(void *context, const struct rp_replay_layer *result);
void rp_test_replay_each(struct rp_test_replayed *replayed, rp_test_layer_fn *see, void *context);

/* What was found of every layer, and of emb, post_norm and logits. */
struct rp_test_findings {
    size_t n_slots, n_failing, n_skipped, n_carried;
    double worst; /* the largest introduced / limit */
    char worst_slot[RP_SLOT_NAME_SIZE];
    char failing[8][RP_SLOT_NAME_SIZE]; /* the first n_failing */
    char message[512];                  /* of the first failing slot */
};
struct rp_test_findings rp_test_replay_all(struct rp_test_replayed *replayed);
/* The same of a dump that is written for it. */
struct rp_test_findings rp_test_replay(const struct rp_test_dump_of *of);
/* One layer of such a dump; free it with rp_replay_layer_free. */
void rp_test_replay_layer(const struct rp_test_dump_of *of, size_t layer,
                          struct rp_replay_layer *result);

/* The slot of a layer's result; aborts where it is not there. */
const struct rp_replay_slot *rp_test_slot(const struct rp_replay_layer *layer, const char *name);

/* Other ways to compute the same in FP32, as engines do. */
enum rp_test_order {
    RP_TEST_SEQUENTIAL, /* sums term after term */
    RP_TEST_REVERSED,   /* from the last term on */
    RP_TEST_FUSED,      /* with fused multiply-add */
    RP_TEST_DOUBLE,     /* in double */
    RP_TEST_N_ORDERS
};
struct rp_test_engine_ops {
    struct rp_overlay overlay; /* comes first */
    enum rp_test_order order;
};
/* Sums in that order, softmax in one pass over the keys, angles by repeated multiplication, and
 * activations by another formula. */
void rp_test_engine_ops_open(struct rp_test_engine_ops *ops, enum rp_test_order order);

#endif
