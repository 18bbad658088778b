/* The 16-bit formats that engines round FP32 values to: round to nearest, ties to even, as F16C and
 * ggml do. Not for decoding what a file holds: that is weights/gguf_rows.c. */
#ifndef REFPARITY_FORMATS_HALF_H
#define REFPARITY_FORMATS_HALF_H

/* x as the nearest F16 (IEEE 754 binary16), subnormals included; from 65520 on it is infinite. */
float rp_round_f16(float x);
/* x as the nearest BF16; NaN stays NaN. */
float rp_round_bf16(float x);

/* The F16 or BF16 on the other side of x than rounded, which is one of x's two neighbours; rounded
 * itself where x is representable, or where there is no finite one. */
float rp_other_f16(float x, float rounded);
float rp_other_bf16(float x, float rounded);

/* From one value of the type to the next, at x. */
double rp_step_f16(float x);
double rp_step_bf16(float x);

#endif
