/* See warnings.h. */
#include "compare/warnings.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define CHANCE 1e-3 /* of a warning about top-1 where there is nothing */

/* False where there is nothing to say. */
typedef bool slot_rule(const struct rp_slot_result *slot, char *message, size_t size);

static bool is_logits(const struct rp_slot_result *slot)
{
    int layer;
    return rp_slot_parse(slot->slot, &layer) == RP_PART_LOGITS;
}

/* ---- logits ---- */

/* How far a position's size is beyond what its angle explains: above 1 where it is. */
static double size_excess(const struct rp_metrics *m)
{
    const double cosine = m->cosine < RP_DEFAULT_COSINE ? m->cosine : RP_DEFAULT_COSINE;
    return cosine > 0 ? fabs(log(m->norm_engine / m->norm_ref)) / (-3 * log(cosine)) : 0;
}

void rp_warnings_see_logits(struct rp_slot_result *result, int64_t position,
                            const struct rp_metrics *metrics,
                            const struct rp_logits_metrics *logits)
{
    const double excess = size_excess(metrics);
    result->kl_sum += logits->kl;
    result->information_sum += logits->information;
    result->n_wrong_size += excess > 1;
    if (excess > result->size_excess) {
        result->size_excess = excess;
        result->size = metrics->norm_engine / metrics->norm_ref;
        result->size_position = position;
    }
}

static bool has_wrong_size(const struct rp_slot_result *slot, char *message, size_t size)
{
    if (!is_logits(slot) || slot->n_wrong_size == 0)
        return false;
    snprintf(message, size,
             "the logits have the reference's direction, but not its size: times %.4g at position "
             "%lld (at %zu of %zu positions an error of this angle does not explain it); KL at "
             "most %.3g nats: is a scale missing, or applied twice?",
             slot->size, (long long)slot->size_position, slot->n_wrong_size, slot->n_compared,
             slot->kl_max);
    return true;
}

/* Relative to the logits', as the KL has it: see the head of warnings.h. */
static double distribution_error(const struct rp_slot_result *slot)
{
    return slot->information_sum > 0 ? sqrt(slot->kl_sum / slot->information_sum) : 0;
}

static bool has_wrong_distribution(const struct rp_slot_result *slot, char *message, size_t size)
{
    const double error = is_logits(slot) ? distribution_error(slot) : 0;
    if (!(error > RP_ADMITTED_ERROR) || slot->n_wrong_size > 0) /* that has been said */
        return false;
    snprintf(message, size,
             "the logits pass by their cosine (%.4f at worst), but their distribution is another: "
             "KL %.3g nats in the mean and %.3g at most, %.0f%% of what the reference says beyond "
             "nothing; what the cosine's limit admits costs %.0f%%: it sees the logits' common "
             "offset alone",
             slot->worst.metrics.cosine, slot->kl_sum / (double)slot->n_compared, slot->kl_max,
             100 * error * error, 100 * RP_ADMITTED_ERROR * RP_ADMITTED_ERROR);
    return true;
}

double rp_top1_expected(double error, size_t vocab)
{
    const double s = error * sqrt(2 * log((double)(vocab > 1 ? vocab : 1)));
    const double chi = erfc(s / sqrt(8));
    return chi / (2 - chi);
}

/* Of n trials with probability p: at most k successes. From the k-th term of the binomial distribution down,
 * which falls from there on: k is below the mean. */
static double chance_of_at_most(size_t k, size_t n, double p)
{
    const double x = (double)k, all = (double)n;
    if (!(x < all * p))
        return 1;
    double term = exp(lgamma(all + 1) - lgamma(x + 1) - lgamma(all - x + 1) + x * log(p) +
                      (all - x) * log1p(-p));
    double sum = term;
    for (size_t i = k; i > 0 && term > 1e-12 * sum; i--) {
        term *= (double)i / (double)(n - i + 1) * (1 - p) / p;
        sum += term;
    }
    return sum;
}

