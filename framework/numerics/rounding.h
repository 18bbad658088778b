/* Rows of FP32 values as an engine's format holds them: quantized in blocks and back, or element by
 * element; and the near-ties met on the way. Not for where rows are rounded: that is numerics.c. */
#ifndef REFPARITY_NUMERICS_ROUNDING_H
#define REFPARITY_NUMERICS_ROUNDING_H

#include "refparity/numerics.h"

/* Whose row it is, for the ties. */
struct rp_rounding_site {
    struct rp_emulation *emulation;
    int64_t position;
    enum rp_weight_id which;
    bool notes_ties; /* false: another product notes those of the same row */
    double unsure;   /* how far the row may be off beyond FP32, relative as tie_tolerance is */
};

/* y [n] = x [n] rounded to format: RP_GGML_F16, _BF16, _Q8_0, _Q8_K or _Q4_0; any other: unchanged. y may
 * be x. Flips of site->emulation for this row are made, and its ties are noted. site may be NULL.
 * RP_ERR_MEMORY. */
enum rp_status rp_round_row(uint32_t format, const float *x, size_t n, float *y,
                            const struct rp_rounding_site *site, struct rp_error *err);

/* One value of many, as rp_round_row does with RP_GGML_F16; index is what a tie of it is called, and
 * scale stands for the RMS of its row. */
enum rp_status rp_round_one_f16(float x, size_t index, double scale, float *y,
                                const struct rp_rounding_site *site, struct rp_error *err);

/* The scale of a Q8_0 block as rp_round_row stores it; its ties were noted there. */
enum rp_status rp_round_scale(float scale, size_t block, const struct rp_rounding_site *site,
                              float *stored, struct rp_error *err);

/* The sum of a Q8_1 block, stored in F16; largest of the block's values, norm of the whole row. Ties are RP_TIE_SCALE of
 * RP_GGML_Q8_1. */
enum rp_status rp_round_block_sum(float sum, size_t block, double largest, double norm,
                                  const struct rp_rounding_site *site, float *stored,
                                  struct rp_error *err);

#endif
