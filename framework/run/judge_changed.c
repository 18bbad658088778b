/* Is what is judged what the run found and left? Files are told by size, times and inode: fingerprint.h. What
 * changed before the run is session_inputs.h's. See judge.h and judge_internal.h. */
#include <string.h>

#include "run/judge_internal.h"

/* then: "" where it was not known. what: "the dump has changed since the engine ended" */
static enum rp_status check(const char *path, const char *then, const char *what,
                            struct rp_error *err)
{
    char now[RP_FINGERPRINT_SIZE];
    if (!then[0])
        return RP_OK;
    rp_fingerprint(path, now);
    return strcmp(now, then) == 0
               ? RP_OK
               : rp_fail(err, RP_ERR_MISMATCH, path, -1, "%s: run it again", what);
}

enum rp_status rp_judge_check_run(const struct rp_run_record *record, const char *dump,
                                  struct rp_error *err)
{
    const enum rp_status status =
        check(record->model, record->model_state,
              "the model file has changed since the engine was started", err);
    return status ? status
                  : check(dump, record->dump_state, "the dump has changed since the engine ended",
                          err);
}

enum rp_status rp_judge_check_fixture(const struct rp_run_record *record, const char *fixture,
                                      struct rp_error *err)
{
    return check(fixture, record->fixture_state,
                 "the fixture has changed since the engine was started", err);
}

enum rp_status rp_judge_check_inputs(const struct rp_context *context, const struct rp_pair *pair,
                                     struct rp_error *err)
{
    enum rp_status status = RP_OK;
    for (int against = 0; !status && against < (pair->against ? 2 : 1); against++) {
        struct rp_pair run = *pair;
        struct rp_pair_paths paths;
        struct rp_run_record record;
        if (pair->against)
            rp_pair_of_mode(pair, against, &run);
        status = rp_pair_paths(context, &run, &paths, err);
        if (!status)
            status = rp_run_record_read(context, &run, paths.record, &record, err);
        if (status || (record.outcome != RP_RUN_RAN && record.outcome != RP_RUN_REUSED))
            continue;
        status = rp_judge_check_run(&record, paths.dump, err);
        if (!status)
            status = rp_judge_check_fixture(&record, record.fixture, err);
    }
    return status;
}
