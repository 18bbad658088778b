/* Writes an engine's hidden states as a dump that refparity compares with Hugging Face's. One file,
 * C99 or C++11, libc only; vendor it as it is. Not for reading dumps: see refparity/tensor_set.h.
 *
 *     #define REFPARITY_DUMP_IMPLEMENTATION             // in one source file only
 *     #include "refparity/dump.h"
 *
 *     struct rp_dump *d = rp_dump_open(getenv("DUMP"), n_layers, "my engine 1.2");
 *     rp_dump_tokens(d, ids, n);                        // int32_t ids[n]: what the model is fed
 *     rp_dump_rows(d, "emb", pos, n, dim, x);           // float x[n][dim], positions pos .. pos+n-1
 *     for (l = 0; l < n_layers; l++)                    // after each layer:
 *         rp_dump_layer(d, l, NULL, pos, n, dim, x);    // "h7"; part "in" would be "h7_in"
 *     rp_dump_rows(d, "post_norm", pos, n, dim, x);
 *     rp_dump_rows(d, "logits", pos + n - 1, 1, n_vocab, logits);
 *     if (rp_dump_finish(d) != 0)                       // once, at the end of the run
 *         fprintf(stderr, "dump: %s\n", rp_dump_error(d));
 *     rp_dump_close(d);
 *
 * A NULL dump (getenv above found nothing) means "off": every call returns 0 at once. The first
 * failure sticks: later calls write nothing and return -1, so checking once at the end is enough.
 * Each call's rows are with the kernel when it returns, so an engine that crashes loses none.
 * Not thread-safe: calls on one dump have to come one after another. */
#ifndef REFPARITY_DUMP_H
#define REFPARITY_DUMP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rp_dump;

/* Opens folder, which is made if missing (its parent has to exist) and must not hold a dump yet: a
 * dump.json, or the file of a slot that is written, is an error, so runs never mix.
 * n_layers: the model's number of layers, negative when unknown. engine: free text for dump.json,
 * non-ASCII bytes become '?'; NULL is "".
 * Returns NULL (off) when folder is NULL or "". Otherwise never NULL, failures included: those are
 * in rp_dump_error. End with rp_dump_close. */
struct rp_dump *rp_dump_open(const char *folder, int n_layers, const char *engine);

/* Appends ids[n] to the prompt's token ids. 0, or -1 on failure. */
int rp_dump_tokens(struct rp_dump *dump, const int32_t *ids, size_t n);

/* Appends rows[n_positions][dim], of positions first_position, first_position + 1, ..., to a slot:
 * "emb", "h0_in", "h0_postattn", "h0_preffn", "h0_ffnout", "h0", ..., "post_norm", "logits",
 * or a name of your own of at most 63 of A-Z a-z 0-9 _ . -, the first neither '.' nor '-'.
 * Within a slot positions ascend (gaps are allowed) and dim stays the same. n_positions 0 does
 * nothing. 0, or -1 on failure. */
int rp_dump_rows(struct rp_dump *dump, const char *slot, long long first_position,
                 size_t n_positions, size_t dim, const float *rows);

/* rp_dump_rows of slot h{layer}, or h{layer}_{part} when part is neither NULL nor "". */
int rp_dump_layer(struct rp_dump *dump, int layer, const char *part, long long first_position,
                  size_t n_positions, size_t dim, const float *rows);

/* What identifies the model file, free text for dump.json: before the first row. Of an engine that links
 * refparity: rp_model_file_id of its file, by which replay knows the file that it is given. NULL is "". 0,
 * or -1 on failure. */
int rp_dump_model(struct rp_dump *dump, const char *model);

/* HF's order of values within a row is what a reader of the dump expects. An engine whose own order is
 * another declares it, once, at any time before rp_dump_finish, and the reader turns the rows. slots:
 * "q,k,qrope,krope", of all layers, or "h0_q,h1_q", of one; a slot has one declaration at most.
 * Both: 0, or -1 on failure.
 *
 * In each head of head_dim values the pair (2i, 2i+1) is HF's (i, i + n_rot/2), as in GGUF files of
 * Llama; values past n_rot, which is even, stay. */
