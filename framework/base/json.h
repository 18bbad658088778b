/* JSON text -> cJSON tree, with the line and column of any value.
 * cJSON parses; a strict scanner runs first and refuses what cJSON lets through: duplicate keys,
 * \u0000, invalid UTF-8, lone surrogates, trailing bytes, numbers outside JSON's grammar or
 * beyond a double's range, and nesting deeper than RP_JSON_MAX_DEPTH. */
#ifndef REFPARITY_BASE_JSON_H
#define REFPARITY_BASE_JSON_H

#include <cjson/cJSON.h>
#include <stddef.h>

#include "refparity/status.h"

#define RP_JSON_MAX_DEPTH 64
#define RP_JSON_MAX_BYTES ((size_t)64 << 20) /* a larger document is refused */

struct rp_json; /* a parsed document; owns its tree */

/* Parses text[length] (need not be NUL-terminated). where names it in errors, as where:line:column.
 * On success *doc is to be freed with rp_json_free. RP_ERR_FORMAT, RP_ERR_MEMORY. */
enum rp_status rp_json_parse(const char *text, size_t length, const char *where,
                             struct rp_json **doc, struct rp_error *err);

/* Reads the file at path, then as rp_json_parse. Also RP_ERR_MISSING (no such file), RP_ERR_IO. */
enum rp_status rp_json_parse_file(const char *path, struct rp_json **doc, struct rp_error *err);

const cJSON *rp_json_root(const struct rp_json *doc);

/* Line and column (both from 1; column counts bytes) where value starts in the text; value has to
 * belong to doc. For an object's member that is where the member's value starts. */
void rp_json_locate(const struct rp_json *doc, const cJSON *value, int *line, int *column);

/* rp_fail at value's place: where becomes where:line:column. */
enum rp_status rp_json_fail(const struct rp_json *doc, const cJSON *value, struct rp_error *err,
                            enum rp_status code, const char *fmt, ...) RP_PRINTF(5, 6);

/* The same, at the member's key instead of its value. */
enum rp_status rp_json_fail_key(const struct rp_json *doc, const cJSON *value, struct rp_error *err,
                                enum rp_status code, const char *fmt, ...) RP_PRINTF(5, 6);

/* NULL is allowed. */
void rp_json_free(struct rp_json *doc);

/* The number as an integer in [low, high], or false: not a number, not whole, out of range. */
int rp_json_int(const cJSON *value, long long low, long long high, long long *out);

/* The text that object has at key; "" where it has none there. Owned by object, which may be NULL. */
const char *rp_json_text(const cJSON *object, const char *key);

#endif
