/* See refparity/status.h. */
#include "refparity/status.h"

#include <stdarg.h>
#include <stdio.h>

#undef rp_fail /* the analyzer's view of it, see status.h */

/* A message may quote a stranger's file: it stays one line, and no line of its own making. */
static void make_one_line(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

enum rp_status rp_fail(struct rp_error *err, enum rp_status code, const char *where,
                       long long offset, const char *fmt, ...)
{
    if (!err)
        return code;
    err->code = code;
    err->offset = offset;
    snprintf(err->where, sizeof err->where, "%s", where ? where : "");
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    make_one_line(err->where);
    make_one_line(err->message);
    return code;
}

const char *rp_error_text(const struct rp_error *err, char *buf, size_t size)
{
    const char *colon = err->where[0] ? ": " : "";
    if (err->offset >= 0)
        snprintf(buf, size, "%s%sbyte %lld: %s", err->where, colon, err->offset, err->message);
    else
        snprintf(buf, size, "%s%s%s", err->where, colon, err->message);
    return buf;
}
