/* refparity weights: is the GGUF the checkpoint that it was converted from? */
#include "cli/cli.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <cjson/cJSON.h>

#include "base/clock.h"
#include "cli/path_kind.h"
#include "refparity/compare.h"
#include "refparity/weights.h"
#include "run/weights_result.h"

static const char help[] =
    "usage: refparity weights [OPTION ...] GGUF CHECKPOINT\n"
    "       refparity weights --config CONFIG --entry ENTRY\n"
    "\n"
    "Compares a GGUF with the Hugging Face checkpoint that it was converted from, a folder with\n"
    "config.json and safetensors: each tensor row by row, to what its type's rounding may cost;\n"
    "each metadata value that config.json fixes; missing and surplus tensors. What is not the\n"
    "checkpoint's is explained where it is the same as something else: rows in another order,\n"
    "another tensor, transposed, off by a constant, scaled, never written. Runs no engine.\n"
    "CHECKPOINT may be its sketch, a file that ci/record.sh makes: norms of rows and their "
    "products\n"
    "with random signs. What is off by less than the resolution that is printed is not seen then.\n"
    "The second form is the test ENTRY/weights of a build tree, whose config.json is CONFIG.\n"
    "\n"
    "  --all       print what is right, too\n"
    "  --json      print JSON\n"
    "  --help\n"
    "\n"
    "exit codes: 0 the file is the checkpoint, 1 it is not, 2 error; of a test also 77, skipped\n";

struct printer {
    const struct rp_terminal *out;
    const char *model, *checkpoint;
    const char *config, *entry; /* of a test; else NULL */
    bool shows_all, has_heading;
    cJSON *findings; /* NULL without --json */
    size_t n_tensors, n_rows, n_values, n_wrong, n_not_compared;
    size_t n_sketched;
    double row_resolution, tensor_resolution; /* the coarsest of what is sketched */
    double worst;                             /* of right tensors: l2_rel / limit */
    char worst_name[128];
};

static void add_finding(cJSON *findings, const struct rp_weights_finding *finding)
{
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "name", finding->name);
    cJSON_AddBoolToObject(item, "right", finding->is_right);
    cJSON_AddBoolToObject(item, "metadata", finding->is_metadata);
    cJSON_AddStringToObject(item, "type", finding->type);
    cJSON_AddNumberToObject(item, "n_rows", (double)finding->n_rows);
    cJSON_AddNumberToObject(item, "n_failing", (double)finding->n_failing);
    if (!finding->is_metadata && finding->n_rows > 0) {
        cJSON_AddNumberToObject(item, "worst_row", (double)finding->worst_row);
        cJSON_AddItemToObject(item, "l2_rel",
                              isfinite(finding->l2_rel) ? cJSON_CreateNumber(finding->l2_rel)
                                                        : cJSON_CreateNull());
        cJSON_AddNumberToObject(item, "limit", finding->limit);
        if (finding->is_sketched) {
            cJSON_AddNumberToObject(item, "row_resolution", finding->row_resolution);
            cJSON_AddNumberToObject(item, "tensor_resolution", finding->tensor_resolution);
        }
    }
    cJSON_AddStringToObject(item, "message", finding->message);
    cJSON_AddStringToObject(item, "cause", finding->cause);
    cJSON_AddStringToObject(item, "next", finding->next);
    cJSON_AddItemToArray(findings, item);
}

static const struct rp_column columns[] = {
    {"tensor or value", 45, true}, {"type", 7, true},    {"rows", 7, false},
    {"worst row", 9, false},       {"L2_rel", 8, false}, {"limit", 8, false},
    {"verdict", 8, true}};

enum { N_COLUMNS = sizeof columns / sizeof columns[0] };

static void print_right(struct printer *printer, const struct rp_weights_finding *finding)
{
    const bool has_rows = !finding->is_metadata && finding->n_rows > 0;
    char rows[24] = "", worst[24] = "", l2_rel[RP_NUMBER_SIZE] = "", limit[RP_NUMBER_SIZE] = "";
    if (!printer->has_heading)
        rp_table_heading(printer->out, columns, N_COLUMNS);
    printer->has_heading = true;
    if (has_rows) {
        snprintf(rows, sizeof rows, "%zu", finding->n_rows);
        snprintf(worst, sizeof worst, "%zu", finding->worst_row);
        rp_number_text(l2_rel, "%.3g", finding->l2_rel);
        rp_number_text(limit, "%.3g", finding->limit);
    }
    rp_table_row(printer->out, columns, N_COLUMNS,
                 (const struct rp_cell[N_COLUMNS]){{finding->name, RP_STYLE_PLAIN},
                                                   {finding->type, RP_STYLE_PLAIN},
                                                   {rows, RP_STYLE_PLAIN},
                                                   {worst, RP_STYLE_PLAIN},
                                                   {l2_rel, RP_STYLE_PLAIN},
                                                   {limit, RP_STYLE_PLAIN},
                                                   {"right", RP_STYLE_GOOD}});
    if (finding->cause[0])
        rp_print_line(printer->out, "    %s", finding->cause);
}

