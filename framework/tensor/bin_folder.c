/* A tensor set in a folder of raw float32 files, little-endian: NAME.bin for one position or for all, or
 * NAME_p{pos}.bin for several. Declared in tensor/set.h. tokens.txt beside them is optional. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tensor/set.h"

#define PATH_SIZE 4096
#define MAX_TOKENS_TXT ((size_t)64 << 20)

struct bin_file {
    char slot[RP_SLOT_NAME_SIZE];
    int64_t position; /* -1 for NAME.bin */
    int64_t size;     /* -1 for what is not a regular file: a link, too */
};

static void file_name(const char *slot, int64_t position, char *out, size_t size)
{
    if (position < 0)
        snprintf(out, size, "%s.bin", slot);
    else
        snprintf(out, size, "%s_p%lld.bin", slot, (long long)position);
}

static const char *file_path(const struct rp_tensor_set *set, const char *slot, int64_t position,
                             char *path)
{
    char name[RP_FILE_NAME_SIZE + 32];
    file_name(slot, position, name, sizeof name);
    rp_path_join(path, PATH_SIZE, set->path, name, NULL); /* too long: "", which is no file */
    return path;
}

/* "h3_in_p12" is slot h3_in, position 12; "h3_p007", "h3_p" and "_p12" are slots of that name. */
static int split_name(const char *name, struct bin_file *file)
{
    size_t n = strlen(name);
    if (n <= 4 || strcmp(name + n - 4, ".bin") != 0)
        return 0;
    n -= 4;
    size_t digits = n;
    while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9')
        digits--;
    size_t n_digits = n - digits;
    file->position = -1;
    if (n_digits >= 1 && n_digits <= 15 && (name[digits] != '0' || n_digits == 1) && digits > 2 &&
        memcmp(name + digits - 2, "_p", 2) == 0) {
        file->position = 0;
        for (size_t i = digits; i < n; i++)
            file->position = file->position * 10 + (name[i] - '0');
        n = digits - 2;
    }
    if (!rp_slot_is_name(name, n))
        return 0;
    memcpy(file->slot, name, n);
    file->slot[n] = '\0';
    return 1;
}

static int by_slot_and_position(const void *a, const void *b)
{
    const struct bin_file *x = a, *y = b;
    int order = strcmp(x->slot, y->slot);
    return order ? order : (x->position > y->position) - (x->position < y->position);
}

static enum rp_status list_files(const struct rp_tensor_set *set, struct bin_file **files,
                                 size_t *n, struct rp_error *err)
{
    enum rp_status code = RP_OK;
    size_t max = 0;
    const struct dirent *entry;
    DIR *folder = opendir(set->path);
    if (!folder)
        return rp_fail(err, RP_ERR_IO, set->path, -1, "cannot list: %s", strerror(errno));
    while (!code && (entry = readdir(folder)) != NULL) {
        struct bin_file file;
        struct stat info;
        if (!split_name(entry->d_name, &file) ||
            fstatat(dirfd(folder), entry->d_name, &info, AT_SYMLINK_NOFOLLOW))
            continue;
        file.size = S_ISREG(info.st_mode) ? (int64_t)info.st_size : -1;
        if (*n == max) {
            max = max ? 2 * max : 256;
            struct bin_file *grown = realloc(*files, max * sizeof **files);
            if (grown)
                *files = grown;
            else
                code = rp_fail(err, RP_ERR_MEMORY, set->path, -1, "cannot allocate %zu names", max);
        }
        if (*n == RP_SET_MAX_FILES)
            code = rp_fail(err, RP_ERR_UNSUPPORTED, set->path, -1, "expected at most %d .bin files",
                           RP_SET_MAX_FILES);
        if (!code)
            (*files)[(*n)++] = file;
    }
    closedir(folder);
    if (!code && *n > 0)
        qsort(*files, *n, sizeof **files, by_slot_and_position);
    return code;
}

/* files[n] are all of one slot, in order of position. */
static enum rp_status check_files(const struct rp_tensor_set *set, const struct bin_file *files,
                                  size_t n, struct rp_error *err)
{
    char path[PATH_SIZE], first[RP_FILE_NAME_SIZE + 32];
    if (files[0].position < 0 && n > 1)
        return rp_fail(err, RP_ERR_MISMATCH, file_path(set, files[0].slot, -1, path), -1,
                       "%s_p%lld.bin is there too: one of them is left over from another run",
                       files[1].slot, (long long)files[1].position);
    file_name(files[0].slot, files[0].position, first, sizeof first);
    for (size_t i = 0; i < n; i++) {
        file_path(set, files[i].slot, files[i].position, path);
        if (files[i].size < 0)
            return rp_fail(err, RP_ERR_UNSUPPORTED, path, -1,
                           "expected a regular file, found a link, a FIFO or the like");
        if (files[i].size == 0 || files[i].size % 4 != 0)
            return rp_fail(err, RP_ERR_FORMAT, path, -1,
                           "expected one or more float32 values of 4 bytes, found %lld bytes",
                           (long long)files[i].size);
        if (files[i].size != files[0].size)
            return rp_fail(err, RP_ERR_MISMATCH, path, -1,
                           "expected %lld bytes as in %s, found %lld", (long long)files[0].size,
                           first, (long long)files[i].size);
    }
    if ((uint64_t)files[0].size > SIZE_MAX / 2 / n)
        return rp_fail(err, RP_ERR_UNSUPPORTED, path, -1,
                       "%zu files of %lld bytes do not fit into memory", n,
                       (long long)files[0].size);
    return RP_OK;
}

