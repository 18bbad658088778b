/* See operations/blas_library.h. A library is loaded once for a process: what was loaded is the only
 * state that this project keeps outside of its objects. */
#include "operations/blas_library.h"

#if defined(RP_HAVE_CBLAS)

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(RP_BLAS_PATH)
#include <dlfcn.h>
#endif

typedef void sgemm_function(enum CBLAS_ORDER order, enum CBLAS_TRANSPOSE a_is,
                            enum CBLAS_TRANSPOSE b_is, int m, int n, int k, float alpha,
                            const float *a, int a_stride, const float *b, int b_stride, float beta,
                            float *c, int c_stride);
typedef void set_threads_function(int n);

enum state { NOT_LOADED, LOADED, NOT_THERE };
static _Atomic(sgemm_function *) sgemm;
static _Atomic(set_threads_function *) set_threads;
static atomic_int state, one_thread;

#if defined(RP_BLAS_PATH)
/* Two threads may come here at once: both find the same. */
static void load(void)
{
    sgemm_function *found_sgemm = NULL;
    set_threads_function *found_set = NULL;
    /* the path may be of a package for developers, which is not there where the program runs */
    static const char *const names[] = {RP_BLAS_PATH, RP_BLAS_SONAME};
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof names[0]; i++)
        library = names[i][0] ? dlopen(names[i], RTLD_NOW | RTLD_LOCAL) : NULL;
    void *symbol = library ? dlsym(library, "cblas_sgemm") : NULL;
    memcpy(&found_sgemm, &symbol, sizeof symbol); /* ISO C has no cast for it */
    symbol = library ? dlsym(library, "openblas_set_num_threads") : NULL;
    memcpy(&found_set, &symbol, sizeof symbol);
    atomic_store(&sgemm, found_sgemm);
    atomic_store(&set_threads, found_set);
}
#else
static void load(void)
{
    atomic_store(&sgemm, cblas_sgemm);
#if defined(RP_HAVE_OPENBLAS)
    atomic_store(&set_threads, openblas_set_num_threads);
#endif
}
#endif

/* OpenBLAS takes, for each processor, a stack and a buffer of 32 MiB, and asks again and again for what
 * it does not get. Its code and tables take the rest. */
static bool has_address_space(void)
{
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    const size_t wanted = ((size_t)96 << 20) + (size_t)(n > 0 ? n : 1) * ((size_t)48 << 20);
    void *address = mmap(NULL, wanted, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED)
        return false;
    munmap(address, wanted);
    return true;
}

/* OpenBLAS keeps its buffers: a thread that has multiplied so often has them. */
#define PRODUCTS_WITH_ALL_BUFFERS 256

static bool may_multiply(void)
{
    static _Thread_local unsigned n_products;
    if (n_products == PRODUCTS_WITH_ALL_BUFFERS)
        return true;
    n_products++;
    return has_address_space();
}

static void limit_threads(void)
{
    set_threads_function *const set = atomic_load(&set_threads);
    if (set && atomic_load(&one_thread))
        set(1);
}

bool rp_blas_is_ready(void)
{
    if (atomic_load(&state) == NOT_THERE || !may_multiply())
        return false;
    if (atomic_load(&state) == NOT_LOADED) {
        load();
        limit_threads();
        atomic_store(&state, atomic_load(&sgemm) ? LOADED : NOT_THERE);
    }
    return atomic_load(&state) == LOADED;
}

void rp_blas_sgemm(enum CBLAS_ORDER order, enum CBLAS_TRANSPOSE a_is, enum CBLAS_TRANSPOSE b_is,
                   int m, int n, int k, float alpha, const float *a, int a_stride, const float *b,
                   int b_stride, float beta, float *c, int c_stride)
{
    atomic_load (&sgemm)(order, a_is, b_is, m, n, k, alpha, a, a_stride, b, b_stride, beta, c,
                         c_stride);
}

void rp_blas_one_thread(void)
{
    atomic_store(&one_thread, 1);
    limit_threads();
}

#else

void rp_blas_one_thread(void)
{
}

#endif
