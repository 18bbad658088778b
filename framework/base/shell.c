/* See base/shell.h. */
#include "base/shell.h"

#include <stdio.h>
#include <string.h>

/* In $'...', as POSIX has it since 2024: what would begin a line of its own, or act on a terminal, is
 * written as an escape. */
static void append_escaped(char *buf, size_t size, size_t *used, const char *text)
{
    size_t n = *used;
    if (n + 3 < size) {
        buf[n++] = '$';
        buf[n++] = '\'';
    }
    for (; *text && n + 6 < size; text++) {
        const unsigned char byte = (unsigned char)*text;
        if (byte == '\'' || byte == '\\')
            buf[n++] = '\\';
        if (byte < 32 || byte == 127)
            n += (size_t)snprintf(buf + n, size - n, "\\%03o", byte);
        else
            buf[n++] = *text;
    }
    if (n + 1 < size)
        buf[n++] = '\'';
    buf[n] = '\0';
    *used = n;
}

static int has_control(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 32 || *text == 127)
            return 1;
    return 0;
}

void rp_shell_append(char *buf, size_t size, size_t *used, const char *text)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "_-+=./:,@%";
    const int quote = text[0] == '\0' || text[strspn(text, plain)] != '\0';
    if (has_control(text)) {
        append_escaped(buf, size, used, text);
        return;
    }
    size_t n = *used;
    if (quote && n + 1 < size)
        buf[n++] = '\'';
    for (; *text && n + 5 < size; text++) {
        if (*text == '\'') {
            memcpy(buf + n, "'\\''", 4);
            n += 4;
        } else {
            buf[n++] = *text;
        }
    }
    if (quote && n + 1 < size)
        buf[n++] = '\'';
    buf[n] = '\0';
    *used = n;
}

char *rp_shell_quote(const char *text, char *buf, size_t size)
{
    size_t used = 0;
    rp_shell_append(buf, size, &used, text);
    return buf;
}
