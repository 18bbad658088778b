/* The encodings of ggml's tensor types: in holds n values, a multiple of the type's block, out takes them
 * as FP32, exactly as ggml's dequantize_row_* and gguf.quants.dequantize give them. Not for which type
 * a tensor has: that is gguf_rows.c. Nothing outside this folder includes it. */
#ifndef REFPARITY_FORMATS_QUANTS_H
#define REFPARITY_FORMATS_QUANTS_H

#include <stddef.h>
#include <stdint.h>

typedef void rp_decode_fn(const unsigned char *in, size_t n, float *out);

/* Blocks of 1 and of 32 values. */
rp_decode_fn rp_decode_f32, rp_decode_f16, rp_decode_bf16, rp_decode_q4_0, rp_decode_q4_1,
    rp_decode_q5_0, rp_decode_q5_1, rp_decode_q8_0, rp_decode_iq4_nl, rp_decode_mxfp4;
rp_decode_fn rp_decode_nvfp4; /* blocks of 64 values */
/* Blocks of 256 values. */
rp_decode_fn rp_decode_q2_k, rp_decode_q3_k, rp_decode_q4_k, rp_decode_q5_k, rp_decode_q6_k,
    rp_decode_iq4_xs, rp_decode_tq1_0, rp_decode_tq2_0, rp_decode_iq1_s, rp_decode_iq1_m,
    rp_decode_iq2_xxs, rp_decode_iq2_xs, rp_decode_iq2_s, rp_decode_iq3_xxs, rp_decode_iq3_s;

/* What the numbers of IQ4_NL and IQ4_XS stand for. */
extern const float rp_iq4_values[16];

/* What the doubled values of MXFP4 and NVFP4, 0 1 2 3 4 6 8 12, are multiplied by, from the byte of their scale. */
float rp_mxfp4_scale(unsigned char exponent);
float rp_nvfp4_scale(unsigned char byte);

/* The minimum that each block of 32 values of Q4_1 or Q5_1 stores, and that a value of 0 stands for:
 * minima [n / 32], of the n values at in; block_bytes is 20 or 24. */
void rp_block_minima(const unsigned char *in, size_t n, size_t block_bytes, float *minima);

#endif
