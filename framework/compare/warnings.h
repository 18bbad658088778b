/* Passes by the rule that deserve to be seen. A warning stands beside a verdict and never changes it; what
 * fails has none. Not the rule (verdict.c), nor where an error begins (diagnose/departure.h).
 *
 * The limits are what an error without a preference can do. Let e = r + n, n independent of the logits r, of
 * standard deviation d relative to theirs; cos = 1 / sqrt(1 + d^2), so that the cosine's limit 0.90 admits
 * d < RP_ADMITTED_ERROR = 0.48.
 *   size          ||e|| / ||r|| is 1 / cos, or cos to 1 where a norm has scaled e back (the final norm does).
 *                 By chance n lies along r, too: with a hidden size of 64 or more by 3 d / sqrt(64) = 0.18 in
 *                 three standard deviations, which is c^2. Outside of [c^3, 1 / c^3], c the smaller of 0.90
 *                 and the position's cosine, no such n leads. Measured on Q4_0: 0.84 to 1.09.
 *   distribution  KL(r || e) is d^2 / 2 of the logits' variance, and what r says beyond nothing,
 *                 KL(r || uniform) = log V - H(r), is 1 / 2 of it: their ratio, over the sums of all
 *                 positions, is d^2. Beyond the d that the cosine's limit admits, logits are off in a
 *                 direction that the cosine does not see: their common offset, or their size.
 *   top-1         Near their maximum, V independent values are a Poisson process of intensity exp(-a x),
 *                 a = sqrt(2 log V), and n is s = d a in its units. Reference and engine have the same
 *                 maximum with a probability of at least chi / (2 - chi), chi = erfc(s / sqrt(8)), which is
 *                 the tail dependence of Huesler and Reiss (1989). d is the larger of the two that the cosine
 *                 and the KL give. Warned where so few positions agree with a chance below 1e-3.
 *   far           Every hidden state, the first one too, is further off than RP_FAR_L2_REL. Of what keeps
 *                 8 bits and more, Q8_0 rounds coarsest: 0.0055 of a weight, and of an activation; the six
 *                 products of a layer and the embedding behind its first state make
 *                 sqrt(7) * sqrt(2) * 0.0055 = 0.021 of it. Weights, or a KV cache, of fewer bits reach it.
 *   reference     An engine that is its own reference makes the same mistakes in both.
 *   limits        A slot of zeros has L2_rel 1, and logits that have nothing to do with the reference's have
 *                 cosine 0: a limit beyond these fails nothing. */
#ifndef REFPARITY_COMPARE_WARNINGS_H
#define REFPARITY_COMPARE_WARNINGS_H

#include <stdbool.h>

#include "refparity/compare.h"

#define RP_ADMITTED_ERROR 0.484322 /* sqrt(1 / 0.90^2 - 1) */
#define RP_FAR_L2_REL 0.025

enum rp_warning_kind {
    RP_WARNING_LOGITS_SIZE,
    RP_WARNING_LOGITS_DISTRIBUTION,
    RP_WARNING_TOP1,
    RP_WARNING_FAR,
    RP_WARNING_LIMIT_L2_REL,
    RP_WARNING_LIMIT_COSINE,
    RP_WARNING_OWN_REFERENCE, /* made by run/judge_warnings.c */
    RP_WARNING_DISABLED,      /* of an entry, with REFPARITY_REQUIRE: made by report/entries.c */
    RP_N_WARNING_KINDS
};
const char *rp_warning_name(enum rp_warning_kind kind); /* "logits-size", ... */
const char *rp_warning_rule(enum rp_warning_kind kind); /* in a sentence, for readers */

struct rp_warning {
    enum rp_warning_kind kind;
    char slot[RP_SLOT_NAME_SIZE]; /* the test that it stands beside */
    char message[400];            /* a line */
};

/* At most one of each kind. */
struct rp_warnings {
    struct rp_warning list[RP_N_WARNING_KINDS];
    size_t n;
};

/* Takes one position of the logits into result, for the rules above. Both rows are finite. */
void rp_warnings_see_logits(struct rp_slot_result *result, int64_t position,
                            const struct rp_metrics *metrics,
                            const struct rp_logits_metrics *logits);

/* What the test of one slot has to show. */
void rp_warn_slot(const struct rp_slot_result *slot, struct rp_warnings *warnings);

/* All of a pair; none where it does not pass. is_coarse: the engine's weights or its KV cache keep fewer than
 * 8 bits, so that being far off is no news. */
void rp_warn_pair(const struct rp_pair_result *pair, bool is_coarse, struct rp_warnings *warnings);

/* Is every hidden state of the pair far off? For who has to look into a file to know about its weights. */
bool rp_pair_is_far(const struct rp_pair_result *pair);

/* Those of limits alone, whatever is compared. */
void rp_warn_limits(const struct rp_limits *limits, struct rp_warnings *warnings);

/* The least share of positions at which top-1 stays the same, of vocab values, where an error without a
 * preference is of the given size relative to the logits'. */
double rp_top1_expected(double error, size_t vocab);

#endif
