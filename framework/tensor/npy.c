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

/* "[('bfloat16', '<V2')]", as JAX and others name it: a structured type of this one field. */
static bool is_named_bf16(const char *text, size_t n)
{
    static const char *const spellings[] = {"[(bfloat16,<V2)]", "[(bfloat16,|V2)]",
                                            "[(bfloat16,V2)]", "[(bfloat16,<u2)]"};
    char plain[32];
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ' || text[i] == '\'' || text[i] == '"')
            continue;
        if (used + 1 == sizeof plain)
            return false;
        plain[used++] = text[i];
    }
    plain[used] = '\0';
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++)
        if (strcmp(plain, spellings[i]) == 0)
            return true;
    return false;
}

static enum rp_value_type type_of(const char *letter_and_size)
{
    static const struct {
        const char *name;
        enum rp_value_type type;
    } types[] = {
        {"f4", RP_VALUE_F32},  {"f8", RP_VALUE_F64}, {"f2", RP_VALUE_F16},
        {"V2", RP_VALUE_BF16}, /* ml_dtypes' bfloat16 is saved so; nothing else of 2 bytes is */
        {"i1", RP_VALUE_I8},   {"i2", RP_VALUE_I16}, {"i4", RP_VALUE_I32},
        {"i8", RP_VALUE_I64},  {"u1", RP_VALUE_U8},  {"u2", RP_VALUE_U16},
        {"u4", RP_VALUE_U32},  {"u8", RP_VALUE_U64}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(letter_and_size, types[i].name) == 0)
            return types[i].type;
    return RP_VALUE_OTHER;
}

/* What the common types that are no float are, and what to do about them. */
static const char *type_note(const char *descr)
{
    static const struct {
        const char *descr, *note;
    } notes[] = {{"|O", " (pickled Python objects, which are never loaded)"},
                 {"<u2",
                  " (uint16; of bfloat16's bits? then save it with ml_dtypes' bfloat16, or as "
                  "float32)"},
                 {"|V1", " (raw bytes of one; an 8-bit float? save it as float32)"},
                 {"<i8", " (int64)"},
                 {"[...]", " (a structured type)"}};
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++)
        if (strcmp(descr, notes[i].descr) == 0)
            return notes[i].note;
    return "";
}

static enum rp_status parse_descr(struct parser *p, struct rp_npy *npy)
{
    struct rp_array *array = &npy->array;
    enum rp_status code;
    skip_spaces(p);
    const char *start = p->at;
    if (p->at < p->end && *p->at == '[') {
        memcpy(array->type_name, "[...]", 6);
        code = skip_structured(p);
        if (!code && is_named_bf16(start, (size_t)(p->at - start)))
            memcpy(array->type_name, "bfloat16", 9);
    } else {
        code = parse_string(p, "a type such as '<f4'", array->type_name, sizeof array->type_name);
    }
    const char *name = array->type_name;
    const bool has_order = name[0] != '\0' && strchr("<>|", name[0]) != NULL;
    array->is_big_endian = name[0] == '>';
    array->note = type_note(name);
    array->type = strcmp(name, "bfloat16") == 0 ? RP_VALUE_BF16 : type_of(name + has_order);
    return code;
}

static enum rp_status parse_fortran_order(struct parser *p, struct rp_npy *npy)
{
    if (take_word(p, "True"))
        npy->array.is_fortran = true;
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
        if (npy->array.n_dims == RP_ARRAY_MAX_DIMS)
            return rp_fail(p->err, RP_ERR_UNSUPPORTED, p->where, (long long)p->base,
                           "npy header: expected at most %d dimensions", RP_ARRAY_MAX_DIMS);
        npy->array.dims[npy->array.n_dims++] = dim;
        if (take(p, ','))
            continue;
        if (npy->array.n_dims == 1)
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

static enum rp_status count_elements(const struct parser *p, struct rp_array *array)
{
    char shape[128];
    int is_empty = 0;
    array->n_elements = 1;
    for (int i = 0; i < array->n_dims; i++)
        is_empty |= array->dims[i] == 0;
    if (is_empty)
        array->n_elements = 0;
    for (int i = 0; i < array->n_dims && !is_empty; i++) {
        if (array->dims[i] > MAX_ELEMENTS / array->n_elements)
            return rp_fail(p->err, RP_ERR_FORMAT, p->where, (long long)p->base,
                           "npy header: shape %s has more than 2^60 elements",
                           rp_array_shape_text(array, shape, sizeof shape));
        array->n_elements *= array->dims[i];
    }
    return RP_OK;
}

enum rp_status rp_npy_parse(const uint8_t *bytes, size_t n, const char *where, struct rp_npy *npy,
                            struct rp_error *err)
{
    static const uint8_t magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
    memset(npy, 0, sizeof *npy);
    npy->array.note = "";
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
    return count_elements(&p, &npy->array);
}

enum rp_status rp_npy_check(const struct rp_npy *npy, uint64_t total, const char *where,
                            struct rp_error *err)
{
    char shape[128];
    const uint64_t size = rp_value_size(npy->array.type);
    const uint64_t found = total >= npy->data_offset ? total - npy->data_offset : 0;
    const uint64_t expected = npy->array.n_elements * size;
    if (size == 0 || expected == found)
        return RP_OK;
    return rp_fail(err, RP_ERR_FORMAT, where, (long long)npy->data_offset,
                   "shape %s of '%s' needs %llu bytes of data, found %llu",
                   rp_array_shape_text(&npy->array, shape, sizeof shape), npy->array.type_name,
                   (unsigned long long)expected, (unsigned long long)found);
}
