/* Writes a checkpoint's sketch in C, for tests: what fixtures/weights_sketch.py writes. */
#ifndef REFPARITY_WEIGHTS_SKETCH_TEST_UTIL_H
#define REFPARITY_WEIGHTS_SKETCH_TEST_UTIL_H

#include <stddef.h>

/* Of the checkpoint in folder, a tensor with whole_below values or more by its rows. */
void rp_test_write_sketch(const char *folder, size_t whole_below, size_t n_vectors,
                          const char *path);

#endif
