/* See report_baseline.h. */
#include "cli/report_baseline.h"

#include <stdio.h>

#include "cli/cli.h"
#include "refparity/compare.h"
#include "report/baseline_text.h"

int rp_cli_report_baseline(const struct rp_terminal *out, const struct rp_results *results,
                           const char *path, enum rp_report_format format)
{
    struct rp_baseline baseline;
    struct rp_error err;
    enum rp_status status = rp_baseline_open(path, results->root, &baseline, &err);
    if (!status && format == RP_REPORT_MARKDOWN)
        rp_baseline_write_markdown(out->out, path, &baseline);
    else if (!status && format == RP_REPORT_TEXT)
        rp_baseline_write_text(out, path, &baseline);
    else if (!status)
        status = rp_baseline_write_json(out->out, path, &baseline, &err);
    /* what is no result is none here either: nothing was compared, or ctest was stopped */
    const bool is_whole = results->n_compared > 0 && results->has_ended;
    const int code = is_whole ? rp_baseline_exit_code(&baseline) : RP_EXIT_ERROR;
    rp_baseline_free(&baseline);
    return status ? rp_cli_error(&err) : code;
}
