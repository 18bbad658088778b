/* See explain/pairs.h, and struct rp_pair in operations/hypotheses.h. */
#include "explain/pairs.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MOST_PAIRS 3000

/* ---- one trial ---- */

/* The first's function, whose operations below are the second's, whose are replay's. */
#define BOTH(operation)                                                                          \
    static enum rp_status both_##operation(void *context, const struct rp_site *site,            \
                                           const struct rp_##operation *args)                    \
    {                                                                                            \
        struct rp_pair *pair = context;                                                          \
        pair->second->overlay.below = pair->overlay.below;                                       \
        pair->first->overlay.below = &pair->second->overlay.ops;                                 \
        return pair->first->overlay.ops.operation(pair->first->overlay.ops.context, site, args); \
    }
RP_OPERATIONS(BOTH)

#define INSTALL(operation) pair->overlay.ops.operation = both_##operation;

void rp_pair_open(struct rp_pair *pair, struct rp_change *first, struct rp_change *second)
{
    *pair = (struct rp_pair){.first = first, .second = second};
    rp_overlay_open(&pair->overlay, NULL);
    RP_OPERATIONS(INSTALL)
}

/* ---- which are tried ---- */

static bool may_be_one_of_two(const struct rp_candidate *candidate)
{
    return candidate->phase == RP_PHASE_FIXED && candidate->install && !candidate->transform &&
           !candidate->reports_value && candidate->also == 0 && candidate->from_layer < 0 &&
           !candidate->numerics && !candidate->is_everywhere && !candidate->remembers;
}

void rp_pairs_begin(struct rp_pairs *pairs, const struct rp_search *search)
{
    *pairs = (struct rp_pairs){.search = search,
                               .n_left =
                                   (size_t)fmin(RP_MOST_WORK / rp_search_work(search), MOST_PAIRS)};
}

bool rp_pairs_next(struct rp_pairs *pairs, struct rp_candidate *pair)
{
    const struct rp_search *search = pairs->search;
    while (pairs->first < search->n_candidates && pairs->n_left > 0) {
        const struct rp_candidate *first = &search->candidates[pairs->first];
        if (!may_be_one_of_two(first) || ++pairs->second >= search->n_candidates) {
            pairs->second = ++pairs->first;
            continue;
        }
        const struct rp_candidate *second = &search->candidates[pairs->second];
        if (!may_be_one_of_two(second) || strcmp(second->name, first->name) == 0)
            continue;
        pairs->n_left--;
        *pair = *first;
        pair->also = pairs->second + 1;
        return true;
    }
    return false;
}

void rp_pair_say(const struct rp_search *search, const struct rp_candidate *pair,
                 struct rp_explanation *explanation)
{
    const struct rp_candidate *also = &search->candidates[pair->also - 1];
    size_t n = strlen(explanation->name);
    if (also->reports_value) /* one hypothesis, of two operations: its text is in the first */
        return;
    snprintf(explanation->name + n, sizeof explanation->name - n, " and %s", also->name);
    n = strlen(explanation->text);
    snprintf(explanation->text + n, sizeof explanation->text - n, "; and %s", also->text);
}
