/* refparity show: what is in a file. */
#include "cli/cli.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "base/utf8.h"
#include "cli/path_kind.h"
#include "cli/reading.h"
#include "refparity/compare.h"
#include "refparity/gguf.h"
#include "tensor/npy.h"
#include "tensor/safetensors.h"

static const char help[] =
    "usage: refparity show [--names FILE] [--rows N] FILE\n"
    "\n"
    "FILE is a fixture (.npz, .safetensors), a dump folder, a file .npy, or a GGUF. Of the first\n"
    "two: the manifest, the token ids, and for each slot its shape, positions, norms and values "
    "that\n"
    "are not finite. Of an npy: its shape, type, first values, and how many are finite. Of a\n"
    "GGUF: its metadata and its tensors.\n"
    "\n"
    "  --names FILE   which names are which slots (docs/file-formats.md)  [common names are read]\n"
    "  --rows N       a plain NAME.bin holds N positions  [1]\n"
    "  --help\n"
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

/* Of a checkpoint's file: its tensors. -1: it holds no weights, or cannot be read. */
static int show_weights(const struct rp_terminal *out, const char *path)
{
    struct rp_safetensors *file;
    if (rp_safetensors_open(path, &file, NULL))
        return -1;
    const bool are_weights = rp_safetensors_are_weights(file);
    if (are_weights)
        rp_print_line(out, "%s: safetensors file of weights, %zu tensors\n", path,
                      rp_safetensors_n_tensors(file));
    for (size_t i = 0; are_weights && i < rp_safetensors_n_tensors(file); i++) {
        const struct rp_safetensor *tensor = rp_safetensors_tensor(file, i);
        rp_print(out, RP_STYLE_PLAIN, "%-48s %-6s [", tensor->name, tensor->type_name);
        for (unsigned d = 0; d < tensor->n_dims; d++)
            rp_print(out, RP_STYLE_PLAIN, "%s%zu", d ? ", " : "", tensor->dims[d]);
        rp_print_line(out, "]");
    }
    rp_safetensors_close(file);
    return are_weights ? RP_EXIT_PASS : -1;
}

enum { FIRST_VALUES = 8 };

/* Of a whole array, as its values lie in the file. */
static enum rp_status show_floats(const struct rp_terminal *out, const struct rp_array *array,
                                  const unsigned char *data, struct rp_error *err)
{
    const size_t n = (size_t)array->n_elements;
    const struct rp_rows rows = {.type = array->type,
                                 .is_big_endian = array->is_big_endian,
                                 .n = 1,
                                 .dim = n,
                                 .n_stacked = 1,
                                 .column_stride = 1};
    float *values = n > SIZE_MAX / sizeof *values - 1 ? NULL : malloc((n + 1) * sizeof *values);
    if (!values)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "no memory for %zu values", n);
    rp_rows_read(&rows, data, values);
    rp_print(out, RP_STYLE_PLAIN, "  %zu of %zu values are finite; the first:",
             n - rp_metrics_count_nonfinite(values, n), n);
    for (size_t i = 0; i < n && i < FIRST_VALUES; i++)
        rp_print(out, RP_STYLE_PLAIN, " %.7g", (double)values[i]);
    rp_print_line(out, "%s", n > FIRST_VALUES ? " ..." : "");
    free(values);
    return RP_OK;
}

static void show_ids(const struct rp_terminal *out, const int64_t *ids, size_t n)
{
    rp_print(out, RP_STYLE_PLAIN, "  the first:");
    for (size_t i = 0; i < n && i < 2 * FIRST_VALUES; i++)
        rp_print(out, RP_STYLE_PLAIN, " %lld", (long long)ids[i]);
    rp_print_line(out, "%s", n > 2 * FIRST_VALUES ? " ..." : "");
}