int rp_dump_order_interleaved(struct rp_dump *dump, const char *slots, size_t head_dim,
                              size_t n_rot);

/* From value first on, a row is heads of head_dim values, and head g + j*n_groups is HF's head
 * g*(n_heads/n_groups) + j, as the V heads of GGUF files of Qwen3.5. */
int rp_dump_order_tiled(struct rp_dump *dump, const char *slots, size_t head_dim, size_t n_groups,
                        size_t first);

/* Marks the dump as complete: all that the run computes has been written. Later writes fail.
 * 0, or -1 when anything failed since rp_dump_open; the dump then stays marked as incomplete. */
int rp_dump_finish(struct rp_dump *dump);

/* rp_dump_finish, if that was not called, then frees dump. Returns as rp_dump_finish. */
int rp_dump_close(struct rp_dump *dump);

/* The first failure's text, valid until rp_dump_close; NULL when there is none. */
const char *rp_dump_error(const struct rp_dump *dump);

#ifdef __cplusplus
}
#endif
#endif /* REFPARITY_DUMP_H */

#ifdef REFPARITY_DUMP_IMPLEMENTATION
#ifndef REFPARITY_DUMP_IMPLEMENTED
#define REFPARITY_DUMP_IMPLEMENTED

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#ifdef _WIN32
#include <direct.h>
#endif

/* numpy format 1.0: magic, version, length of the dict's text, the dict, spaces, newline. 128 bytes
 * hold any shape, so the header is rewritten in place as rows are added. */
#define RP_DUMP_HEADER_SIZE 128
#define RP_DUMP_NAME_SIZE 64
/* Slots beyond these are opened for each call: slower, but a 200-layer model needs 1,000 files. */
#define RP_DUMP_MAX_OPEN 256
#define RP_DUMP_MAX_POSITION 9007199254740992LL /* 2^53: exact in any JSON reader */

typedef char rp_dump_float_has_4_bytes[sizeof(float) == 4 ? 1 : -1];

struct rp_dump_jump {
    unsigned long long row;
    long long position;
};

struct rp_dump_file {
    char name[RP_DUMP_NAME_SIZE];
    FILE *stream; /* NULL while closed */
    unsigned long long n_rows;
    size_t dim; /* 0: a vector of int64, the tokens */
    long long next_position;
    struct rp_dump_jump *jumps;
    size_t n_jumps, max_jumps;
};

struct rp_dump {
    char *folder, *path, *engine; /* path: room for folder, '/' and any file's name */
    char *model;                  /* NULL: it is not told */
    size_t path_size;
    int n_layers;
    int finished, failed;
    FILE *json; /* dump.json, which has n_json bytes */
    size_t n_json;
    char *text; /* [n_text]: what dump.json shall be */
    size_t n_text, max_text;
    int text_failed;
    struct rp_dump_file *files;
    size_t n_files, max_files, n_open;
    size_t last_file; /* slots come in the same order for each token: look at the next one first */
    char *order;      /* [n_order] of dump.json: the declared orders; NULL when there is none */
    size_t n_order;
    char error[1024];
};

static int rp_dump_fail(struct rp_dump *dump, const char *what, const char *name,
                        const char *detail)
{
    if (!dump->failed) {
        dump->failed = 1;
        snprintf(dump->error, sizeof dump->error, "%s%s%s: %s", what, name[0] ? " " : "", name,
                 detail);
    }
    return -1;
}

static int rp_dump_fail_errno(struct rp_dump *dump, const char *what)
{
    return rp_dump_fail(dump, what, dump->path, errno ? strerror(errno) : "failed");
}

static const char *rp_dump_path(struct rp_dump *dump, const char *name, const char *suffix)
{
    snprintf(dump->path, dump->path_size, "%s/%s%s", dump->folder, name, suffix);
    return dump->path;
}

static int rp_dump_file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

