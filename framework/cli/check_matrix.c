/* refparity check-matrix: is this matrix.json one that can be relied on? */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

#include "compare/warnings.h"
#include "refparity/compare.h"
#include "refparity/matrix.h"

static const char help[] =
    "usage: refparity check-matrix [--list] FILE\n"
    "\n"
    "Reads a matrix and the prompt files that it names, and checks all of it: the first\n"
    "error is printed with file, line and column. Limits that fail nothing are warned about\n"
    "on stderr. Runs nothing and opens no model.\n"
    "\n"
    "  --list    print the name of every pair, a line each\n"
    "  --help\n"
    "\n"
    "exit codes: 0 the matrix is well-formed, 2 it is not\n";

static void warn(const char *path, const struct rp_entry *entry, const struct rp_limits *limits)
{
    const struct rp_terminal out = rp_terminal_plain(stderr);
    struct rp_warnings warnings;
    rp_warn_limits(limits, &warnings);
    for (size_t i = 0; i < warnings.n; i++)
        rp_print_line(&out, "%s:%d: warning: %s: %s", path, entry->line, entry->name,
                      warnings.list[i].message);
}

int rp_cli_check_matrix(int argc, char **argv, const struct rp_terminal *out)
{
    const char *path = NULL;
    int list = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(help, stdout);
            return RP_EXIT_PASS;
        }
        if (strcmp(argv[i], "--list") == 0)
            list = 1;
        else if (argv[i][0] == '-' || path)
            return rp_cli_usage_error("check-matrix", "unexpected argument \"%s\"", argv[i]);
        else
            path = argv[i];
    }
    if (!path)
        return rp_cli_usage_error("check-matrix", "expected FILE");
    struct rp_matrix *matrix;
    struct rp_error err;
    if (rp_matrix_load(path, &matrix, &err))
        return rp_cli_error(&err);
    const size_t n_pairs = rp_matrix_n_pairs(matrix);
    size_t n_slots = 0;
    for (size_t i = 0; i < rp_matrix_n_entries(matrix); i++) {
        const struct rp_entry *entry = rp_matrix_entry(matrix, i);
        warn(path, entry, &entry->limits);
        if (entry->n_compare_modes && entry->modes_limits.l2_rel != entry->limits.l2_rel)
            warn(path, entry,
                 &(struct rp_limits){.l2_rel = entry->modes_limits.l2_rel, .cosine = 1});
    }
    for (size_t i = 0; i < n_pairs; i++) {
        struct rp_pair pair;
        rp_matrix_pair(matrix, i, &pair);
        n_slots += (size_t)pair.entry->n_layers + 3;
        if (list)
            rp_print_line(out, "%s", pair.name);
    }
    if (!list)
        rp_print_line(out, "%s: %zu engines, %zu entries, %zu pairs, %zu required slots", path,
                      rp_matrix_n_engines(matrix), rp_matrix_n_entries(matrix), n_pairs, n_slots);
    rp_matrix_free(matrix);
    return RP_EXIT_PASS;
}
