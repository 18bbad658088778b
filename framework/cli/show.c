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

/* "[64, 128]": rows first, as numpy has it. */
static const char *shape_text(const struct rp_gguf_tensor *tensor, char *out, size_t size)
{
    size_t n = 0;
    for (unsigned d = tensor->n_dims; d > 0 && n < size; d--)
        n += (size_t)snprintf(out + n, size - n, "%s%zu", d == tensor->n_dims ? "[" : ", ",
                              tensor->dims[d - 1]);
    if (n < size)
        snprintf(out + n, size - n, "]");
    return out;
}

static void show_tensors(const struct rp_terminal *out, const struct rp_gguf *gguf)
{
    static const size_t longest = 60;
    struct rp_column columns[] = {{"tensor", 6, true}, {"type", 7, true}, {"shape", 0, true}};
    for (size_t i = 0; i < rp_gguf_n_tensors(gguf); i++) {
        const size_t width = rp_print_width(rp_gguf_tensor(gguf, i)->name);
        if (width > columns[0].width)
            columns[0].width = width < longest ? width : longest;
    }
    rp_table_heading(out, columns, 3);
    for (size_t i = 0; i < rp_gguf_n_tensors(gguf); i++) {
        const struct rp_gguf_tensor *tensor = rp_gguf_tensor(gguf, i);
        char shape[128];
        rp_table_row(
            out, columns, 3,
            (const struct rp_cell[]){{tensor->name, RP_STYLE_PLAIN},
                                     {rp_ggml_type_name(tensor->type), RP_STYLE_PLAIN},
                                     {shape_text(tensor, shape, sizeof shape), RP_STYLE_PLAIN}});
    }
}

static int show_gguf(const struct rp_terminal *out, const char *path)
{
    struct rp_gguf *gguf;
    struct rp_error err;
    if (rp_gguf_open(path, &gguf, &err))
        return rp_cli_error(&err);
    char text[160];
    rp_print(out, RP_STYLE_PLAIN, "%s: GGUF, %zu metadata values, %zu tensors", rp_gguf_path(gguf),
             rp_gguf_n_values(gguf), rp_gguf_n_tensors(gguf));
    if (rp_gguf_n_shards(gguf) > 1)
        rp_print(out, RP_STYLE_PLAIN, " in %zu shards", rp_gguf_n_shards(gguf));
    fputs("\n\n", out->out);
    for (size_t i = 0; i < rp_gguf_n_values(gguf); i++) {
        const struct rp_gguf_value *value = rp_gguf_value(gguf, i);
        rp_print_line(out, "%.*s = %s", (int)value->key.length, value->key.data,
                      rp_gguf_value_text(gguf, value, text, sizeof text));
    }
    fputc('\n', out->out);
    show_tensors(out, gguf);
    rp_gguf_close(gguf);
    return RP_EXIT_PASS;
}

enum { FIRST_VALUES = 8 };

/* data: n_elements FP32, not aligned */
static void show_floats(const struct rp_terminal *out, const unsigned char *data,
                        uint64_t n_elements)
{
    const size_t n = (size_t)n_elements;
    rp_print(out, RP_STYLE_PLAIN,
             "  %zu of %zu values are finite; the first:", n - rp_metrics_count_nonfinite(data, n),
             n);
    for (size_t i = 0; i < n && i < FIRST_VALUES; i++) {
        float value;
        memcpy(&value, data + i * sizeof value, sizeof value);
        rp_print(out, RP_STYLE_PLAIN, " %.7g", (double)value);
    }
    rp_print_line(out, "%s", n > FIRST_VALUES ? " ..." : "");
}

static enum rp_status show_ids(const struct rp_terminal *out, const struct rp_npy *npy,
                               const unsigned char *bytes, struct rp_error *err)
{
    int64_t *ids = calloc((size_t)npy->n_elements + 1, sizeof *ids);
    if (!ids)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory");
    rp_npy_int64(npy, bytes, ids);
    rp_print(out, RP_STYLE_PLAIN, "  the first:");
    for (size_t i = 0; i < npy->n_elements && i < 2 * FIRST_VALUES; i++)
        rp_print(out, RP_STYLE_PLAIN, " %lld", (long long)ids[i]);
    rp_print_line(out, "%s", npy->n_elements > 2 * FIRST_VALUES ? " ..." : "");
    free(ids);
    return RP_OK;
}

static enum rp_status show_array(const struct rp_terminal *out, const char *path,
                                 const unsigned char *bytes, size_t size, struct rp_error *err)
{
    struct rp_npy npy;
    char shape[256], type[RP_SHOWN_SIZE];
    enum rp_status status = rp_npy_parse(bytes, size, path, &npy, err);
    if (status != RP_OK)
        return status;
    rp_print_line(out, "%s: npy, shape %s, type %s%s", path,
                  rp_npy_shape_text(&npy, shape, sizeof shape), rp_shown(npy.descr, type),
                  npy.fortran_order ? ", in Fortran's order" : "");
    if (rp_npy_check(&npy, RP_NPY_INT64, size, path, NULL) == RP_OK)
        return show_ids(out, &npy, bytes, err);
    status = rp_npy_check(&npy, RP_NPY_FLOAT32, size, path, err);
    if (status == RP_OK)
        show_floats(out, bytes + npy.data_offset, npy.n_elements);
    return status;
}

