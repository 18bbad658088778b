/* See process.h. */
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/supervisor.h"

extern char **environ;

/* ---- the log: the head as it comes, the tail in a ring ---- */

struct log {
    int fd; /* -1: none */
    unsigned long long total;
    size_t ring_next;
    unsigned char ring[RP_LOG_TAIL];
};

static int log_add(struct log *log, const unsigned char *bytes, size_t n)
{
    size_t head = 0;
    if (log->total < RP_LOG_HEAD) {
        const size_t room = RP_LOG_HEAD - (size_t)log->total;
        head = n < room ? n : room;
        if (log->fd >= 0 && !rp_file_write_all(log->fd, bytes, head))
            return -1;
    }
    for (size_t i = head; i < n; i++) {
        log->ring[log->ring_next] = bytes[i];
        log->ring_next = (log->ring_next + 1) % RP_LOG_TAIL;
    }
    log->total += n;
    return 0;
}

static int log_finish(struct log *log)
{
    if (log->fd < 0 || log->total <= RP_LOG_HEAD)
        return 0;
    const unsigned long long rest = log->total - RP_LOG_HEAD;
    if (rest <= RP_LOG_TAIL)
        return rp_file_write_all(log->fd, log->ring, (size_t)rest) ? 0 : -1;
    char note[96];
    const int n =
        snprintf(note, sizeof note, "\n[... %llu bytes left out ...]\n", rest - RP_LOG_TAIL);
    const bool is_written =
        rp_file_write_all(log->fd, note, (size_t)n) &&
        rp_file_write_all(log->fd, log->ring + log->ring_next, RP_LOG_TAIL - log->ring_next) &&
        rp_file_write_all(log->fd, log->ring, log->ring_next);
    return is_written ? 0 : -1;
}

/* ---- the program ---- */

/* Each [0] is read, [1] is written. */
struct pipes {
    int output[2];   /* what the program prints */
    int failure[2];  /* errno, where exec failed */
    int lifeline[2]; /* see supervisor.h */
    int report[2];   /* a struct rp_program_end */
};

