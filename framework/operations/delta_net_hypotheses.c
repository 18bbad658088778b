/* Hypotheses about the gated DeltaNet, operation by operation; delta_changes.c and delta_rule_changes.c
 * run them. */
#include <math.h>
#include <stdio.h>

#include "operations/delta_changes.h"

#define MAX_EARLIER 64 /* positions whose state is tried */
#define STATE_TRIALS 5 /* for each of them */
#define MAX_PADS 16

typedef void install_fn(struct rp_ops *ops);

#define NONE RP_NO_PARAMETER

/* Decay and beta. */
static void collect_gates(struct rp_search *search)
{
    static const double starts[] = {0.1, 0.5, 2, 10};
    static const struct rp_fit factor = RP_FIT(true, 1e-4, 1e4, starts);
    static const struct rp_hypothesis decay[] = {
        {"delta-decay", RP_DECAY_MISSING, NONE, "the DeltaNet's state does not decay"},
        {"delta-decay", RP_DECAY_WITHOUT_EXP, NONE, "the DeltaNet's decay without exp"},
        {"delta-decay", RP_DECAY_SIGN, NONE, "the DeltaNet's decay with A's sign changed"},
        {"delta-decay", RP_DECAY_WITHOUT_SOFTPLUS, NONE, "the DeltaNet's decay without softplus"},
        {"delta-decay", RP_DECAY_WITHOUT_A, NONE, "the DeltaNet's decay without A"},
        {"delta-decay", RP_DECAY_EXP_A, NONE,
         "exp of the DeltaNet's A, which is -exp(A_log) already"},
        {"delta-decay", RP_DECAY_LOG_A, NONE, "A_log taken for the DeltaNet's A, -exp(A_log)"},
        {"delta-decay", RP_DECAY_EXPED, NONE, "exp is taken twice of the DeltaNet's decay"},
        {"delta-dt-bias", RP_DT_MISSING, NONE, "the DeltaNet's decay without dt's bias"},
        {"delta-dt-bias", RP_DT_SIGN, NONE, "dt's bias subtracted"},
        {"delta-dt-bias", RP_DT_AFTER_SOFTPLUS, NONE, "dt's bias added after softplus"},
        {"delta-decay", RP_A_FACTOR, 2, "the DeltaNet's A times %v"},
    };
    static const struct rp_hypothesis beta[] = {
        {"delta-beta", RP_BETA_WITHOUT_SIGMOID, NONE, "the DeltaNet's beta without sigmoid"},
        {"delta-beta", RP_BETA_MISSING, NONE, "the DeltaNet without beta"},
        {"delta-beta", RP_BETA_ONE_LESS, NONE, "the DeltaNet's beta is 1 - sigmoid"},
        {"delta-beta", RP_BETA_FACTOR, 2, "the DeltaNet's beta times %v"},
    };
    RP_ADD_ALL(search, RP_STEP_DELTA_DECAY, rp_delta_decay_install, decay);
    RP_ADD_ALL(search, RP_STEP_DELTA_BETA, rp_delta_beta_install, beta);
    rp_search_add_fit(
        search, RP_STEP_DELTA_DECAY, rp_delta_decay_install,
        (struct rp_hypothesis){"delta-decay", RP_A_FACTOR, 1, "the DeltaNet's A times %v"}, &factor,
        1);
    rp_search_add_fit(
        search, RP_STEP_DELTA_BETA, rp_delta_beta_install,
        (struct rp_hypothesis){"delta-beta", RP_BETA_FACTOR, 1, "the DeltaNet's beta times %v"},
        &factor, 1);
}

static void collect_conv(struct rp_search *search)
{
    static const struct rp_hypothesis conv[] = {
        {"delta-conv-silu", RP_CONV_WITHOUT_SILU, NONE, "the convolution without SiLU"},
        {"delta-conv-kernel", RP_CONV_REVERSED, NONE, "the convolution's kernel reversed"},
        {"delta-conv-kernel", RP_CONV_LATE, NONE, "the convolution is late by a position"},
        {"delta-conv-kernel", RP_CONV_EARLY, NONE,
         "the convolution's kernel is off by one, without its last weight"},
        {"delta-conv-kernel", RP_CONV_MISSING, NONE, "the convolution left out, its SiLU kept"},
        {"delta-conv-state", RP_CONV_STATE_AT_EACH, NONE,
         "the convolution sees no earlier position"},
    };
    RP_ADD_ALL(search, RP_STEP_CAUSAL_CONV1D, rp_delta_conv_install, conv);
}

