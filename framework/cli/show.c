/* refparity show: what is in a file. */
#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "base/utf8.h"
#include "cli/path_kind.h"
#include "refparity/compare.h"
#include "refparity/gguf.h"
#include "tensor/npy.h"

static const char help[] =
    "usage: refparity show FILE\n"
    "\n"
    "FILE is a fixture (.npz), a dump folder, a file .npy, or a GGUF. Of the first two: the\n"
    "manifest, the token ids, and for each slot its shape, positions, norms and values that\n"
    "are not finite. Of an npy: its shape, type, first values, and how many are finite. Of a\n"
    "GGUF: its metadata and its tensors.\n"
    "\n"
    "exit codes: 0 all of it could be read, 2 not\n";

static int show_gguf(const char *path)
{
    struct rp_gguf *gguf;
    struct rp_error err;
    if (rp_gguf_open(path, &gguf, &err))
        return rp_cli_error(&err);
    char text[160];
    printf("%s: GGUF, %zu metadata values, %zu tensors", rp_gguf_path(gguf), rp_gguf_n_values(gguf),
           rp_gguf_n_tensors(gguf));
    if (rp_gguf_n_shards(gguf) > 1)
        printf(" in %zu shards", rp_gguf_n_shards(gguf));
    fputs("\n\n", stdout);
    for (size_t i = 0; i < rp_gguf_n_values(gguf); i++) {
        const struct rp_gguf_value *value = rp_gguf_value(gguf, i);
        printf("%.*s = %s\n", (int)value->key.length, value->key.data,
               rp_gguf_value_text(gguf, value, text, sizeof text));
    }
    putchar('\n');
    for (size_t i = 0; i < rp_gguf_n_tensors(gguf); i++) {
        const struct rp_gguf_tensor *tensor = rp_gguf_tensor(gguf, i);
        printf("%-32s %-6s [", tensor->name, rp_ggml_type_name(tensor->type));
        for (unsigned d = tensor->n_dims; d > 0; d--) /* rows first, as numpy has it */
            printf("%zu%s", tensor->dims[d - 1], d > 1 ? ", " : "]\n");
    }
    rp_gguf_close(gguf);
    return RP_EXIT_PASS;
}

enum { FIRST_VALUES = 8 };

/* data: n_elements FP32, not aligned */
static void show_floats(const unsigned char *data, uint64_t n_elements)
{
    const size_t n = (size_t)n_elements;
    printf("  %zu of %zu values are finite; the first:", n - rp_metrics_count_nonfinite(data, n),
           n);
    for (size_t i = 0; i < n && i < FIRST_VALUES; i++) {
        float value;
        memcpy(&value, data + i * sizeof value, sizeof value);
        printf(" %.7g", (double)value);
    }
    puts(n > FIRST_VALUES ? " ..." : "");
}

static enum rp_status show_ids(const struct rp_npy *npy, const unsigned char *bytes,
                               struct rp_error *err)
{
    int64_t *ids = calloc((size_t)npy->n_elements + 1, sizeof *ids);
    if (!ids)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    rp_npy_int64(npy, bytes, ids);
    printf("  the first:");
    for (size_t i = 0; i < npy->n_elements && i < 2 * FIRST_VALUES; i++)
        printf(" %lld", (long long)ids[i]);
    puts(npy->n_elements > 2 * FIRST_VALUES ? " ..." : "");
    free(ids);
    return RP_OK;
}

static enum rp_status show_array(const char *path, const unsigned char *bytes, size_t size,
                                 struct rp_error *err)
{
    struct rp_npy npy;
    char shape[256], type[RP_SHOWN_SIZE];
    enum rp_status status = rp_npy_parse(bytes, size, path, &npy, err);
    if (status != RP_OK)
        return status;
    printf("%s: npy, shape %s, type %s%s\n", path, rp_npy_shape_text(&npy, shape, sizeof shape),
           rp_shown(npy.descr, type), npy.fortran_order ? ", in Fortran's order" : "");
    if (rp_npy_check(&npy, RP_NPY_INT64, size, path, NULL) == RP_OK)
        return show_ids(&npy, bytes, err);
    status = rp_npy_check(&npy, RP_NPY_FLOAT32, size, path, err);
    if (status == RP_OK)
        show_floats(bytes + npy.data_offset, npy.n_elements);
    return status;
}

static int show_npy(const char *path)
{
    const void *bytes;
    size_t size;
    struct rp_error err;
    enum rp_status status = rp_file_map(path, &bytes, &size, &err);
    if (status != RP_OK)
        return rp_cli_error(&err);
    status = show_array(path, bytes, size, &err);
    rp_file_unmap(bytes, size);
    return status == RP_OK ? RP_EXIT_PASS : rp_cli_error(&err);
}

