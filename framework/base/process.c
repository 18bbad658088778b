/* See process.h. */
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the log: the head as it comes, the tail in a ring ---- */

struct log {
    int fd; /* -1: none */
    unsigned long long total;
    size_t ring_next;
    unsigned char ring[RP_LOG_TAIL];
};

static int write_all(int fd, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    while (n > 0) {
        const ssize_t written = write(fd, p, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        p += written;
        n -= (size_t)written;
    }
    return 0;
}

static int log_add(struct log *log, const unsigned char *bytes, size_t n)
{
    size_t head = 0;
    if (log->total < RP_LOG_HEAD) {
        const size_t room = RP_LOG_HEAD - (size_t)log->total;
        head = n < room ? n : room;
        if (log->fd >= 0 && write_all(log->fd, bytes, head))
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
        return write_all(log->fd, log->ring, (size_t)rest);
    char note[96];
    const int n =
        snprintf(note, sizeof note, "\n[... %llu bytes left out ...]\n", rest - RP_LOG_TAIL);
    return write_all(log->fd, note, (size_t)n) ||
           write_all(log->fd, log->ring + log->ring_next, RP_LOG_TAIL - log->ring_next) ||
           write_all(log->fd, log->ring, log->ring_next);
}

/* ---- the child ---- */

static void put_env(char *const *env)
{
    for (; env && *env; env++)
        putenv(*env);
}

/* In the child, between fork and exec; reports errno through failure_fd when exec fails. */
static _Noreturn void become(const struct rp_process_spec *spec, int output_fd, int failure_fd)
{
    setpgid(0, 0);
    const int null_fd = open("/dev/null", O_RDONLY);
    if (null_fd >= 0)
        dup2(null_fd, STDIN_FILENO);
    dup2(output_fd, STDOUT_FILENO);
    dup2(output_fd, STDERR_FILENO);
    signal(SIGPIPE, SIG_DFL);
    if (!spec->cwd || chdir(spec->cwd) == 0) {
        put_env(spec->env);
        execvp(spec->argv[0], spec->argv);
    }
    const int failure = errno;
    (void)!write(failure_fd, &failure, sizeof failure);
    _exit(127);
}

static int wait_for(pid_t pid, int *status, struct rusage *usage, int options)
{
    pid_t done;
    do
        done = wait4(pid, status, options, usage);
    while (done < 0 && errno == EINTR);
    return done == pid;
}

/* Reads what is there, at most for wait_ms; false once every writer has closed the pipe. */
static int drain(int fd, struct log *log, int wait_ms, int *log_failed)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, wait_ms) <= 0)
        return 1;
    unsigned char buffer[65536];
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN;
    if (n > 0 && log_add(log, buffer, (size_t)n))
        *log_failed = 1;
    return n > 0;
}

/* Follows the child until it has ended: its output may end before it, or go on after it in
 * children that it left behind, which get half a second. */
static void follow(pid_t pid, int output_fd, const struct rp_process_spec *spec, struct log *log,
                   struct rp_process_result *result, int *log_failed)
{
    const double start = seconds();
    struct rusage usage = {0};
    int status = 0, open_pipe = 1, ended = 0;
    while (!ended) {
        if (open_pipe)
            open_pipe = drain(output_fd, log, 20, log_failed);
        else
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        ended = wait_for(pid, &status, &usage, WNOHANG);
        if (!ended && spec->timeout_s > 0 && seconds() - start > spec->timeout_s) {
            result->timed_out = 1;
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL); /* it may have left its group */
            ended = wait_for(pid, &status, &usage, 0);
        }
    }
    result->wall_s = seconds() - start;
    const double grace_end = seconds() + 0.5;
    while (open_pipe && seconds() < grace_end) {
        open_pipe = drain(output_fd, log, 0, log_failed);
        if (open_pipe && kill(-pid, 0) != 0) { /* nobody is left to write: take what is buffered */
            struct pollfd p = {.fd = output_fd, .events = POLLIN};
            if (poll(&p, 1, 0) <= 0)
                break;
        } else if (open_pipe) {
            open_pipe = drain(output_fd, log, 10, log_failed);
        }
    }
    kill(-pid, SIGKILL);
    result->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    result->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    result->max_rss_kib = usage.ru_maxrss;
}

static int make_pipe(int fds[2])
{
    if (pipe(fds))
        return -1;
    fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    fcntl(fds[1], F_SETFD, FD_CLOEXEC);
    return 0;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

enum rp_status rp_process_run(const struct rp_process_spec *spec, struct rp_process_result *result,
                              struct rp_error *err)
{
    memset(result, 0, sizeof *result);
    result->exit_code = -1;
    int output[2] = {-1, -1}, failure[2] = {-1, -1};
    enum rp_status status = RP_OK;
    struct log *log = calloc(1, sizeof *log);
    if (!log)
        return rp_fail(err, RP_ERR_MEMORY, spec->argv[0], -1, "not enough memory for its log");
    log->fd = -1;
    if (spec->log_path) {
        log->fd = open(spec->log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (log->fd < 0) {
            status = rp_fail(err, RP_ERR_IO, spec->log_path, -1, "cannot be written: %s",
                             strerror(errno));
            goto done;
        }
    }
    if (make_pipe(output) || make_pipe(failure)) {
        status = rp_fail(err, RP_ERR_IO, spec->argv[0], -1, "no pipe: %s", strerror(errno));
        goto done;
    }
    fflush(NULL);
    const pid_t pid = fork();
    if (pid < 0) {
        status = rp_fail(err, RP_ERR_IO, spec->argv[0], -1, "cannot fork: %s", strerror(errno));
        goto done;
    }
    if (pid == 0)
        become(spec, output[1], failure[1]);
    setpgid(pid, pid);
    close(output[1]);
    close(failure[1]);
    output[1] = failure[1] = -1;
    int exec_errno = 0, log_failed = 0;
    ssize_t got;
    do
        got = read(failure[0], &exec_errno, sizeof exec_errno);
    while (got < 0 && errno == EINTR);
    follow(pid, output[0], spec, log, result, &log_failed);
    result->output_bytes = log->total;
    if (got == (ssize_t)sizeof exec_errno)
        status = rp_fail(err, exec_errno == ENOENT ? RP_ERR_MISSING : RP_ERR_IO, spec->argv[0], -1,
                         "cannot be started: %s", strerror(exec_errno));
    else if (log_failed || log_finish(log))
        status =
            rp_fail(err, RP_ERR_IO, spec->log_path, -1, "cannot be written: %s", strerror(errno));
done:
    close_if_open(output[0]);
    close_if_open(output[1]);
    close_if_open(failure[0]);
    close_if_open(failure[1]);
    close_if_open(log->fd);
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

static int is_program(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) && access(path, X_OK) == 0;
}

enum rp_status rp_find_program(const char *program, char *out, size_t size, struct rp_error *err)
{
    if (strchr(program, '/')) {
        if (is_program(program) && (size_t)snprintf(out, size, "%s", program) < size)
            return RP_OK;
        return rp_fail(err, RP_ERR_MISSING, program, -1, "no such program, or not executable");
    }
    const char *path = getenv("PATH");
    for (const char *start = path ? path : ""; program[0] && *start;) {
        const size_t length = strcspn(start, ":");
        const int n = snprintf(out, size, "%.*s/%s", (int)length, start, program);
        if (length > 0 && n > 0 && (size_t)n < size && is_program(out))
            return RP_OK;
        start += length;
        start += *start == ':';
    }
    return rp_fail(err, RP_ERR_MISSING, program, -1, "no such program in PATH");
}
