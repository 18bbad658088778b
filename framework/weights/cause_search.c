/* See weights/cause_search.h. */
#include "weights/cause_search.h"

#include <stdarg.h>
#include <stdio.h>

void rp_cause_say(struct rp_cause_search *search, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(search->text, RP_CAUSE_SIZE, fmt, args);
    va_end(args);
}

enum rp_status rp_cause_take_samples(struct rp_cause_search *search,
                                     const struct rp_tensor_rows *rows)
{
    const size_t width = search->expected->dims[0];
    enum rp_status status = RP_OK;
    for (size_t i = 0; i < rows->n_samples && status == RP_OK; i++) {
        struct rp_file_row *row = &search->rows[i];
        const size_t r = rows->samples[i];
        search->indices[i] = r;
        status = rp_file_row_alloc(search->file, search->tensor, row, search->err);
        if (status == RP_OK)
            status = rp_file_row_read(search->file, search->tensor, r, row, search->err);
        if (status == RP_OK && !search->is_sketched)
            status = rp_gguf_row(search->checkpoint, search->expected, r,
                                 search->wanted + i * width, search->err);
        search->n_samples += status == RP_OK;
    }
    return status;
}

bool rp_cause_is_sketched(const struct rp_cause_search *search, const struct rp_gguf_tensor *tensor)
{
    const struct rp_tensor_sketch *sketch = rp_gguf_origin(search->checkpoint, tensor).sketch;
    return sketch && sketch->data;
}

enum rp_status rp_cause_take_row(struct rp_cause_search *search,
                                 const struct rp_gguf_tensor *tensor, size_t index)
{
    if (!search->is_sketched)
        return rp_gguf_row(search->checkpoint, tensor, index, search->made, search->err);
    const struct rp_gguf_origin origin = rp_gguf_origin(search->checkpoint, tensor);
    search->place.tensor = tensor;
    const struct rp_sketched_row row = rp_origin_sketched_row(&origin, index);
    search->place.sketch = row.sketch;
    search->place.row = row.row;
    search->place.columns = origin.columns;
    return RP_OK;
}

enum rp_status rp_cause_compare_row(struct rp_cause_search *search, size_t i, bool *is_same)
{
    struct rp_row_distance distance = {.is_same = false};
    enum rp_status status = RP_OK;
    if (search->is_sketched)
        status = rp_sketch_row_distance(&search->rows[i], &search->place, &distance, search->err);
    else
        distance = rp_row_distance(&search->rows[i], search->made, search->tolerance);
    *is_same = distance.is_same;
    return status;
}

enum rp_status rp_cause_check(struct rp_cause_search *search, rp_make_row_fn *make,
                              const void *candidate, bool *holds)
{
    enum rp_status status = RP_OK;
    *holds = true;
    for (size_t i = 0; i < search->n_samples && *holds && status == RP_OK; i++) {
        status = make(search, candidate, i);
        if (status == RP_OK)
            status = rp_cause_compare_row(search, i, holds);
    }
    return status;
}
