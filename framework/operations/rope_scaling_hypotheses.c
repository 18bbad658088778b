/* Hypotheses about a model's rope scaling: that it is missing, that a part of it is, that it is another one. What
 * is tried are other factors of the frequencies, and another one of cosine and sine. */
#include <stdlib.h>

#include "operations/hypotheses.h"
#include "operations/rope_scaling.h"

enum option {
    OTHER,        /* rows, NULL: no factors; attention factor `value`, 0: none */
    ATTENTION,    /* attention factor `value` alone */
    OTHER_FACTOR, /* of linear and YaRN: `value` */
};

/* factors [n_rot / 2] */
static void other_factor(const struct rp_site *site, const struct rp_rope *args, double factor,
                         float *factors)
{
    struct rp_rope_scaling scaling = site->config->rope_scaling;
    scaling.factor = (float)factor;
    rp_rope_scaling_factors(&scaling, args->theta, args->n_rot, factors);
}

static enum rp_status rope(void *context, const struct rp_site *site, const struct rp_rope *args)
{
    const struct rp_change *change = context;
    struct rp_rope wrong = *args;
    if (change->what.which != RP_N_WEIGHTS && change->what.which != args->which)
        return RP_RUN_BELOW(change, rope, site, args);
    float *factors = calloc(args->n_rot + 1, sizeof *factors);
    if (!factors)
        return rp_fail(site->err, RP_ERR_MEMORY, NULL, -1, "no memory for RoPE's factors");
    if (change->what.option == OTHER_FACTOR) {
        other_factor(site, args, change->what.value, factors);
        wrong.freq_factors = factors;
    } else {
        wrong.attention_factor = (float)change->what.value;
    }
    if (change->what.option == OTHER)
        wrong.freq_factors = change->what.rows;
    const enum rp_status status = RP_RUN_BELOW(change, rope, site, &wrong);
    free(factors);
    return status;
}

static void install(struct rp_ops *ops)
{
    ops->rope = rope;
}

/* For Q and K both, and each alone where both lead to the slot. */
static void add(struct rp_search *search, const char *name, enum option option, const float *rows,
                double attention, const char *text)
{
    static const enum rp_weight_id targets[] = {RP_N_WEIGHTS, RP_ATTN_Q, RP_ATTN_K};
    static const char *const of[] = {"", "; of Q only", "; of K only"};
    const bool has_both = rp_search_has_step(search, RP_STEP_ROPE, RP_ATTN_Q) &&
                          rp_search_has_step(search, RP_STEP_ROPE, RP_ATTN_K);
    for (size_t i = 0; i < (has_both ? 3 : 1); i++) {
        struct rp_candidate candidate = rp_candidate_make(name, install, (int)option, targets[i]);
        candidate.rows = rows;
        candidate.value = attention;
        rp_search_add(search, candidate, "%s%s", text, of[i]);
    }
}

static void collect_missing(struct rp_search *search)
{
    const struct rp_rope_scaling *scaling = &search->config->rope_scaling;
    static const char name[] = "rope-scaling-missing";
    add(search, name, OTHER, NULL, 0, "RoPE is not scaled; the model's is");
    if (scaling->attention_factor > 0)
        add(search, name, OTHER, NULL, (double)scaling->attention_factor,
            "RoPE's frequencies are not scaled, only cosine and sine; the model's are, too");
}

static void collect_attention_factor(struct rp_search *search)
{
    static const char name[] = "rope-attention-factor";
    const struct rp_rope_scaling *scaling = &search->config->rope_scaling;
    const double own = (double)scaling->attention_factor;
    const double usual = rp_yarn_mscale((double)scaling->factor, 1);
    if (own > 0) {
        add(search, name, ATTENTION, NULL, 0,
            "cosine and sine are not multiplied by the model's attention factor");
        add(search, name, ATTENTION, NULL, own * own,
            "cosine and sine are multiplied twice by the model's attention factor");
        add(search, name, ATTENTION, NULL, 1 / own,
            "cosine and sine are divided by the model's attention factor");
    }
    if (scaling->type == RP_ROPE_YARN && fabs(usual - (own > 0 ? own : 1)) > 1e-6)
        add(search, name, ATTENTION, NULL, usual,
            "cosine and sine are multiplied by 0.1 log(factor) + 1; the model has another "
            "attention factor");
}

