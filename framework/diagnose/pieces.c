/* Pieces of a vocabulary as bytes, and bytes as printable text (see diagnose/tokens.h). */
#include "diagnose/tokens.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* GPT-2's bytes_to_unicode backwards: printable Latin-1 stands for itself, the 68 other bytes for
 * U+0100 and up, in order. -1: not in its alphabet. */
static int byte_of(uint32_t c)
{
    if ((c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255))
        return (int)c;
    if (c >= 256 && c < 256 + 33)
        return (int)(c - 256);
    if (c >= 256 + 33 && c < 256 + 67)
        return (int)(c - 256 - 33 + 127);
    return c == 256 + 67 ? 173 : -1;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of "<0xNN>", -1 for another text. */
static int byte_token(const struct rp_piece *piece)
{
    const char *d = piece->data;
    if (piece->length != 6 || memcmp(d, "<0x", 3) != 0 || d[5] != '>' || hex_digit(d[3]) < 0 ||
        hex_digit(d[4]) < 0)
        return -1;
    return hex_digit(d[3]) * 16 + hex_digit(d[4]);
}

size_t rp_piece_bytes(const struct rp_vocabulary *vocabulary, const struct rp_piece *piece,
                      char *out, size_t size)
{
    size_t n = 0;
    const int byte = piece->kind == RP_PIECE_BYTE ? byte_token(piece) : -1;
    if (byte >= 0) {
        if (size < 1)
            return size + 1;
        out[0] = (char)byte;
        return 1;
    }
    for (size_t i = 0, step; i < piece->length; i += step) {
        const unsigned char *s = (const unsigned char *)piece->data + i;
        const size_t sequence = rp_utf8_sequence(s, piece->length - i);
        step = sequence ? sequence : 1;
        int decoded = -1;
        if (sequence && piece->kind != RP_PIECE_SPECIAL) {
            const uint32_t c = rp_utf8_code_point(s, sequence);
            if (vocabulary->spelling == RP_SPELLING_BYTE_LEVEL)
                decoded = byte_of(c);
            else if (c == 0x2581)
                decoded = ' ';
        }
        const size_t length = decoded >= 0 ? 1 : step;
        if (n + length > size)
            return size + 1;
        if (decoded >= 0)
            out[n] = (char)decoded;
        else
            memcpy(out + n, s, length);
        n += length;
    }
    return n;
}

char *rp_bytes_shown(const char *bytes, size_t n, char *out, size_t size)
{
    static const char end[] = "…\"";
    size_t used = 0;
    out[used++] = '"';
    for (size_t i = 0, step; i < n; i += step) {
        const unsigned char *s = (const unsigned char *)bytes + i;
        const size_t sequence = rp_utf8_sequence(s, n - i);
        const uint32_t c = sequence ? rp_utf8_code_point(s, sequence) : 0;
        char text[16];
        step = sequence ? sequence : 1;
        if (!sequence)
            snprintf(text, sizeof text, "\\x%02x", (unsigned)*s);
        else if (c == '\n')
            snprintf(text, sizeof text, "\\n");
        else if (c == '\t')
            snprintf(text, sizeof text, "\\t");
        else if (c == '"' || c == '\\')
            snprintf(text, sizeof text, "\\%c", (char)c);
        else if (rp_utf8_is_invisible(c))
            snprintf(text, sizeof text, c < 0x80 ? "\\x%02x" : "\\u%04x", (unsigned)c);
        else
            snprintf(text, sizeof text, "%.*s", (int)sequence, (const char *)s);
        if (used + strlen(text) + sizeof end > size) {
            snprintf(out + used, size - used, "%s", end);
            return out;
        }
        used += (size_t)snprintf(out + used, size - used, "%s", text);
    }
    snprintf(out + used, size - used, "\"");
    return out;
}