static void collect_gated_norm(struct rp_search *search)
{
    static const double starts[] = {1e-10, 1e-8, 1e-4, 1e-3, 1e-2, 1};
    static const struct rp_fit eps = RP_FIT(true, 1e-20, 1e4, starts);
    static const char with_eps[] = "the DeltaNet's norm with eps %v";
    static const struct rp_hypothesis gated[] = {
        {"delta-gate", RP_GATED_WITHOUT_GATE, NONE, "the DeltaNet's output is not gated"},
        {"delta-gate", RP_GATED_SIGMOID, NONE,
         "the DeltaNet's gate through sigmoid; the model's is SiLU"},
        {"delta-gate", RP_GATED_PLAIN, NONE, "the DeltaNet's gate without SiLU"},
        {"delta-gate", RP_GATED_BEFORE_NORM, NONE,
         "the DeltaNet's gate before its norm; the model's is after it"},
        {"norm-weight-missing", RP_GATED_WITHOUT_WEIGHT, NONE,
         "the DeltaNet's norm without its weight"},
        {"norm-missing", RP_GATED_WITHOUT_NORM, NONE,
         "the DeltaNet's norm left out, its gate kept"},
        {"norm-weight-offset", RP_GATED_WEIGHT_OFFSET, 1,
         "the DeltaNet's norm with 1 + w for its weight w"},
        {"norm-weight-offset", RP_GATED_WEIGHT_OFFSET, -1,
         "the DeltaNet's norm with w - 1 for its weight w"},
        {"norm-eps", RP_GATED_EPS, 1e-5, with_eps},
        {"norm-eps", RP_GATED_EPS, 1e-4, with_eps},
        {"norm-eps", RP_GATED_EPS, 1e-3, with_eps},
        {"norm-eps", RP_GATED_EPS, 1e-12, with_eps},
    };
    RP_ADD_ALL(search, RP_STEP_GATED_NORM, rp_gated_norm_install, gated);
    rp_search_add_fit(search, RP_STEP_GATED_NORM, rp_gated_norm_install,
                      (struct rp_hypothesis){"norm-eps", RP_GATED_EPS,
                                             (double)search->config->rms_norm_eps, with_eps},
                      &eps, (double)search->config->rms_norm_eps);
}

static void collect_l2(struct rp_search *search)
{
    static const double starts[] = {1e-10, 1e-8, 1e-4, 1e-3, 1e-2, 1};
    static const struct rp_fit eps = RP_FIT(true, 1e-20, 1e4, starts);
    static const struct {
        enum rp_weight_id which;
        const char *text;
    } of[] = {{RP_N_WEIGHTS, "Q and K"}, {RP_ATTN_Q, "Q"}, {RP_ATTN_K, "K"}};
    static const double known[] = {0, 1e-12, 1e-5, 1e-3};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        struct rp_candidate candidate =
            rp_candidate_make("delta-l2-norm", rp_delta_l2_install, RP_L2_MISSING, of[i].which);
        rp_search_add(search, candidate, "the DeltaNet's %s without L2 norm", of[i].text);
        candidate.option = RP_L2_MEAN;
        rp_search_add(search, candidate, "RMS norm of the DeltaNet's %s; the model's is an L2 norm",
                      of[i].text);
        candidate.reports_value = true;
        candidate.option = RP_L2_EPS_OUTSIDE;
        candidate.value = 1e-6;
        rp_search_add(search, candidate,
                      "the L2 norm of the DeltaNet's %s with max(length, %%v); the "
                      "model's eps is inside the root",
                      of[i].text);
        candidate.option = RP_L2_EPS;
        for (size_t j = 0; j < sizeof known / sizeof *known; j++) {
            candidate.value = known[j];
            rp_search_add(search, candidate, "the L2 norm of the DeltaNet's %s with eps %%v",
                          of[i].text);
        }
    }
    rp_search_add_fit(search, RP_STEP_L2_NORM, rp_delta_l2_install,
                      (struct rp_hypothesis){"delta-l2-norm", RP_L2_EPS, 1e-6,
                                             "the L2 norm of the DeltaNet's Q and K with eps %v"},
                      &eps, 1e-6);
}

