/* refparity report: what the last ctest run found, as a summary, JSON, JUnit XML and HTML. */
#include "cli/cli.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/configs.h"
#include "cli/report_baseline.h"
#include "cli/report_merge.h"
#include "refparity/compare.h"
#include "report/markdown.h"
#include "report/old_reports.h"
#include "report/results.h"
#include "report/summary.h"
#include "run/selection.h"

static const char help[] =
    "usage: refparity report [OPTION ...] [BUILD_DIR | CONFIG.json]\n"
    "       refparity report --merge OUT [OPTION ...] BUILD_DIR | REPORTS ...\n"
    "\n"
    "Collects the results of the last ctest run in BUILD_DIR (the current folder unless\n"
    "given), of each of its matrices, compares what ctest did not come to (after\n"
    "--stop-on-failure, say), writes results.json, junit.xml, index.html and a page for each\n"
    "pair that did not just pass into the reports folder, and prints a summary.\n"
    "\n"
    "  --begin            begin a new run: results so far no longer count (ctest does this)\n"
    "  --write-only       exit with 0 once the reports are written, whatever they say but\n"
    "                     warnings under --strict-warnings, and note that ctest has come to\n"
    "                     its end (ctest does this)\n"
    "  --all              print every pair that fails: else the first 20\n"
    "  --markdown         print the summary as Markdown, for a CI's step summary\n"
    "  --baseline FILE    compare with the results.json of an earlier run, and print what is new,\n"
    "                     worse, mended and better; exit with 1 if anything is new or worse,\n"
    "                     else with 0, whatever fails as before (docs/known-divergences.md)\n"
    "  --json             with --baseline: print that as JSON\n"
    "  --strict-warnings  exit with 3 where all passes and there are warnings; so does\n"
    "                     REFPARITY_STRICT_WARNINGS=1 in the environment\n"
    "  --merge OUT        put the results of several shards (refparity shard) together: of build\n"
    "                     trees, or folders with their reports, as CI jobs upload them. OUT gets\n"
    "                     the reports of one machine. A pair that no shard has is an error, and\n"
    "                     one that two have with different verdicts\n"
    "  --filter REGEX     with --merge: only tests that match were to be run\n"
    "  --help\n"
    "\n"
    "exit codes: 2 if any pair or weights test is in error or nothing was compared, else 1 if\n"
    "any diverges, else 2 if ctest was stopped before its session/end or a file cannot be\n"
    "written, else 3 if there are warnings and --strict-warnings, else 0\n";

struct options {
    bool begin, write_only, markdown, json, strict_warnings, shows_all;
    const char *merge, *filter; /* NULL: none */
    const char *baseline;       /* NULL: none */
};

static enum rp_report_format format_of(const struct options *options)
{
    return options->json ? RP_REPORT_JSON : options->markdown ? RP_REPORT_MARKDOWN : RP_REPORT_TEXT;
}

/* n_tests: how many pairs and weights tests the run had; not 0 after an error. */
static int report(const struct rp_terminal *out, const struct rp_context *context,
                  const struct options *options, size_t *n_tests)
{
    struct rp_results results = {.root = NULL};
    struct rp_error err, no_mark = {.code = RP_OK};
    if (options->write_only) /* ctest's own, which is the last that it runs */
        (void)rp_selection_end(context, &no_mark);
    enum rp_status status = rp_results_collect(context, &results, &err);
    if (!status && no_mark.code) {
        err = no_mark;
        status = err.code;
    }
    if (!results.root)
        return rp_cli_error(&err);
    *n_tests = results.n_pairs + results.weights.n + (status != RP_OK);
    if (options->baseline && results.n_pairs > 0) {
        const int changed =
            rp_cli_report_baseline(out, &results, options->baseline, format_of(options));
        rp_results_free(&results);
        return status ? rp_cli_error(&err) : changed;
    }
    if (results.n_pairs + results.weights.n > 0) {
        if (options->markdown)
            rp_report_markdown(out->out, &results);
        else
            rp_results_summary(out, context, &results, options->shows_all);
    }
    int code = rp_results_exit_code(&results, options->strict_warnings);
    if (options->write_only && code != RP_EXIT_WARNING)
        code = RP_EXIT_PASS;
    rp_results_free(&results);
    return status ? rp_cli_error(&err) : code;
}