/* Appends to dump->text, unless memory ran out: then text_failed is set. */
static void rp_dump_add_text(struct rp_dump *dump, const char *text, size_t n)
{
    if (!dump->text_failed && dump->n_text + n > dump->max_text) {
        size_t more = 2 * (dump->n_text + n) + 1024;
        char *grown = (char *)realloc(dump->text, more);
        dump->text_failed = !grown;
        if (grown) {
            dump->text = grown;
            dump->max_text = more;
        }
    }
    if (dump->text_failed)
        return;
    memcpy(dump->text + dump->n_text, text, n);
    dump->n_text += n;
}

static void rp_dump_add(struct rp_dump *dump, const char *text)
{
    rp_dump_add_text(dump, text, strlen(text));
}

static void rp_dump_add_number(struct rp_dump *dump, const char *before, long long number)
{
    char text[64];
    snprintf(text, sizeof text, "%s%lld", before, number);
    rp_dump_add(dump, text);
}

static void rp_dump_add_string(struct rp_dump *dump, const char *before, const char *string)
{
    rp_dump_add(dump, before);
    rp_dump_add(dump, "\"");
    for (; *string; string++) {
        char text[8];
        unsigned char c = (unsigned char)*string;
        if (c < 0x20 || c == 0x7f)
            snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
        else
            snprintf(text, sizeof text, "%s%c", c == '"' || c == '\\' ? "\\" : "",
                     c < 0x80 ? c : '?');
        rp_dump_add(dump, text);
    }
    rp_dump_add(dump, "\"");
}

static void rp_dump_make_text(struct rp_dump *dump)
{
    const char *between = "\"";
    size_t i, j;
    dump->n_text = 0;
    dump->text_failed = 0;
    rp_dump_add_string(
        dump, "{\"format\": \"refparity-dump\", \"version\": 1, \"engine\": ", dump->engine);
    if (dump->model)
        rp_dump_add_string(dump, ", \"model\": ", dump->model);
    if (dump->n_layers >= 0)
        rp_dump_add_number(dump, ", \"n_layers\": ", dump->n_layers);
    rp_dump_add(dump, ", \"complete\": ");
    rp_dump_add(dump, dump->finished && !dump->failed ? "true" : "false");
    if (dump->failed)
        rp_dump_add_string(dump, ", \"error\": ", dump->error);
    rp_dump_add(dump, ", \"positions\": {");
    for (i = 0; i < dump->n_files; i++) {
        const struct rp_dump_file *file = &dump->files[i];
        if (file->n_jumps == 0)
            continue;
        rp_dump_add(dump, between);
        rp_dump_add(dump, file->name);
        for (j = 0; j < file->n_jumps; j++) {
            rp_dump_add_number(dump, j ? ", [" : "\": [[", (long long)file->jumps[j].row);
            rp_dump_add_number(dump, ", ", file->jumps[j].position);
            rp_dump_add(dump, "]");
        }
        rp_dump_add(dump, "]");
        between = ", \"";
    }
    rp_dump_add(dump, "}");
    if (dump->n_order > 0) {
        rp_dump_add(dump, ", \"order\": [");
        rp_dump_add_text(dump, dump->order, dump->n_order);
        rp_dump_add(dump, "]");
    }
    rp_dump_add(dump, "}\n");
}

/* Writes dump.json anew, in place and with one write: what it says only grows, but for a few bytes
 * that spaces fill. (Replacing the file by rename waits for the disk on some file systems.) */
static int rp_dump_write_json(struct rp_dump *dump)
{
    rp_dump_make_text(dump);
    while (!dump->text_failed && dump->n_text < dump->n_json)
        rp_dump_add_text(dump, " ", 1);
    if (dump->text_failed)
        return rp_dump_fail(dump, "dump.json", "", "out of memory");
    errno = 0;
    rp_dump_path(dump, "dump.json", "");
    if (!dump->json) {
        dump->json = fopen(dump->path, "wb");
        if (!dump->json)
            return rp_dump_fail_errno(dump, "cannot create");
        setvbuf(dump->json, NULL, _IONBF, 0);
    }
    if (fseek(dump->json, 0, SEEK_SET) != 0 || fwrite(dump->text, dump->n_text, 1, dump->json) != 1)
        return rp_dump_fail_errno(dump, "cannot write");
    dump->n_json = dump->n_text;
    return 0;
}