/* Factors of another scaling than the model's, kept by the search; NULL: no memory. */
static const float *factors_of(struct rp_search *search, const struct rp_rope_scaling *scaling)
{
    float *factors = rp_search_new_rows(search);
    if (factors)
        rp_rope_scaling_factors(scaling, rp_rope_theta(search->config, search->kind),
                                search->config->n_rot, factors);
    return factors;
}

static void collect_ramp(struct rp_search *search)
{
    static const char name[] = "rope-ramp";
    const struct rp_rope_scaling own = search->config->rope_scaling;
    const double attention = (double)own.attention_factor;
    struct rp_rope_scaling other = own;
    other.type = RP_ROPE_LINEAR;
    const float *linear = factors_of(search, &other);
    add(search, name, OTHER, linear, 0,
        "all of RoPE's frequencies are divided by the factor, as linear scaling does; the model "
        "has YaRN");
    if (attention > 0)
        add(search, name, OTHER, linear, attention,
            "all of RoPE's frequencies are divided by the factor, without YaRN's ramp");
    other = own;
    other.keeps_ramp_ends = !own.keeps_ramp_ends;
    add(search, name, OTHER, factors_of(search, &other), attention,
        own.keeps_ramp_ends ? "YaRN's ramp ends at whole pairs; the model's does not (truncate "
                              "false)"
                            : "YaRN's ramp does not end at whole pairs; the model's does");
    other = own;
    other.beta_fast = RP_YARN_BETA_FAST;
    other.beta_slow = RP_YARN_BETA_SLOW;
    if (own.beta_fast != other.beta_fast || own.beta_slow != other.beta_slow)
        add(search, name, OTHER, factors_of(search, &other), attention,
            "YaRN's ramp is that of beta_fast 32 and beta_slow 1, which are not the model's");
    other = own;
    other.original_context = (size_t)((double)own.original_context * (double)own.factor);
    add(search, name, OTHER, factors_of(search, &other), attention,
        "YaRN's ramp is that of the whole context, not of the original one");
    const float *factors = search->rope_freqs;
    float *inverted = rp_search_new_rows(search);
    for (size_t i = 0; inverted && i < search->config->n_rot / 2; i++)
        inverted[i] = 1 / (1 + 1 / own.factor - 1 / factors[i]);
    add(search, name, OTHER, inverted, attention,
        "YaRN's ramp is inverted: fast pairs are scaled, slow ones are not");
}

static void collect_factor(struct rp_search *search)
{
    static const double starts[] = {2, 4, 8, 16, 32, 40};
    static const struct rp_fit fit = RP_FIT(true, 1, 1e4, starts);
    const double own = (double)search->config->rope_scaling.factor;
    struct rp_candidate candidate =
        rp_candidate_make("rope-scaling", install, OTHER_FACTOR, RP_N_WEIGHTS);
    candidate.phase = RP_PHASE_FIT;
    candidate.fit = &fit;
    candidate.value = candidate.own = own;
    candidate.reports_value = true;
    rp_search_add(search, candidate, "RoPE is scaled by %%v; the model's factor is %.10g", own);
}

static void collect_longrope(struct rp_search *search)
{
    const struct rp_rope_scaling *scaling = &search->config->rope_scaling;
    const char *text = search->is_long
                           ? "RoPE has longrope's short factors; the sequence is longer than the "
                             "original context, and the model has the long ones"
                           : "RoPE has longrope's long factors; the sequence fits the original "
                             "context, and the model has the short ones";
    add(search, "rope-longrope", OTHER, search->other_rope_freqs, (double)scaling->attention_factor,
        text);
}

void rp_collect_rope_scaling(struct rp_search *search)
{
    const struct rp_rope_scaling *scaling = &search->config->rope_scaling;
    if (!search->rope_freqs || !rp_search_has_step(search, RP_STEP_ROPE, RP_N_WEIGHTS) ||
        scaling->type == RP_ROPE_NOT_SCALED)
        return;
    collect_missing(search);
    collect_attention_factor(search);
    if (scaling->type == RP_ROPE_YARN)
        collect_ramp(search);
    if (scaling->type == RP_ROPE_LONGROPE)
        collect_longrope(search);
    else
        collect_factor(search);
}
