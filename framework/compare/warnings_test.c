/* Warnings: each kind with what must be warned about, and with clean twins, noise of the largest size that the
 * rule admits among them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare/warnings.h"

enum { VOCAB = 2000, POSITIONS = 25 };

/* xorshift64*, and Box and Muller's normal values. */
static uint64_t random_state;

static double uniform(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return ((double)((random_state * 0x2545F4914F6CDD1DULL) >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(void)
{
    const double radius = sqrt(-2 * log(uniform()));
    return radius * cos(6.283185307179586 * uniform());
}

/* What an engine does to the logits r, of standard deviation 1, of one position. */
struct change {
    double spread; /* of the logits of both; 0: 1 */
    double offset; /* that both have, in each logit */
    double noise;  /* relative to the spread */
    double factor; /* of the engine's; 0: 1 */
    bool replaces; /* the engine's are others, with the same offset */
    bool demotes;  /* the largest becomes the smallest */
    int from;      /* the first position that is changed */
    int n;         /* positions; 0: POSITIONS */
};

static size_t top_of(const float *row)
{
    size_t top = 0;
    for (size_t i = 1; i < VOCAB; i++)
        top = row[i] > row[top] ? i : top;
    return top;
}

static void make_row(const struct change *c, bool is_changed, float *r, float *e)
{
    const double spread = c->spread > 0 ? c->spread : 1;
    const double factor = c->factor > 0 && is_changed ? c->factor : 1;
    for (size_t i = 0; i < VOCAB; i++) {
        const double own = spread * normal(), noise = spread * normal();
        r[i] = (float)(c->offset + own);
        e[i] = r[i];
        if (is_changed)
            e[i] = (float)(factor * (c->offset + (c->replaces ? noise : own + c->noise * noise)));
    }
    if (is_changed && c->demotes)
        e[top_of(e)] = (float)(c->offset - 3 * spread);
}

/* As the rule's comparison fills it. */
static struct rp_slot_result compare_logits(const struct change *c)
{
    static float r[VOCAB], e[VOCAB];
    struct rp_slot_result slot = {
        .slot = "logits", .required = 1, .dim = VOCAB, .limit = RP_DEFAULT_COSINE};
    random_state = 42;
    const int n = c->n ? c->n : POSITIONS;
    for (int p = 0; p < n; p++) {
        make_row(c, p >= c->from, r, e);
        const struct rp_metrics m = rp_metrics_row(r, e, VOCAB);
        const struct rp_logits_metrics l = rp_metrics_logits(r, e, VOCAB);
        if (slot.n_compared++ == 0 || m.cosine < slot.worst.metrics.cosine)
            slot.worst = (struct rp_position_metrics){p, m};
        slot.n_top1_equal += l.top1_ref == l.top1_engine;
        slot.kl_max = fmax(slot.kl_max, l.kl);
        rp_warnings_see_logits(&slot, p, &m, &l);
    }
    slot.verdict = slot.worst.metrics.cosine > slot.limit ? RP_PASS : RP_FAIL;
    return slot;
}

/* -1: no warning; else the kind of the only one. */
static int warning_of(const struct change *c, struct rp_warnings *w)
{
    const struct rp_slot_result slot = compare_logits(c);
    assert_int_equal(slot.verdict, RP_PASS);
    rp_warn_slot(&slot, w);
    if (w->n > 1)
        fail_msg("%s; %s", w->list[0].message, w->list[1].message);
    return w->n ? (int)w->list[0].kind : -1;
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in \"%s\"", part, text);
}

static void assert_clean(const struct change *c)
{
    struct rp_warnings w;
    if (warning_of(c, &w) >= 0)
        fail_msg("offset %g, noise %g, factor %g: %s", c->offset, c->noise, c->factor,
                 w.list[0].message);
}

static void noise_that_the_rule_admits_is_not_warned_about(void **state)
{
    (void)state;
    static const double noises[] = {0, 1e-7, 1e-4, 0.01, 0.1, 0.3, 0.45};
    static const double spreads[] = {0.1, 1, 3};
    static const int counts[] = {1, 2, 6, POSITIONS};
    for (size_t i = 0; i < sizeof noises / sizeof noises[0]; i++)
        for (size_t j = 0; j < sizeof spreads / sizeof spreads[0]; j++)
            for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++)
                assert_clean(
                    &(struct change){.noise = noises[i], .spread = spreads[j], .n = counts[k]});
}

static void logits_of_another_size_are_warned_about(void **state)
{
    (void)state;
    struct rp_warnings w;
    static const double factors[] = {0.01, 0.0625, 0.7, 1.4, 8, 100};
    for (size_t i = 0; i < sizeof factors / sizeof factors[0]; i++)
        assert_int_equal(warning_of(&(struct change){.factor = factors[i], .spread = 4}, &w),
                         RP_WARNING_LOGITS_SIZE);
    assert_int_equal(warning_of(&(struct change){.factor = 0.01, .spread = 4}, &w),
                     RP_WARNING_LOGITS_SIZE);
    assert_contains(w.list[0].message, "times 0.01 at position ");
    assert_contains(w.list[0].message, "(at 25 of 25 positions");
    assert_string_equal(w.list[0].slot, "logits");
    assert_clean(&(struct change){.factor = 0.95});
    assert_clean(&(struct change){.factor = 1.05, .noise = 0.1});
}

static void the_size_of_one_position_alone_is_seen(void **state)
{
    (void)state;
    struct rp_warnings w;
    assert_int_equal(warning_of(&(struct change){.factor = 2, .from = POSITIONS - 1}, &w),
                     RP_WARNING_LOGITS_SIZE);
    assert_contains(w.list[0].message, "times 2 at position 24 (at 1 of 25 positions");
}

/* A common offset of 30 standard deviations makes the cosine of any two such rows 0.998. */
static void logits_that_share_their_offset_alone_are_warned_about(void **state)
{
    (void)state;
    struct rp_warnings w;
    const struct rp_slot_result slot =
        compare_logits(&(struct change){.offset = 30, .replaces = true});
    assert_int_equal(slot.verdict, RP_PASS);
    rp_warn_slot(&slot, &w);
    assert_true(w.n >= 1);
    assert_int_equal(w.list[0].kind, RP_WARNING_LOGITS_DISTRIBUTION);
    assert_contains(w.list[0].message, "pass by their cosine (0.99");
    assert_clean(&(struct change){.offset = 30, .noise = 0.4});
    assert_clean(&(struct change){.offset = -30, .noise = 0.4});
}

static void top_1_wrong_everywhere_is_warned_about(void **state)
{
    (void)state;
    struct rp_warnings w;
    assert_int_equal(warning_of(&(struct change){.demotes = true}, &w), RP_WARNING_TOP1);
    assert_contains(w.list[0].message, "top-1 agrees at 0 of 25 positions");
    assert_int_equal(warning_of(&(struct change){.demotes = true, .from = 1, .noise = 0.01}, &w),
                     RP_WARNING_TOP1);
    assert_contains(w.list[0].message, "top-1 agrees at 1 of 25 positions");
    assert_clean(&(struct change){.demotes = true, .from = POSITIONS - 4, .noise = 0.3});
}

/* Against V independent normal values: the share that agrees is at least what is promised, and not so much
 * more that the promise says nothing. */
static void the_share_of_top_1_that_noise_leaves_is_a_lower_bound(void **state)
{
    (void)state;
    enum { TRIALS = 400 };
    static const double errors[] = {0.01, 0.05, 0.2, RP_ADMITTED_ERROR};
    static float r[VOCAB], e[VOCAB];
    random_state = 7;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        int n = 0;
        for (int trial = 0; trial < TRIALS; trial++) {
            make_row(&(struct change){.noise = errors[i]}, true, r, e);
            n += top_of(r) == top_of(e);
        }
        const double share = (double)n / TRIALS, expected = rp_top1_expected(errors[i], VOCAB);
        const double deviation = sqrt(expected * (1 - expected) / TRIALS); /* of the count */
        if (!(share > expected - 3 * deviation) || !(share < expected + 0.25))
            fail_msg("error %g: %g of the trials agree, at least %g expected", errors[i], share,
                     expected);
    }
}