/* The largest l of a plain h{l}.bin; -1: there is none. */
static int find_last_layer(const struct bin_file *files, size_t n)
{
    int last = -1;
    for (size_t i = 0; i < n; i++) {
        int layer;
        if (rp_slot_parse(files[i].slot, &layer) == RP_PART_OUTPUT && layer > last)
            last = layer;
    }
    return last;
}

/* How many positions the plain files hold by the width of a hidden state, in which emb and all layers but the
 * last have to agree; 1 where they do not: then what compares them says what is wrong. */
static size_t count_common_rows(const struct rp_tensor_set *set, const struct bin_file *files,
                                size_t n)
{
    const size_t width = set->options.width;
    size_t n_rows = 0;
    for (size_t i = 0; i < n && width > 0; i++) {
        int layer;
        const enum rp_slot_part part = rp_slot_parse(files[i].slot, &layer);
        if (files[i].position >= 0 || (part != RP_PART_EMB && part != RP_PART_OUTPUT))
            continue;
        const size_t n_values = files[i].size > 0 ? (size_t)files[i].size / 4 : 0;
        if (part == RP_PART_OUTPUT && layer == set->last_layer && n_values == width)
            continue;
        if (n_values == 0 || n_values % width != 0 || (n_rows > 0 && n_values / width != n_rows))
            return 1;
        n_rows = n_values / width;
    }
    return n_rows > 0 ? n_rows : 1;
}

/* The positions of the plain files: of the option, or as many hidden states as they hold. */
static enum rp_status find_rows(struct rp_tensor_set *set, const struct bin_file *files, size_t n,
                                struct rp_error *err)
{
    const bool is_said = set->options.n_rows > 0;
    set->last_layer = find_last_layer(files, n);
    set->n_rows = is_said ? set->options.n_rows : count_common_rows(set, files, n);
    if (set->n_rows > RP_SET_MAX_POSITIONS)
        return rp_fail(err, RP_ERR_UNSUPPORTED, set->path, -1,
                       "expected at most %zu positions, found %zu", RP_SET_MAX_POSITIONS,
                       set->n_rows);
    if (set->n_rows == 1)
        return RP_OK;
    return rp_set_note(set, err, "each NAME.bin is read as %zu positions, %s", set->n_rows,
                       is_said ? "as --rows says"
                               : "as many hidden states as fit into it (--rows 1: as one)");
}

/* Behind the last layer's attention an engine may have the last position alone. */
static bool is_last_alone(const struct rp_tensor_set *set, const char *slot, size_t n_values)
{
    int layer;
    const enum rp_slot_part part = rp_slot_parse(slot, &layer);
    if (part == RP_PART_LOGITS)
        return n_values == set->options.n_logits;
    return n_values == set->options.width &&
           (part == RP_PART_POST_NORM || (part == RP_PART_OUTPUT && layer == set->last_layer));
}

/* How many positions a plain file of that slot holds, of n_values; 0: that cannot be, see err. */
static size_t count_rows(const struct rp_tensor_set *set, const char *slot, size_t n_values,
                         struct rp_error *err)
{
    const size_t width = strcmp(slot, "logits") == 0 ? set->options.n_logits : set->options.width;
    const size_t n_rows = set->n_rows;
    if (n_rows == 1 || is_last_alone(set, slot, n_values))
        return 1;
    if (n_values % n_rows == 0 &&
        (width == 0 || !rp_slot_is_required(slot) || n_values / n_rows == width))
        return n_rows;
    if (width > 0 && rp_slot_is_required(slot))
        rp_fail(err, RP_ERR_MISMATCH, set->path, -1,
                "%s.bin: expected %zu positions of %zu values, found %zu values", slot, n_rows,
                width, n_values);
    else
        rp_fail(err, RP_ERR_MISMATCH, set->path, -1,
                "%s.bin: expected the values of %zu positions, found %zu, which is no multiple",
                slot, n_rows, n_values);
    return 0;
}

