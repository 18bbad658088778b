/* See tensor/npy.h. */
#include "tensor/npy.h"

#include <stdio.h>
#include <string.h>

#define MAX_ELEMENTS ((uint64_t)1 << 60) /* so that the bytes of any type can be counted */

/* A cursor over the header's text, which is a Python dict literal. */
struct parser {
    const char *start, *at, *end;
    const char *where;
    size_t base; /* offset of start in where */
    struct rp_error *err;
};

static void skip_spaces(struct parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n'))
        p->at++;
}

static enum rp_status syntax_error(struct parser *p, const char *expected)
{
    skip_spaces(p);
    long long offset = (long long)p->base + (p->at - p->start);
    if (p->at == p->end)
        return rp_fail(p->err, RP_ERR_FORMAT, p->where, offset,
                       "npy header: expected %s, found its end", expected);
    unsigned char c = (unsigned char)*p->at;
    if (c > 0x20 && c < 0x7f)
        return rp_fail(p->err, RP_ERR_FORMAT, p->where, offset,
                       "npy header: expected %s, found '%c'", expected, c);
    return rp_fail(p->err, RP_ERR_FORMAT, p->where, offset,
                   "npy header: expected %s, found byte 0x%02x", expected, c);
}

static int take(struct parser *p, char c)
{
    skip_spaces(p);
    if (p->at == p->end || *p->at != c)
        return 0;
    p->at++;
    return 1;
}

static int take_word(struct parser *p, const char *word)
{
    size_t n = strlen(word);
    skip_spaces(p);
    if ((size_t)(p->end - p->at) < n || memcmp(p->at, word, n) != 0)
        return 0;
    p->at += n;
    return 1;
}

/* A string without escapes, cut to fit out; what cannot be printed becomes '?'. */
static enum rp_status parse_string(struct parser *p, const char *expected, char *out, size_t size)
{
    skip_spaces(p);
    if (p->at == p->end || (*p->at != '\'' && *p->at != '"'))
        return syntax_error(p, expected);
    const char *content = p->at + 1;
    const char *quote = memchr(content, *p->at, (size_t)(p->end - content));
    if (!quote) {
        p->at = p->end;
        return syntax_error(p, "the string's closing quote");
    }
    snprintf(out, size, "%.*s", (int)(quote - content), content);
    for (char *c = out; *c; c++)
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
    p->at = quote + 1;
    return RP_OK;
}

/* Skips a structured type: brackets, parentheses and strings, to their end. */
static enum rp_status skip_structured(struct parser *p)
{
    int depth = 0;
    char text[8];
    do {
        skip_spaces(p);
        if (p->at == p->end)
            return syntax_error(p, "the type's closing bracket");
        if (*p->at == '\'' || *p->at == '"') {
            enum rp_status code = parse_string(p, "a string", text, sizeof text);
            if (code)
                return code;
            continue;
        }
        depth += (*p->at == '[' || *p->at == '(') - (*p->at == ']' || *p->at == ')');
        p->at++;
    } while (depth > 0);
    return RP_OK;
}

static enum rp_status parse_descr(struct parser *p, struct rp_npy *npy)
{
    skip_spaces(p);
    if (p->at < p->end && *p->at == '[') {
        memcpy(npy->descr, "[...]", 6);
        return skip_structured(p);
    }
    return parse_string(p, "a type such as '<f4'", npy->descr, sizeof npy->descr);
}

static enum rp_status parse_fortran_order(struct parser *p, struct rp_npy *npy)
{
    if (take_word(p, "True"))
        npy->fortran_order = 1;
    else if (!take_word(p, "False"))
        return syntax_error(p, "True or False");
    return RP_OK;
}

static enum rp_status parse_dim(struct parser *p, uint64_t *dim)
{
    skip_spaces(p);
    const char *first = p->at;
    *dim = 0;
    for (; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++) {
        uint64_t digit = (uint64_t)(*p->at - '0');
        if (*dim > (INT64_MAX - digit) / 10)
            return syntax_error(p, "a dimension below 2^63");
        *dim = *dim * 10 + digit;
    }
    return p->at > first ? RP_OK : syntax_error(p, "a dimension");
}