static void what_fails_or_is_not_required_has_no_warning(void **state)
{
    (void)state;
    struct rp_warnings w;
    struct rp_slot_result slot = compare_logits(&(struct change){.factor = 0.01});
    slot.verdict = RP_FAIL;
    rp_warn_slot(&slot, &w);
    assert_int_equal(w.n, 0);
    slot.verdict = RP_PASS;
    slot.required = 0;
    rp_warn_slot(&slot, &w);
    assert_int_equal(w.n, 0);
}

/* emb, h0 .. h3, post_norm, all of them off by l2_rel but the one of slot. */
static size_t warn_states(double l2_rel, int other, double other_l2_rel, enum rp_verdict verdict,
                          bool has_coarse_weights, struct rp_warnings *w)
{
    static const char *const names[] = {"emb", "h0", "h1", "h2", "h3", "post_norm"};
    struct rp_slot_result slots[6] = {{.required = 0}};
    for (int i = 0; i < 6; i++) {
        snprintf(slots[i].slot, sizeof slots[i].slot, "%s", names[i]);
        slots[i].required = 1;
        slots[i].n_compared = 3;
        slots[i].limit = 0.05;
        slots[i].worst.metrics.l2_rel = i == other ? other_l2_rel : l2_rel;
    }
    const struct rp_pair_result pair = {.slots = slots, .n_slots = 6, .verdict = verdict};
    rp_warn_pair(&pair, has_coarse_weights, w);
    return w->n;
}