static enum rp_status show_array(const struct rp_terminal *out, const char *path,
                                 const unsigned char *bytes, size_t size, struct rp_error *err)
{
    struct rp_npy npy;
    char shape[256], type[RP_SHOWN_SIZE];
    enum rp_status status = rp_npy_parse(bytes, size, path, &npy, err);
    if (status != RP_OK)
        return status;
    const struct rp_array *array = &npy.array;
    rp_print_line(out, "%s: npy, shape %s, type %s%s", path,
                  rp_array_shape_text(array, shape, sizeof shape), rp_shown(array->type_name, type),
                  array->is_fortran ? ", in Fortran's order" : "");
    status = rp_npy_check(&npy, size, path, err);
    if (status != RP_OK)
        return status;
    const unsigned char *data = bytes + npy.data_offset;
    if (array->type >= RP_VALUE_F32 && array->type <= RP_VALUE_BF16)
        return show_floats(out, array, data, err);
    int64_t *ids;
    size_t n;
    status = rp_array_int64(array, data, SIZE_MAX / sizeof *ids - 1, path, &ids, &n, err);
    if (status == RP_OK) {
        show_ids(out, ids, n);
        free(ids);
    }
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

static int show_set(const struct rp_terminal *out, const char *path,
                    const struct rp_tensor_set_options *options)
{
    static const char *const layouts[] = {
        [RP_LAYOUT_AUTO] = "?",
        [RP_LAYOUT_NPZ] = "npz",
        [RP_LAYOUT_SAFETENSORS] = "safetensors file",
        [RP_LAYOUT_NPY] = "dump folder of .npy files",
        [RP_LAYOUT_BIN] = "dump folder of .bin files",
    };
    struct rp_tensor_set *set;
    struct rp_error err;
    if (rp_tensor_set_open_with(path, options, &set, &err))
        return rp_cli_error(&err);
    size_t length;
    const char *manifest = rp_tensor_set_manifest(set, &length);
    rp_print_line(out, "%s: %s, %zu slots%s", path, layouts[rp_tensor_set_layout(set)],
                  rp_tensor_set_n_slots(set),
                  rp_tensor_set_complete(set) ? "" : ", incomplete: the engine did not finish it");
    if (manifest)
        show_manifest(out, manifest, length);
    rp_cli_print_notes(out, "read", set);
    int code = show_tokens(out, set);
    rp_table_heading(out, columns, N_COLUMNS);
    for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
        const int slot_code = show_slot(out, set, rp_tensor_set_slot(set, i));
        code = code ? code : slot_code;
    }
    for (size_t i = 0; i < rp_tensor_set_n_others(set); i++)
        rp_print_line(out, "%s: no slot has such a name", rp_tensor_set_other(set, i));
    if (code == RP_EXIT_PASS && rp_cli_check_names(options->names, &err))
        code = rp_cli_error(&err);
    rp_tensor_set_close(set);
    return code;
}

/* -1 to go on, else the exit code. */
static int parse_options(int argc, char **argv, struct rp_tensor_set_options *options)
{
    static const struct option known[] = {{"names", required_argument, NULL, 'n'},
                                          {"rows", required_argument, NULL, 'R'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct rp_error err;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return RP_EXIT_PASS;
        }
        if (option == '?')
            return rp_cli_usage_error("show", "unknown option, or no value for %s",
                                      argv[optind - 1]);
        if (option == 'R' && !rp_cli_parse_rows(optarg, &options->n_rows))
            return rp_cli_usage_error("show", "--rows takes a number of positions, not \"%s\"",
                                      optarg);
        if (option == 'n') {
            rp_names_free(options->names);
            if (rp_names_open(optarg, &options->names, &err))
                return rp_cli_error(&err);
        }
    }
    if (argc - optind != 1)
        return rp_cli_usage_error("show", "expected FILE, found %d arguments", argc - optind);
    return -1;
}

int rp_cli_show(int argc, char **argv, const struct rp_terminal *out)
{
    struct rp_tensor_set_options options = {.with_aliases = true};
    int code = parse_options(argc, argv, &options);
    if (code < 0) {
        switch (rp_path_kind(argv[optind])) {
        case RP_PATH_GGUF: code = show_gguf(out, argv[optind]); break;
        case RP_PATH_NPY: code = show_npy(out, argv[optind]); break;
        case RP_PATH_SAFETENSORS: code = show_weights(out, argv[optind]); break;
        default: break;
        }
    }
    if (code < 0)
        code = show_set(out, argv[optind], &options);
    rp_names_free(options.names);
    return code;
}
