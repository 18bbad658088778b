/* Replays a pair's dump: what each layer of the engine adds of its own, beside what it inherits. Needs
 * the dump and the entry's engine_gguf, and no reference. Not for replaying itself
 * (refparity/replay.h). */
#ifndef REFPARITY_RUN_JUDGE_REPLAY_H
#define REFPARITY_RUN_JUDGE_REPLAY_H

#include "refparity/explain.h"
#include "refparity/replay.h"
#include "run/judge.h"

/* One test "replay/h07", or "replay/emb" … */
struct rp_replay_result {
    char slot[RP_SLOT_NAME_SIZE]; /* "h7", "emb", "post_norm", "logits" */
    struct rp_judgement judgement;
    struct rp_replay_layer layer; /* zeroed where nothing could be replayed */
    /* L2_rel of what the layer was given, at the first failing position of the first slot that fails,
     * against HF; NaN where that is not known, or nothing fails. */
    double inherited;
    /* Of layer.slots, one each: two that fail are two bugs. Its text is "" where the slot does not. */
    struct rp_explanation explanations[RP_N_LAYER_PARTS];
    double seconds; /* that its test took, or computing it here */
};

struct rp_judge_replay;

/* Opens the entry's GGUF and its dump in *out, also where they are missing or not what the C model
 * knows: then each result says so. RP_ERR_MEMORY only. judge has to outlive it. */
enum rp_status rp_judge_replay_open(const struct rp_judge *judge, struct rp_judge_replay **out,
                                    struct rp_error *err);
void rp_judge_replay_close(struct rp_judge_replay *replay); /* NULL is allowed */

/* Replays slot, a required one; result is to be freed. A dump or a GGUF that is missing, or a model
 * that the C model does not know, is a SKIP. */
void rp_judge_replay_slot(struct rp_judge_replay *replay, const char *slot,
                          struct rp_replay_result *result);
void rp_replay_result_free(struct rp_replay_result *result); /* a zeroed one is allowed */

/* All required slots, in forward order, as their tests have stored them; what none did is replayed. *results is [*n], to be freed with rp_replay_results_free. */
enum rp_status rp_judge_replay_pair(const struct rp_judge *judge, struct rp_replay_result **results,
                                    size_t *n, struct rp_error *err);
/* The same up to slot, a required one; what is replayed is stored, for the tests of the others. */
enum rp_status rp_judge_replay_until(const struct rp_judge *judge, const char *slot,
                                     struct rp_replay_result **results, size_t *n,
                                     struct rp_error *err);
void rp_replay_results_free(struct rp_replay_result *results, size_t n);

#endif