static char *rp_dump_copy(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = (char *)malloc(size);
    if (copy)
        memcpy(copy, text, size);
    return copy;
}

static int rp_dump_make_folder(const char *path)
{
#ifdef _WIN32
    return _mkdir(path);
#else
    return mkdir(path, 0777);
#endif
}

/* What rp_dump_open returns when it cannot even allocate a dump. */
static struct rp_dump *rp_dump_out_of_memory(void)
{
    static struct rp_dump dump;
    dump.failed = 1;
    memcpy(dump.error, "out of memory", sizeof "out of memory");
    return &dump;
}

struct rp_dump *rp_dump_open(const char *folder, int n_layers, const char *engine)
{
    const unsigned one = 1;
    struct rp_dump *dump;
    if (!folder || !folder[0])
        return NULL;
    dump = (struct rp_dump *)calloc(1, sizeof *dump);
    if (!dump)
        return rp_dump_out_of_memory();
    dump->n_layers = n_layers;
    dump->folder = rp_dump_copy(folder);
    dump->engine = rp_dump_copy(engine ? engine : "");
    dump->path_size = strlen(folder) + RP_DUMP_NAME_SIZE + 16; /* never 0 */
    dump->path = (char *)malloc(dump->path_size);
    if (!dump->folder || !dump->engine || !dump->path) {
        rp_dump_fail(dump, "open", "", "out of memory");
        return dump;
    }
    if (*(const unsigned char *)&one != 1) {
        rp_dump_fail(dump, "open", "", "dumps are little-endian, and this machine is not");
        return dump;
    }
    if (rp_dump_make_folder(folder) != 0 && errno != EEXIST)
        rp_dump_fail(dump, "cannot make the folder", folder, strerror(errno));
    else if (rp_dump_file_exists(rp_dump_path(dump, "dump.json", "")))
        rp_dump_fail(dump, "will not mix two dumps: there is already", dump->path,
                     "dump into an empty folder");
    else
        rp_dump_write_json(dump);
    return dump;
}

const char *rp_dump_error(const struct rp_dump *dump)
{
    return dump && dump->failed ? dump->error : NULL;
}

static int rp_dump_is_name(const char *name)
{
    size_t n;
    for (n = 0; name[n]; n++) {
        char c = name[n];
        int letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (n + 1 >= RP_DUMP_NAME_SIZE ||
            !(letter || c == '_' || (n > 0 && (c == '.' || c == '-'))))
            return 0;
    }
    return n > 0 && strcmp(name, "tokens") != 0 && strcmp(name, "positions") != 0 &&
           strcmp(name, "manifest") != 0;
}

/* The slot's entry, added when it is new; NULL when memory ran out. */
static struct rp_dump_file *rp_dump_find(struct rp_dump *dump, const char *name)
{
    size_t i, n = dump->n_files;
    for (i = 0; i < n; i++) {
        size_t at = (dump->last_file + 1 + i) % n;
        if (strcmp(dump->files[at].name, name) == 0) {
            dump->last_file = at;
            return &dump->files[at];
        }
    }
    if (n == dump->max_files) {
        size_t more = n ? 2 * n : 64;
        void *grown = realloc(dump->files, more * sizeof *dump->files);
        if (!grown)
            return NULL;
        dump->files = (struct rp_dump_file *)grown;
        dump->max_files = more;
    }
    memset(&dump->files[n], 0, sizeof dump->files[n]);
    snprintf(dump->files[n].name, RP_DUMP_NAME_SIZE, "%s", name);
    dump->last_file = n;
    dump->n_files++;
    return &dump->files[n];
}