static void close_if_open(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void put_env(char *const *env)
{
    for (; env && *env; env++)
        putenv(*env);
}

struct start {
    const struct rp_process_spec *spec;
    int output_fd, failure_fd;
};

/* In the child, between fork and exec; reports errno through failure_fd when exec fails. */
static void become(const void *argument)
{
    const struct start *start = argument;
    const struct rp_process_spec *spec = start->spec;
    const int null_fd = open("/dev/null", O_RDONLY);
    if (null_fd >= 0)
        dup2(null_fd, STDIN_FILENO);
    dup2(start->output_fd, STDOUT_FILENO);
    dup2(start->output_fd, STDERR_FILENO);
    signal(SIGPIPE, SIG_DFL);
    if (!spec->cwd || chdir(spec->cwd) == 0) {
        put_env(spec->env);
        execvp(spec->argv[0], spec->argv);
    }
    const int failure = errno;
    (void)!write(start->failure_fd, &failure, sizeof failure);
    _exit(127);
}

/* Reads what is there; false once every writer has closed the pipe. */
static bool drain(int fd, struct log *log, bool *log_failed)
{
    unsigned char buffer[65536];
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN;
    if (n > 0 && log_add(log, buffer, (size_t)n))
        *log_failed = true;
    return n > 0;
}

static ssize_t read_some(int fd, void *out, size_t size)
{
    ssize_t n;
    do
        n = read(fd, out, size);
    while (n < 0 && errno == EINTR);
    return n;
}

/* A supervisor that has been told to end everything, and does not in this time, is stopped or stuck. */
static const double supervisor_s = 10;

/* Follows the program until the supervisor has reported its end; false when it ended without. */
static bool follow(struct pipes *p, pid_t supervisor, double timeout_s, struct log *log,
                   struct rp_process_result *result, struct rp_program_end *end, bool *log_failed)
{
    const double start = rp_clock_seconds();
    bool open_pipe = true;
    double deadline = timeout_s > 0 ? start + timeout_s : HUGE_VAL;
    struct pollfd ready[2] = {{.fd = p->report[0], .events = POLLIN},
                              {.fd = p->output[0], .events = POLLIN}};
    for (;;) {
        const double left = deadline - rp_clock_seconds();
        ready[1].fd = open_pipe ? p->output[0] : -1;
        if (poll(ready, 2, left > 3600 ? 3600000 : left > 0 ? (int)(left * 1000) + 1 : 0) < 0)
            ready[0].revents = ready[1].revents = 0;
        if (ready[1].revents)
            open_pipe = drain(p->output[0], log, log_failed);
        if (ready[0].revents)
            break;
        if (rp_clock_seconds() < deadline)
            continue;
        if (result->timed_out)
            kill(supervisor, SIGKILL);
        result->timed_out = true;
        close_if_open(&p->lifeline[1]); /* ends the program */
        deadline = rp_clock_seconds() + supervisor_s;
    }
    const bool is_reported = read_some(p->report[0], end, sizeof *end) == (ssize_t)sizeof *end;
    if (!is_reported) /* the supervisor was killed, what it watched may still write */
        (void)rp_end_orphans();
    /* Nobody is left to write: what is buffered is all. */
    while (open_pipe && poll(&ready[1], 1, 0) > 0)
        open_pipe = drain(p->output[0], log, log_failed);
    return is_reported;
}

static enum rp_status take_end(const char *program, const struct rp_program_end *end,
                               int exec_errno, struct rp_process_result *result,
                               struct rp_error *err)
{
    const int failure = end->fork_errno ? end->fork_errno : exec_errno;
    if (failure)
        return rp_fail(err, failure == ENOENT ? RP_ERR_MISSING : RP_ERR_IO, program, -1,
                       "cannot be started: %s", strerror(failure));
    result->exit_code = WIFEXITED(end->status) ? WEXITSTATUS(end->status) : -1;
    result->signal = WIFSIGNALED(end->status) ? WTERMSIG(end->status) : 0;
    result->wall_s = end->wall_s;
    result->max_rss_kib = end->max_rss_kib;
    if (end->left)
        return rp_fail(err, RP_ERR_IO, program, -1,
                       "it left processes behind that could not be ended");
    return RP_OK;
}

/* The supervisor's process. What the runner alone may hold is closed here. */
static _Noreturn void supervise(const struct rp_process_spec *spec, struct pipes *p)
{
    close_if_open(&p->lifeline[1]);
    close_if_open(&p->report[0]);
    close_if_open(&p->output[0]);
    close_if_open(&p->failure[0]);
    const struct start start = {spec, p->output[1], p->failure[1]};
    const struct rp_supervision supervision = {.become = become,
                                               .argument = &start,
                                               .for_program = {p->output[1], p->failure[1]},
                                               .lifeline = p->lifeline[0],
                                               .report = p->report[1]};
    rp_supervise(&supervision);
}

static enum rp_status run_supervised(const struct rp_process_spec *spec, struct pipes *p,
                                     struct log *log, struct rp_process_result *result,
                                     struct rp_error *err)
{
    struct rp_program_end end = {.fork_errno = 0};
    int exec_errno = 0;
    bool log_failed = false;
    fflush(NULL);
    rp_adopt_orphans();
    const pid_t supervisor = fork();
    if (supervisor < 0)
        return rp_fail(err, RP_ERR_IO, spec->argv[0], -1, "cannot fork: %s", strerror(errno));
    if (supervisor == 0)
        supervise(spec, p);
    close_if_open(&p->output[1]);
    close_if_open(&p->failure[1]);
    close_if_open(&p->report[1]);
    close_if_open(&p->lifeline[0]);
    if (read_some(p->failure[0], &exec_errno, sizeof exec_errno) != (ssize_t)sizeof exec_errno)
        exec_errno = 0;
    const bool reported = follow(p, supervisor, spec->timeout_s, log, result, &end, &log_failed);
    while (waitpid(supervisor, NULL, 0) < 0 && errno == EINTR)
        ;
    result->output_bytes = log->total;
    log_failed |= log_finish(log) != 0;
    const int log_errno = errno;
    if (!reported)
        return rp_fail(err, RP_ERR_IO, spec->argv[0], -1,
                       "the process that watches it was killed, so how it ended is not known%s",
                       rp_end_orphans() ? "" : "; it left processes that could not be ended");
    const enum rp_status status = take_end(spec->argv[0], &end, exec_errno, result, err);
    if (!status && log_failed)
        return rp_fail(err, RP_ERR_IO, spec->log_path, -1, "cannot be written: %s",
                       strerror(log_errno));
    return status;
}

/* A new file, whatever stood there: a link that was planted under its name is removed, not followed. */
static enum rp_status open_log(const char *path, int *fd, struct rp_error *err)
{
    if (unlink(path) == 0 || errno == ENOENT)
        *fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    return *fd >= 0 ? RP_OK
                    : rp_fail(err, RP_ERR_IO, path, -1, "cannot be written: %s", strerror(errno));
}

static bool make_pipe(int fds[2])
{
    if (pipe(fds))
        return false;
    fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    fcntl(fds[1], F_SETFD, FD_CLOEXEC);
    return fds[0] < FD_SETSIZE; /* the supervisor waits with pselect */
}

enum rp_status rp_process_run(const struct rp_process_spec *spec, struct rp_process_result *result,
                              struct rp_error *err)
{
    memset(result, 0, sizeof *result);
    result->exit_code = -1;
    struct pipes p = {{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
    enum rp_status status = RP_OK;
    struct log *log = calloc(1, sizeof *log);
    if (!log)
        return rp_fail(err, RP_ERR_MEMORY, spec->argv[0], -1, "not enough memory for its log");
    log->fd = -1;
    if (spec->log_path)
        status = open_log(spec->log_path, &log->fd, err);
    if (!status && !(make_pipe(p.output) && make_pipe(p.failure) && make_pipe(p.lifeline) &&
                     make_pipe(p.report)))
        status = rp_fail(err, RP_ERR_IO, spec->argv[0], -1, "no pipe: %s", strerror(errno));
    if (!status)
        status = run_supervised(spec, &p, log, result, err);
    for (size_t i = 0; i < 2; i++) {
        close_if_open(&p.output[i]);
        close_if_open(&p.failure[i]);
        close_if_open(&p.lifeline[i]);
        close_if_open(&p.report[i]);
    }
    close_if_open(&log->fd);
    free(log);
    return status;
}

const char *rp_process_text(const struct rp_process_result *result, double timeout_s, char *buf,
                            size_t size)
{
    if (result->timed_out)
        snprintf(buf, size, "ran into its time limit of %g s and was killed", timeout_s);
    else if (result->signal)
        snprintf(buf, size, "was killed by signal %d (%s)", result->signal,
                 strsignal(result->signal));
    else
        snprintf(buf, size, "exited with %d", result->exit_code);
    return buf;
}

/* RP_ERR_MISSING: nothing is there. RP_ERR_IO: it is, and cannot be run. */
static enum rp_status check_program(const char *path, struct rp_error *err)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return rp_fail(err, errno == ENOENT || errno == ENOTDIR ? RP_ERR_MISSING : RP_ERR_IO, path,
                       -1, "no such program: %s", strerror(errno));
    if (!S_ISREG(info.st_mode))
        return rp_fail(err, RP_ERR_IO, path, -1, "expected a program, found no regular file");
    if (access(path, X_OK) != 0)
        return rp_fail(err, RP_ERR_IO, path, -1, "it is there, but may not be run: %s (chmod +x)",
                       strerror(errno));
    return RP_OK;
}

enum rp_status rp_find_program(const char *program, char *out, size_t size, struct rp_error *err)
{
    struct rp_error refused = {.code = RP_OK};
    if (strchr(program, '/')) {
        if ((size_t)snprintf(out, size, "%s", program) >= size)
            return rp_fail(err, RP_ERR_ARGUMENT, program, -1, "the path is too long");
        return check_program(program, err);
    }
    const char *path = getenv("PATH");
    for (const char *start = path ? path : ""; program[0] && *start;) {
        const size_t length = strcspn(start, ":");
        const int n = snprintf(out, size, "%.*s/%s", (int)length, start, program);
        if (length > 0 && n > 0 && (size_t)n < size && rp_path_exists(out)) {
            struct rp_error one;
            if (!check_program(out, &one))
                return RP_OK;
            refused = refused.code ? refused : one; /* as execvp: a later folder may have it */
        }
        start += length;
        start += *start == ':';
    }
    if (refused.code && err)
        *err = refused;
    return refused.code ? refused.code
                        : rp_fail(err, RP_ERR_MISSING, program, -1, "no such program in PATH");
}
