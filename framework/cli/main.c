/* The refparity program (see cli.h): finds the subcommand. */
#include "cli/cli.h"

#include <errno.h>
#include <locale.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/mapped_fault.h"
#include "tensor/other_formats.h"
#include "refparity/compare.h"

#ifndef RP_VERSION
#error "the build defines RP_VERSION"
#endif

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv, const struct rp_terminal *out);
} commands[] = {
    {"diff", "compare a fixture with an engine's dump, slot by slot", rp_cli_diff},
    {"replay", "find the layers of a dump that introduce an error of their own", rp_cli_replay},
    {"weights", "compare a GGUF with the checkpoint that it was converted from", rp_cli_weights},
    {"show", "list what is in an npz, safetensors, npy, dump folder or GGUF", rp_cli_show},
    {"check-matrix", "check a matrix.json", rp_cli_check_matrix},
    {"record", "record the references that engines make", rp_cli_record},
    {"report", "summarize the last ctest run and write its reports", rp_cli_report},
    {"shard", "select the tests of one of several machines", rp_cli_shard},
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

int rp_cli_error(const struct rp_error *err)
{
    const struct rp_terminal out = rp_terminal_plain(stderr);
    char text[2300];
    rp_print_line(&out, "refparity: error: %s", rp_error_text(err, text, sizeof text));
    if (err->code == RP_ERR_UNSUPPORTED && err->where[0])
        (void)rp_other_format_print(stderr, err->where);
    return RP_EXIT_ERROR;
}

int rp_cli_usage_error(const char *command, const char *fmt, ...)
{
    const struct rp_terminal out = rp_terminal_plain(stderr);
    char text[2300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    rp_print_line(&out, "refparity: error: %s; see refparity %s%s--help", text, command,
                  command[0] ? " " : "");
    return RP_EXIT_ERROR;
}

static int print_help(void)
{
    puts("refparity compares an LLM inference engine with Hugging Face transformers, layer by "
         "layer.\n\nusage: refparity COMMAND ...\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        printf("  %-13s %s\n", commands[i].name, commands[i].summary);
    puts("\nrefparity COMMAND --help describes a command; --version prints the version.\n"
         "--color=auto|always|never, of every command: colours, by default on a terminal and "
         "unless\n"
         "NO_COLOR is set.\n"
         "exit codes: 0 pass, 1 divergence, 2 environment or configuration error, 3 only warnings\n"
         "under --strict-warnings");
    return RP_EXIT_PASS;
}

/* Takes --color=WHEN, which every command has, out of the arguments. False: there is no such WHEN. */
static bool take_colours(int *argc, char **argv, enum rp_colours *colours)
{
    static const char option[] = "--color=";
    int n = 0;
    bool is_known = true;
    for (int i = 0; i < *argc; i++) {
        if (i > 0 && strncmp(argv[i], option, sizeof option - 1) == 0)
            is_known &= rp_colours_parse(argv[i] + sizeof option - 1, colours);
        else
            argv[n++] = argv[i];
    }
    argv[n] = NULL;
    *argc = n;
    return is_known;
}

static int run_command(int argc, char **argv)
{
    enum rp_colours colours = RP_COLOURS_AUTO;
    if (!take_colours(&argc, argv, &colours))
        return rp_cli_usage_error("", "--color takes auto, always or never");
    const struct rp_terminal out = rp_terminal_open(stdout, colours);
    if (argc < 2)
        return rp_cli_usage_error("", "expected a command");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return print_help();
    if (strcmp(argv[1], "--version") == 0) {
        puts("refparity " RP_VERSION);
        return RP_EXIT_PASS;
    }
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1, &out);
    return rp_cli_usage_error("", "no command \"%s\"", argv[1]);
}

int main(int argc, char **argv)
{
    rp_report_mapped_faults();
    (void)setlocale(LC_CTYPE, "C.UTF-8"); /* for wcwidth: what is printed is UTF-8 */
    const int code = run_command(argc, argv);
    errno = 0;
    const bool is_written = fflush(stdout) == 0 && !ferror(stdout);
    if (is_written)
        return code;
    /* whoever reads a part of it, or nothing, must not take that for all */
    fprintf(stderr, "refparity: error: the output could not be written%s%s\n", errno ? ": " : "",
            errno ? strerror(errno) : "");
    return RP_EXIT_ERROR;
}
