/* Is it UTF-8? One check for JSON text and for prompt files. And how a message shows text that
 * somebody else wrote. Not for how it is laid out on a terminal: base/terminal.h. */
#ifndef REFPARITY_BASE_UTF8_H
#define REFPARITY_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length (1..4) of the well-formed sequence at text[0], at most length bytes long; 0 when there is
 * none: overlong forms, surrogates, anything above U+10FFFF, a cut sequence, length == 0.
 * Unicode Standard, table 3-7. */
size_t rp_utf8_sequence(const void *text, size_t length);

/* Offset of the first byte that begins no well-formed sequence; length when all is well. */
size_t rp_utf8_valid_length(const void *text, size_t length);

/* The code point of a well-formed sequence of n bytes, 1 to 4. */
uint32_t rp_utf8_code_point(const void *sequence, size_t n);

/* Controls, and format characters that would reorder or hide what is printed around them. */
bool rp_utf8_is_invisible(uint32_t code_point);

#define RP_SHOWN_SIZE 96

/* Writes text in double quotes into out[RP_SHOWN_SIZE], fit for one line of a message: control
 * characters and bytes that are not UTF-8 as \xNN, long text cut and ended with "...". Returns out. */
const char *rp_shown(const char *text, char *out);

#endif
