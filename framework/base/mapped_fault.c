/* See base/mapped_fault.h. All that is called in the handler may be called in one: open, read, write. */
#include "base/mapped_fault.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum {
    LINE_SIZE = 4096 + 128,
    EXIT_ERROR = 2 /* RP_EXIT_ERROR, which stands above this folder */
};

static uintptr_t read_hex(const char **text)
{
    uintptr_t value = 0;
    for (;; (*text)++) {
        const char c = **text;
        if (c >= '0' && c <= '9')
            value = 16 * value + (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = 16 * value + 10 + (uintptr_t)(c - 'a');
        else
            return value;
    }
}

/* The file in "FIRST-END PERMISSIONS OFFSET DEVICE INODE  FILE", where address lies in it; else NULL. */
static const char *file_in_line(const char *line, uintptr_t address)
{
    const uintptr_t first = read_hex(&line);
    if (*line++ != '-')
        return NULL;
    const uintptr_t end = read_hex(&line);
    return address >= first && address < end ? strchr(line, '/') : NULL;
}

/* Writes the file's name into line, [LINE_SIZE]; false where it is not known. */
static bool find_file(uintptr_t address, char *line)
{
    const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    char block[4096];
    size_t used = 0;
    bool found = false;
    for (ssize_t n; fd >= 0 && !found && (n = read(fd, block, sizeof block)) > 0;) {
        for (ssize_t i = 0; i < n && !found; i++) {
            if (block[i] != '\n') {
                line[used] = block[i];
                used += used < LINE_SIZE - 1;
                continue;
            }
            line[used] = '\0';
            used = 0;
            const char *file = file_in_line(line, address);
            if (file) {
                memmove(line, file, strlen(file) + 1);
                found = true;
            }
        }
    }
    if (fd >= 0)
        close(fd);
    return found;
}

static void say(const char *text)
{
    (void)!write(STDERR_FILENO, text, strlen(text));
}

static void report(int number, siginfo_t *info, void *context)
{
    char line[LINE_SIZE];
    (void)context;
    if (info->si_code != BUS_ADRERR) { /* not of a file: the instruction is run again, and dies */
        signal(number, SIG_DFL);
        if (info->si_code <= 0) /* sent by a process */
            raise(number);
        return;
    }
    say("refparity: error: ");
    say(find_file((uintptr_t)info->si_addr, line) ? line : "a file");
    say(": it became shorter while it was read, or its disk failed\n");
    _exit(EXIT_ERROR);
}

void rp_report_mapped_faults(void)
{
    struct sigaction action = {.sa_sigaction = report, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGBUS, &action, NULL);
}
