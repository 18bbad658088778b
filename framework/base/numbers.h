/* Lists of whole numbers, as files of token ids and command lines have them. */
#ifndef REFPARITY_BASE_NUMBERS_H
#define REFPARITY_BASE_NUMBERS_H

#include "refparity/status.h"

/* The decimal number that text [length] begins with: digits only, at most max. Returns how many, 0 when
 * there is no such number. */
size_t rp_number_parse(const char *text, size_t length, int64_t max, int64_t *number);

/* Decimal numbers from 0 to max in text [length], each followed by the separator; the last one's may be
 * missing. *numbers [*n] is freed by the caller. what names the list, and item what an entry of it is
 * ("line"), counted from 1. RP_ERR_FORMAT (also when there are none), RP_ERR_MEMORY. */
enum rp_status rp_numbers_parse(const char *text, size_t length, char separator, int64_t max,
                                const char *what, const char *item, int64_t **numbers, size_t *n,
                                struct rp_error *err);

#endif
