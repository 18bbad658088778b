/* A struct as a JSON object, by a table of its fields: every value comes back as it was, bit by bit,
 * NaN and infinities included. Reading is strict: a member that is missing, of another type, out of
 * range or not in the table is an error. Not for files that people write: those are read by hand, with
 * messages of their own. */
#ifndef REFPARITY_BASE_JSON_FIELDS_H
#define REFPARITY_BASE_JSON_FIELDS_H

#include <stdbool.h>

#include "base/json.h"

enum rp_field_kind {
    RP_FIELD_TEXT,   /* char [size], ended by a NUL; any bytes */
    RP_FIELD_BOOL,   /* bool */
    RP_FIELD_SIGNED, /* int, long, long long; within 2^53 */
    RP_FIELD_UNSIGNED, /* unsigned …, size_t, an enum; likewise, and below n_values where that is set */
    RP_FIELD_DOUBLE,
    RP_FIELD_INTEGERS, /* int64_t *, owned; [count], a size_t of the same struct that stands before it */
    RP_FIELD_DOUBLES /* double *, likewise */
};

struct rp_field {
    const char *name; /* the member's, in C and in JSON */
    enum rp_field_kind kind;
    size_t offset, size;
    size_t n_values; /* 0: any */
    size_t count;    /* offset of an array's length */
};

/* clang-format off */
#define RP_FIELD_KIND(value)                                                         \
    _Generic((value), char *: RP_FIELD_TEXT, bool: RP_FIELD_BOOL,                     \
             int: RP_FIELD_SIGNED, long: RP_FIELD_SIGNED, long long: RP_FIELD_SIGNED, \
             unsigned: RP_FIELD_UNSIGNED, unsigned long: RP_FIELD_UNSIGNED,           \
             unsigned long long: RP_FIELD_UNSIGNED, double: RP_FIELD_DOUBLE,          \
             int64_t *: RP_FIELD_INTEGERS, double *: RP_FIELD_DOUBLES)
/* clang-format on */
#define RP_FIELD_MEMBER(type, member) (((type *)0)->member)

/* A row of the table. What it is follows from its type in C. */
#define RP_FIELD(type, member)                                                          \
    {                                                                                   \
        .name = #member, .kind = RP_FIELD_KIND(RP_FIELD_MEMBER(type, member)),          \
        .offset = offsetof(type, member), .size = sizeof(RP_FIELD_MEMBER(type, member)) \
    }
/* An enum of the values 0 .. last. */
#define RP_FIELD_ENUM(type, member, last)                                                \
    {                                                                                    \
        .name = #member, .kind = RP_FIELD_KIND(RP_FIELD_MEMBER(type, member)),           \
        .offset = offsetof(type, member), .size = sizeof(RP_FIELD_MEMBER(type, member)), \
        .n_values = (size_t)(last) + 1                                                   \
    }
/* An array of length values. */
#define RP_FIELD_ARRAY(type, member, length)                                             \
    {                                                                                    \
        .name = #member, .kind = RP_FIELD_KIND(RP_FIELD_MEMBER(type, member)),           \
        .offset = offsetof(type, member), .size = sizeof(RP_FIELD_MEMBER(type, member)), \
        .count = offsetof(type, length)                                                  \
    }

/* Adds the fields [n] of object to json. RP_ERR_MEMORY; RP_ERR_UNSUPPORTED: a number beyond 2^53, which
 * JSON does not hold exactly. */
enum rp_status rp_fields_write(const void *object, const struct rp_field *fields, size_t n,
                               cJSON *json, struct rp_error *err);

/* Reads the object json of doc, which has to have these members and no other, into object, which is
 * zeroed. Arrays are the caller's to free, after an error too. RP_ERR_FORMAT, RP_ERR_MEMORY. */
enum rp_status rp_fields_read(const struct rp_json *doc, const cJSON *json,
                              const struct rp_field *fields, size_t n, void *object,
                              struct rp_error *err);

#endif