/* What is not the checkpoint's comes as it is found; what is right waits for the end, or is counted. */
static void print_finding(struct printer *printer, const struct rp_weights_finding *finding)
{
    if (!finding->is_right) {
        rp_print_marked_line(printer->out, RP_STYLE_BAD, printer->model, ": %s", finding->message);
        rp_print_line(printer->out, "    %s", finding->cause[0] ? finding->cause : "unexplained");
        rp_print_line(printer->out, "    next: %s", finding->next);
    } else if (printer->shows_all) {
        print_right(printer, finding);
    } else if (finding->cause[0]) {
        rp_print_line(printer->out, "%s (%s): %s", finding->name, finding->type, finding->cause);
    }
}

static void see(void *context, const struct rp_weights_finding *finding)
{
    struct printer *printer = context;
    const double share = finding->limit > 0 ? finding->l2_rel / finding->limit : 0;
    printer->n_values += finding->is_metadata;
    printer->n_tensors += !finding->is_metadata;
    printer->n_rows += finding->is_metadata ? 0 : finding->n_rows;
    printer->n_wrong += !finding->is_right && !finding->is_not_compared;
    printer->n_not_compared += finding->is_not_compared;
    printer->n_sketched += finding->is_sketched;
    printer->row_resolution = fmax(printer->row_resolution, finding->row_resolution);
    printer->tensor_resolution = fmax(printer->tensor_resolution, finding->tensor_resolution);
    if (finding->is_right && share > printer->worst) {
        printer->worst = share;
        snprintf(printer->worst_name, sizeof printer->worst_name, "%s", finding->name);
    }
    if (printer->findings)
        add_finding(printer->findings, finding);
    else
        print_finding(printer, finding);
}

static int exit_code(const struct printer *printer)
{
    return printer->n_wrong > 0          ? RP_EXIT_FAIL
           : printer->n_not_compared > 0 ? RP_EXIT_ERROR
                                         : RP_EXIT_PASS;
}

static const char *verdict_name(const struct printer *printer)
{
    const int code = exit_code(printer);
    return code == RP_EXIT_PASS ? "PASS" : code == RP_EXIT_FAIL ? "FAIL" : "ERROR";
}

static void print_counts(const struct printer *printer)
{
    const struct rp_terminal *out = printer->out;
    if (printer->worst > 0)
        rp_print_line(out,
                      "%zu tensors, %zu rows, %zu metadata values compared; of what is right, the "
                      "nearest to its limit is %s, at %.2f of it",
                      printer->n_tensors, printer->n_rows, printer->n_values, printer->worst_name,
                      printer->worst);
    else
        rp_print_line(out, "%zu tensors, %zu rows, %zu metadata values compared",
                      printer->n_tensors, printer->n_rows, printer->n_values);
    if (printer->n_sketched > 0)
        rp_print_line(out,
                      "%zu tensors by the checkpoint's sketch, resolution: a row may be off by "
                      "L2_rel %.2g unseen, all rows of a tensor by %.2g",
                      printer->n_sketched, printer->row_resolution, printer->tensor_resolution);
    if (printer->n_not_compared > 0)
        rp_print_line(out, "%zu cannot be compared", printer->n_not_compared);
    if (printer->n_wrong > 0)
        rp_print(out, RP_STYLE_BAD, "%zu are not the checkpoint's", printer->n_wrong);
    else
        rp_print(out, RP_STYLE_GOOD,
                 printer->n_not_compared > 0 ? "the others are the checkpoint's"
                                             : "the file is the checkpoint");
    fputc('\n', out->out);
}

static void print_end(const struct printer *printer, cJSON *root)
{
    if (!root) {
        print_counts(printer);
        return;
    }
    cJSON_AddStringToObject(root, "model", printer->model);
    cJSON_AddStringToObject(root, "checkpoint", printer->checkpoint);
    cJSON_AddStringToObject(root, "verdict", verdict_name(printer));
    cJSON_AddNumberToObject(root, "n_tensors", (double)printer->n_tensors);
    cJSON_AddNumberToObject(root, "n_rows", (double)printer->n_rows);
    char *text = cJSON_Print(root);
    puts(text ? text : "{}");
    free(text);
}

