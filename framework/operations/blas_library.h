/* The CBLAS that large products go through, where the build found one: loaded at the first product that
 * wants it, so that a command without products never waits for it. Not for deciding which do: matmul.c. */
#ifndef REFPARITY_OPERATIONS_BLAS_LIBRARY_H
#define REFPARITY_OPERATIONS_BLAS_LIBRARY_H

#include <stdbool.h>

#if defined(RP_HAVE_CBLAS)
#include <cblas.h>

/* Can rp_blas_sgemm be called now? False where the library is not there, and where the process may not
 * have the address space that OpenBLAS wants for its buffers: it would ask for it for ever. To be asked
 * before each call; some microseconds. */
bool rp_blas_is_ready(void);

/* cblas_sgemm. */
void rp_blas_sgemm(enum CBLAS_ORDER order, enum CBLAS_TRANSPOSE a_is, enum CBLAS_TRANSPOSE b_is,
                   int m, int n, int k, float alpha, const float *a, int a_stride, const float *b,
                   int b_stride, float beta, float *c, int c_stride);
#endif

/* From now on, or from when it is loaded, it uses one thread. OpenBLAS alone. */
void rp_blas_one_thread(void);

#endif
