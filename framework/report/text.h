/* A compared pair as text, for a terminal and for .diff files. */
#ifndef REFPARITY_REPORT_TEXT_H
#define REFPARITY_REPORT_TEXT_H

#include <stdio.h>

#include "base/terminal.h"
#include "compare/warnings.h"
#include "refparity/diagnose.h"
#include "run/judge_replay.h"
#include "run/known.h"

/* What is compared with what. Every string may be NULL: then its line is left out. */
struct rp_subject {
    const char *title;     /* the pair's name */
    const char *entry;     /* matrix.json:41 */
    const char *reference; /* path */
    const char *origin;    /* which engine made the reference; NULL or "": HF, or a mode */
    const char *dump;      /* path */
    const char *command;   /* the engine's, for a shell */
    const char *engine;    /* how the engine ended */
    const char *reproduce; /* a command */
    const char
        *positions; /* of the verdict, where they are not all: "1 of 24 positions compared" */
    const struct rp_replay_result *replay; /* [n_replay] */
    size_t n_replay;
    const struct rp_known_result *known; /* [n_known] */
    size_t n_known;
    const struct rp_warnings *warnings;
    bool shows_all; /* every slot, in forward order */
};

/* Writes the heading, the first divergence, a table with a line per slot (slot, dim, positions, norms, max_abs,
 * L2_rel, cosine, status; of the worst position), the logits' top-1, top-k and KL, and the verdict. Unless
 * shows_all, the table begins with the slots that fail, and where many pass they are counted instead. The
 * caller checks ferror(out->out). */
void rp_report_text(const struct rp_terminal *out, const struct rp_subject *subject,
                    const struct rp_pair_result *pair, const struct rp_divergence *divergence);

/* The lines that explain one failing slot, each indented by two spaces. */
void rp_report_failure(FILE *out, const struct rp_slot_result *slot,
                       const struct rp_divergence *divergence);

#endif