static void show_positions(const struct rp_slot_info *slot)
{
    const size_t n = slot->n_positions;
    if (n == 0)
        fputs("none", stdout);
    else if (slot->positions[n - 1] - slot->positions[0] == (int64_t)n - 1)
        printf("%lld..%lld", (long long)slot->positions[0], (long long)slot->positions[n - 1]);
    else
        printf("%lld..%lld with gaps", (long long)slot->positions[0],
               (long long)slot->positions[n - 1]);
}

static int show_slot(struct rp_tensor_set *set, const struct rp_slot_info *slot)
{
    struct rp_tensor tensor;
    struct rp_error err;
    char text[2300];
    if (rp_tensor_load(set, slot->name, &tensor, &err)) {
        printf("%-12s error: %s\n", slot->name, rp_error_text(&err, text, sizeof text));
        return RP_EXIT_ERROR;
    }
    double norm2 = 0;
    size_t n_nonfinite = 0;
    for (size_t i = 0; i < tensor.n_positions; i++) {
        const char *row = (const char *)tensor.data + i * tensor.dim * sizeof(float);
        const struct rp_metrics m = rp_metrics_row(row, row, tensor.dim);
        norm2 += m.ref_finite ? m.norm_ref * m.norm_ref : 0;
        n_nonfinite += m.ref_finite ? 0 : rp_metrics_count_nonfinite(row, tensor.dim);
    }
    const double n_values = (double)tensor.n_positions * (double)tensor.dim;
    printf("%-12s [%zu][%zu]  rms %.5g  positions ", slot->name, tensor.n_positions, tensor.dim,
           n_values > 0 ? sqrt(norm2 / n_values) : 0);
    show_positions(slot);
    if (n_nonfinite)
        printf("  %zu values are not finite", n_nonfinite);
    putchar('\n');
    rp_tensor_release(&tensor);
    return RP_EXIT_PASS;
}

static int show_tokens(const struct rp_tensor_set *set)
{
    const int64_t *ids;
    size_t n;
    struct rp_error err;
    if (rp_tensor_set_tokens(set, &ids, &n, &err))
        return rp_cli_error(&err);
    if (!ids) {
        puts("tokens       none");
        return RP_EXIT_PASS;
    }
    printf("tokens       %zu:", n);
    for (size_t i = 0; i < n && i < 16; i++)
        printf(" %lld", (long long)ids[i]);
    puts(n > 16 ? " ..." : "");
    return RP_EXIT_PASS;
}

enum { LONGEST_VALUE = 300 };

/* A key a line: its value as JSON, cut where that is long. */
static void show_manifest(const char *text, size_t length)
{
    cJSON *root = cJSON_ParseWithLength(text, length);
    for (const cJSON *item = root ? root->child : NULL; item; item = item->next) {
        char shown[RP_SHOWN_SIZE], *value = cJSON_PrintUnformatted(item);
        const size_t n = value ? strlen(value) : 0;
        printf("  %s: %.*s%s\n", rp_shown(item->string, shown), LONGEST_VALUE, value ? value : "",
               n > LONGEST_VALUE ? " ..." : "");
        free(value);
    }
    cJSON_Delete(root);
}

static int show_set(const char *path)
{
    static const char *const layouts[] = {
        [RP_LAYOUT_AUTO] = "?",
        [RP_LAYOUT_NPZ] = "npz",
        [RP_LAYOUT_NPY] = "dump folder of .npy files",
        [RP_LAYOUT_BIN] = "dump folder of .bin files",
    };
    struct rp_tensor_set *set;
    struct rp_error err;
    if (rp_tensor_set_open(path, RP_LAYOUT_AUTO, 0, &set, &err))
        return rp_cli_error(&err);
    size_t length;
    const char *manifest = rp_tensor_set_manifest(set, &length);
    printf("%s: %s, %zu slots%s\n", path, layouts[rp_tensor_set_layout(set)],
           rp_tensor_set_n_slots(set),
           rp_tensor_set_complete(set) ? "" : ", incomplete: the engine did not finish it");
    if (manifest)
        show_manifest(manifest, length);
    int code = show_tokens(set);
    for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
        const int slot_code = show_slot(set, rp_tensor_set_slot(set, i));
        code = code ? code : slot_code;
    }
    rp_tensor_set_close(set);
    return code;
}

int rp_cli_show(int argc, char **argv)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(help, stdout);
        return RP_EXIT_PASS;
    }
    if (argc != 2)
        return rp_cli_usage_error("show", "expected FILE, found %d arguments", argc - 1);
    switch (rp_path_kind(argv[1])) {
    case RP_PATH_GGUF: return show_gguf(argv[1]);
    case RP_PATH_NPY: return show_npy(argv[1]);
    default: return show_set(argv[1]);
    }
}
