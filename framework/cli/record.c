/* refparity record: the references that engines make, each run once and kept in a store. */
#include "cli/cli.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/configs.h"
#include "refparity/compare.h"
#include "run/reference_record.h"

static const char help[] =
    "usage: refparity record [--force] [BUILD_DIR | CONFIG.json] [FILTER]\n"
    "\n"
    "Records the reference of every pair whose entry names an engine as its reference\n"
    "(\"reference\" in the matrix) and whose <entry>/<prompt> contains FILTER (default: all): "
    "runs\n"
    "that engine once, and keeps what it dumps as a fixture in $REFPARITY_STORE, by default in "
    "the\n"
    "user's cache folder. What is valid is kept. Fixtures of Hugging Face: ci/record.sh.\n"
    "BUILD_DIR (the current folder unless given) is where the engines were configured.\n"
    "\n"
    "  --force   record again what is valid\n"
    "  --help\n"
    "\n"
    "exit codes: 0 all recorded, valid, or skipped for want of engine or file, and not all\n"
    "skipped; 2 else\n";

struct counts {
    size_t n_done, n_skipped, n_failed;
};

static void record_pair(const struct rp_terminal *out, const struct rp_context *context,
                        const struct rp_pair *pair, bool force, struct counts *counts)
{
    struct rp_recorded_reference recorded;
    struct rp_error err;
    char text[2300];
    rp_print(out, RP_STYLE_PLAIN, "%s/%s: ", pair->entry->name, pair->prompt->id);
    fflush(out->out);
    switch (rp_reference_record(context, pair, force, &recorded, &err)) {
    case RP_OK:
        counts->n_done++;
        if (recorded.is_new)
            rp_print_line(out, "%.1f s %s", recorded.seconds, recorded.path);
        else
            rp_print_line(out, "valid%s: %s",
                          recorded.is_of_another_build
                              ? ", made by another build of its engine (--force "
                                "records it again)"
                              : "",
                          recorded.path);
        break;
    case RP_ERR_MISSING:
        counts->n_skipped++;
        rp_print_line(out, "skipped: %s", rp_error_text(&err, text, sizeof text));
        break;
    default:
        counts->n_failed++;
        rp_print_line(out, "error: %s", rp_error_text(&err, text, sizeof text));
    }
    fflush(out->out);
}

static bool is_chosen(const struct rp_pair *pair, const char *filter)
{
    char name[2 * RP_MATRIX_NAME_MAX + 2];
    snprintf(name, sizeof name, "%s/%s", pair->entry->name, pair->prompt->id);
    return strstr(name, filter) != NULL;
}

/* All modes of an entry have one reference: each prompt once. */
static void record_matrix(const struct rp_terminal *out, const struct rp_context *context,
                          const char *filter, bool force, struct counts *counts)
{
    for (size_t i = 0; i < rp_matrix_n_entries(context->matrix); i++) {
        const struct rp_entry *entry = rp_matrix_entry(context->matrix, i);
        for (size_t k = 0; entry->reference.engine && !entry->disabled && k < entry->n_prompts;
             k++) {
            struct rp_pair pair;
            rp_matrix_pair(context->matrix, entry->first_pair + k, &pair);
            if (is_chosen(&pair, filter))
                record_pair(out, context, &pair, force, counts);
        }
    }
}

static int record_all(const struct rp_terminal *out, const struct rp_configs *configs,
                      const char *filter, bool force)
{
    char path[RP_PATH_SIZE];
    struct counts counts = {0};
    for (size_t at = 0; rp_configs_next(configs, &at, path);) {
        struct rp_context context;
        struct rp_error err;
        if (rp_context_open(path, &context, &err))
            return rp_cli_error(&err);
        record_matrix(out, &context, filter, force, &counts);
        rp_context_close(&context);
    }
    if (counts.n_done + counts.n_skipped + counts.n_failed == 0) {
        fprintf(stderr,
                "refparity: error: no entry with an engine as its \"reference\" contains \"%s\" "
                "(ci/record.sh records fixtures of Hugging Face)\n",
                filter);
        return RP_EXIT_ERROR;
    }
    rp_print_line(out, "%zu recorded or valid, %zu failed, %zu skipped", counts.n_done,
                  counts.n_failed, counts.n_skipped);
    return counts.n_failed || !counts.n_done ? RP_EXIT_ERROR : RP_EXIT_PASS;
}

int rp_cli_record(int argc, char **argv, const struct rp_terminal *out)
{
    static const struct option known[] = {
        {"force", no_argument, NULL, 'f'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    bool force = false;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        switch (option) {
        case 'f': force = true; break;
        case 'h': fputs(help, stdout); return RP_EXIT_PASS;
        default: return rp_cli_usage_error("record", "unknown option %s", argv[optind - 1]);
        }
    }
    if (argc - optind > 2)
        return rp_cli_usage_error("record", "expected a folder and a filter, found %d arguments",
                                  argc - optind);
    struct rp_configs configs;
    struct rp_error err;
    int code = RP_EXIT_ERROR;
    if (rp_configs_find(optind < argc ? argv[optind] : ".", &configs, &err))
        code = rp_cli_error(&err);
    else
        code = record_all(out, &configs, optind + 1 < argc ? argv[optind + 1] : "", force);
    rp_configs_free(&configs);
    return code;
}
