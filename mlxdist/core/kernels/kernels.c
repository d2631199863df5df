#include "mlxdist/kernels/kernels.h"

#include <stdatomic.h>
#include <string.h>

#ifdef __x86_64__
#include <cpuid.h>
#endif

static int always(void) {
    return 1;
}

#ifdef __x86_64__
static int has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}

static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && has_f16c();
}

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && has_avx2();
}
#endif

/* The fastest first. */
static const struct variant {
    const char *name;
    int (*is_usable)(void);
    const struct kernels *kernels;
} variants[] = {
#ifdef __x86_64__
    {"avx512", has_avx512, &kernels_avx512},
    {"avx2", has_avx2, &kernels_avx2},
#elif defined(__aarch64__)
    {"neon", always, &kernels_neon},
#endif
    {"plain", always, &kernels_plain},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

/* Relaxed loads suffice: it points to constants. */
static _Atomic(const struct variant *) chosen;

const char *kernels_variant(int i) {
    return i < VARIANTS ? variants[i].name : NULL;
}

int kernels_choose(const char *name) {
    for (int i = 0; i < VARIANTS; i++)
        if ((!*name || !strcmp(name, variants[i].name)) && variants[i].is_usable()) {
            atomic_store(&chosen, &variants[i]);
            return 0;
        }
    return -1;
}

static const struct variant *present(void) {
    if (!atomic_load_explicit(&chosen, memory_order_relaxed))
        kernels_choose("");
    return atomic_load_explicit(&chosen, memory_order_relaxed);
}

const char *kernels_chosen(void) {
    return present()->name;
}

void reduce(enum element_type type, enum reduction op, const void *const *inputs, int n_inputs, void *output,
            size_t count) {
    present()->kernels->reduce[type][op](inputs, n_inputs, output, count);
}

int divide_by(enum element_type type, void *numbers, size_t count, int n) {
    void (*divider)(void *, size_t, int) = present()->kernels->divide[type];
    if (divider)
        divider(numbers, count, n);
    return divider != NULL;
}

void narrow(enum element_type to, const float *numbers, void *narrowed, size_t count) {
    present()->kernels->narrow[to](numbers, narrowed, count);
}

void widen(enum element_type from, const void *narrowed, float *numbers, size_t count) {
    present()->kernels->widen[from](narrowed, numbers, count);
}
