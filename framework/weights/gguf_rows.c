/* The tensors of an open GGUF file: lookup by name, types, and rows decoded to FP32.
 * What a block of a type looks like is in quants.c and quants_k.c. */
#include <math.h>
#include <stdlib.h>

#include "base/avx2.h"
#include "formats/quants.h"
#include "weights/gguf_internal.h"

struct type_layout {
    const char *name; /* NULL: ggml has no such type, or no longer */
    uint16_t block_values, block_bytes;
};

static const struct type_layout type_layouts[] = {
    [0] = {"F32", 1, 4},         [1] = {"F16", 1, 2},         [2] = {"Q4_0", 32, 18},
    [3] = {"Q4_1", 32, 20},      [6] = {"Q5_0", 32, 22},      [7] = {"Q5_1", 32, 24},
    [8] = {"Q8_0", 32, 34},      [9] = {"Q8_1", 32, 40},      [10] = {"Q2_K", 256, 84},
    [11] = {"Q3_K", 256, 110},   [12] = {"Q4_K", 256, 144},   [13] = {"Q5_K", 256, 176},
    [14] = {"Q6_K", 256, 210},   [15] = {"Q8_K", 256, 292},   [16] = {"IQ2_XXS", 256, 66},
    [17] = {"IQ2_XS", 256, 74},  [18] = {"IQ3_XXS", 256, 98}, [19] = {"IQ1_S", 256, 50},
    [20] = {"IQ4_NL", 32, 18},   [21] = {"IQ3_S", 256, 110},  [22] = {"IQ2_S", 256, 82},
    [23] = {"IQ4_XS", 256, 136}, [24] = {"I8", 1, 1},         [25] = {"I16", 1, 2},
    [26] = {"I32", 1, 4},        [27] = {"I64", 1, 8},        [28] = {"F64", 1, 8},
    [29] = {"IQ1_M", 256, 56},   [30] = {"BF16", 1, 2},       [34] = {"TQ1_0", 256, 54},
    [35] = {"TQ2_0", 256, 66},   [39] = {"MXFP4", 32, 17},    [40] = {"NVFP4", 64, 36},
    [41] = {"Q1_0", 128, 18},
};

static bool is_known(uint32_t type)
{
    return type < sizeof type_layouts / sizeof *type_layouts && type_layouts[type].name;
}

bool rp_ggml_type_layout(uint32_t type, size_t *block_values, size_t *block_bytes)
{
    if (!is_known(type))
        return false;
    *block_values = type_layouts[type].block_values;
    *block_bytes = type_layouts[type].block_bytes;
    return true;
}

const char *rp_ggml_type_name(uint32_t type)
{
    return is_known(type) ? type_layouts[type].name : "unknown";
}

size_t rp_gguf_n_tensors(const struct rp_gguf *gguf)
{
    return gguf->n_tensors;
}

const struct rp_gguf_tensor *rp_gguf_tensor(const struct rp_gguf *gguf, size_t index)
{
    return &gguf->tensors[index];
}

static int compare_name(const void *name, const void *element)
{
    const struct rp_gguf_tensor *const *tensor = element;
    return strcmp(name, (*tensor)->name);
}

const struct rp_gguf_tensor *rp_gguf_find_tensor(const struct rp_gguf *gguf, const char *name)
{
    const struct rp_gguf_tensor **found = bsearch(name, gguf->tensors_by_name, gguf->n_tensors,
                                                  sizeof(struct rp_gguf_tensor *), compare_name);
    return found ? *found : NULL;
}

bool rp_gguf_type_has_minima(uint32_t type)
{
    return type == RP_GGML_Q4_1 || type == RP_GGML_Q5_1;
}

void rp_gguf_minima(const struct rp_gguf_tensor *tensor, size_t first, size_t n, float *minima)
{
    const size_t n_values = (size_t)tensor->dims[0], n_blocks = n_values / 32;
    for (size_t row = 0; row < n; row++)
        rp_block_minima(tensor->data + (first + row) * tensor->row_bytes, n_values,
                        tensor->row_bytes / (n_blocks ? n_blocks : 1), minima + row * n_blocks);
}

