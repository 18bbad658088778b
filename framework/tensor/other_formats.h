/* What a file holds, by its first bytes: a layout that is read, or a format of another tool, which is named
 * with the lines that convert it. Not for reading any of them. */
#ifndef REFPARITY_TENSOR_OTHER_FORMATS_H
#define REFPARITY_TENSOR_OTHER_FORMATS_H

#include <stdbool.h>
#include <stdio.h>

#include "refparity/tensor_set.h"

/* The layout of the file at path. RP_ERR_UNSUPPORTED: it is none, and the message says what it is;
 * RP_ERR_MISSING, RP_ERR_IO. A file that nothing tells is an npz, whose reader says what is wrong. */
enum rp_status rp_file_layout(const char *path, enum rp_layout *layout, struct rp_error *err);

/* A header's length that the file has room for, and a JSON object. */
bool rp_is_safetensors(const uint8_t *bytes, size_t size);

/* What bytes[size] are called, and the two lines that convert them or do what they were for, in which FILE
 * stands for the path; NULL where they are no known format of another tool. path: of some the name alone
 * tells. */
const char *rp_other_format(const uint8_t *bytes, size_t size, const char *path,
                            const char **lines);
/* Prints those lines for the file at path; false where there are none. */
bool rp_other_format_print(FILE *out, const char *path);

#endif
