/* The points that the values of ggml's IQ types lie on, in groups of 8 or 4: what the numbers in a block stand
 * for. Not for how a block keeps numbers, signs and scales: that is quants_iq.c. */
#ifndef REFPARITY_FORMATS_QUANTS_GRIDS_H
#define REFPARITY_FORMATS_QUANTS_GRIDS_H

#include <stdint.h>

/* 8 values a point, 2 bits each, the first lowest: 0, 1, 2 stand for 8, 25, 43. */
extern const uint16_t rp_iq2_xxs_grid[256], rp_iq2_xs_grid[512], rp_iq2_s_grid[1024];
/* 4 values a point, 4 bits each, of which 3 are used: 0 to 7 stand for 4, 12, 20, 28, 36, 44, 52, 62 in IQ3_XXS,
 * and for 1, 3 to 15 in IQ3_S. */
extern const uint16_t rp_iq3_xxs_grid[256], rp_iq3_s_grid[512];
/* 8 values a point, 2 bits each: 0, 1, 2 stand for -1, 0, 1. Of IQ1_S and IQ1_M. */
extern const uint16_t rp_iq1_grid[2048];

#endif
