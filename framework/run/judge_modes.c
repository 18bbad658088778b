/* Two modes of one engine, held against each other: needs no fixture. See judge.h. */
#include "run/judge_internal.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "run/selection.h"
#include "run/session_inputs.h"

void rp_judge_name_modes(const struct rp_judge *judge, char *message, size_t size)
{
    char text[1600];
    if (!judge->pair->against)
        return;
    snprintf(text, sizeof text, "%s", message);
    snprintf(message, size, "%s against %s: %s", judge->pair->mode, judge->pair->against, text);
}

/* One of the two runs: what became of it, and its dump. */
static void open_run(struct rp_judge *judge, int against, struct rp_pair_paths *paths,
                     struct rp_run_record *record, struct rp_tensor_set **set)
{
    struct rp_pair run;
    struct rp_judgement judgement;
    struct rp_error err;
    rp_pair_of_mode(judge->pair, against, &run);
    if (rp_pair_paths(judge->context, &run, paths, &err) ||
        rp_session_check_files(judge->context, &run, &err)) {
        rp_judge_decide_error(&judge->prerequisites, &err);
        return;
    }
    rp_judge_record(judge->context, &run, paths, record, &judgement);
    if (judgement.verdict != RP_PASS)
        rp_judge_decide(&judge->prerequisites, judgement.verdict, "%s: %.1400s", run.mode,
                        judgement.message);
    else if (rp_judge_open_dump(&run, paths->dump, set, &err) ||
             rp_judge_check_run(record, paths->dump, &err))
        rp_judge_decide_error(&judge->prerequisites, &err);
}

void rp_judge_open_modes(struct rp_judge *judge)
{
    struct rp_pair_paths *paths = &judge->run_paths;
    rp_judge_decide(&judge->prerequisites, RP_PASS, "%s", "");
    open_run(judge, 1, paths, &judge->reference_record, &judge->comparison.reference);
    snprintf(judge->fixture_path, sizeof judge->fixture_path, "%s", paths->dump);
    if (judge->prerequisites.verdict != RP_PASS)
        return;
    open_run(judge, 0, paths, &judge->record, &judge->comparison.engine);
    /* reports show the dump and the log of the mode that is compared */
    snprintf(judge->paths.dump, sizeof judge->paths.dump, "%s", paths->dump);
    snprintf(judge->paths.log, sizeof judge->paths.log, "%s", paths->log);
}

enum rp_status rp_judge_select_modes(const struct rp_context *context, const struct rp_pair *pair,
                                     struct rp_error *err)
{
    struct rp_pair_paths paths;
    struct rp_run_record record;
    enum rp_status status = rp_pair_paths(context, pair, &paths, err);
    if (!status)
        status = rp_selection_add(context, pair, err);
    if (status)
        return status;
    if (!rp_run_record_read(context, pair, paths.record, &record, NULL) &&
        strcmp(record.session, context->session) == 0)
        return RP_OK;
    memset(&record, 0, sizeof record);
    record.outcome = RP_RUN_RAN;
    snprintf(record.session, sizeof record.session, "%s", context->session);
    status = rp_make_dirs(paths.dir, err);
    if (!status)
        status = rp_remove_tree(paths.result, err);
    if (!status)
        status = rp_run_record_write(context, pair, paths.record, &record, err);
    return status;
}
