/* See selection.h. The file: the session and a newline, a mark for each pair, one for the end. */
#include "run/selection.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

enum { NO = '.', YES = 'x' };

static enum rp_status path_of(const char *work_dir, char *path, struct rp_error *err)
{
    return rp_path_join(path, RP_PATH_SIZE, work_dir, "selected", err);
}

enum rp_status rp_selection_begin(const char *work_dir, const char *session,
                                  const struct rp_matrix *matrix, struct rp_error *err)
{
    char path[RP_PATH_SIZE];
    const size_t n = matrix ? rp_matrix_n_pairs(matrix) : 0, head = strlen(session) + 1;
    char *text = malloc(head + n + 1);
    if (!text)
        return rp_fail(err, RP_ERR_MEMORY, work_dir, -1, "not enough memory for %zu pairs", n);
    memcpy(text, session, head - 1);
    text[head - 1] = '\n';
    memset(text + head, NO, n + 1);
    enum rp_status status = path_of(work_dir, path, err);
    if (!status)
        status = rp_file_write_atomic(path, text, head + n + 1, err);
    free(text);
    return status;
}

/* Reads the marks of the context's session, [n + 1]; false where there are none. */
static bool read_marks(const struct rp_context *context, size_t n, char *marks)
{
    char path[RP_PATH_SIZE], *text = NULL;
    size_t length = 0;
    const size_t head = strlen(context->session) + 1;
    if (!context->session[0] || path_of(context->work_dir, path, NULL) ||
        rp_file_read(path, head + n + 1, &text, &length, NULL))
        return false;
    const bool fits = length == head + n + 1 && text[head - 1] == '\n' &&
                      memcmp(text, context->session, head - 1) == 0;
    if (fits)
        memcpy(marks, text + head, n + 1);
    free(text);
    return fits;
}

static enum rp_status mark(const struct rp_context *context, size_t index, struct rp_error *err)
{
    const size_t n = rp_matrix_n_pairs(context->matrix);
    const char yes = YES;
    char path[RP_PATH_SIZE], *marks = malloc(n + 1);
    if (!marks)
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory for %zu pairs", n);
    const bool known = read_marks(context, n, marks);
    free(marks);
    if (!known) /* no session, or one that cannot end well: see has_ended */
        return RP_OK;
    enum rp_status status = path_of(context->work_dir, path, err);
    if (status)
        return status;
    const int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || pwrite(fd, &yes, 1, (off_t)(strlen(context->session) + 1 + index)) != 1)
        status = rp_fail(err, RP_ERR_IO, path, -1, "cannot be written: %s", strerror(errno));
    if (fd >= 0 && close(fd) && !status)
        status = rp_fail(err, RP_ERR_IO, path, -1, "cannot be written: %s", strerror(errno));
    return status;
}

enum rp_status rp_selection_add(const struct rp_context *context, const struct rp_pair *pair,
                                struct rp_error *err)
{
    const size_t n = rp_matrix_n_pairs(context->matrix);
    for (size_t i = 0; context->session[0] && i < n; i++) {
        struct rp_pair other;
        rp_matrix_pair(context->matrix, i, &other);
        if (strcmp(other.name, pair->name) == 0)
            return mark(context, i, err);
    }
    return RP_OK;
}

enum rp_status rp_selection_end(const struct rp_context *context, struct rp_error *err)
{
    return mark(context, rp_matrix_n_pairs(context->matrix), err);
}

enum rp_status rp_selection_read(const struct rp_context *context, struct rp_selection *selection,
                                 struct rp_error *err)
{
    const size_t n = rp_matrix_n_pairs(context->matrix);
    char *marks = malloc(n + 1);
    *selection = (struct rp_selection){.selected = calloc(n + 1, sizeof(bool)), .n = n};
    if (!marks || !selection->selected) {
        free(marks);
        rp_selection_free(selection);
        return rp_fail(err, RP_ERR_MEMORY, NULL, -1, "not enough memory for %zu pairs", n);
    }
    if (read_marks(context, n, marks)) {
        for (size_t i = 0; i < n; i++)
            selection->selected[i] = marks[i] == YES;
        selection->has_ended = marks[n] == YES;
    }
    free(marks);
    return RP_OK;
}

void rp_selection_free(struct rp_selection *selection)
{
    free(selection->selected);
    memset(selection, 0, sizeof *selection);
}