static int begin_all(const struct rp_configs *configs)
{
    char path[RP_PATH_SIZE], reports_dir[RP_PATH_SIZE];
    struct rp_error err;
    for (size_t at = 0; rp_configs_next(configs, &at, path);) {
        if (rp_context_begin_session(path, reports_dir, &err))
            return rp_cli_error(&err);
        rp_remove_old_reports(reports_dir);
    }
    return RP_EXIT_PASS;
}

/* The worst exit code of all that had a run. */
static int report_all(const struct rp_terminal *out, const struct rp_configs *configs,
                      const struct options *options)
{
    char path[RP_PATH_SIZE];
    struct rp_context context;
    struct rp_error err;
    int worst = RP_EXIT_PASS;
    size_t n_tests = 0;
    for (size_t at = 0; rp_configs_next(configs, &at, path);) {
        size_t n = 0;
        int code;
        if (rp_context_open(path, &context, &err)) {
            code = rp_cli_error(&err);
            n = 1; /* nobody knows */
        } else {
            code = report(out, &context, options, &n);
            rp_context_close(&context);
        }
        n_tests += n;
        worst = n > 0 ? rp_results_worse_code(worst, code) : worst;
    }
    if (n_tests > 0)
        return worst;
    rp_print_line(out, "no pair has been run: run ctest first");
    return options->write_only ? RP_EXIT_PASS : RP_EXIT_ERROR;
}

int rp_cli_report(int argc, char **argv, const struct rp_terminal *out)
{
    static const struct option known[] = {{"begin", no_argument, NULL, 'b'},
                                          {"write-only", no_argument, NULL, 'w'},
                                          {"markdown", no_argument, NULL, 'm'},
                                          {"strict-warnings", no_argument, NULL, 's'},
                                          {"merge", required_argument, NULL, 'g'},
                                          {"filter", required_argument, NULL, 'f'},
                                          {"all", no_argument, NULL, 'a'},
                                          {"baseline", required_argument, NULL, 'B'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    const struct rp_terminal plain = rp_terminal_plain(out->out);
    struct options options = {.strict_warnings = rp_env_flag("REFPARITY_STRICT_WARNINGS")};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        switch (option) {
        case 'b': options.begin = true; break;
        case 'w': options.write_only = true; break;
        case 'm': options.markdown = true; break;
        case 's': options.strict_warnings = true; break;
        case 'g': options.merge = optarg; break;
        case 'f': options.filter = optarg; break;
        case 'a': options.shows_all = true; break;
        case 'B': options.baseline = optarg; break;
        case 'j': options.json = true; break;
        case 'h': fputs(help, stdout); return RP_EXIT_PASS;
        default:
            return rp_cli_usage_error("report", "unknown option %s, or one without its value",
                                      argv[optind - 1]);
        }
    }
    if (options.json && !options.baseline)
        return rp_cli_usage_error("report", "--json goes with --baseline; without, the report is "
                                            "reports/results.json");
    if (options.merge) {
        const struct rp_cli_merge merge = {options.merge,           options.filter,
                                           options.baseline,        format_of(&options),
                                           options.strict_warnings, options.shows_all};
        return rp_cli_report_merge(out, &merge, argv + optind, (size_t)(argc - optind));
    }
    if (argc - optind > 1)
        return rp_cli_usage_error("report", "expected one folder, found %d", argc - optind);
    struct rp_configs configs;
    struct rp_error err;
    if (rp_configs_find(optind < argc ? argv[optind] : ".", &configs, &err))
        return rp_cli_error(&err);
    const int code = options.begin
                         ? begin_all(&configs)
                         : report_all(options.write_only ? &plain : out, &configs, &options);
    rp_configs_free(&configs);
    return code;
}