static int rp_dump_add_jump(struct rp_dump_file *file, long long position)
{
    if (file->n_jumps == file->max_jumps) {
        size_t more = file->max_jumps ? 2 * file->max_jumps : 4;
        void *grown = realloc(file->jumps, more * sizeof *file->jumps);
        if (!grown)
            return -1;
        file->jumps = (struct rp_dump_jump *)grown;
        file->max_jumps = more;
    }
    file->jumps[file->n_jumps].row = file->n_rows;
    file->jumps[file->n_jumps].position = position;
    file->n_jumps++;
    return 0;
}

static int rp_dump_write_header(struct rp_dump_file *file)
{
    char header[RP_DUMP_HEADER_SIZE + 1];
    char shape[64];
    int used;
    if (file->dim)
        snprintf(shape, sizeof shape, "(%llu, %llu)", file->n_rows, (unsigned long long)file->dim);
    else
        snprintf(shape, sizeof shape, "(%llu,)", file->n_rows);
    memset(header, ' ', sizeof header);
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = RP_DUMP_HEADER_SIZE - 10;
    header[9] = 0;
    used = snprintf(header + 10, RP_DUMP_HEADER_SIZE - 10,
                    "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                    file->dim ? "<f4" : "<i8", shape);
    header[10 + used] = ' ';
    header[RP_DUMP_HEADER_SIZE - 1] = '\n';
    return fseek(file->stream, 0, SEEK_SET) != 0 ||
           fwrite(header, RP_DUMP_HEADER_SIZE, 1, file->stream) != 1;
}

/* The stream is unbuffered: what is written is with the kernel at once. */
static int rp_dump_open_file(struct rp_dump *dump, struct rp_dump_file *file)
{
    const char *path;
    int is_new = file->n_rows == 0;
    if (file->stream)
        return 0;
    path = rp_dump_path(dump, file->name, ".npy");
    if (is_new && rp_dump_file_exists(path))
        return rp_dump_fail(dump, "will not mix two dumps: there is already", path,
                            "dump into an empty folder");
    errno = 0;
    file->stream = fopen(path, is_new ? "wb" : "r+b");
    if (!file->stream)
        return rp_dump_fail_errno(dump, "cannot open");
    dump->n_open++;
    setvbuf(file->stream, NULL, _IONBF, 0);
    if (is_new && rp_dump_write_header(file))
        return rp_dump_fail_errno(dump, "cannot write");
    return 0;
}

static int rp_dump_close_file(struct rp_dump *dump, struct rp_dump_file *file)
{
    int bad = file->stream ? fclose(file->stream) : 0;
    if (file->stream)
        dump->n_open--;
    file->stream = NULL;
    return bad;
}

/* Rows first, then the header that counts them: a reader never takes rows that are not there. */
static int rp_dump_append(struct rp_dump *dump, struct rp_dump_file *file, const void *bytes,
                          size_t row_size, size_t n_rows)
{
    if (rp_dump_open_file(dump, file) != 0)
        return -1;
    errno = 0;
    if (fseek(file->stream, 0, SEEK_END) != 0 ||
        fwrite(bytes, row_size, n_rows, file->stream) != n_rows) {
        rp_dump_path(dump, file->name, ".npy");
        return rp_dump_fail_errno(dump, "cannot write");
    }
    file->n_rows += n_rows;
    if (rp_dump_write_header(file) ||
        (dump->n_open > RP_DUMP_MAX_OPEN && rp_dump_close_file(dump, file) != 0)) {
        rp_dump_path(dump, file->name, ".npy");
        return rp_dump_fail_errno(dump, "cannot write");
    }
    return 0;
}

static int rp_dump_may_write(struct rp_dump *dump)
{
    if (dump->finished && !dump->failed) {
        rp_dump_fail(dump, "write", "", "the dump is already finished");
        rp_dump_write_json(dump); /* what came too late is missing: no longer complete */
    }
    return !dump->failed;
}

int rp_dump_tokens(struct rp_dump *dump, const int32_t *ids, size_t n)
{
    int64_t wide[256];
    if (!dump)
        return 0;
    if (!rp_dump_may_write(dump))
        return -1;
    while (n > 0) {
        size_t i, take = n < 256 ? n : 256;
        struct rp_dump_file *file = rp_dump_find(dump, "tokens");
        if (!file)
            return rp_dump_fail(dump, "tokens", "", "out of memory");
        for (i = 0; i < take; i++)
            wide[i] = ids[i];
        if (rp_dump_append(dump, file, wide, sizeof wide[0], take) != 0)
            return -1;
        ids += take;
        n -= take;
    }
    return 0;
}

int rp_dump_model(struct rp_dump *dump, const char *model)
{
    if (!dump)
        return 0;
    if (!rp_dump_may_write(dump))
        return -1;
    free(dump->model);
    dump->model = rp_dump_copy(model ? model : "");
    if (!dump->model)
        return rp_dump_fail(dump, "model", "", "out of memory");
    return rp_dump_write_json(dump);
}

int rp_dump_rows(struct rp_dump *dump, const char *slot, long long first_position,
                 size_t n_positions, size_t dim, const float *rows)
{
    struct rp_dump_file *file;
    char detail[160];
    if (!dump)
        return 0;
    if (!rp_dump_may_write(dump))
        return -1;
    if (n_positions == 0)
        return 0;
    if (!rp_dump_is_name(slot))
        return rp_dump_fail(dump, "slot", slot, "not a name that a slot can have");
    if (dim == 0 || dim > (size_t)-1 / sizeof(float) / n_positions)
        return rp_dump_fail(dump, "slot", slot, dim ? "too large" : "dim is 0");
    if (first_position < 0 || first_position > RP_DUMP_MAX_POSITION ||
        n_positions > (unsigned long long)(RP_DUMP_MAX_POSITION - first_position))
        return rp_dump_fail(dump, "slot", slot, "a position is negative or beyond 2^53");
    file = rp_dump_find(dump, slot);
    if (!file)
        return rp_dump_fail(dump, "slot", slot, "out of memory");
    if (file->n_rows == 0)
        file->dim = dim;
    if (dim != file->dim) {
        snprintf(detail, sizeof detail, "dim was %llu and is now %llu",
                 (unsigned long long)file->dim, (unsigned long long)dim);
        return rp_dump_fail(dump, "slot", slot, detail);
    }
    if (first_position < file->next_position) {
        snprintf(detail, sizeof detail,
                 "positions have to ascend: expected %lld or a later one, got %lld",
                 file->next_position, first_position);
        return rp_dump_fail(dump, "slot", slot, detail);
    }
    if (first_position > file->next_position) {
        if (rp_dump_add_jump(file, first_position) != 0)
            return rp_dump_fail(dump, "slot", slot, "out of memory");
        if (rp_dump_write_json(dump) != 0)
            return -1;
    }
    file->next_position = first_position + (long long)n_positions;
    return rp_dump_append(dump, file, rows, dim * sizeof(float), n_positions);
}

int rp_dump_layer(struct rp_dump *dump, int layer, const char *part, long long first_position,
                  size_t n_positions, size_t dim, const float *rows)
{
    char name[2 * RP_DUMP_NAME_SIZE];
    if (!dump)
        return 0;
    if (layer < 0 || (dump->n_layers >= 0 && layer >= dump->n_layers)) {
        snprintf(name, sizeof name, "expected 0 to %d, got %d", dump->n_layers - 1, layer);
        return rp_dump_fail(dump, "layer", "", name);
    }
    if (part && part[0])
        snprintf(name, sizeof name, "h%d_%s", layer, part);
    else
        snprintf(name, sizeof name, "h%d", layer);
    return rp_dump_rows(dump, name, first_position, n_positions, dim, rows);
}

/* "q,k" is written as ["q", "k"]; numbers: the rule's others. */
static int rp_dump_add_order(struct rp_dump *dump, const char *slots, const char *numbers)
{
    size_t i, n = 0, size = 6 * strlen(slots) + strlen(numbers) + 32;
    char *grown = (char *)realloc(dump->order, dump->n_order + size);
    if (!grown)
        return rp_dump_fail(dump, "order", slots, "out of memory");
    dump->order = grown;
    grown += dump->n_order;
    n = (size_t)snprintf(grown, size, "%s{\"slots\": [\"", dump->n_order ? ", " : "");
    for (i = 0; slots[i]; i++) {
        if (slots[i] == ',')
            n += (size_t)snprintf(grown + n, size - n, "\", \"");
        else
            grown[n++] = slots[i];
    }
    n += (size_t)snprintf(grown + n, size - n, "\"], %s}", numbers);
    dump->n_order += n;
    return rp_dump_write_json(dump);
}

static int rp_dump_may_order(struct rp_dump *dump, const char *slots)
{
    size_t i;
    int is_start = 1; /* of a name */
    if (!rp_dump_may_write(dump))
        return 0;
    for (i = 0; slots[i]; i++) {
        char c = slots[i];
        int letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c == '_' && !is_start);
        if (!letter && (c != ',' || is_start))
            break;
        is_start = c == ',';
    }
    if (slots[i] || is_start)
        rp_dump_fail(dump, "order", slots, "expected slots of a layer, as \"q,k\" or \"h0_q\"");
    return !dump->failed;
}

