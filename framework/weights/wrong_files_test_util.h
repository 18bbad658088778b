/* Wrong conversions for tests: a tiny GGUF in memory, its checkpoint, and ways to spoil a tensor of it. */
#ifndef REFPARITY_WEIGHTS_WRONG_FILES_TEST_UTIL_H
#define REFPARITY_WEIGHTS_WRONG_FILES_TEST_UTIL_H

#include "refparity/weights.h"

#define MAX_WRONG 64

/* A tiny file in memory, to be spoilt, and its checkpoint. */
struct rp_wrong_file {
    char *bytes;
    size_t size;
    struct rp_gguf *file, *checkpoint;
    size_t n_tensors, n_values, n_wrong;
    struct rp_weights_finding wrong[MAX_WRONG];
};

/* fixtures/tiny/<model>/<model>-<type>.gguf, and its checkpoint. */
void rp_test_open_subject(struct rp_wrong_file *subject, const char *model, const char *type);
void rp_test_close_subject(struct rp_wrong_file *subject);

const struct rp_gguf_tensor *rp_test_tensor_of(const struct rp_wrong_file *subject,
                                               const char *name);
/* The tensor's bytes, to be changed. */
unsigned char *rp_test_bytes_of(const struct rp_wrong_file *subject, const char *name);

/* Parses the changed bytes anew, and compares. */
void rp_test_compare(struct rp_wrong_file *subject);
/* One finding is wrong: of that name, and of that cause ("": of none). */
void rp_test_expect_wrong(const struct rp_wrong_file *subject, const char *name, const char *cause);

/* All the tiny files, each opened by open, are what they are compared with. */
void rp_test_expect_right_files(void (*open)(struct rp_wrong_file *subject, const char *model,
                                             const char *type));

/* What is done to a tensor. */
typedef void rp_spoil_fn(const struct rp_wrong_file *subject, const char *name);
rp_spoil_fn rp_spoil_unpermute;
rp_spoil_fn rp_spoil_permute_twice;
rp_spoil_fn rp_spoil_reverse_rows;
rp_spoil_fn rp_spoil_permute_as_llama;
rp_spoil_fn rp_spoil_unpermute_columns;
rp_spoil_fn rp_spoil_transpose_bf16;
rp_spoil_fn rp_spoil_copy_row_1_to_0;
rp_spoil_fn rp_spoil_exchange_nibbles;
rp_spoil_fn rp_spoil_take_layer_1;
rp_spoil_fn rp_spoil_add_one;
rp_spoil_fn rp_spoil_take_one;
rp_spoil_fn rp_spoil_halve;
rp_spoil_fn rp_spoil_undo_minus_exp;
rp_spoil_fn rp_spoil_double_scales;
rp_spoil_fn rp_spoil_clear;
rp_spoil_fn rp_spoil_clear_rows_10_to_19;
rp_spoil_fn rp_spoil_pack_neighbours;
rp_spoil_fn rp_spoil_write_nan;
rp_spoil_fn rp_spoil_move_one_value;
rp_spoil_fn rp_spoil_move_one_bit;
/* Of each block of Q8_0 only three values are left, 0 and plus or minus the largest. */
rp_spoil_fn rp_spoil_coarsen_q8_0;
/* value * factor + added, of FP32. */
void rp_test_map_f32(const struct rp_wrong_file *subject, const char *name, float factor,
                     float added);

#endif
