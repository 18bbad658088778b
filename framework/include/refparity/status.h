/* Status codes and the error detail that every fallible refparity function shares.
 * Not for verdicts: what a comparison found is in compare.h. */
#ifndef REFPARITY_STATUS_H
#define REFPARITY_STATUS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum rp_status {
    RP_OK = 0,
    RP_ERR_IO,          /* the operating system refused: open, read, write, rename, fork */
    RP_ERR_MEMORY,      /* an allocation failed */
    RP_ERR_FORMAT,      /* the bytes are not what their format says */
    RP_ERR_UNSUPPORTED, /* well-formed, but outside what refparity reads */
    RP_ERR_MISSING,     /* a file, slot or key that has to be there is not */
    RP_ERR_MISMATCH,    /* two inputs contradict each other */
    RP_ERR_ARGUMENT     /* the caller asked for something that cannot be */
};

/* Owned by the caller; a function that returns RP_OK leaves it untouched. Everywhere a
 * `struct rp_error *` is taken, NULL means that only the status is wanted. */
struct rp_error {
    enum rp_status code;
    long long offset;   /* byte offset in `where`, or -1 when there is none to give */
    char where[1024];   /* a file's path, or path:line:column for text; may be empty */
    char message[1024]; /* what was expected and what was found, one sentence, no newline */
};

#if defined(__GNUC__)
#define RP_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define RP_PRINTF(fmt, args)
#endif

/* Fills *err (when not NULL; both strings are cut to fit, control characters become '?') and returns code, so that a
 * caller can write `return rp_fail(err, RP_ERR_FORMAT, path, offset, "expected …");`.
 * where may be NULL. */
enum rp_status rp_fail(struct rp_error *err, enum rp_status code, const char *where,
                       long long offset, const char *fmt, ...) RP_PRINTF(5, 6);
#ifdef __clang_analyzer__ /* which does not look into other files: the result is code, so not RP_OK */
#define rp_fail(err, code, ...) (rp_fail((err), (code), __VA_ARGS__), (code))
#endif

/* Writes "where: byte 128: message" into buf[size], NUL-terminated; returns buf. */
const char *rp_error_text(const struct rp_error *err, char *buf, size_t size);

#ifdef __cplusplus
}
#endif
#endif
