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
/* Not by __builtin_cpu_supports: zig's runtime says no to everything (0.17.1). */
static int has_features(unsigned leaf1_c, unsigned leaf7_b, unsigned saved_registers) {
    unsigned a, b, c, d, saved, unused;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & leaf1_c) != leaf1_c)
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & leaf7_b) != leaf7_b)
        return 0;
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(unused) : "c"(0));
    return (saved & saved_registers) == saved_registers;
}

/* The vector registers that the system saves: those of SSE and AVX, and those that AVX-512 adds. */
#ifdef __APPLE__
enum { AVX_REGISTERS = 0x06, AVX512_REGISTERS = 0x06 }; /* macOS saves the others from their first use on */
#else
enum { AVX_REGISTERS = 0x06, AVX512_REGISTERS = 0xe6 };
#endif

static int has_avx2(void) {
    return has_features(bit_OSXSAVE | bit_F16C, bit_AVX2, AVX_REGISTERS);
}

static int has_avx512(void) {
    return has_avx2() &&
           has_features(bit_OSXSAVE, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL, AVX512_REGISTERS);
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
