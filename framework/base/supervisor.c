/* See supervisor.h. */
#include "base/supervisor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "base/clock.h"

static const double grace_s = 0.5, kill_s = 5;

static void wake(int number)
{
    (void)number; /* pselect returns */
}

/* Waits for a child's end, for the lifeline, or for the time; false once the lifeline is cut.
 * SIGCHLD is blocked outside, so none is missed. lifeline -1: it is cut already. */
static bool wait_for_news(int lifeline, double seconds, const sigset_t *unblocked)
{
    fd_set reads;
    const struct timespec limit = {.tv_sec = (time_t)seconds,
                                   .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    FD_ZERO(&reads);
    if (lifeline >= 0)
        FD_SET(lifeline, &reads);
    return pselect(lifeline + 1, &reads, NULL, NULL, &limit, unblocked) <= 0;
}

/* Takes every child that has ended, the program among them; false when none is left. */
static bool reap(pid_t program, double start, bool *ended, struct rp_program_end *end)
{
    for (;;) {
        int status;
        struct rusage usage;
        const pid_t pid = wait4(-1, &status, WNOHANG, &usage);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid <= 0)
            return pid == 0;
        if (pid == program) {
            *ended = true;
            end->status = status;
            end->wall_s = rp_clock_seconds() - start;
            end->max_rss_kib = usage.ru_maxrss;
        }
    }
}

/* The parent of the process, from /proc/PID/stat: "PID (NAME) STATE PARENT ...", where NAME may hold
 * anything. -1 when it is gone. */
static long parent_of(const char *pid)
{
    char path[64], text[512];
    if ((size_t)snprintf(path, sizeof path, "/proc/%s/stat", pid) >= sizeof path)
        return -1;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    const ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *behind = strrchr(text, ')');
    return behind && strlen(behind) > 4 ? strtol(behind + 4, NULL, 10) : -1;
}

/* A process whose parent has ended becomes our child, so the children of today are enough: those of
 * theirs are the children of the next round. */
static void kill_children(void)
{
    DIR *processes = opendir("/proc");
    const struct dirent *item;
    while (processes && (item = readdir(processes)) != NULL) {
        const long pid = strtol(item->d_name, NULL, 10);
        if (pid > 1 && parent_of(item->d_name) == (long)getpid())
            kill((pid_t)pid, SIGKILL);
    }
    if (processes)
        closedir(processes);
}

/* Ends the program and all that came from it; program 0: it has ended. */
static void end_all(pid_t program, double start, const sigset_t *unblocked,
                    struct rp_program_end *end)
{
    const double deadline = rp_clock_seconds() + kill_s;
    bool ended = false, more = true;
    while ((more = reap(program, start, &ended, end)) && rp_clock_seconds() < deadline) {
        kill_children();
        if (program > 0)
            kill(-program, SIGKILL);
        (void)wait_for_news(-1, 0.01, unblocked);
    }
    end->left = more;
}

void rp_adopt_orphans(void)
{
#ifdef __linux__
    prctl(PR_SET_CHILD_SUBREAPER, 1);
#endif
}

bool rp_end_orphans(void)
{
    struct rp_program_end end = {.left = false};
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    end_all(0, 0, &mask, &end);
    return !end.left;
}

static pid_t start_program(const struct rp_supervision *supervision, const sigset_t *unblocked)
{
    const pid_t supervisor = getpid(), pid = fork();
    if (pid != 0)
        return pid;
    setpgid(0, 0);
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, unblocked, NULL);
    close(supervision->lifeline);
    close(supervision->report);
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    if (getppid() == supervisor) /* else it has died before it could take us with it */
        supervision->become(supervision->argument);
    _exit(127);
}

_Noreturn void rp_supervise(const struct rp_supervision *supervision)
{
    struct rp_program_end end = {.left = 0};
    const struct sigaction action = {.sa_handler = wake};
    sigset_t child, unblocked;
    bool ended = false, wanted = true, more = true;
    setpgid(0, 0);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &unblocked);
    sigdelset(&unblocked, SIGCHLD);
    sigaction(SIGCHLD, &action, NULL);
    rp_adopt_orphans();
    const double start = rp_clock_seconds();
    const pid_t program = start_program(supervision, &unblocked);
    end.fork_errno = program < 0 ? errno : 0;
    for (size_t i = 0; i < 2; i++)
        close(supervision->for_program[i]);
    while (program > 0 && wanted && !ended) {
        more = reap(program, start, &ended, &end);
        if (!ended)
            wanted = wait_for_news(supervision->lifeline, 3600, &unblocked);
    }
    const double grace_end = rp_clock_seconds() + grace_s;
    while (program > 0 && wanted && more && rp_clock_seconds() < grace_end) {
        wanted = wait_for_news(supervision->lifeline, 0.01, &unblocked);
        more = reap(program, start, &ended, &end);
    }
#ifdef __linux__
    /* Its id may be a stranger's by now. What it has left is a child of ours. */
    const pid_t running = ended ? 0 : program;
#else
    const pid_t running = program;
#endif
    if (program > 0)
        end_all(running, start, &unblocked, &end);
    (void)!write(supervision->report, &end, sizeof end);
    _exit(0);
}