static enum rp_status add_slot(struct rp_tensor_set *set, const struct bin_file *files, size_t n,
                               struct rp_error *err)
{
    struct rp_slot *slot;
    enum rp_status code = rp_set_add_slot(set, files[0].slot, strlen(files[0].slot), &slot, err);
    if (code || check_files(set, files, n, &slot->info.error))
        return code;
    const size_t n_values = (size_t)files[0].size / 4;
    slot->is_single_file = files[0].position < 0;
    const size_t n_rows =
        slot->is_single_file ? count_rows(set, files[0].slot, n_values, &slot->info.error) : n;
    if (n_rows == 0)
        return RP_OK;
    slot->own_positions = malloc(n_rows * sizeof *slot->own_positions);
    if (!slot->own_positions)
        return rp_fail(err, RP_ERR_MEMORY, set->path, -1, "cannot allocate %zu positions", n_rows);
    const int64_t single = set->options.single_position > 0 ? set->options.single_position : 0;
    for (size_t i = 0; i < n_rows; i++)
        slot->own_positions[i] = !slot->is_single_file ? files[i].position
                                 : n_rows > 1          ? (int64_t)i
                                 : set->n_rows > 1     ? (int64_t)set->n_rows - 1
                                                       : single;
    slot->info.n_positions = n_rows;
    slot->info.dim = slot->is_single_file ? n_values / n_rows : n_values;
    return n_rows == 1 && slot->is_single_file && set->n_rows > 1
               ? rp_set_note(set, err, "%s has one row: it is read as position %zu, the last",
                             files[0].slot, set->n_rows - 1)
               : RP_OK;
}

enum rp_status rp_bin_folder_open(struct rp_tensor_set *set, struct rp_error *err)
{
    struct bin_file *files = NULL;
    size_t n_files = 0, end;
    enum rp_status code = list_files(set, &files, &n_files, err);
    if (!code)
        code = find_rows(set, files, n_files, err);
    for (size_t start = 0; !code && start < n_files; start = end) {
        end = start + 1;
        while (end < n_files && strcmp(files[end].slot, files[start].slot) == 0)
            end++;
        code = add_slot(set, files + start, end - start, err);
    }
    free(files);
    return code;
}

/* Reads exactly size bytes, which is what the file had when the set was opened. */
static enum rp_status read_exactly(const char *path, char *to, size_t size, struct rp_error *err)
{
    struct stat info;
    size_t done = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0) {
        int number = errno;
        return rp_fail(err, RP_ERR_IO, path, -1, "cannot open: %s", strerror(number));
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || (uint64_t)info.st_size != size) {
        close(fd);
        return rp_fail(err, RP_ERR_MISMATCH, path, -1, "the file has changed since it was listed");
    }
    while (done < size) {
        ssize_t got = read(fd, to + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    close(fd);
    if (done < size)
        return rp_fail(err, RP_ERR_IO, path, (long long)done, "expected %zu bytes, could read %zu",
                       size, done);
    return RP_OK;
}

enum rp_status rp_bin_folder_load(const struct rp_tensor_set *set, const struct rp_slot *slot,
                                  struct rp_tensor *tensor, struct rp_error *err)
{
    char path[PATH_SIZE];
    enum rp_status code = RP_OK;
    size_t n = slot->is_single_file ? 1 : slot->info.n_positions;
    const size_t row_size = slot->info.dim * 4 * (slot->info.n_positions / n);
    char *rows = malloc(row_size * n);
    if (!rows)
        return rp_fail(err, RP_ERR_MEMORY, set->path, -1, "%s: cannot allocate %zu bytes",
                       slot->info.name, row_size * n);
    for (size_t i = 0; i < n && !code; i++) {
        int64_t position = slot->is_single_file ? -1 : slot->info.positions[i];
        file_path(set, slot->file_name, position, path);
        code = read_exactly(path, rows + i * row_size, row_size, err);
    }
    if (code) {
        free(rows);
        return code;
    }
    tensor->data = rows;
    tensor->owned = rows;
    return RP_OK;
}

static enum rp_status parse_tokens(struct rp_tensor_set *set, const char *path, const char *text,
                                   size_t n, struct rp_error *err)
{
    size_t n_lines = 1;
    for (size_t i = 0; i < n; i++)
        n_lines += text[i] == '\n';
    int64_t *tokens = malloc(n_lines * sizeof *tokens);
    if (!tokens)
        return rp_fail(err, RP_ERR_MEMORY, path, -1, "cannot allocate %zu tokens", n_lines);
    size_t n_tokens = 0, i = 0;
    while (i < n) {
        size_t start = i;
        int64_t id = 0;
        for (; i < n && text[i] >= '0' && text[i] <= '9' && id <= INT32_MAX; i++)
            id = id * 10 + (text[i] - '0');
        size_t digits = i - start;
        i += i < n && text[i] == '\r';
        if (digits == 0 || id > INT32_MAX || (i < n && text[i] != '\n')) {
            free(tokens);
            return rp_fail(err, RP_ERR_FORMAT, path, (long long)start,
                           "line %zu: expected a token id of 0 to 2147483647 and nothing else",
                           n_tokens + 1);
        }
        tokens[n_tokens++] = id;
        i++;
    }
    set->tokens = tokens;
    set->n_tokens = n_tokens;
    return RP_OK;
}

enum rp_status rp_bin_folder_tokens(struct rp_tensor_set *set, struct rp_error *err)
{
    char path[PATH_SIZE], *text;
    size_t n;
    enum rp_status code = rp_path_join(path, sizeof path, set->path, "tokens.txt", err);
    if (!code)
        code = rp_file_read_no_link(path, MAX_TOKENS_TXT, &text, &n, err);
    if (code)
        return code == RP_ERR_MISSING ? RP_OK : code;
    code = parse_tokens(set, path, text, n, err);
    free(text);
    return code;
}
