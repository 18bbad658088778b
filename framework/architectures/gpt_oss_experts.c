/* See architectures/gpt_oss_experts.h. HF: GptOssExperts, convert_moe_packed_tensors of its integration of MXFP4. */
#include "architectures/gpt_oss_experts.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/quants.h"

#define BLOCK 32 /* values of MXFP4 that share a scale */
#define BLOCK_BYTES 16

static enum rp_status check_shape(const struct rp_checkpoint_tensor *tensor, const size_t *dims,
                                  unsigned n_dims, struct rp_error *err)
{
    const struct rp_safetensor *data = tensor->tensor;
    char expected[128] = "";
    bool is_right = data->n_dims == n_dims;
    for (unsigned i = 0; i < n_dims; i++) {
        const size_t used = strlen(expected);
        snprintf(expected + used, sizeof expected - used, "[%zu]", dims[i]);
        is_right = is_right && data->dims[i] == dims[i];
    }
    if (!is_right)
        return rp_fail(err, RP_ERR_MISMATCH, rp_safetensors_path(tensor->file),
                       (long long)data->offset, "tensor '%s': expected the shape %s", data->name,
                       expected);
    if (tensor->sketch.data)
        return rp_fail(err, RP_ERR_UNSUPPORTED, rp_safetensors_path(tensor->file),
                       (long long)data->offset,
                       "tensor '%s' is sketched; experts have to be there whole", data->name);
    return RP_OK;
}

static enum rp_status check_bytes(const struct rp_checkpoint_tensor *tensor, struct rp_error *err)
{
    const struct rp_safetensor *data = tensor->tensor;
    if (strcmp(data->type_name, "U8") == 0 && data->n_bytes == data->n_values)
        return RP_OK;
    return rp_fail(err, RP_ERR_UNSUPPORTED, rp_safetensors_path(tensor->file),
                   (long long)data->offset, "tensor '%s' is of dtype %s; MXFP4 is read as U8",
                   data->name, data->type_name);
}

enum rp_status rp_gpt_oss_experts_find(const struct rp_checkpoint *checkpoint, const char *name,
                                       struct rp_gpt_oss_experts *experts, struct rp_error *err)
{
    char blocks[RP_SAFETENSORS_NAME_SIZE], scales[RP_SAFETENSORS_NAME_SIZE];
    const bool is_bias = experts->n_in == 1;
    const size_t n_groups = experts->n_in / BLOCK;
    const size_t of_bias[] = {experts->n_experts, experts->n_all};
    const size_t of_values[] = {experts->n_experts, experts->n_in, experts->n_all};
    const size_t of_blocks[] = {experts->n_experts, experts->n_all, n_groups, BLOCK_BYTES};
    snprintf(blocks, sizeof blocks, "%s_blocks", name);
    snprintf(scales, sizeof scales, "%s_scales", name);
    experts->values = rp_checkpoint_find(checkpoint, name);
    experts->blocks = experts->values ? NULL : rp_checkpoint_find(checkpoint, blocks);
    experts->scales = experts->values ? NULL : rp_checkpoint_find(checkpoint, scales);
    if (experts->values) {
        const enum rp_status status =
            check_shape(experts->values, is_bias ? of_bias : of_values, is_bias ? 2 : 3, err);
        if (status == RP_OK && experts->values->tensor->type == RP_SAFETENSORS_OTHER)
            return rp_safetensors_values(experts->values->file, experts->values->tensor, 0, 1, NULL,
                                         err);
        return status;
    }
    if (is_bias || !experts->blocks || !experts->scales || experts->n_in % BLOCK != 0)
        return rp_fail(err, RP_ERR_MISSING, rp_checkpoint_path(checkpoint), -1,
                       is_bias ? "tensor '%s' is missing"
                               : "tensor '%s' is missing, and so are its blocks and scales",
                       name);
    enum rp_status status = check_shape(experts->blocks, of_blocks, 4, err);
    if (status == RP_OK)
        status = check_shape(experts->scales, of_blocks, 3, err);
    if (status == RP_OK)
        status = check_bytes(experts->blocks, err);
    if (status == RP_OK)
        status = check_bytes(experts->scales, err);
    return status;
}

/* Row `row` of n_experts * n_all. HF has the values of a byte side by side, ggml 16 values apart. */
static void decode_row(const struct rp_gpt_oss_experts *experts, size_t row, float *out)
{
    const size_t n_groups = experts->n_in / BLOCK;
    const unsigned char *blocks = experts->blocks->tensor->data + row * n_groups * BLOCK_BYTES;
    const unsigned char *scales = experts->scales->tensor->data + row * n_groups;
    for (size_t group = 0; group < n_groups; group++, blocks += BLOCK_BYTES, out += BLOCK) {
        unsigned char block[1 + BLOCK_BYTES] = {scales[group]};
        for (size_t i = 0; i < BLOCK; i++) {
            const unsigned number = (unsigned)blocks[i / 2] >> i % 2 * 4 & 0x0fu;
            block[1 + i % BLOCK_BYTES] |= (unsigned char)(number << i / BLOCK_BYTES * 4);
        }
        rp_decode_mxfp4(block, BLOCK, out);
    }
}

/* n rows of one expert, which are columns of its matrix: of each of the matrix' rows a part is read. */
static enum rp_status transposed_rows(const struct rp_gpt_oss_experts *experts, size_t expert,
                                      size_t row, size_t n, float *part, float *out,
                                      struct rp_error *err)
{
    const struct rp_checkpoint_tensor *values = experts->values;
    const size_t n_read = (n - 1) * experts->step + 1;
    enum rp_status status = RP_OK;
    for (size_t k = 0; k < experts->n_in && status == RP_OK; k++) {
        const size_t at =
            (expert * experts->n_in + k) * experts->n_all + experts->first + row * experts->step;
        status = rp_safetensors_values(values->file, values->tensor, at, n_read, part, err);
        for (size_t i = 0; i < n && status == RP_OK; i++)
            out[i * experts->n_in + k] = part[i * experts->step];
    }
    return status;
}

enum rp_status rp_gpt_oss_experts_rows(const struct rp_gpt_oss_experts *experts, size_t first,
                                       size_t n, float *out, struct rp_error *err)
{
    const size_t n_rows = experts->n_experts * experts->n_out;
    float *part = NULL;
    enum rp_status status = RP_OK;
    if (first > n_rows || n > n_rows - first)
        return rp_fail(err, RP_ERR_ARGUMENT, NULL, -1, "%zu rows from row %zu of %zu", n, first,
                       n_rows);
    if (experts->values && !(part = malloc((experts->n_all + 1) * sizeof *part)))
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu values", experts->n_all);
    for (size_t i = 0, n_now; i < n && status == RP_OK; i += n_now) {
        const size_t expert = (first + i) / experts->n_out, row = (first + i) % experts->n_out;
        float *to = out + i * experts->n_in;
        n_now = experts->n_out - row < n - i ? experts->n_out - row : n - i;
        if (experts->values)
            status = transposed_rows(experts, expert, row, n_now, part, to, err);
        for (size_t k = 0; k < n_now && !experts->values; k++)
            decode_row(experts,
                       expert * experts->n_all + experts->first + (row + k) * experts->step,
                       to + k * experts->n_in);
    }
    free(part);
    return status;
}