static bool has_wrong_top1(const struct rp_slot_result *slot, char *message, size_t size)
{
    if (!is_logits(slot))
        return false;
    const double cosine = slot->worst.metrics.cosine;
    const double by_angle = cosine < 1 ? sqrt(1 / (cosine * cosine) - 1) : 0;
    const double by_kl = distribution_error(slot);
    /* FP32's own: two logits that are as near to each other as that have no order */
    const double error = fmax(fmax(by_angle, by_kl), 1e-6);
    const double expected = rp_top1_expected(error, slot->dim);
    const double chance = chance_of_at_most(slot->n_top1_equal, slot->n_compared, expected);
    if (!(chance < CHANCE))
        return false;
    snprintf(
        message, size,
        "top-1 agrees at %zu of %zu positions, though the logits are off by %.2g alone "
        "(cosine %.4f at worst): an error without a preference leaves it at %.0f or more (%.1g "
        "is the chance of so few)",
        slot->n_top1_equal, slot->n_compared, error, cosine,
        floor(expected * (double)slot->n_compared), chance);
    return true;
}

/* ---- limits ---- */

#define L2_REL_TEXT "the limit %g on L2_rel lets zeros pass, whose L2_rel is 1"
#define COSINE_TEXT                                                                         \
    "the limit %g on the logits' cosine lets logits pass that have nothing to do with the " \
    "reference's, whose cosine is 0"

static bool has_wide_limit(const struct rp_slot_result *slot, char *message, size_t size)
{
    if (is_logits(slot) || !(slot->limit > 1))
        return false;
    snprintf(message, size, L2_REL_TEXT, slot->limit);
    return true;
}

static bool has_wide_cosine_limit(const struct rp_slot_result *slot, char *message, size_t size)
{
    if (!is_logits(slot) || slot->limit > 0)
        return false;
    snprintf(message, size, COSINE_TEXT, slot->limit);
    return true;
}

/* ---- the list of them ---- */

static const struct {
    const char *name, *rule;
    slot_rule *applies; /* to a required slot that passes; NULL: no slot has it alone */
} kinds[RP_N_WARNING_KINDS] = {
    [RP_WARNING_LOGITS_SIZE] =
        {"logits-size",
         "||engine|| / ||reference|| is outside of [c^3, 1 / c^3], c the smaller of 0.90 and the "
         "position's cosine",
         has_wrong_size},
    [RP_WARNING_LOGITS_DISTRIBUTION] =
        {"logits-distribution",
         "the sum of KL(reference || engine) is above 23% of that of "
         "KL(reference || uniform)",
         has_wrong_distribution},
    [RP_WARNING_TOP1] =
        {"top-1",
         "so few positions agree on the largest logit that an error of their size without a "
         "preference would leave that with a chance below 0.001",
         has_wrong_top1},
    [RP_WARNING_FAR] =
        {"far",
         "every hidden state has L2_rel of 0.025 or more, which weights of 8 bits and more do not "
         "explain",
         NULL},
    [RP_WARNING_LIMIT_L2_REL] = {"limit-l2-rel", "a limit on L2_rel is above 1", has_wide_limit},
    [RP_WARNING_LIMIT_COSINE] = {"limit-cosine", "the limit on the cosine is 0 or less",
                                 has_wide_cosine_limit},
    [RP_WARNING_OWN_REFERENCE] = {"own-reference",
                                  "the reference is the same engine's, on another file", NULL},
    [RP_WARNING_DISABLED] = {"disabled", "with REFPARITY_REQUIRE, an entry is _disabled", NULL},
};

const char *rp_warning_name(enum rp_warning_kind kind)
{
    return kinds[kind].name;
}

const char *rp_warning_rule(enum rp_warning_kind kind)
{
    return kinds[kind].rule;
}

