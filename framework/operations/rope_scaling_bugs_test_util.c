/* Bugs in RoPE's scaling. See operations/bugs_test_util.h. */
#include "operations/bugs_test_util.h"
#include "operations/rope_scaling.h"

static bool is_here(const struct rp_test_bug *bug, const struct rp_site *site,
                    const struct rp_rope *args)
{
    const bool is_of_one = bug->which == RP_ATTN_Q || bug->which == RP_ATTN_K;
    return rp_test_bug_is_here(bug, site) && (!is_of_one || bug->which == args->which);
}

static enum rp_status unscaled(void *context, const struct rp_site *site,
                               const struct rp_rope *args)
{
    struct rp_test_bug *bug = context;
    struct rp_rope wrong = *args;
    if (is_here(bug, site, args)) {
        wrong.freq_factors = NULL;
        wrong.attention_factor = 0;
    }
    return RP_TEST_BELOW(bug, rope, site, &wrong);
}

void rp_test_rope_unscaled(struct rp_ops *ops)
{
    ops->rope = unscaled;
}

static enum rp_status attention(void *context, const struct rp_site *site,
                                const struct rp_rope *args)
{
    struct rp_test_bug *bug = context;
    struct rp_rope wrong = *args;
    if (is_here(bug, site, args))
        wrong.attention_factor = (float)bug->value;
    return RP_TEST_BELOW(bug, rope, site, &wrong);
}

void rp_test_rope_attention(struct rp_ops *ops)
{
    ops->rope = attention;
}

static enum rp_status other_scaling(void *context, const struct rp_site *site,
                                    const struct rp_rope *args)
{
    struct rp_test_bug *bug = context;
    struct rp_rope wrong = *args;
    struct rp_rope_scaling scaling = site->config->rope_scaling;
    float factors[256];
    const float factor = scaling.factor;
    if (!is_here(bug, site, args))
        return RP_TEST_BELOW(bug, rope, site, args);
    switch (bug->option) {
    case RP_TEST_LINEAR: scaling.type = RP_ROPE_LINEAR; break;
    case RP_TEST_RAMP_ENDS: scaling.keeps_ramp_ends = !scaling.keeps_ramp_ends; break;
    case RP_TEST_BETAS:
        scaling.beta_fast = RP_YARN_BETA_FAST;
        scaling.beta_slow = RP_YARN_BETA_SLOW;
        break;
    case RP_TEST_WHOLE_CONTEXT: scaling.original_context *= (size_t)factor; break;
    case RP_TEST_FACTOR: scaling.factor = (float)bug->value; break;
    default: break;
    }
    rp_rope_scaling_factors(&scaling, args->theta, args->n_rot, factors);
    for (size_t i = 0; i < args->n_rot / 2 && bug->option == RP_TEST_INVERTED; i++)
        factors[i] = 1 / (1 + 1 / factor - 1 / factors[i]);
    wrong.freq_factors = factors;
    return RP_TEST_BELOW(bug, rope, site, &wrong);
}

void rp_test_rope_other_scaling(struct rp_ops *ops)
{
    ops->rope = other_scaling;
}

/* Short factors are 1, 1.25, 1.5, …, long ones 1, 1.5, 2, …: see explain/engine_test_util.c. */
static enum rp_status longrope(void *context, const struct rp_site *site,
                               const struct rp_rope *args)
{
    struct rp_test_bug *bug = context;
    struct rp_rope wrong = *args;
    float factors[256];
    const bool is_long = args->freq_factors[1] > 1.25f;
    for (size_t i = 0; i < args->n_rot / 2; i++)
        factors[i] = 1 + (is_long ? 0.25f : 0.5f) * (float)i;
    if (is_here(bug, site, args))
        wrong.freq_factors = factors;
    return RP_TEST_BELOW(bug, rope, site, &wrong);
}

void rp_test_rope_longrope(struct rp_ops *ops)
{
    ops->rope = longrope;
}