static int show_npy(const struct rp_terminal *out, const char *path)
{
    const void *bytes;
    size_t size;
    struct rp_error err;
    enum rp_status status = rp_file_map(path, &bytes, &size, &err);
    if (status != RP_OK)
        return rp_cli_error(&err);
    status = show_array(out, path, bytes, size, &err);
    rp_file_unmap(bytes, size);
    return status == RP_OK ? RP_EXIT_PASS : rp_cli_error(&err);
}

static const char *positions_text(const struct rp_slot_info *slot, char *out, size_t size)
{
    const size_t n = slot->n_positions;
    if (n == 0)
        snprintf(out, size, "none");
    else
        snprintf(out, size, "%lld..%lld%s", (long long)slot->positions[0],
                 (long long)slot->positions[n - 1],
                 slot->positions[n - 1] - slot->positions[0] == (int64_t)n - 1 ? "" : " with gaps");
    return out;
}

static const struct rp_column columns[] = {{"slot", 16, true},
                                           {"shape", 17, true},
                                           {"rms", 9, false},
                                           {"positions", 24, true},
                                           {"", 0, true}};

enum { N_COLUMNS = sizeof columns / sizeof columns[0] };

static int show_slot(const struct rp_terminal *out, struct rp_tensor_set *set,
                     const struct rp_slot_info *slot)
{
    struct rp_tensor tensor;
    struct rp_error err;
    char text[2300], shape[64], rms[RP_NUMBER_SIZE], positions[64], nonfinite[64] = "";
    if (rp_tensor_load(set, slot->name, &tensor, &err)) {
        snprintf(shape, sizeof shape, "%-16.40s error", slot->name);
        rp_print_marked_line(out, RP_STYLE_BAD, shape, ": %s",
                             rp_error_text(&err, text, sizeof text));
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
    snprintf(shape, sizeof shape, "[%zu][%zu]", tensor.n_positions, tensor.dim);
    rp_number_text(rms, "%.5g", n_values > 0 ? sqrt(norm2 / n_values) : 0);
    if (n_nonfinite)
        snprintf(nonfinite, sizeof nonfinite, "%zu values are not finite", n_nonfinite);
    rp_table_row(out, columns, N_COLUMNS,
                 (const struct rp_cell[N_COLUMNS]){
                     {slot->name, RP_STYLE_PLAIN},
                     {shape, RP_STYLE_PLAIN},
                     {rms, RP_STYLE_PLAIN},
                     {positions_text(slot, positions, sizeof positions), RP_STYLE_PLAIN},
                     {nonfinite, RP_STYLE_BAD}});
    rp_tensor_release(&tensor);
    return RP_EXIT_PASS;
}

static int show_tokens(const struct rp_terminal *out, const struct rp_tensor_set *set)
{
    const int64_t *ids;
    size_t n;
    struct rp_error err;
    if (rp_tensor_set_tokens(set, &ids, &n, &err))
        return rp_cli_error(&err);
    if (!ids) {
        rp_print_line(out, "tokens none");
        return RP_EXIT_PASS;
    }
    rp_print(out, RP_STYLE_PLAIN, "tokens %zu:", n);
    for (size_t i = 0; i < n && i < 16; i++)
        rp_print(out, RP_STYLE_PLAIN, " %lld", (long long)ids[i]);
    rp_print_line(out, "%s", n > 16 ? " ..." : "");
    return RP_EXIT_PASS;
}

enum { LONGEST_VALUE = 300 };

/* A key a line: its value as JSON, cut where that is long. */
static void show_manifest(const struct rp_terminal *out, const char *text, size_t length)
{
    cJSON *root = cJSON_ParseWithLength(text, length);
    for (const cJSON *item = root ? root->child : NULL; item; item = item->next) {
        char shown[RP_SHOWN_SIZE], *value = cJSON_PrintUnformatted(item);
        const size_t n = value ? strlen(value) : 0;
        rp_print_line(out, "  %s: %.*s%s", rp_shown(item->string, shown), LONGEST_VALUE,
                      value ? value : "", n > LONGEST_VALUE ? " ..." : "");
        free(value);
    }
    cJSON_Delete(root);
}

static int show_set(const struct rp_terminal *out, const char *path)
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
    rp_print_line(out, "%s: %s, %zu slots%s", path, layouts[rp_tensor_set_layout(set)],
                  rp_tensor_set_n_slots(set),
                  rp_tensor_set_complete(set) ? "" : ", incomplete: the engine did not finish it");
    if (manifest)
        show_manifest(out, manifest, length);
    int code = show_tokens(out, set);
    rp_table_heading(out, columns, N_COLUMNS);
    for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
        const int slot_code = show_slot(out, set, rp_tensor_set_slot(set, i));
        code = code ? code : slot_code;
    }
    rp_tensor_set_close(set);
    return code;
}

int rp_cli_show(int argc, char **argv, const struct rp_terminal *out)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(help, stdout);
        return RP_EXIT_PASS;
    }
    if (argc != 2)
        return rp_cli_usage_error("show", "expected FILE, found %d arguments", argc - 1);
    switch (rp_path_kind(argv[1])) {
    case RP_PATH_GGUF: return show_gguf(out, argv[1]);
    case RP_PATH_NPY: return show_npy(out, argv[1]);
    default: return show_set(out, argv[1]);
    }
}
