/* What a bug has to be named, for the tests of the explanations; include cmocka.h first. */
#ifndef REFPARITY_OPERATIONS_BUGS_CHECK_TEST_UTIL_H
#define REFPARITY_OPERATIONS_BUGS_CHECK_TEST_UTIL_H

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "operations/bugs_test_util.h"

#define NO_PARAMETER ((double)NAN)

static const char *const all_models[] = {"qwen3", "llama", "qwen35"};

/* A middle layer with full attention; of "qwen35" every fourth has it. */
static inline int full_layer(const char *model)
{
    return strcmp(model, "qwen35") == 0 ? 3 : 1;
}

/* NO_PARAMETER: none is given. A fitted parameter is right to 1e-3, or it would not match. */
static inline void assert_named(struct rp_test_engine engine, const char *name, double parameter,
                                const char *slot)
{
    struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    const struct rp_explanation *found = &report.explanation;
    if (strcmp(found->name, name) != 0)
        fail_msg("%s %s: '%s' for '%s': %s, error %g limits", engine.model, report.slot,
                 found->name, name, found->text, report.times_limit);
    if (isnan(parameter) != isnan(found->parameter) ||
        (!isnan(parameter) && !(fabs(found->parameter - parameter) <= 1e-3 * fabs(parameter))))
        fail_msg("%s: %s: parameter %.9g for %.9g", engine.model, name, found->parameter,
                 parameter);
    assert_string_equal(report.slot, slot);
    assert_true(found->share > 0.75);
}

/* In a slot of full_layer, for each architecture. */
static inline void assert_named_in_all(struct rp_test_engine engine, const char *name,
                                       double parameter, const char *part)
{
    for (size_t i = 0; i < sizeof all_models / sizeof *all_models; i++) {
        char slot[RP_SLOT_NAME_SIZE];
        engine.model = all_models[i];
        engine.layer = full_layer(engine.model);
        snprintf(slot, sizeof slot, "h%d%s", engine.layer, part);
        assert_named(engine, name, parameter, slot);
    }
}

/* In a dump of layers, where coarse is what fails, and in one of operations, where fine is. */
static inline void assert_named_at_both_levels(struct rp_test_engine engine, const char *name,
                                               double parameter, const char *coarse,
                                               const char *fine)
{
    engine.level = RP_SLOTS_LAYERS;
    assert_named_in_all(engine, name, parameter, coarse);
    engine.level = RP_SLOTS_OPERATIONS;
    assert_named_in_all(engine, name, parameter, fine);
}

static inline void assert_unexplained(struct rp_test_engine engine)
{
    struct rp_test_report report = rp_test_explain(RP_SOURCE_DIR, &engine);
    assert_string_not_equal(report.slot, "");
    if (report.explanation.name[0])
        fail_msg("%s %s: %s", engine.model, report.slot, report.explanation.text);
    assert_non_null(strstr(report.explanation.text, "unexplained"));
    assert_true(isnan(report.explanation.parameter));
}

#endif