int rp_dump_order_interleaved(struct rp_dump *dump, const char *slots, size_t head_dim,
                              size_t n_rot)
{
    char numbers[160];
    if (!dump)
        return 0;
    if (!rp_dump_may_order(dump, slots))
        return -1;
    if (n_rot < 2 || n_rot % 2 != 0 || n_rot > head_dim)
        return rp_dump_fail(dump, "order", slots, "n_rot is not even, or not 2 to head_dim");
    snprintf(numbers, sizeof numbers,
             "\"kind\": \"interleaved_pairs\", \"head_dim\": %llu, \"n_rot\": %llu",
             (unsigned long long)head_dim, (unsigned long long)n_rot);
    return rp_dump_add_order(dump, slots, numbers);
}

int rp_dump_order_tiled(struct rp_dump *dump, const char *slots, size_t head_dim, size_t n_groups,
                        size_t first)
{
    char numbers[160];
    if (!dump)
        return 0;
    if (!rp_dump_may_order(dump, slots))
        return -1;
    if (head_dim == 0 || n_groups == 0)
        return rp_dump_fail(dump, "order", slots, "head_dim or n_groups is 0");
    snprintf(numbers, sizeof numbers,
             "\"kind\": \"tiled_heads\", \"head_dim\": %llu, \"n_groups\": %llu, \"first\": %llu",
             (unsigned long long)head_dim, (unsigned long long)n_groups, (unsigned long long)first);
    return rp_dump_add_order(dump, slots, numbers);
}

