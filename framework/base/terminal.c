/* See base/terminal.h. */
#include "base/terminal.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "base/utf8.h"

/* ---- what it is ---- */

struct rp_terminal rp_terminal_plain(FILE *out)
{
    return (struct rp_terminal){.out = out};
}

static bool is_set(const char *name)
{
    const char *value = getenv(name);
    return value && value[0];
}

static bool is_zero(const char *name)
{
    const char *value = getenv(name);
    return value && strcmp(value, "0") == 0;
}

static bool wants_colours(enum rp_colours colours, bool is_terminal)
{
    const char *term = getenv("TERM");
    if (colours != RP_COLOURS_AUTO)
        return colours == RP_COLOURS_ALWAYS;
    if (is_set("NO_COLOR"))
        return false;
    if (is_set("CLICOLOR_FORCE") && !is_zero("CLICOLOR_FORCE"))
        return true;
    return is_terminal && term && strcmp(term, "dumb") != 0 && !is_zero("CLICOLOR");
}

static size_t width_of(int fd)
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_col > RP_TERMINAL_WIDTH)
        return RP_TERMINAL_WIDTH;
    return size.ws_col;
}

struct rp_terminal rp_terminal_open(FILE *out, enum rp_colours colours)
{
    const int fd = fileno(out);
    const bool is_terminal = fd >= 0 && isatty(fd);
    return (struct rp_terminal){.out = out,
                                .has_colours = wants_colours(colours, is_terminal),
                                .width = is_terminal ? width_of(fd) : 0};
}

bool rp_colours_parse(const char *text, enum rp_colours *out)
{
    static const char *const names[] = {
        [RP_COLOURS_AUTO] = "auto", [RP_COLOURS_ALWAYS] = "always", [RP_COLOURS_NEVER] = "never"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum rp_colours)i;
            return true;
        }
    }
    return false;
}

/* ---- text ---- */

enum { LONGEST_SHOWN = 16 };

/* The first character of text, which is not empty, as it is written; its bytes are *n, its columns returned. */
static size_t take_character(const char *text, size_t *n, char shown[LONGEST_SHOWN])
{
    const size_t sequence = rp_utf8_sequence(text, strlen(text));
    const uint32_t c = sequence ? rp_utf8_code_point(text, sequence) : 0;
    *n = sequence ? sequence : 1;
    if (!sequence)
        return (size_t)snprintf(shown, LONGEST_SHOWN, "\\x%02x", (unsigned)(unsigned char)*text);
    if (c == '\n')
        return (size_t)snprintf(shown, LONGEST_SHOWN, "\\n");
    if (rp_utf8_is_invisible(c))
        return (size_t)snprintf(shown, LONGEST_SHOWN, c < 0x80 ? "\\x%02x" : "\\u%04x",
                                (unsigned)c);
    memcpy(shown, text, sequence);
    shown[sequence] = '\0';
    const int width = c < 0x80 ? 1 : wcwidth((wchar_t)c); /* -1 where the locale has no UTF-8 */
    return width < 0 ? 1 : (size_t)width;
}

size_t rp_print_width(const char *text)
{
    size_t width = 0, n;
    char shown[LONGEST_SHOWN];
    for (; *text; text += n)
        width += take_character(text, &n, shown);
    return width;
}

static void begin_style(const struct rp_terminal *terminal, enum rp_style style)
{
    static const char *const codes[] = {
        [RP_STYLE_PLAIN] = "",     [RP_STYLE_GOOD] = "32",  [RP_STYLE_BAD] = "1;31",
        [RP_STYLE_NOTABLE] = "33", [RP_STYLE_STRONG] = "1", [RP_STYLE_FAINT] = "2"};
    if (terminal->has_colours && style != RP_STYLE_PLAIN)
        fprintf(terminal->out, "\x1b[%sm", codes[style]);
}

static void end_style(const struct rp_terminal *terminal, enum rp_style style)
{
    if (terminal->has_colours && style != RP_STYLE_PLAIN)
        fputs("\x1b[0m", terminal->out);
}

/* At most most columns; returns those that it took. */
static size_t write_text(FILE *out, const char *text, size_t most)
{
    size_t width = 0, n;
    char shown[LONGEST_SHOWN];
    for (; *text; text += n) {
        const size_t step = take_character(text, &n, shown);
        if (step > most - width)
            break;
        fputs(shown, out);
        width += step;
    }
    return width;
}

