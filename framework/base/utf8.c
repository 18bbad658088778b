/* See base/utf8.h. */
#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

size_t rp_utf8_sequence(const void *text, size_t length)
{
    const unsigned char *byte = text;
    if (length == 0)
        return 0;
    if (byte[0] < 0x80)
        return 1;
    size_t expected = 0;
    /* The range of the second byte is what refuses overlong forms and surrogates. */
    unsigned char low = 0x80;
    unsigned char high = 0xBF;
    if (byte[0] >= 0xC2 && byte[0] <= 0xDF) {
        expected = 2;
    } else if (byte[0] >= 0xE0 && byte[0] <= 0xEF) {
        expected = 3;
        low = byte[0] == 0xE0 ? 0xA0 : 0x80;
        high = byte[0] == 0xED ? 0x9F : 0xBF;
    } else if (byte[0] >= 0xF0 && byte[0] <= 0xF4) {
        expected = 4;
        low = byte[0] == 0xF0 ? 0x90 : 0x80;
        high = byte[0] == 0xF4 ? 0x8F : 0xBF;
    }
    if (expected == 0 || expected > length || byte[1] < low || byte[1] > high)
        return 0;
    for (size_t i = 2; i < expected; i++) {
        if (byte[i] < 0x80 || byte[i] > 0xBF)
            return 0;
    }
    return expected;
}

size_t rp_utf8_valid_length(const void *text, size_t length)
{
    const unsigned char *byte = text;
    size_t at = 0;
    while (at < length) {
        size_t step = rp_utf8_sequence(byte + at, length - at);
        if (step == 0)
            break;
        at += step;
    }
    return at;
}

uint32_t rp_utf8_code_point(const void *sequence, size_t n)
{
    static const unsigned char masks[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    const unsigned char *s = sequence;
    uint32_t c = s[0] & masks[n];
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (s[i] & 0x3F);
    return c;
}

bool rp_utf8_is_invisible(uint32_t c)
{
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0xAD || (c >= 0x200B && c <= 0x200F) ||
           (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) ||
           (c >= 0xFE00 && c <= 0xFE0F) || c == 0xFEFF || (c >= 0xE0000 && c <= 0xE0FFF);
}

const char *rp_shown(const char *text, char *out)
{
    const size_t room = RP_SHOWN_SIZE - sizeof "...\"";
    size_t left = strlen(text);
    size_t at = 0;
    out[at++] = '"';
    while (left > 0) {
        size_t step = rp_utf8_sequence(text, left);
        unsigned char byte = (unsigned char)*text;
        int escaped = step == 0 || byte < 0x20 || byte == 0x7F;
        if (step == 0)
            step = 1;
        if (at + (escaped ? sizeof "xNN" : step) > room) {
            memcpy(out + at, "...", 3);
            at += 3;
            break;
        }
        if (escaped)
            snprintf(out + at, RP_SHOWN_SIZE - at, "\\x%02X", byte);
        else
            memcpy(out + at, text, step);
        at += escaped ? sizeof "xNN" : step;
        text += step;
        left -= step;
    }
    out[at++] = '"';
    out[at] = '\0';
    return out;
}
