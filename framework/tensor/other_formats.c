/* See tensor/other_formats.h. */
#include "tensor/other_formats.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/little_endian.h"

#define LOOKED_AT ((size_t)65536) /* of a text, for a line of an eval callback */

/* In the lines, FILE is the path. */
static const char torch_lines[] =
    "import torch; from safetensors.torch import save_file; d = torch.load('FILE', "
    "map_location='cpu')\n"
    "save_file({k: torch.stack(list(v)) if isinstance(v, (list, tuple)) else "
    "v.clone().contiguous() "
    "for k, v in (d.items() if hasattr(d, 'items') else [('hidden_states', d)])}, "
    "'converted.safetensors')";
static const char pickle_lines[] =
    "import numpy, pickle; d = pickle.load(open('FILE', 'rb'))  # it runs code: of your own files "
    "alone\n"
    "numpy.savez('converted.npz', **{k: numpy.asarray(v) for k, v in d.items()})";
static const char dump_lines[] =
    "refparity-llamacpp --model MODEL.gguf --prompt-file PROMPT --dump DUMP --slots operations\n"
    "refparity diff REFERENCE DUMP";
static const char saved_logits_lines[] =
    "import numpy; f = 'FILE'; ids = numpy.fromfile(f.replace('.bin', '-tokens.bin'), '<i4')\n"
    "numpy.savez('converted.npz', tokens=ids, positions=[len(ids) - 1], "
    "logits=numpy.fromfile(f, '<f4')[None])";

static bool has_bytes(const uint8_t *bytes, size_t size, const char *wanted)
{
    const size_t n = strlen(wanted);
    for (size_t i = 0; i + n <= size; i++)
        if (memcmp(bytes + i, wanted, n) == 0)
            return true;
    return false;
}

static bool begins(const uint8_t *bytes, size_t size, const char *with, size_t n)
{
    return size >= n && memcmp(bytes, with, n) == 0;
}

/* An archive of torch.save: its first member is NAME/data.pkl. */
static bool is_torch_zip(const uint8_t *bytes, size_t size)
{
    if (!begins(bytes, size, "PK\3\4", 4) || size < 30)
        return false;
    const size_t n = rp_load_u16(bytes + 26);
    return n >= 9 && n <= size - 30 && memcmp(bytes + 30 + n - 9, "/data.pkl", 9) == 0;
}

/* The number with which torch.save began before it wrote archives: 0x1950a86a20f9469cfc6c. */
static bool is_old_torch(const uint8_t *bytes, size_t size)
{
    static const uint8_t magic[] = {0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a};
    return size >= sizeof magic && memcmp(bytes, magic, sizeof magic) == 0;
}

bool rp_is_safetensors(const uint8_t *bytes, size_t size)
{
    return size > 8 && bytes[8] == '{' && rp_load_u64(bytes) <= size - 8;
}

/* A safetensors file may begin and end so, too. */
static bool is_pickle(const uint8_t *bytes, size_t size)
{
    return size > 2 && bytes[0] == 0x80 && bytes[1] >= 2 && bytes[1] <= 5 &&
           bytes[size - 1] == '.' && !rp_is_safetensors(bytes, size);
}

static bool is_eval_callback_log(const uint8_t *bytes, size_t size)
{
    const size_t n = size < LOOKED_AT ? size : LOOKED_AT;
    if (n == 0 || memchr(bytes, '\0', n))
        return false;
    return has_bytes(bytes, n, "ggml_debug: ") || has_bytes(bytes, n, "common_debug_cb_eval: ");
}

/* Its name alone tells: it is raw float32. */
static bool is_saved_logits(const char *path, size_t size)
{
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    const size_t n = strlen(name);
    return size > 0 && size % 4 == 0 && strncmp(name, "llamacpp-", 9) == 0 && n > 13 &&
           strcmp(name + n - 4, ".bin") == 0 && !strstr(name, "-tokens.bin");
}

const char *rp_other_format(const uint8_t *bytes, size_t size, const char *path, const char **lines)
{
    if (is_torch_zip(bytes, size) || is_old_torch(bytes, size)) {
        *lines = torch_lines;
        return "a file of torch.save";
    }
    if (is_pickle(bytes, size)) {
        *lines = pickle_lines;
        return "a Python pickle";
    }
    if (begins(bytes, size, "_logits_", 8)) {
        *lines = dump_lines;
        return "a file of llama-perplexity --kl-divergence-base: log-probabilities of 16 bits at "
               "half of "
               "the positions, and no hidden state; dump the states instead";
    }
    if (is_eval_callback_log(bytes, size)) {
        *lines = dump_lines;
        return "a log of llama.cpp's eval callback: some values of each tensor, with 4 digits; "
               "dump the "
               "tensors instead";
    }
    if (is_saved_logits(path, size)) {
        *lines = saved_logits_lines;
        return "a file of llama-debug --save-logits: the last position's logits, and no hidden "
               "state";
    }
    *lines = NULL;
    return NULL;
}

static bool ends_with(const char *path, const char *end)
{
    const size_t n = strlen(path), n_end = strlen(end);
    return n >= n_end && strcmp(path + n - n_end, end) == 0;
}

enum rp_status rp_file_layout(const char *path, enum rp_layout *layout, struct rp_error *err)
{
    const void *bytes;
    size_t size;
    const char *lines;
    enum rp_status status = rp_file_map(path, &bytes, &size, err);
    if (status != RP_OK)
        return status;
    const char *name = rp_other_format(bytes, size, path, &lines);
    *layout = RP_LAYOUT_NPZ;
    if (name)
        status = rp_fail(err, RP_ERR_UNSUPPORTED, path, -1, "this is %s", name);
    else if (!begins(bytes, size, "PK", 2) &&
             (rp_is_safetensors(bytes, size) || ends_with(path, ".safetensors")))
        *layout = RP_LAYOUT_SAFETENSORS;
    rp_file_unmap(bytes, size);
    return status;
}

bool rp_other_format_print(FILE *out, const char *path)
{
    static const char place[] = "FILE";
    const void *bytes;
    size_t size;
    const char *lines = NULL;
    if (rp_file_map(path, &bytes, &size, NULL) != RP_OK)
        return false;
    (void)rp_other_format(bytes, size, path, &lines);
    rp_file_unmap(bytes, size);
    const bool is_plain = !strpbrk(path, "'\\\n\r");
    for (const char *p = lines; p && *p;) {
        const char *next = strstr(p, place);
        const int n = next ? (int)(next - p) : (int)strlen(p);
        fprintf(out, "%.*s%s", n, p, !next ? "\n" : is_plain ? path : place);
        p += next ? (size_t)n + sizeof place - 1 : (size_t)n;
    }
    return lines != NULL;
}
