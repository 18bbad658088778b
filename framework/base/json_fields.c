/* See json_fields.h. cJSON prints a number by 15 digits where that is near enough; here it has to be the
 * same number, so all 17 are written. JSON has no NaN and no infinity: they are strings, and so is a
 * text that is not UTF-8, as {"bytes": hex}. */
#include "base/json_fields.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* 2^53: whole numbers up to here are themselves as a double. */
#define EXACT (1LL << 53)

/* ---- writing ---- */

static cJSON *double_json(double value)
{
    char text[40];
    if (isnan(value))
        return cJSON_CreateString(signbit(value) ? "-nan" : "nan");
    if (isinf(value))
        return cJSON_CreateString(value < 0 ? "-inf" : "inf");
    snprintf(text, sizeof text, "%.17g", value);
    return cJSON_CreateRaw(text);
}

static cJSON *text_json(const char *text)
{
    const size_t length = strlen(text);
    if (rp_utf8_valid_length(text, length) == length)
        return cJSON_CreateString(text);
    char *hex = malloc(2 * length + 1);
    cJSON *object = cJSON_CreateObject();
    for (size_t i = 0; hex && i < length; i++)
        snprintf(hex + 2 * i, 3, "%02x", (unsigned)(unsigned char)text[i]);
    if (!hex || !cJSON_AddStringToObject(object, "bytes", hex)) {
        cJSON_Delete(object);
        object = NULL;
    }
    free(hex);
    return object;
}

/* An unsigned one beyond a long long's range is negative here, and refused as that. */
static long long integer_at(const void *at, const struct rp_field *field)
{
    int narrow = 0;
    unsigned narrow_unsigned = 0;
    long long wide = 0;
    if (field->size != sizeof narrow) {
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
    memcpy(&narrow, at, sizeof narrow);
    memcpy(&narrow_unsigned, at, sizeof narrow_unsigned);
    return field->kind == RP_FIELD_SIGNED ? narrow : (long long)narrow_unsigned;
}

static cJSON *integer_json(long long value, bool may_be_negative, bool *fits)
{
    *fits = *fits && value <= EXACT && value >= (may_be_negative ? -EXACT : 0);
    return double_json((double)value);
}

static size_t count_of(const void *object, const struct rp_field *field)
{
    size_t n;
    memcpy(&n, (const char *)object + field->count, sizeof n);
    return n;
}

/* Integers or doubles; NULL where one of them cannot be held. */
static cJSON *array_json(const void *object, const struct rp_field *field, bool *fits)
{
    const void *values;
    cJSON *array = cJSON_CreateArray();
    memcpy(&values, (const char *)object + field->offset, sizeof values);
    for (size_t i = 0, n = count_of(object, field); array && i < n; i++) {
        cJSON *item = field->kind == RP_FIELD_DOUBLES
                          ? double_json(((const double *)values)[i])
                          : integer_json(((const int64_t *)values)[i], true, fits);
        if (!item || !cJSON_AddItemToArray(array, item)) {
            cJSON_Delete(array);
            array = NULL;
        }
    }
    return array;
}

static cJSON *field_json(const void *object, const struct rp_field *field, bool *fits)
{
    const char *at = (const char *)object + field->offset;
    double number = 0;
    bool truth;
    switch (field->kind) {
    case RP_FIELD_TEXT: return text_json(at);
    case RP_FIELD_BOOL: memcpy(&truth, at, sizeof truth); return cJSON_CreateBool(truth);
    case RP_FIELD_INTEGERS:
    case RP_FIELD_DOUBLES: return array_json(object, field, fits);
    case RP_FIELD_DOUBLE: memcpy(&number, at, sizeof number); return double_json(number);
    case RP_FIELD_SIGNED: return integer_json(integer_at(at, field), true, fits);
    case RP_FIELD_UNSIGNED: return integer_json(integer_at(at, field), false, fits);
    }
    return NULL;
}

enum rp_status rp_fields_write(const void *object, const struct rp_field *fields, size_t n,
                               cJSON *json, struct rp_error *err)
{
    for (size_t i = 0; i < n; i++) {
        bool fits = true;
        cJSON *value = field_json(object, &fields[i], &fits);
        if (!fits) {
            cJSON_Delete(value);
            return rp_fail(err, RP_ERR_UNSUPPORTED, NULL, -1,
                           "\"%s\" has a number beyond 2^53, which JSON does not hold exactly",
                           fields[i].name);
        }
        if (!value || !cJSON_AddItemToObject(json, fields[i].name, value)) {
            cJSON_Delete(value);
            return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory to write \"%s\"",
                           fields[i].name);
        }
    }
    return RP_OK;
}

/* ---- reading ---- */

