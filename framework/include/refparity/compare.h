/* The rule: reference against engine, slot by slot, with a verdict for each.
 * Not for saying where a divergence began: see diagnose.h. Not for running engines or finding
 * fixtures: it takes two open tensor sets. */
#ifndef REFPARITY_COMPARE_H
#define REFPARITY_COMPARE_H

#include "refparity/limits.h"
#include "refparity/metrics.h"
#include "refparity/tensor_set.h"

#ifdef __cplusplus
extern "C" {
#endif

enum rp_verdict {
    RP_PASS,
    RP_MARGINAL, /* over the limit, and shown to be no bug; passes, and is shown */
    RP_XFAIL,    /* it diverges, and that is known; passes, and is shown */
    RP_FAIL,     /* the engine diverges from the reference */
    RP_SKIP,     /* a prerequisite is missing, or there is nothing on one side to compare with */
    RP_ERROR     /* the harness, a file or the engine is broken */
};
const char *rp_verdict_name(enum rp_verdict verdict); /* "PASS", … */

/* Exit codes of every refparity program. */
enum {
    RP_EXIT_PASS = 0,
    RP_EXIT_FAIL = 1,
    RP_EXIT_ERROR = 2,
    RP_EXIT_WARNING = 3, /* a pass with warnings, where --strict-warnings asks for it */
    RP_EXIT_SKIP = 77
};
int rp_verdict_exit_code(enum rp_verdict verdict);

struct rp_limits rp_limits_default(void);
/* The limit on slot's L2_rel. */
double rp_limits_l2_rel(const struct rp_limits *limits, const char *slot);

struct rp_slot_result;

/* What is compared. Both sets stay owned by the caller. */
struct rp_comparison {
    struct rp_tensor_set *reference;
    struct rp_tensor_set *engine;
    struct rp_limits limits;
    int n_layers;
    /* [n_positions] ascending, or NULL for every position of the reference. A position that is
     * asked for by number has to be in both sets. Of all positions, the engine has to have every
     * one for emb and h0 .. h{n_layers-2}; behind the last attention (h{n_layers-1}, post_norm,
     * logits) an engine may compute the last position alone, which it then has to have. */
    const int64_t *positions;
    size_t n_positions;
    /* 1: the reference is a dump too, of the same engine in another mode. What it lacks is then an
     * error and its NaN a failure, as the engine's are; a fixture may lack slots, and one with NaN
     * has to be recorded again. */
    int reference_is_dump;
    /* Takes a slot's result last, where that is a FAIL: the gate explained (run/explained_gate.h). NULL:
     * it stays one. */
    void (*gate)(void *gate_context, struct rp_slot_result *result);
    void *gate_context;
};

struct rp_position_metrics {
    int64_t position; /* -1: none */
    struct rp_metrics metrics;
};

/* One slot's comparison. The message is one line, in the words of a failure report:
 * "L2_rel 0.1832 at position 12, limit 0.05". */
struct rp_slot_result {
    char slot[RP_SLOT_NAME_SIZE];
    enum rp_verdict verdict;
    int required; /* emb, h{l}, post_norm, logits; the rest is evidence */
    size_t dim;
    size_t n_compared;                /* positions compared */
    size_t n_missing;                 /* positions of the reference that the engine's slot lacks */
    size_t n_extra;                   /* positions of the engine's slot that the reference lacks */
    size_t n_failing;                 /* positions over the limit */
    double limit;                     /* on L2_rel; for logits, on the cosine */
    struct rp_position_metrics worst; /* largest L2_rel; for logits, smallest cosine */
    struct rp_position_metrics first; /* the first position over the limit */
    size_t worst_channel;             /* of the first failing position: where |e - r| is largest */
    /* Logits only, over the compared positions. */
    size_t n_top1_equal;
    double top_k_overlap;           /* mean, 0..1 */
    double kl_max;                  /* nats */
    double kl_sum, information_sum; /* over the positions: KL, and KL(reference || uniform) */
    /* Positions whose ||engine|| / ||reference|| their angle does not explain: compare/warnings.h. */
    size_t n_wrong_size;
    double size,
        size_excess; /* the one furthest from it, and how far; 0 where none is off at all */
    int64_t size_position;
    int fixture_is_damaged; /* 1: an ERROR of the fixture's own, which evidence counts for too */
    char unchecked[256]; /* of MARGINAL: what it rests on and could not be checked; "": nothing */
    char downstream_of[RP_SLOT_NAME_SIZE]; /* the first divergence, when it is an earlier slot */
    char message[640];
};

/* Compares one slot; whatever goes wrong is in result->verdict and result->message. A slot over its
 * limit whose file is damaged (swapped bytes, displaced rows …) is an ERROR: compare/dump_damage.h.
 * Does not fill downstream_of: see diagnose.h. */
void rp_compare_slot(const struct rp_comparison *comparison, const char *slot,
                     struct rp_slot_result *result);

/* The token ids of both sides. */
struct rp_tokens_result {
    enum rp_verdict verdict; /* SKIP when one side has no ids */
    size_t n_ref, n_engine;
    long long first_difference; /* index, -1 when there is none */
    char message[640];
};
void rp_compare_tokens(const struct rp_comparison *comparison, struct rp_tokens_result *result);

/* What a pair says as a whole. PASS asks for required slots that passed; those that nothing could be
 * compared with are counted, and have to be shown beside it. */
struct rp_pair_result {
    struct rp_tokens_result tokens;
    struct rp_slot_result *slots; /* [n_slots] in forward order, evidence included */
    size_t n_slots;
    size_t n_required;          /* required slots */
    size_t n_required_compared; /* those with at least one position compared */
    /* The worst of the required: ERROR, FAIL, XFAIL, MARGINAL, PASS; SKIP: none compared. */
    enum rp_verdict verdict;
};
/* Of its slots and tokens as they are now. */
enum rp_verdict rp_pair_verdict(const struct rp_pair_result *pair);

/* Compares the tokens and every slot that is required or that either side has. When the tokens
 * differ, the slots are not comparable and are SKIP. RP_ERR_MEMORY only. */
enum rp_status rp_compare_pair(const struct rp_comparison *comparison,
                               struct rp_pair_result *result, struct rp_error *err);
/* The same with the tokens' result as the caller has judged it. */
enum rp_status rp_compare_pair_after_tokens(const struct rp_comparison *comparison,
                                            const struct rp_tokens_result *tokens,
                                            struct rp_pair_result *result, struct rp_error *err);
void rp_pair_result_free(struct rp_pair_result *result);

#ifdef __cplusplus
}
#endif
#endif