static enum rp_status parse_shape(struct parser *p, struct rp_npy *npy)
{
    if (!take(p, '('))
        return syntax_error(p, "'('");
    while (!take(p, ')')) {
        uint64_t dim;
        enum rp_status code = parse_dim(p, &dim);
        if (code)
            return code;
        if (npy->n_dims == RP_NPY_MAX_DIMS)
            return rp_fail(p->err, RP_ERR_UNSUPPORTED, p->where, (long long)p->base,
                           "npy header: expected at most %d dimensions", RP_NPY_MAX_DIMS);
        npy->dims[npy->n_dims++] = dim;
        if (take(p, ','))
            continue;
        if (npy->n_dims == 1)
            return syntax_error(p, "','"); /* (9) is a number, not a tuple */
        if (!take(p, ')'))
            return syntax_error(p, "',' or ')'");
        break;
    }
    return RP_OK;
}

static enum rp_status parse_dict(struct parser *p, struct rp_npy *npy)
{
    static const char *const names[] = {"descr", "fortran_order", "shape"};
    int seen[3] = {0, 0, 0};
    if (!take(p, '{'))
        return syntax_error(p, "'{'");
    while (!take(p, '}')) {
        char key[32];
        int which = 0;
        enum rp_status code = parse_string(p, "a key", key, sizeof key);
        if (code)
            return code;
        while (which < 3 && strcmp(key, names[which]) != 0)
            which++;
        if (which == 3 || seen[which]++)
            return syntax_error(p, "the keys 'descr', 'fortran_order' and 'shape', once each");
        if (!take(p, ':'))
            return syntax_error(p, "':'");
        code = which == 0   ? parse_descr(p, npy)
               : which == 1 ? parse_fortran_order(p, npy)
                            : parse_shape(p, npy);
        if (code)
            return code;
        if (take(p, ','))
            continue;
        if (!take(p, '}'))
            return syntax_error(p, "',' or '}'");
        break;
    }
    if (!seen[0] || !seen[1] || !seen[2])
        return syntax_error(p, "the keys 'descr', 'fortran_order' and 'shape', once each");
    skip_spaces(p);
    return p->at == p->end ? RP_OK : syntax_error(p, "nothing after the dict");
}

static enum rp_status count_elements(const struct parser *p, struct rp_npy *npy)
{
    char shape[128];
    int is_empty = 0;
    npy->n_elements = 1;
    for (int i = 0; i < npy->n_dims; i++)
        is_empty |= npy->dims[i] == 0;
    if (is_empty)
        npy->n_elements = 0;
    for (int i = 0; i < npy->n_dims && !is_empty; i++) {
        if (npy->dims[i] > MAX_ELEMENTS / npy->n_elements)
            return rp_fail(p->err, RP_ERR_FORMAT, p->where, (long long)p->base,
                           "npy header: shape %s has more than 2^60 elements",
                           rp_npy_shape_text(npy, shape, sizeof shape));
        npy->n_elements *= npy->dims[i];
    }
    return RP_OK;
}

enum rp_status rp_npy_parse(const uint8_t *bytes, size_t n, const char *where, struct rp_npy *npy,
                            struct rp_error *err)
{
    static const uint8_t magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
    memset(npy, 0, sizeof *npy);
    if (n < 10 || memcmp(bytes, magic, sizeof magic) != 0)
        return rp_fail(err, RP_ERR_FORMAT, where, 0,
                       n < 10 ? "expected an npy header, found only %zu bytes"
                              : "expected an npy header, found other bytes among the first %zu",
                       n < 10 ? n : sizeof magic);
    if (bytes[6] < 1 || bytes[6] > 3 || bytes[7] != 0)
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, 0,
                       "expected npy version 1.0, 2.0 or 3.0, found %u.%u", bytes[6], bytes[7]);
    size_t start = bytes[6] == 1 ? 10 : 12;
    size_t length = bytes[8] | (size_t)bytes[9] << 8;
    if (start == 12 && n >= 12)
        length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
    if (n >= start && length > RP_NPY_MAX_HEADER)
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, 0,
                       "expected an npy header of at most %d bytes, found %zu", RP_NPY_MAX_HEADER,
                       length);
    if (n < start || length > n - start)
        return rp_fail(err, RP_ERR_FORMAT, where, 0,
                       "expected an npy header of %zu bytes, found only %zu", start + length, n);
    struct parser p = {.start = (const char *)bytes + start,
                       .at = (const char *)bytes + start,
                       .end = (const char *)bytes + start + length,
                       .where = where,
                       .base = start,
                       .err = err};
    enum rp_status code = parse_dict(&p, npy);
    if (code)
        return code;
    npy->data_offset = start + length;
    return count_elements(&p, npy);
}

/* The size of an element of that type, 0 when descr is of another. */
static uint64_t element_size(const char *descr, enum rp_npy_type type)
{
    switch (type) {
    case RP_NPY_FLOAT32: return strcmp(descr, "<f4") == 0 ? 4 : 0;
    case RP_NPY_INT64: return strcmp(descr, "<i8") == 0 ? 8 : strcmp(descr, "<i4") == 0 ? 4 : 0;
    case RP_NPY_UINT8: return strcmp(descr, "|u1") == 0 ? 1 : 0;
    }
    return 0;
}