static void collect_rule(struct rp_search *search)
{
    static const double starts[] = {1e-3, 1e-2, 1e-1, 10};
    static const struct rp_fit scale = RP_FIT(true, 1e-6, 1e6, starts);
    static const char scaled[] = "the DeltaNet's Q times %v, the model's is 1 / sqrt(head_dim)";
    const double dim = (double)search->config->linear_head_dim;
    const struct rp_hypothesis rule[] = {
        {"delta-head-mapping", RP_DELTA_GROUPED_HEADS, NONE,
         "V head h reads K head h / group; the file's order is h % n_k_heads"},
        {"delta-head-mapping", RP_DELTA_FIRST_HEAD, NONE, "every V head reads K head 0"},
        {"weights-swapped", RP_DELTA_QK_SWAPPED, NONE, "the DeltaNet's Q and K swapped"},
        {"delta-decay", RP_DELTA_DECAY_AS_LOG, NONE,
         "the DeltaNet's state is multiplied by the decay's logarithm: exp is missing"},
        {"delta-decay", RP_DELTA_DECAY_AS_MAGNITUDE, NONE,
         "the DeltaNet's state is multiplied by the size of the decay's logarithm: exp is missing"},
        {"delta-state", RP_DELTA_STATE_AT_EACH, NONE,
         "the DeltaNet's state is lost at every position"},
        {"delta-state", RP_DELTA_STATE_TRANSPOSED, NONE,
         "the DeltaNet's state is transposed from one position to the next"},
        {"delta-order", RP_DELTA_DECAY_LATE, NONE, "the DeltaNet's state decays after the update"},
        {"delta-order", RP_DELTA_OUTPUT_EARLY, NONE,
         "the DeltaNet's output is read before the update"},
        {"delta-order", RP_DELTA_PLAIN_UPDATE, NONE,
         "the update without what the state already holds"},
        {"delta-order", RP_DELTA_BEFORE_DECAY, NONE,
         "what the state holds is read before its decay"},
        {"delta-scale", RP_DELTA_SCALE, 1, scaled},
        {"delta-scale", RP_DELTA_SCALE, 1 / dim, scaled},
    };
    RP_ADD_ALL(search, RP_STEP_DELTA_RULE, rp_delta_rule_install, rule);
    rp_search_add_fit(search, RP_STEP_DELTA_RULE, rp_delta_rule_install,
                      (struct rp_hypothesis){"delta-scale", RP_DELTA_SCALE, 1 / sqrt(dim), scaled},
                      &scale, 1 / sqrt(dim));
}

/* How many earlier positions' states are tried: those that are cheap. */
static size_t n_earlier(const struct rp_search *search)
{
    return (size_t)fmin(RP_MOST_WORK / (STATE_TRIALS * rp_search_work(search)), MAX_EARLIER);
}

/* A candidate about the state at a position. */
static struct rp_candidate of_state(const char *name, install_fn *install, int option,
                                    int64_t position)
{
    struct rp_candidate candidate = rp_candidate_make(name, install, option, RP_N_WEIGHTS);
    candidate.position = position;
    candidate.value = (double)position;
    candidate.reports_value = true;
    candidate.is_everywhere = true;
    return candidate;
}

