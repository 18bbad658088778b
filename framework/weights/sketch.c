/* See weights/sketch.h. */
#include "weights/sketch.h"

#include <math.h>

#include "formats/quants.h"

bool rp_sketch_row(const struct rp_tensor_sketch *sketch, size_t row, struct rp_row_sketch *out)
{
    float values[2 + RP_SKETCH_MAX_VECTORS];
    const size_t n = 2 + sketch->n_vectors;
    bool is_finite = true;
    rp_decode_f32(sketch->data + 4 * n * row, n, values);
    for (size_t i = 0; i < n; i++)
        is_finite = is_finite && isfinite(values[i]);
    out->norm = (double)values[0];
    out->envelope = (double)values[1];
    for (size_t i = 2; i < n; i++)
        out->products[i - 2] = (double)values[i];
    return is_finite && values[0] >= 0 && values[1] >= 0;
}

uint64_t rp_sketch_signs(size_t row, size_t block, size_t vector)
{
    const uint64_t index = ((uint64_t)row << 32) + ((uint64_t)block << 8) + vector;
    uint64_t z = (index + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void rp_sketch_products(size_t row, const float *x, size_t n, const size_t *columns,
                        size_t n_vectors, double *products)
{
    for (size_t vector = 0; vector < n_vectors; vector++) {
        size_t block = SIZE_MAX;
        uint64_t signs = 0;
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            const size_t column = columns ? columns[i] : i;
            if (column / 64 != block) {
                block = column / 64;
                signs = rp_sketch_signs(row, block, vector);
            }
            const double value = (double)x[i];
            sum += signs >> column % 64 & 1 ? -value : value;
        }
        products[vector] = sum;
    }
}

void rp_square_bounds_add(struct rp_square_bounds *bounds, double square)
{
    bounds->sum += square;
    bounds->sum_of_squares += square * square;
    bounds->largest = fmax(bounds->largest, square);
}

double rp_sketch_limit(const struct rp_square_bounds *bounds, size_t n_vectors, double x)
{
    const double n = (double)n_vectors;
    return n * bounds->sum + 2 * sqrt(n * x * bounds->sum_of_squares) + 2 * x * bounds->largest;
}
