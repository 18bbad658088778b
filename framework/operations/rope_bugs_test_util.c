/* Bugs in RoPE. See operations/bugs_test_util.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operations/bugs_test_util.h"

static enum rp_status rope_base(void *context, const struct rp_site *site,
                                const struct rp_rope *args)
{
    struct rp_test_bug *bug = context;
    struct rp_rope wrong = *args;
    if (rp_test_bug_is_here(bug, site))
        wrong.theta = (float)bug->value;
    return RP_TEST_BELOW(bug, rope, site, &wrong);
}

void rp_test_rope_base(struct rp_ops *ops)
{
    ops->rope = rope_base;
}

static enum rp_status rope_scaled(void *context, const struct rp_site *site,
                                  const struct rp_rope *args)
{
    struct rp_test_bug *bug = context;
    struct rp_rope wrong = *args;
    float factors[256];
    for (size_t i = 0; i < args->n_rot / 2; i++)
        factors[i] = (args->freq_factors ? args->freq_factors[i] : 1) / (float)bug->value;
    if (rp_test_bug_is_here(bug, site))
        wrong.freq_factors = factors;
    return RP_TEST_BELOW(bug, rope, site, &wrong);
}

void rp_test_rope_scaled(struct rp_ops *ops)
{
    ops->rope = rope_scaled;
}

static enum rp_status rope_pairs(void *context, const struct rp_site *site,
                                 const struct rp_rope *args)
{
    struct rp_test_bug *bug = context;
    struct rp_rope wrong = *args;
    if (rp_test_bug_is_here(bug, site))
        wrong.ordering = args->ordering == RP_ROPE_NEOX ? RP_ROPE_INTERLEAVED : RP_ROPE_NEOX;
    return RP_TEST_BELOW(bug, rope, site, &wrong);
}

void rp_test_rope_pairs(struct rp_ops *ops)
{
    ops->rope = rope_pairs;
}

static enum rp_status rope_missing(void *context, const struct rp_site *site,
                                   const struct rp_rope *args)
{
    struct rp_test_bug *bug = context;
    return rp_test_bug_is_here(bug, site) ? RP_OK : RP_TEST_BELOW(bug, rope, site, args);
}

void rp_test_rope_missing(struct rp_ops *ops)
{
    ops->rope = rope_missing;
}

static enum rp_status two_in_rope(void *context, const struct rp_site *site,
                                  const struct rp_rope *args)
{
    struct rp_test_bug *bug = context;
    struct rp_rope wrong = *args;
    if (rp_test_bug_is_here(bug, site)) {
        wrong.theta *= (float)bug->value;
        wrong.ordering = args->ordering == RP_ROPE_NEOX ? RP_ROPE_INTERLEAVED : RP_ROPE_NEOX;
    }
    return RP_TEST_BELOW(bug, rope, site, &wrong);
}

void rp_test_two_in_rope(struct rp_ops *ops)
{
    ops->rope = two_in_rope;
}

static enum rp_status rope_default(void *context, const struct rp_site *site,
                                   const struct rp_rope *args)
{
    struct rp_test_bug *bug = context;
    struct rp_rope wrong = *args;
    if (rp_test_bug_is_here(bug, site)) {
        wrong.theta = 10000;
        wrong.freq_factors = NULL;
    }
    return RP_TEST_BELOW(bug, rope, site, &wrong);
}

void rp_test_rope_default(struct rp_ops *ops)
{
    ops->rope = rope_default;
}

static enum rp_status at_positions(struct rp_test_bug *bug, const struct rp_site *site,
                                   const struct rp_rope *args, bool is_folded)
{
    struct rp_rope wrong = *args;
    int64_t positions[256];
    for (size_t p = 0; p < site->n_positions; p++) {
        const int64_t at = args->positions[p] % 6;
        positions[p] =
            is_folded ? (at < 4 ? at : 6 - at) : args->positions[p] + (int64_t)bug->value;
    }
    if (rp_test_bug_is_here(bug, site))
        wrong.positions = positions;
    return RP_TEST_BELOW(bug, rope, site, &wrong);
}

static enum rp_status rope_offset(void *context, const struct rp_site *site,
                                  const struct rp_rope *args)
{
    return at_positions(context, site, args, false);
}

void rp_test_rope_offset(struct rp_ops *ops)
{
    ops->rope = rope_offset;
}

static enum rp_status rope_folded(void *context, const struct rp_site *site,
                                  const struct rp_rope *args)
{
    return at_positions(context, site, args, true);
}

void rp_test_rope_folded(struct rp_ops *ops)
{
    ops->rope = rope_folded;
}

static enum rp_status rope_sections(void *context, const struct rp_site *site,
                                    const struct rp_rope *args)
{
    struct rp_test_bug *bug = context;
    struct rp_rope wrong = *args;
    float factors[256];
    for (size_t i = 0; i < args->n_rot / 2; i++)
        factors[i] = (double)i < bug->value ? HUGE_VALF
                     : args->freq_factors   ? args->freq_factors[i]
                                            : 1;
    if (rp_test_bug_is_here(bug, site))
        wrong.freq_factors = factors;
    return RP_TEST_BELOW(bug, rope, site, &wrong);
}

void rp_test_rope_sections(struct rp_ops *ops)
{
    ops->rope = rope_sections;
}

static enum rp_status rope_missing_in_head(void *context, const struct rp_site *site,
                                           const struct rp_rope *args)
{
    struct rp_test_bug *bug = context;
    size_t width = args->n_heads * args->head_dim;
    float *before = rp_test_copy(args->x, site->n_positions * width);
    enum rp_status status = RP_TEST_BELOW(bug, rope, site, args);
    for (size_t p = 0;
         rp_test_bug_is_here(bug, site) && args->which == bug->which && p < site->n_positions;
         p++) {
        size_t at = p * width + (size_t)bug->head * args->head_dim;
        memcpy(args->x + at, before + at, args->head_dim * sizeof *before);
    }
    free(before);
    return status;
}

void rp_test_rope_missing_in_head(struct rp_ops *ops)
{
    ops->rope = rope_missing_in_head;
}