static void every_state_far_off_is_warned_about(void **state)
{
    (void)state;
    struct rp_warnings w;
    assert_int_equal(warn_states(0.049, 0, 0, RP_PASS, false, &w), 1); /* emb is exact */
    assert_int_equal(w.list[0].kind, RP_WARNING_FAR);
    assert_contains(w.list[0].message, "L2_rel 0.049 at least (h0)");
    assert_int_equal(warn_states(0.049, 3, 0.026, RP_PASS, false, &w), 1);
    assert_contains(w.list[0].message, "L2_rel 0.026 at least (h2)");
    assert_int_equal(warn_states(0.049, 1, 0.02, RP_PASS, false, &w), 0); /* as 8 bits make it */
    assert_int_equal(warn_states(0.049, 0, 0, RP_PASS, true, &w), 0);
    assert_int_equal(warn_states(0.049, 0, 0, RP_FAIL, false, &w), 0);
    assert_int_equal(warn_states(0.049, 0, 0, RP_MARGINAL, false, &w), 0);
    assert_int_equal(warn_states(1e-6, 0, 0, RP_PASS, false, &w), 0);
}

static void limits_that_fail_nothing_are_warned_about(void **state)
{
    (void)state;
    struct rp_warnings w;
    struct rp_limits limits = rp_limits_default();
    rp_warn_limits(&limits, &w);
    assert_int_equal(w.n, 0);
    limits.l2_rel = 1;
    limits.cosine = 0.01;
    rp_warn_limits(&limits, &w);
    assert_int_equal(w.n, 0);
    limits.l2_rel = 1.5;
    limits.cosine = 0;
    rp_warn_limits(&limits, &w);
    assert_int_equal(w.n, 2);
    assert_int_equal(w.list[0].kind, RP_WARNING_LIMIT_L2_REL);
    assert_contains(w.list[0].message, "the limit 1.5 on L2_rel lets zeros pass");
    assert_int_equal(w.list[1].kind, RP_WARNING_LIMIT_COSINE);
    const struct rp_slot_limit own = {.slot = "h1", .l2_rel = 20};
    limits = (struct rp_limits){.l2_rel = 0.05, .cosine = 0.9, .slots = &own, .n_slots = 1};
    rp_warn_limits(&limits, &w);
    assert_int_equal(w.n, 1);
    assert_string_equal(w.list[0].slot, "h1");
}

static void each_kind_has_a_name_and_a_rule(void **state)
{
    (void)state;
    for (int i = 0; i < RP_N_WARNING_KINDS; i++) {
        assert_true(strlen(rp_warning_name((enum rp_warning_kind)i)) > 0);
        assert_true(strlen(rp_warning_rule((enum rp_warning_kind)i)) > 0);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(rp_warning_name((enum rp_warning_kind)i),
                                    rp_warning_name((enum rp_warning_kind)j));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noise_that_the_rule_admits_is_not_warned_about),
        cmocka_unit_test(logits_of_another_size_are_warned_about),
        cmocka_unit_test(the_size_of_one_position_alone_is_seen),
        cmocka_unit_test(logits_that_share_their_offset_alone_are_warned_about),
        cmocka_unit_test(top_1_wrong_everywhere_is_warned_about),
        cmocka_unit_test(the_share_of_top_1_that_noise_leaves_is_a_lower_bound),
        cmocka_unit_test(what_fails_or_is_not_required_has_no_warning),
        cmocka_unit_test(every_state_far_off_is_warned_about),
        cmocka_unit_test(limits_that_fail_nothing_are_warned_about),
        cmocka_unit_test(each_kind_has_a_name_and_a_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
