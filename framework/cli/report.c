/* refparity report: what the last ctest run found, as a summary, JSON and JUnit XML. */
#include "cli/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "report/markdown.h"
#include "report/old_reports.h"
#include "report/results.h"
#include "run/selection.h"

static const char help[] =
    "usage: refparity report [--begin | --write-only | --markdown] [BUILD_DIR | CONFIG.json]\n"
    "\n"
    "Collects the results of the last ctest run in BUILD_DIR (the current folder unless\n"
    "given), compares what ctest did not come to (after --stop-on-failure, say), writes\n"
    "results.json and junit.xml into the reports folder, and prints a summary.\n"
    "\n"
    "  --begin       begin a new run: results so far no longer count (ctest does this)\n"
    "  --write-only  exit with 0 once the reports are written, whatever they say, and note\n"
    "                that ctest has come to its end (ctest does this)\n"
    "  --markdown    print the summary as Markdown, for a CI's step summary\n"
    "  --help\n"
    "\n"
    "exit codes: 2 if any pair is in error or nothing was compared, else 1 if any pair\n"
    "diverges, else 2 if ctest was stopped before its session/end or a file cannot be\n"
    "written, else 0\n";

/* The config.json of the build tree, or the file itself. */
static enum rp_status find_config(const char *argument, char *path, struct rp_error *err)
{
    const size_t length = strlen(argument);
    if (length > 5 && strcmp(argument + length - 5, ".json") == 0) {
        if ((size_t)snprintf(path, RP_PATH_SIZE, "%s", argument) < RP_PATH_SIZE)
            return RP_OK;
        return rp_fail(err, RP_ERR_ARGUMENT, argument, -1, "the path is too long");
    }
    const enum rp_status status =
        rp_path_join(path, RP_PATH_SIZE, argument, "refparity/config.json", err);
    if (!status && !rp_path_exists(path))
        return rp_fail(err, RP_ERR_MISSING, path, -1,
                       "no such file: expected the folder of a configured build tree");
    return status;
}

static int report(const struct rp_context *context, int write_only, int markdown)
{
    struct rp_results results = {.root = NULL};
    struct rp_error err, no_mark = {.code = RP_OK};
    if (write_only) /* ctest's own, which is the last that it runs */
        (void)rp_selection_end(context, &no_mark);
    enum rp_status status = rp_results_collect(context, &results, &err);
    if (!status && no_mark.code) {
        err = no_mark;
        status = err.code;
    }
    if (!results.root)
        return rp_cli_error(&err);
    if (markdown)
        rp_report_markdown(stdout, &results);
    else
        rp_results_summary(stdout, context, &results);
    if (results.n_pairs == 0)
        puts("no pair has been run: run ctest first");
    const int code = write_only ? RP_EXIT_PASS : rp_results_exit_code(&results);
    rp_results_free(&results);
    return status ? rp_cli_error(&err) : code;
}

int rp_cli_report(int argc, char **argv)
{
    static const struct option known[] = {{"begin", no_argument, NULL, 'b'},
                                          {"write-only", no_argument, NULL, 'w'},
                                          {"markdown", no_argument, NULL, 'm'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int option, begin = 0, write_only = 0, markdown = 0;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        switch (option) {
        case 'b': begin = 1; break;
        case 'w': write_only = 1; break;
        case 'm': markdown = 1; break;
        case 'h': fputs(help, stdout); return RP_EXIT_PASS;
        default: return rp_cli_usage_error("report", "unknown option %s", argv[optind - 1]);
        }
    }
    if (argc - optind > 1)
        return rp_cli_usage_error("report", "expected one folder, found %d", argc - optind);
    char path[RP_PATH_SIZE], reports_dir[RP_PATH_SIZE];
    struct rp_context context;
    struct rp_error err;
    enum rp_status status = find_config(optind < argc ? argv[optind] : ".", path, &err);
    if (!status && begin) {
        status = rp_context_begin_session(path, reports_dir, &err);
        if (!status)
            rp_remove_old_reports(reports_dir);
        return status ? rp_cli_error(&err) : RP_EXIT_PASS;
    }
    if (!status)
        status = rp_context_open(path, &context, &err);
    if (status)
        return rp_cli_error(&err);
    const int code = report(&context, write_only, markdown);
    rp_context_close(&context);
    return code;
}