static rp_decode_fn *decoder(uint32_t type)
{
    switch (type) {
    case RP_GGML_F32: return rp_decode_f32;
    case RP_GGML_F16: return rp_decode_f16;
    case RP_GGML_BF16: return rp_decode_bf16;
    case RP_GGML_Q4_0: return rp_decode_q4_0;
    case RP_GGML_Q4_1: return rp_decode_q4_1;
    case RP_GGML_Q5_0: return rp_decode_q5_0;
    case RP_GGML_Q5_1: return rp_decode_q5_1;
    case RP_GGML_Q8_0: return rp_decode_q8_0;
    case RP_GGML_IQ4_NL: return rp_decode_iq4_nl;
    case RP_GGML_Q2_K: return rp_decode_q2_k;
    case RP_GGML_Q3_K: return rp_decode_q3_k;
    case RP_GGML_Q4_K: return rp_decode_q4_k;
    case RP_GGML_Q5_K: return rp_decode_q5_k;
    case RP_GGML_Q6_K: return rp_decode_q6_k;
    case RP_GGML_IQ4_XS: return rp_decode_iq4_xs;
    case RP_GGML_IQ1_S: return rp_decode_iq1_s;
    case RP_GGML_IQ1_M: return rp_decode_iq1_m;
    case RP_GGML_IQ2_XXS: return rp_decode_iq2_xxs;
    case RP_GGML_IQ2_XS: return rp_decode_iq2_xs;
    case RP_GGML_IQ2_S: return rp_decode_iq2_s;
    case RP_GGML_IQ3_XXS: return rp_decode_iq3_xxs;
    case RP_GGML_IQ3_S: return rp_decode_iq3_s;
    case RP_GGML_TQ1_0: return rp_decode_tq1_0;
    case RP_GGML_TQ2_0: return rp_decode_tq2_0;
    case RP_GGML_MXFP4: return rp_decode_mxfp4;
    case RP_GGML_NVFP4: return rp_decode_nvfp4;
    default: return NULL;
    }
}

bool rp_ggml_type_is_readable(uint32_t type)
{
    return decoder(type) != NULL;
}

#define LANES 8
#define EXPONENT 0x7f800000u /* NaN and infinity alone have all its bits set */

typedef uint32_t lane_bits __attribute__((vector_size(LANES * sizeof(uint32_t))));

RP_LOOP void are_all_finite_loop(const float *values, size_t n, bool *are_finite)
{
    lane_bits found = {0}, bits;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        memcpy(&bits, values + i, sizeof bits);
        found |= (lane_bits)((bits & EXPONENT) == EXPONENT);
    }
    *are_finite = true;
    for (size_t lane = 0; lane < LANES; lane++)
        *are_finite &= found[lane] == 0;
    for (; i < n; i++)
        *are_finite &= isfinite(values[i]) != 0;
}
RP_COMPILE_TWICE(static, are_all_finite, (const float *values, size_t n, bool *are_finite),
                 (values, n, are_finite))

/* A weight that is no number is a fault of the file: an engine that computes with it is right. */
static enum rp_status check_finite(const struct rp_gguf *gguf, const struct rp_gguf_tensor *tensor,
                                   size_t row, const float *values, struct rp_error *err)
{
    const size_t n = tensor->dims[0];
    bool are_finite;
    are_all_finite(values, n, &are_finite);
    if (are_finite)
        return RP_OK;
    size_t first = 0;
    while (isfinite(values[first]))
        first++;
    return rp_fail(
        err, RP_ERR_FORMAT, rp_gguf_tensor_path(gguf, tensor), (long long)tensor->offset,
        "tensor '%s' is %g at element %zu (row %zu, column %zu), expected finite numbers",
        tensor->name, (double)values[first], row * n + first, row, first);
}

enum rp_status rp_gguf_rows(const struct rp_gguf *gguf, const struct rp_gguf_tensor *tensor,
                            size_t first, size_t n, float *out, struct rp_error *err)
{
    rp_decode_fn *decode = decoder(tensor->type);
    if (!decode)
        return rp_fail(err, RP_ERR_UNSUPPORTED, rp_gguf_tensor_path(gguf, tensor),
                       (long long)tensor->offset,
                       "tensor '%s': weights of type %s (%u) cannot be decoded", tensor->name,
                       rp_ggml_type_name(tensor->type), tensor->type);
    if (first > tensor->n_rows || n > tensor->n_rows - first)
        return rp_fail(err, RP_ERR_ARGUMENT, rp_gguf_tensor_path(gguf, tensor),
                       (long long)tensor->offset,
                       "%zu rows from row %zu of tensor '%s', which has %zu", n, first,
                       tensor->name, tensor->n_rows);
    const size_t n_values = (size_t)tensor->dims[0];
    enum rp_status status = RP_OK;
    if (gguf->source.rows)
        status = gguf->source.rows(gguf->source.context, (size_t)(tensor - gguf->tensors), first, n,
                                   out, err);
    for (size_t row = 0; row < n && status == RP_OK; row++) {
        float *values = out + row * n_values;
        if (!gguf->source.rows)
            decode(tensor->data + (first + row) * tensor->row_bytes, n_values, values);
        status = check_finite(gguf, tensor, first + row, values, err);
    }
    return status;
}

enum rp_status rp_gguf_row(const struct rp_gguf *gguf, const struct rp_gguf_tensor *tensor,
                           size_t row, float *out, struct rp_error *err)
{
    return rp_gguf_rows(gguf, tensor, row, 1, out, err);
}
