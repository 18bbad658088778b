/* The process between a program and whoever runs it. It ends the program, with all processes that come
 * from it, when the program's run is over or when the runner is gone, however that came about.
 * Not for output and time limits: that is process.h, the only user. */
#ifndef REFPARITY_BASE_SUPERVISOR_H
#define REFPARITY_BASE_SUPERVISOR_H

#include <stdbool.h>

/* What the supervisor reports, once, when everything has ended. */
struct rp_program_end {
    int fork_errno; /* the program could not be started; 0: it was */
    int status;     /* as wait(2) has it */
    bool left;      /* processes could not be ended within 5 s */
    double wall_s;
    long max_rss_kib;
};

struct rp_supervision {
    void (*become)(const void *argument); /* in the program's own process; never returns */
    const void *argument;
    int for_program[2]; /* descriptors that only the program needs */
    /* Read end of a pipe whose write end the runner alone holds: when that is closed, by the runner or
     * by its death, everything is ended. */
    int lifeline;
    int report; /* write end of a pipe: a struct rp_program_end */
};

/* To be called in a child process of one thread. The program gets a process group of its own, so a
 * signal to the runner's group (Ctrl-C) ends the runner, and through the lifeline the program.
 * Processes that the program leaves behind have half a second to end by themselves. On Linux they are
 * found wherever they went (setsid, another group), and the program dies with the supervisor;
 * elsewhere only its process group is ended. Descriptors that the supervisor inherits stay open until
 * it ends, so a lock that the runner holds is held until nothing of the program is left. */
_Noreturn void rp_supervise(const struct rp_supervision *supervision);

/* For the runner, should its supervisor be killed: processes that the program leaves behind become the
 * runner's children, and rp_end_orphans ends all children of the calling process; false when some are
 * still there after 5 s. Linux alone. */
void rp_adopt_orphans(void);
bool rp_end_orphans(void);

#endif