static const char *type_name(enum rp_npy_type type)
{
    return type == RP_NPY_FLOAT32 ? "'<f4' (float32, little-endian)"
           : type == RP_NPY_INT64 ? "'<i8' (int64, little-endian) or '<i4'"
                                  : "'|u1' (uint8)";
}

/* What the common types that are refused are, and what to do about them. */
static const char *descr_note(const char *descr)
{
    static const struct {
        const char *descr, *note;
    } notes[] = {{"<f8", " (float64)"},
                 {"<f2", " (float16)"},
                 {">f4", " (float32, big-endian)"},
                 {"|O", " (pickled Python objects, which are never loaded)"},
                 {"|V2", " (raw bytes; bfloat16 is often saved so)"},
                 {"[...]", " (a structured type)"}};
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++)
        if (strcmp(descr, notes[i].descr) == 0)
            return notes[i].note;
    return "";
}

enum rp_status rp_npy_check(const struct rp_npy *npy, enum rp_npy_type type, uint64_t total,
                            const char *where, struct rp_error *err)
{
    char shape[128];
    uint64_t size = element_size(npy->descr, type);
    int n_long = 0;
    if (size == 0)
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, 0, "expected type %s, found '%s'%s",
                       type_name(type), npy->descr, descr_note(npy->descr));
    rp_npy_shape_text(npy, shape, sizeof shape);
    for (int i = 0; i < npy->n_dims; i++)
        n_long += npy->dims[i] > 1;
    if (npy->fortran_order && n_long > 1)
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, 0,
                       "expected C order, found Fortran order with shape %s: save "
                       "numpy.ascontiguousarray of it",
                       shape);
    uint64_t found = total >= npy->data_offset ? total - npy->data_offset : 0;
    const uint64_t expected = (uint64_t)npy->n_elements * size;
    if (expected != found)
        return rp_fail(err, RP_ERR_FORMAT, where, (long long)npy->data_offset,
                       "shape %s of '%s' needs %llu bytes of data, found %llu", shape, npy->descr,
                       (unsigned long long)expected, (unsigned long long)found);
    return RP_OK;
}

enum rp_status rp_npy_rows(const struct rp_npy *npy, const char *where, size_t *n, size_t *dim,
                           struct rp_error *err)
{
    char shape[128];
    int last = npy->n_dims - 1;
    *n = 0;
    *dim = 0;
    rp_npy_shape_text(npy, shape, sizeof shape);
    if (npy->n_dims < 1 || npy->n_dims > 3 || (npy->n_dims == 3 && npy->dims[0] != 1))
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, 0,
                       "expected shape (positions, dim), (dim,) or (1, positions, dim), found %s",
                       shape);
    uint64_t rows = npy->n_dims == 1 ? 1 : npy->dims[last - 1];
    if (rows == 0 || npy->dims[last] == 0)
        return rp_fail(err, RP_ERR_MISSING, where, 0, "there is nothing in it: shape %s", shape);
    if (npy->n_elements > SIZE_MAX / sizeof(float))
        return rp_fail(err, RP_ERR_UNSUPPORTED, where, 0, "shape %s does not fit into memory",
                       shape);
    *n = (size_t)rows;
    *dim = (size_t)npy->dims[last];
    return RP_OK;
}

void rp_npy_int64(const struct rp_npy *npy, const uint8_t *bytes, int64_t *values)
{
    const uint8_t *p = bytes + npy->data_offset;
    size_t size = strcmp(npy->descr, "<i4") == 0 ? 4 : 8;
    for (uint64_t i = 0; i < npy->n_elements; i++, p += size) {
        uint64_t bits = 0;
        for (size_t j = size; j > 0; j--)
            bits = bits << 8 | p[j - 1];
        if (size == 4 && bits >> 31)
            bits |= 0xffffffff00000000u;
        memcpy(&values[i], &bits, sizeof bits);
    }
}

char *rp_npy_shape_text(const struct rp_npy *npy, char *out, size_t size)
{
    size_t used = 1;
    snprintf(out, size, "(");
    for (int i = 0; i < npy->n_dims && used < size; i++) {
        int n = snprintf(out + used, size - used, "%s%llu%s", i ? ", " : "",
                         (unsigned long long)npy->dims[i], npy->n_dims == 1 ? "," : "");
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < size)
        snprintf(out + used, size - used, ")");
    return out;
}
