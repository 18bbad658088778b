/* See report_merge.h. */
#include "cli/report_merge.h"

#include "cli/cli.h"
#include "refparity/compare.h"
#include "report/markdown.h"
#include "report/merge.h"
#include "report/summary.h"

int rp_cli_report_merge(const struct rp_terminal *out, const struct rp_cli_merge *options,
                        char *const *sources, size_t n)
{
    const struct rp_context context = {.prefix = "", .reports_dir = options->out};
    struct rp_shard_files files = {.list = NULL};
    struct rp_results results = {.root = NULL};
    struct rp_error err;
    enum rp_status status = RP_OK;
    int code = RP_EXIT_ERROR;
    if (n == 0)
        return rp_cli_usage_error("report", "--merge needs what to merge: build trees, or folders "
                                            "with their reports");
    for (size_t i = 0; !status && i < n; i++)
        status = rp_shard_files_add(&files, sources[i], options->out, &err);
    if (!status)
        status = rp_results_merge(&files, options->filter, options->out, &results, &err);
    if (results.root && options->baseline) {
        code = rp_cli_report_baseline(out, &results, options->baseline, options->format);
    } else if (results.root) {
        if (options->format == RP_REPORT_MARKDOWN)
            rp_report_markdown(out->out, &results);
        else
            rp_results_summary(out, &context, &results, options->shows_all);
        code = rp_results_exit_code(&results, options->strict_warnings);
    }
    if (status)
        code = rp_cli_error(&err);
    rp_results_free(&results);
    rp_shard_files_free(&files);
    return code;
}
