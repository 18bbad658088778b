/* Writes .npy and .zip bytes for tests, broken ones included. Not for production: it aborts when
 * memory runs out. */
#ifndef REFPARITY_TENSOR_NPZ_WRITER_TEST_UTIL_H
#define REFPARITY_TENSOR_NPZ_WRITER_TEST_UTIL_H

#include <stddef.h>
#include <stdint.h>

#include "base/scratch_test_util.h"

struct rp_test_bytes {
    uint8_t *data; /* [n]; heap */
    size_t n, max;
};

void rp_test_put(struct rp_test_bytes *out, const void *bytes, size_t n);
void rp_test_put_u16(struct rp_test_bytes *out, unsigned value);
void rp_test_put_u32(struct rp_test_bytes *out, uint64_t value); /* its low 32 bits */
void rp_test_put_u64(struct rp_test_bytes *out, uint64_t value);
void rp_test_free(struct rp_test_bytes *out);

/* An .npy of that version with dict as its header's text, then data[n]. */
void rp_test_npy_dict(struct rp_test_bytes *out, int version, const char *dict, const void *data,
                      size_t n);
/* As numpy.save writes it: shape is "(9, 128)". */
void rp_test_npy(struct rp_test_bytes *out, const char *descr, const char *shape, const void *data,
                 size_t n);
/* float32 [n_rows][dim], value = first + index. */
void rp_test_npy_rows(struct rp_test_bytes *out, size_t n_rows, size_t dim, float first);

enum {
    RP_TEST_DEFLATED = 1,
    RP_TEST_ZIP64 = 2,      /* 0xffffffff sizes and a zip64 field in the local header, as numpy */
    RP_TEST_ZIP64_ENTRY = 4 /* the same in the central directory */
};

struct rp_test_zip {
    struct rp_test_bytes members, directory;
    unsigned n_members;
    size_t last_header, last_entry; /* offsets of what rp_test_zip_add wrote last */
};

void rp_test_zip_add(struct rp_test_zip *zip, const char *name, const void *content, size_t n,
                     unsigned how);
/* Members, directory and end record into out; frees zip. is_zip64 adds zip64 end records. */
void rp_test_zip_finish(struct rp_test_zip *zip, int is_zip64, struct rp_test_bytes *out);

#endif