static bool read_double(const cJSON *json, double *out)
{
    const char *text = cJSON_GetStringValue(json);
    if (cJSON_IsNumber(json))
        *out = json->valuedouble;
    else if (text && strcmp(text, "nan") == 0)
        *out = (double)NAN;
    else if (text && strcmp(text, "-nan") == 0)
        *out = copysign((double)NAN, -1.0);
    else if (text && (strcmp(text, "inf") == 0 || strcmp(text, "-inf") == 0))
        *out = text[0] == '-' ? -(double)INFINITY : (double)INFINITY;
    else
        return false;
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_text(const cJSON *json, char *out, size_t size)
{
    const char *text = cJSON_GetStringValue(json);
    if (text) {
        const size_t length = strlen(text);
        if (length < size)
            memcpy(out, text, length + 1);
        return length < size;
    }
    text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "bytes"));
    const size_t length = text ? strlen(text) : 1;
    if (length % 2 != 0 || length / 2 >= size || cJSON_GetArraySize(json) != 1)
        return false;
    for (size_t i = 0; i < length / 2; i++) {
        const int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0 || high + low == 0)
            return false;
        out[i] = (char)(high * 16 + low);
    }
    out[length / 2] = '\0';
    return true;
}

static bool read_integer(const cJSON *json, const struct rp_field *field, char *at)
{
    long long value, low = field->kind == RP_FIELD_SIGNED ? -EXACT : 0, high = EXACT;
    if (field->size == sizeof(int)) {
        low = field->kind == RP_FIELD_SIGNED ? INT32_MIN : 0;
        high = field->kind == RP_FIELD_SIGNED ? INT32_MAX : UINT32_MAX;
    }
    if (field->n_values)
        high = (long long)field->n_values - 1;
    if (!rp_json_int(json, low, high, &value))
        return false;
    const int narrow_signed = (int)value;
    const unsigned narrow = (unsigned)value;
    if (field->size != sizeof narrow)
        memcpy(at, &value, sizeof value);
    else if (field->kind == RP_FIELD_SIGNED)
        memcpy(at, &narrow_signed, sizeof narrow_signed);
    else
        memcpy(at, &narrow, sizeof narrow);
    return true;
}

static enum rp_status read_array(const cJSON *json, const struct rp_field *field, void *object,
                                 bool *well)
{
    const size_t n = count_of(object, field);
    const cJSON *item;
    size_t i = 0;
    if (!cJSON_IsArray(json) || (size_t)cJSON_GetArraySize(json) != n) {
        *well = false;
        return RP_OK;
    }
    void *values = calloc(n + 1, sizeof(double));
    if (!values)
        return RP_ERR_MEMORY;
    memcpy((char *)object + field->offset, &values, sizeof values);
    cJSON_ArrayForEach(item, json)
    {
        long long whole = 0;
        if (field->kind == RP_FIELD_DOUBLES) {
            *well = *well && read_double(item, &((double *)values)[i]);
        } else {
            *well = *well && rp_json_int(item, -EXACT, EXACT, &whole);
            ((int64_t *)values)[i] = whole;
        }
        i++;
    }
    return RP_OK;
}

/* *well: the value is what the field can hold. */
static enum rp_status read_field(const cJSON *json, const struct rp_field *field, void *object,
                                 bool *well)
{
    char *at = (char *)object + field->offset;
    double number = 0;
    bool truth;
    switch (field->kind) {
    case RP_FIELD_TEXT: *well = read_text(json, at, field->size); break;
    case RP_FIELD_BOOL:
        truth = cJSON_IsTrue(json);
        *well = cJSON_IsBool(json);
        memcpy(at, &truth, sizeof truth);
        break;
    case RP_FIELD_DOUBLE:
        *well = read_double(json, &number);
        memcpy(at, &number, sizeof number);
        break;
    case RP_FIELD_SIGNED:
    case RP_FIELD_UNSIGNED: *well = read_integer(json, field, at); break;
    case RP_FIELD_INTEGERS:
    case RP_FIELD_DOUBLES: return read_array(json, field, object, well);
    }
    return RP_OK;
}

enum rp_status rp_fields_read(const struct rp_json *doc, const cJSON *json,
                              const struct rp_field *fields, size_t n, void *object,
                              struct rp_error *err)
{
    if (!cJSON_IsObject(json))
        return rp_json_fail(doc, json ? json : rp_json_root(doc), err, RP_ERR_FORMAT,
                            "expected an object");
    /* No key stands there twice: the scanner refuses that. So n known ones are all. */
    if ((size_t)cJSON_GetArraySize(json) != n)
        return rp_json_fail(doc, json, err, RP_ERR_FORMAT, "expected %zu members, found %d", n,
                            cJSON_GetArraySize(json));
    for (size_t i = 0; i < n; i++) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(json, fields[i].name);
        bool well = true;
        const enum rp_status status = value ? read_field(value, &fields[i], object, &well) : RP_OK;
        if (status)
            return rp_fail(err, status, NULL, -1, "not enough memory to read \"%s\"",
                           fields[i].name);
        if (!value || !well)
            return rp_json_fail(doc, value ? value : json, err, RP_ERR_FORMAT,
                                value ? "\"%s\" is not what it can be" : "\"%s\" is missing",
                                fields[i].name);
    }
    return RP_OK;
}
