/* The strict half of base/json.h: is the text JSON, and where does each value start?
 * Builds no tree: cJSON does. Not for use outside base/json.c. */
#ifndef REFPARITY_BASE_JSON_SCAN_H
#define REFPARITY_BASE_JSON_SCAN_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

#include "refparity/status.h"

#define RP_JSON_NO_KEY UINT32_MAX /* the root and array elements have no key */

struct rp_json_place {
    const cJSON *value;  /* for the caller to fill in */
    uint32_t offset;     /* where the value starts */
    uint32_t key_offset; /* where its key's quote is, or RP_JSON_NO_KEY */
};

struct rp_json_places {
    struct rp_json_place *items; /* [n], heap; the caller frees it, also after an error */
    size_t n;
    size_t capacity;
};

/* Validates text[length] by RFC 8259 and adds one place per value, in pre-order, to *places, which
 * starts out zeroed. Leaves to the caller what needs the tree: repeated keys and the range of
 * numbers. RP_ERR_FORMAT, RP_ERR_MEMORY. */
enum rp_status rp_json_scan(const char *text, size_t length, const char *where,
                            struct rp_json_places *places, struct rp_error *err);

/* rp_fail at text[offset]: where becomes where:line:column. */
enum rp_status rp_json_fail_text(const char *text, size_t offset, const char *where,
                                 struct rp_error *err, enum rp_status code, const char *fmt, ...)
    RP_PRINTF(6, 7);

/* Writes where:line:column into out[size], size > 32. A long where is cut, never the position. */
void rp_json_where(const char *where, size_t line, size_t column, char *out, size_t size);

#endif