/* The recurrent state, the convolution's, and both. */
static void add_states(struct rp_search *search, struct rp_candidate delta,
                       struct rp_candidate conv, const char *text)
{
    const bool has_delta = rp_search_has_step(search, RP_STEP_DELTA_RULE, RP_N_WEIGHTS);
    const bool has_conv = rp_search_has_step(search, RP_STEP_CAUSAL_CONV1D, RP_N_WEIGHTS);
    if (has_delta)
        rp_search_add(search, delta, "the DeltaNet's state %s", text);
    if (has_conv)
        rp_search_add(search, conv, "the convolution's state %s", text);
    delta.also = search->n_candidates; /* the one before */
    if (has_delta && has_conv)
        rp_search_add(search, delta, "the DeltaNet's and the convolution's state %s", text);
}

/* The state at the first failing position is another's. */
static void collect_states(struct rp_search *search)
{
    const int64_t *positions = search->slot.positions;
    const int64_t first = positions[search->first];
    char text[100];
    struct rp_candidate delta =
        of_state("delta-state", rp_delta_rule_install, RP_DELTA_STATE_AT, first);
    struct rp_candidate conv =
        of_state("delta-conv-state", rp_delta_conv_install, RP_CONV_STATE_AT, first);
    add_states(search, delta, conv, "is lost at position %v");
    delta.option = RP_DELTA_STATE_EVERY;
    conv.option = RP_CONV_STATE_EVERY;
    add_states(search, delta, conv, "is lost every %v positions");
    delta.option = RP_DELTA_STATE_OF;
    conv.option = RP_CONV_STATE_OF;
    for (size_t i = search->first, n = 0; i-- > 0 && n < n_earlier(search); n++) {
        delta.from_position = conv.from_position = positions[i];
        delta.value = conv.value = (double)positions[i];
        snprintf(text, sizeof text, "at position %lld is that of position %%v", (long long)first);
        add_states(search, delta, conv, text);
    }
    delta.option = RP_DELTA_STATE_OF_END;
    delta.value = (double)positions[search->n - 1] + 1;
    if (rp_search_has_step(search, RP_STEP_DELTA_RULE, RP_N_WEIGHTS))
        rp_search_add(search, delta, "the DeltaNet's state at position %lld is that after all %%v",
                      (long long)first);
    delta.option = RP_DELTA_STATE_REPEATED;
    for (size_t i = search->first, n = 0;
         i-- > 0 && n < n_earlier(search) &&
         rp_search_has_step(search, RP_STEP_DELTA_RULE, RP_N_WEIGHTS);
         n++) {
        delta.from_position = positions[i];
        delta.value = (double)positions[i];
        rp_search_add(search, delta, "positions %%v to %lld are in the DeltaNet's state twice",
                      (long long)first - 1);
    }
}

/* The state of an earlier position, on which the positions from the first failing one on were run once
 * already. */
static void collect_reruns(struct rp_search *search)
{
    const int64_t *positions = search->slot.positions;
    const int64_t first = positions[search->first];
    struct rp_candidate rerun = of_state("delta-state", rp_delta_rerun_install, 0, first);
    if (!rp_search_has_step(search, RP_STEP_DELTA_RULE, RP_N_WEIGHTS) ||
        !rp_search_has_step(search, RP_STEP_CAUSAL_CONV1D, RP_N_WEIGHTS))
        return;
    for (size_t i = search->first, n = 0; i-- > 0 && n < n_earlier(search); n++) {
        rerun.from_position = positions[i];
        rerun.value = (double)positions[i];
        rp_search_add(search, rerun,
                      "the DeltaNet's state at position %lld is that of position %%v, on "
                      "which positions %lld to %lld were run once already",
                      (long long)first, (long long)first, (long long)positions[search->n - 1]);
    }
}

/* The state before the first position is not zero. */
static void collect_starts(struct rp_search *search)
{
    struct rp_candidate delta =
        of_state("delta-state-start", rp_delta_rule_install, RP_DELTA_STATE_LEFT, 0);
    struct rp_candidate conv =
        of_state("delta-state-start", rp_delta_conv_install, RP_CONV_STATE_LEFT, 0);
    delta.value = conv.value = (double)search->n;
    add_states(search, delta, conv, "begins as these %v positions leave it, not with zeros");
    delta.value = conv.value = 1;
    add_states(search, delta, conv, "begins as the first position leaves it, not with zeros");
}

