/* refparity show: what is in a file. */
#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "refparity/compare.h"
#include "refparity/gguf.h"

static const char help[] =
    "usage: refparity show FILE\n"
    "\n"
    "FILE is a fixture (.npz), a dump folder, or a GGUF. Of the first two: the manifest,\n"
    "the token ids, and for each slot its shape, positions, norms and values that are not\n"
    "finite. Of a GGUF: its metadata and its tensors.\n"
    "\n"
    "exit codes: 0 all of it could be read, 2 not\n";

static int has_magic(const char *path, const char magic[4])
{
    const void *bytes;
    size_t size;
    if (rp_file_map(path, &bytes, &size, NULL))
        return 0;
    const int same = size >= 4 && memcmp(bytes, magic, 4) == 0;
    rp_file_unmap(bytes, size);
    return same;
}

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
        printf("manifest     %.*s\n", (int)(length < 1000000 ? length : 1000000), manifest);
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
    return has_magic(argv[1], "GGUF") ? show_gguf(argv[1]) : show_set(argv[1]);
}