/* -1 to go on, else the exit code. */
static int parse_options(int argc, char **argv, struct printer *printer, bool *is_json)
{
    static const struct option known[] = {{"all", no_argument, NULL, 'a'},
                                          {"verbose", no_argument, NULL, 'a'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"config", required_argument, NULL, 'c'},
                                          {"entry", required_argument, NULL, 'e'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        switch (option) {
        case 'a': printer->shows_all = true; break;
        case 'j': *is_json = true; break;
        case 'c': printer->config = optarg; break;
        case 'e': printer->entry = optarg; break;
        case 'h': fputs(help, stdout); return RP_EXIT_PASS;
        default: return rp_cli_usage_error("weights", "unknown option %s", argv[optind - 1]);
        }
    }
    if (printer->config && printer->entry && argc == optind && !*is_json)
        return -1;
    if (printer->config || printer->entry)
        return rp_cli_usage_error("weights", "--config and --entry go together, and alone");
    if (argc - optind != 2)
        return rp_cli_usage_error("weights", "expected GGUF and CHECKPOINT, found %d arguments",
                                  argc - optind);
    printer->model = argv[optind];
    printer->checkpoint = argv[optind + 1];
    if (rp_path_kind(printer->model) == RP_PATH_CHECKPOINT &&
        rp_path_kind(printer->checkpoint) == RP_PATH_GGUF)
        return rp_cli_usage_error("weights",
                                  "expected GGUF and CHECKPOINT, found %s, a checkpoint, and %s, "
                                  "a GGUF: swapped?",
                                  printer->model, printer->checkpoint);
    const unsigned states = 1U << RP_PATH_NPZ | 1U << RP_PATH_NPY | 1U << RP_PATH_DUMP;
    const int code = rp_cli_check_kind("weights", "a GGUF for GGUF", printer->model, states);
    return code >= 0 ? code
                     : rp_cli_check_kind("weights",
                                         "a folder with config.json, or a sketch, for CHECKPOINT",
                                         printer->checkpoint, states | 1U << RP_PATH_GGUF);
}

/* The test of an entry: what a case prints, and its exit codes. */
static int run_test(struct printer *printer)
{
    struct rp_context context;
    struct rp_error err;
    if (rp_context_open(printer->config, &context, &err) != RP_OK)
        return rp_cli_error(&err);
    const struct rp_entry *entry = rp_matrix_find_entry(context.matrix, printer->entry);
    if (!entry) {
        rp_context_close(&context);
        return rp_cli_usage_error("weights", "no entry \"%s\" in the matrix", printer->entry);
    }
    printer->model = "weights";
    struct rp_weights_result result = {.message = ""};
    const double start = rp_clock_seconds();
    if (rp_weights_result_begin(&context, entry, &err) != RP_OK) {
        rp_context_close(&context);
        return rp_cli_error(&err);
    }
    const enum rp_verdict verdict = rp_judge_weights(&context, entry, see, printer, result.message);
    result.verdict = verdict;
    result.seconds = rp_clock_seconds() - start;
    const bool is_stored = rp_weights_result_write(&context, entry, &result, &err) == RP_OK;
    const char *message = result.message;
    if (verdict == RP_SKIP)
        rp_print_line(printer->out, "refparity: SKIP: weights: %s", message);
    else if (verdict == RP_FAIL || verdict == RP_ERROR)
        rp_print_line(printer->out, "%s:%d: error: weights: %s", rp_matrix_path(context.matrix),
                      entry->line, message);
    else
        rp_print_line(printer->out, "weights: %s: %s", rp_verdict_name(verdict), message);
    rp_context_close(&context);
    if (!is_stored) /* the report would not know of it */
        return rp_cli_error(&err);
    return verdict == RP_SKIP ? RP_EXIT_SKIP : rp_verdict_exit_code(verdict);
}

int rp_cli_weights(int argc, char **argv, const struct rp_terminal *out)
{
    struct printer printer = {.out = out};
    bool is_json = false;
    const int code = parse_options(argc, argv, &printer, &is_json);
    if (code >= 0)
        return code;
    const struct rp_terminal plain = rp_terminal_plain(out->out);
    if (printer.config) { /* what ctest shows has no colours */
        printer.out = &plain;
        return run_test(&printer);
    }
    struct rp_gguf *file = NULL, *checkpoint = NULL;
    struct rp_error err;
    cJSON *root = is_json ? cJSON_CreateObject() : NULL;
    printer.findings = root ? cJSON_AddArrayToObject(root, "findings") : NULL;
    enum rp_status status = rp_gguf_open(printer.model, &file, &err);
    if (status == RP_OK)
        status = rp_gguf_open_checkpoint(printer.checkpoint, &checkpoint, &err);
    if (status == RP_OK)
        status = rp_weights_compare(file, checkpoint, see, &printer, &err);
    int result = exit_code(&printer);
    if (status == RP_OK)
        print_end(&printer, root);
    else
        result = rp_cli_error(&err);
    cJSON_Delete(root);
    rp_gguf_close(file);
    rp_gguf_close(checkpoint);
    return result;
}
