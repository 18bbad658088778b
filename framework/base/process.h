/* Runs one child program with a time limit and keeps what it prints.
 * The engine is a stranger: it may crash, hang, leave children behind or print without end. */
#ifndef REFPARITY_BASE_PROCESS_H
#define REFPARITY_BASE_PROCESS_H

#include "refparity/status.h"

struct rp_process_spec {
    char *const *argv;    /* NULL-terminated; argv[0] is looked up in PATH unless it has a '/' */
    char *const *env;     /* "NAME=VALUE", NULL-terminated, on top of the caller's; NULL: none */
    const char *cwd;      /* NULL: the caller's */
    const char *log_path; /* stdout and stderr, interleaved as written; NULL: thrown away */
    double timeout_s;     /* all its processes are killed then; 0: no limit */
};

struct rp_process_result {
    int exit_code; /* -1 unless it exited by itself */
    int signal;    /* that ended it, 0: none */
    int timed_out; /* killed for its time limit; signal is then SIGKILL */
    double wall_s;
    long max_rss_kib;                /* of the child, by the operating system's account */
    unsigned long long output_bytes; /* printed in all; the log keeps the head and the tail */
};

/* A log keeps this much of the head and of the tail; what lies between is counted and dropped. */
enum { RP_LOG_HEAD = 256 << 10, RP_LOG_TAIL = 64 << 10 };

/* Runs to the end of the program or of its time, then ends every process that came from it
 * (supervisor.h); so does the death of the caller, by whatever signal. The caller has no other child
 * processes. The log is a new file.
 * RP_OK whatever the program did; RP_ERR_MISSING when there is no such program, RP_ERR_IO when it
 * cannot be started, when what came from it could not be ended, or when the log cannot be written. */
enum rp_status rp_process_run(const struct rp_process_spec *spec, struct rp_process_result *result,
                              struct rp_error *err);

/* "exited with 3", "was killed by signal 11 (Segmentation fault)", "ran into its time limit of
 * 60 s and was killed"; returns buf. */
const char *rp_process_text(const struct rp_process_result *result, double timeout_s, char *buf,
                            size_t size);

/* Writes the full path of program, as execvp would find it, into out; RP_ERR_MISSING names it.
 * RP_ERR_IO: there is one, and it may not be run. */
enum rp_status rp_find_program(const char *program, char *out, size_t size, struct rp_error *err);

#endif
