/* See formats/hadamard.h. */
#include "formats/hadamard.h"

#include <math.h>

#define LEAST 64

size_t rp_hadamard_size(size_t head_dim, bool is_value)
{
    size_t size = LEAST;
    if (head_dim % LEAST != 0)
        return 0;
    while (!is_value && head_dim % (2 * size) == 0)
        size *= 2;
    return size;
}

void rp_hadamard(float *x, size_t n_values, size_t n)
{
    float scale = 1.0f / sqrtf((float)n);
    for (size_t block = 0; block + n <= n_values; block += n) {
        float *values = x + block;
        for (size_t half = 1; half < n; half *= 2)
            for (size_t first = 0; first < n; first += 2 * half)
                for (size_t i = first; i < first + half; i++) {
                    float a = values[i], b = values[i + half];
                    values[i] = a + b;
                    values[i + half] = a - b;
                }
        for (size_t i = 0; i < n; i++)
            values[i] *= scale;
    }
}