int rp_dump_finish(struct rp_dump *dump)
{
    size_t i;
    if (!dump)
        return 0;
    if (dump->finished)
        return dump->failed ? -1 : 0;
    for (i = 0; i < dump->n_files; i++) {
        errno = 0;
        if (rp_dump_close_file(dump, &dump->files[i]) != 0) {
            rp_dump_path(dump, dump->files[i].name, ".npy");
            rp_dump_fail_errno(dump, "cannot write");
        }
    }
    dump->finished = 1;
    if (dump->json)
        rp_dump_write_json(dump);
    return dump->failed ? -1 : 0;
}

int rp_dump_close(struct rp_dump *dump)
{
    size_t i;
    int result = rp_dump_finish(dump);
    if (!dump || dump->path_size == 0) /* off, or rp_dump_out_of_memory's */
        return result;
    for (i = 0; i < dump->n_files; i++)
        free(dump->files[i].jumps);
    if (dump->json)
        fclose(dump->json);
    free(dump->files);
    free(dump->text);
    free(dump->order);
    free(dump->folder);
    free(dump->path);
    free(dump->engine);
    free(dump->model);
    free(dump); /* NOLINT(clang-analyzer-unix.Malloc): never the static one, see above */
    return result;
}

#endif /* REFPARITY_DUMP_IMPLEMENTED */
#endif /* REFPARITY_DUMP_IMPLEMENTATION */
