/* Text for a terminal, a pipe or a file: colours where they are wanted, lines broken where the terminal ends,
 * aligned tables, and no byte that acts on a terminal, whoever wrote it. Not for JSON, XML or HTML. */
#ifndef REFPARITY_BASE_TERMINAL_H
#define REFPARITY_BASE_TERMINAL_H

#include <stdbool.h>
#include <stdio.h>

#include "refparity/status.h"

enum rp_colours { RP_COLOURS_AUTO, RP_COLOURS_ALWAYS, RP_COLOURS_NEVER };

enum rp_style {
    RP_STYLE_PLAIN,
    RP_STYLE_GOOD,
    RP_STYLE_BAD,
    RP_STYLE_NOTABLE, /* passes, and is to be seen; or is not known */
    RP_STYLE_STRONG,
    RP_STYLE_FAINT
};

enum { RP_TERMINAL_WIDTH = 100 }; /* no table is wider */

struct rp_terminal {
    FILE *out;
    bool has_colours;
    size_t width; /* lines are broken between words to fit into it; 0: they are not */
};

/* A file, a pipe, memory: no colours, no line is broken. */
struct rp_terminal rp_terminal_plain(FILE *out);

/* Lines are broken where out is a terminal, at its width or at RP_TERMINAL_WIDTH. RP_COLOURS_AUTO: none where
 * NO_COLOR is set and not empty; else some where CLICOLOR_FORCE is set and not empty or 0; else where out is
 * a terminal, TERM is not "dumb" and CLICOLOR is not 0. */
struct rp_terminal rp_terminal_open(FILE *out, enum rp_colours colours);

/* "auto", "always", "never": false for another text. */
bool rp_colours_parse(const char *text, enum rp_colours *out);

/* All of these write controls, invisible characters and bytes that are not UTF-8 as \n, \x1b, \u202e; a line
 * break in the text, too. The caller checks ferror(out). */

void rp_print(const struct rp_terminal *terminal, enum rp_style style, const char *fmt, ...)
    RP_PRINTF(3, 4);

/* One line: its end is added, and is in no fmt. The lines that it is broken into are indented as its own
 * beginning is, by two more where that is not at all. A word is never broken. */
void rp_print_line(const struct rp_terminal *terminal, const char *fmt, ...) RP_PRINTF(2, 3);

/* The same, behind a mark in that style: "  FAIL     ", "verdict: ". */
void rp_print_marked_line(const struct rp_terminal *terminal, enum rp_style style, const char *mark,
                          const char *fmt, ...) RP_PRINTF(4, 5);

/* The columns of a terminal that text takes, as rp_print writes it. */
size_t rp_print_width(const char *text);

/* ---- tables ---- */

struct rp_column {
    const char *title;
    size_t width; /* columns of a terminal; 0, of the last alone: as it comes */
    bool
        is_text; /* on the left, and cut with … where it is longer; else a number: on the right, never cut */
};

struct rp_cell {
    const char *text;
    enum rp_style style;
};

/* Columns are a space apart; a row's last cell has no spaces behind it. */
void rp_table_heading(const struct rp_terminal *terminal, const struct rp_column *columns,
                      size_t n);
void rp_table_row(const struct rp_terminal *terminal, const struct rp_column *columns, size_t n,
                  const struct rp_cell *cells);

#define RP_NUMBER_SIZE 32

/* value as fmt says, "nan" and "inf" without a sign; in out[RP_NUMBER_SIZE], which is returned. */
const char *rp_number_text(char *out, const char *fmt, double value);

#endif