/* A place for one of kind; NULL where there is one already. */
static struct rp_warning *next(struct rp_warnings *warnings, enum rp_warning_kind kind,
                               const char *slot)
{
    for (size_t i = 0; i < warnings->n; i++)
        if (warnings->list[i].kind == kind)
            return NULL;
    struct rp_warning *warning = &warnings->list[warnings->n];
    warning->kind = kind;
    snprintf(warning->slot, sizeof warning->slot, "%s", slot);
    return warning;
}

static void add_slot(const struct rp_slot_result *slot, struct rp_warnings *warnings)
{
    if (!slot->required || slot->verdict != RP_PASS)
        return;
    for (int kind = 0; kind < RP_N_WARNING_KINDS; kind++) {
        struct rp_warning *warning =
            kinds[kind].applies ? next(warnings, (enum rp_warning_kind)kind, slot->slot) : NULL;
        if (warning && kinds[kind].applies(slot, warning->message, sizeof warning->message))
            warnings->n++;
    }
}

void rp_warn_slot(const struct rp_slot_result *slot, struct rp_warnings *warnings)
{
    warnings->n = 0;
    add_slot(slot, warnings);
}

/* A layer's output, or post_norm. */
static bool is_hidden_state(const struct rp_slot_result *slot)
{
    int layer;
    const enum rp_slot_part part = rp_slot_parse(slot->slot, &layer);
    return slot->required && (part == RP_PART_OUTPUT || part == RP_PART_POST_NORM);
}

/* The hidden state that is nearest to the reference's; NULL where none was compared. */
static const struct rp_slot_result *nearest_state(const struct rp_pair_result *pair)
{
    const struct rp_slot_result *nearest = NULL;
    for (size_t i = 0; i < pair->n_slots; i++) {
        const struct rp_slot_result *slot = &pair->slots[i];
        if (is_hidden_state(slot) && slot->n_compared > 0 &&
            (!nearest || slot->worst.metrics.l2_rel < nearest->worst.metrics.l2_rel))
            nearest = slot;
    }
    return nearest;
}

bool rp_pair_is_far(const struct rp_pair_result *pair)
{
    const struct rp_slot_result *nearest = nearest_state(pair);
    return pair->verdict == RP_PASS && nearest && nearest->worst.metrics.l2_rel >= RP_FAR_L2_REL;
}

void rp_warn_pair(const struct rp_pair_result *pair, bool is_coarse, struct rp_warnings *warnings)
{
    warnings->n = 0;
    if (pair->verdict != RP_PASS && pair->verdict != RP_MARGINAL)
        return;
    for (size_t i = 0; i < pair->n_slots; i++)
        add_slot(&pair->slots[i], warnings);
    if (is_coarse || !rp_pair_is_far(pair))
        return;
    const struct rp_slot_result *nearest = nearest_state(pair);
    struct rp_warning *warning = next(warnings, RP_WARNING_FAR, nearest->slot);
    snprintf(warning->message, sizeof warning->message,
             "every hidden state is within the rule and far off: L2_rel %.3g at least (%s), where "
             "weights and activations of 8 bits make 0.021 and FP32 some 1e-6; only fewer bits "
             "explain it",
             nearest->worst.metrics.l2_rel, nearest->slot);
    warnings->n++;
}

void rp_warn_limits(const struct rp_limits *limits, struct rp_warnings *warnings)
{
    warnings->n = 0;
    struct rp_slot_result slot = {.required = 1, .verdict = RP_PASS, .limit = limits->l2_rel};
    snprintf(slot.slot, sizeof slot.slot, "h0");
    add_slot(&slot, warnings);
    for (size_t i = 0; i < limits->n_slots; i++) {
        snprintf(slot.slot, sizeof slot.slot, "%s", limits->slots[i].slot);
        slot.limit = limits->slots[i].l2_rel;
        add_slot(&slot, warnings);
    }
    snprintf(slot.slot, sizeof slot.slot, "logits");
    slot.limit = limits->cosine;
    struct rp_warning *warning = next(warnings, RP_WARNING_LIMIT_COSINE, slot.slot);
    if (warning && has_wide_cosine_limit(&slot, warning->message, sizeof warning->message))
        warnings->n++;
}
