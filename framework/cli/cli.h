/* The refparity program: one function per subcommand, each with its own --help. */
#ifndef REFPARITY_CLI_H
#define REFPARITY_CLI_H

#include "base/terminal.h"
#include "refparity/status.h"

/* argv[0] is the subcommand's name; out is standard output. Returns the program's exit code. */
int rp_cli_diff(int argc, char **argv, const struct rp_terminal *out);
int rp_cli_replay(int argc, char **argv, const struct rp_terminal *out);
int rp_cli_weights(int argc, char **argv, const struct rp_terminal *out);
int rp_cli_show(int argc, char **argv, const struct rp_terminal *out);
int rp_cli_check_matrix(int argc, char **argv, const struct rp_terminal *out);
int rp_cli_record(int argc, char **argv, const struct rp_terminal *out);
int rp_cli_report(int argc, char **argv, const struct rp_terminal *out);

/* Prints "refparity: error: …" to stderr and returns exit code 2. */
int rp_cli_error(const struct rp_error *err);
int rp_cli_usage_error(const char *command, const char *fmt, ...) RP_PRINTF(2, 3);

#endif