static void collect_pads(struct rp_search *search)
{
    const int64_t first = search->slot.positions[search->first];
    struct rp_candidate pads =
        of_state("delta-state-pads", rp_delta_rule_install, RP_DELTA_STATE_PADS, first);
    for (int n = 1; n < MAX_PADS; n++) {
        pads.value = n;
        rp_search_add(search, pads,
                      "the DeltaNet's state decays over %%v pads before position %lld",
                      (long long)first);
    }
}

/* An engine that takes its positions in blocks: the first one is right, the second one wrong. */
static void collect_blocks(struct rp_search *search, int64_t block)
{
    static const struct {
        int option;
        const char *text;
    } blocks[] = {
        {RP_DELTA_W_TWICE, "the decay is in W twice"},
        {RP_DELTA_W_TWICE_INSIDE, "the decay is in W's K twice"},
        {RP_DELTA_W_TWICE_BETWEEN, "the decay is in W twice"},
        {RP_DELTA_W_PLAIN, "no decay in W"},
        {RP_DELTA_W_MISSING, "the update without what earlier blocks hold"},
        {RP_DELTA_READ_PLAIN, "earlier blocks are read without decay"},
        {RP_DELTA_READ_MISSING, "earlier blocks are not read"},
        {RP_DELTA_BLOCK_NOT_AGED, "a block's state does not decay over the next one"},
        {RP_DELTA_KEYS_NOT_AGED, "K does not decay to the end of its block"},
    };
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        rp_search_add(
            search, of_state("delta-block", rp_delta_rule_install, blocks[i].option, block),
            "blocks of %%v: right within the first, wrong from the second on: %s", blocks[i].text);
}

/* Within a block; where the first one is wrong, its length does not show. */
static void collect_inside(struct rp_search *search)
{
    for (int64_t block = 4; block <= 128; block *= 2) {
        rp_search_add(
            search, of_state("delta-block", rp_delta_rule_install, RP_DELTA_INSIDE_NOT_AGED, block),
            "blocks of %%v: no decay within a block");
        rp_search_add(search,
                      of_state("delta-block", rp_delta_rule_install, RP_DELTA_INSIDE_PLAIN, block),
                      "blocks of %%v: within a block the update without what it "
                      "already holds");
    }
}

/* Where no state with a name fits: is there any that does? */
static void collect_measured(struct rp_search *search)
{
    const int64_t first = search->slot.positions[search->first];
    struct rp_candidate candidate =
        of_state(search->first == 0 ? "delta-state-start" : "delta-state", rp_delta_rule_install,
                 RP_DELTA_STATE_MEASURED, first);
    if (search->slot.part != RP_PART_DELTA || search->slot.is_carried ||
        !rp_delta_state_is_measurable(search->n - search->first, search->config->linear_head_dim))
        return;
    candidate.phase = RP_PHASE_FIT;
    candidate.rows = search->dumped;
    candidate.n_digits = RP_ANY_DIGITS;
    candidate.reports_value = search->first > 0;
    rp_search_add(search, candidate,
                  search->first == 0 ? "the DeltaNet's state is not zero at the start"
                                     : "the DeltaNet's state at position %%v is not what the "
                                       "positions before it leave");
}

void rp_collect_delta_net(struct rp_search *search)
{
    collect_gates(search);
    collect_conv(search);
    if (rp_search_has_step(search, RP_STEP_DELTA_RULE, RP_N_WEIGHTS)) {
        collect_l2(search);
        collect_rule(search);
        /* The second block's first position may be right, where only what it adds is wrong. */
        const int64_t first = search->slot.positions[search->first] - search->slot.positions[0];
        for (int64_t block = first; block > 0 && block + 1 >= first; block--)
            collect_blocks(search, block);
        if (search->first > 0)
            collect_pads(search);
        collect_inside(search);
        collect_measured(search);
    }
    collect_gated_norm(search);
    if (search->first == 0) {
        collect_starts(search);
    } else {
        collect_states(search);
        collect_reruns(search);
    }
}