/* NULL where there is no memory, or fmt cannot be formatted. */
static char *format(const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, fmt, args);
    char *text = n < 0 ? NULL : malloc((size_t)n + 1);
    if (text)
        vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    return text;
}

static const char no_memory[] = "(not enough memory for this text)";

void rp_print(const struct rp_terminal *terminal, enum rp_style style, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *text = format(fmt, args);
    va_end(args);
    begin_style(terminal, style);
    write_text(terminal->out, text ? text : no_memory, SIZE_MAX);
    end_style(terminal, style);
    free(text);
}

/* text, which is cut to pieces, in lines of at most terminal->width columns, the first behind a mark. */
static void write_words(const struct rp_terminal *terminal, const char *mark, char *text)
{
    const char *beginning = mark[0] ? mark : text;
    const size_t own = strspn(beginning, " "), indent = own > 0 ? own : 2;
    size_t at = rp_print_width(mark);
    for (char *word = text, *end; *word; word = end) {
        const size_t spaces = strspn(word, " ");
        end = word + spaces + strcspn(word + spaces, " ");
        const char after = *end;
        *end = '\0';
        if (at > indent && at + rp_print_width(word) > terminal->width) {
            fprintf(terminal->out, "\n%*s", (int)indent, "");
            at = indent;
            word += spaces;
        }
        at += write_text(terminal->out, word, SIZE_MAX);
        *end = after;
    }
}

static void write_line(const struct rp_terminal *terminal, const char *mark, char *text)
{
    if (text && terminal->width > 0)
        write_words(terminal, mark, text);
    else
        write_text(terminal->out, text ? text : no_memory, SIZE_MAX);
    fputc('\n', terminal->out);
}

void rp_print_line(const struct rp_terminal *terminal, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *text = format(fmt, args);
    va_end(args);
    write_line(terminal, "", text);
    free(text);
}

void rp_print_marked_line(const struct rp_terminal *terminal, enum rp_style style, const char *mark,
                          const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *text = format(fmt, args);
    va_end(args);
    rp_print(terminal, style, "%s", mark);
    write_line(terminal, mark, text);
    free(text);
}

/* ---- tables ---- */

static void write_spaces(FILE *out, size_t n)
{
    for (; n > 0; n--)
        fputc(' ', out);
}

static void write_cell(const struct rp_terminal *terminal, const struct rp_column *column,
                       const struct rp_cell *cell, bool is_last)
{
    const size_t width = rp_print_width(cell->text);
    const bool is_cut = column->is_text && column->width > 0 && width > column->width;
    const size_t left = width < column->width ? column->width - width : 0;
    if (!column->is_text)
        write_spaces(terminal->out, left);
    begin_style(terminal, cell->style);
    const size_t written =
        write_text(terminal->out, cell->text, is_cut ? column->width - 1 : SIZE_MAX);
    if (is_cut)
        fputs("…", terminal->out);
    end_style(terminal, cell->style);
    if (column->is_text && !is_last)
        write_spaces(terminal->out, is_cut ? column->width - 1 - written : left);
}

void rp_table_row(const struct rp_terminal *terminal, const struct rp_column *columns, size_t n,
                  const struct rp_cell *cells)
{
    while (n > 0 && !cells[n - 1].text[0])
        n--;
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            fputc(' ', terminal->out);
        write_cell(terminal, &columns[i], &cells[i], i + 1 == n);
    }
    fputc('\n', terminal->out);
}

void rp_table_heading(const struct rp_terminal *terminal, const struct rp_column *columns, size_t n)
{
    while (n > 0 && !columns[n - 1].title[0])
        n--;
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            fputc(' ', terminal->out);
        write_cell(terminal, &columns[i], &(struct rp_cell){columns[i].title, RP_STYLE_FAINT},
                   i + 1 == n);
    }
    fputc('\n', terminal->out);
}

const char *rp_number_text(char *out, const char *fmt, double value)
{
    if (isnan(value))
        snprintf(out, RP_NUMBER_SIZE, "nan");
    else if (isinf(value))
        snprintf(out, RP_NUMBER_SIZE, "inf");
    else
        snprintf(out, RP_NUMBER_SIZE, fmt, value);
    return out;
}
