/* Loops over many values, compiled twice: for every CPU of the architecture, and for those with AVX2.
 * Both give the same bits: lanes stand in the source, contraction to FMA is off, and the compiler
 * reorders no sum. Not for intrinsics: compare/row_sums.c has those. */
#ifndef REFPARITY_BASE_AVX2_H
#define REFPARITY_BASE_AVX2_H

#include <stdbool.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define RP_HAS_AVX2 (__builtin_cpu_supports("avx2") != 0)
#define RP_AVX2 __attribute__((target("avx2")))
#define RP_LOOP static inline __attribute__((always_inline))
#else
#define RP_HAS_AVX2 false
#define RP_AVX2
#define RP_LOOP static inline
#endif

/* After RP_LOOP void NAME_loop PARAMETERS {…}: defines void NAME PARAMETERS, which runs it as the CPU
 * can; storage is static, or empty. */
#define RP_COMPILE_TWICE(storage, name, parameters, arguments) \
    RP_AVX2 static void name##_avx2 parameters                 \
    {                                                          \
        name##_loop arguments;                                 \
    }                                                          \
    static void name##_plain parameters                        \
    {                                                          \
        name##_loop arguments;                                 \
    }                                                          \
    storage void name parameters                               \
    {                                                          \
        if (RP_HAS_AVX2)                                       \
            name##_avx2 arguments;                             \
        else                                                   \
            name##_plain arguments;                            \
    }

#endif
