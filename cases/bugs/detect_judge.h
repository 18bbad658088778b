/* Judges one of detect's trials by replay, explanation and the 5% rule, and says what of
 * it was right. Not for choosing trials, nor for counting. */
#ifndef REFPARITY_CASES_DETECT_JUDGE_H
#define REFPARITY_CASES_DETECT_JUDGE_H

#include "detect_engine.h"

#define RP_DETECT_LEVELS (RP_SLOTS_OPERATIONS + 1)

enum rp_detect_answer { RP_DETECT_NO, RP_DETECT_YES, RP_DETECT_NONE /* does not apply */ };

struct rp_detect_result {
    enum rp_detect_answer above, detected, layers_right, operation_right, position_right;
    enum rp_detect_answer name_right, pos0_rule, rule_5pct;
    char name_given[160]; /* "" where nothing was explained; of two bugs "NAME+NAME" */
    /* What the bug changes over replay's limit; of a clean trial the largest error that replay found
     * over its limit; NaN: does not apply. */
    double ratio;
    char report[2000]; /* what was reported, for a reader */
};

/* Runs it once, and judges the run's dump of each level: results[RP_SLOTS_LAYERS] and
 * results[RP_SLOTS_OPERATIONS]. scratch: an existing folder of the caller's own, which is left empty. */
enum rp_status rp_detect_judge(const struct rp_detect_trial *trial, const char *scratch,
                               struct rp_detect_result results[RP_DETECT_LEVELS],
                               struct rp_error *err);

#endif
