#include "mlxdist/kernels.h"

#include <math.h>
#include <string.h>

#include "mlxdist/half.h"

/* A block of the widest type fills a third of a small first-level cache. */
enum { BLOCK = 512 };

static inline uint64_t float64_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline double float64_from_bits(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* One element; a is the result so far. Unsigned arithmetic wraps where signed would be undefined. */
#define LOGICAL_SUM(T, a, b) (T)(a | b)
#define LOGICAL_MAX(T, a, b) (T)(a | b)
#define LOGICAL_MIN(T, a, b) (T)(a & b)
#define INTEGER_SUM(T, a, b) (T)((uint64_t)a + (uint64_t)b)
#define INTEGER_MAX(T, a, b) (a > b ? a : b)
#define INTEGER_MIN(T, a, b) (a < b ? a : b)
#define REAL_SUM(T, a, b) (a + b)
#define REAL_MAX(T, a, b) T##_max(a, b)
#define REAL_MIN(T, a, b) T##_min(a, b)

/* Equal numbers have equal bits, but for zeros: "and" keeps the sign of neither, "or" of any. */
#define ORDERED(T, BITS, pick, better, join) \
    static inline T pick(T a, T b) { \
        T chosen = a better b ? a : b; \
        T tied = BITS##_from_bits(BITS##_bits(a) join BITS##_bits(b)); \
        chosen = a == b ? tied : chosen; \
        return a != a || b != b ? (T)NAN : chosen; \
    }
ORDERED(float, float32, float_max, >, &)
ORDERED(float, float32, float_min, <, |)
ORDERED(double, float64, double_max, >, &)
ORDERED(double, float64, double_min, <, |)

#define COMPLEX_OPS(T, part) \
    static inline struct T T##_SUM(struct T a, struct T b) { \
        return (struct T){a.re + b.re, a.im + b.im}; \
    } COMPLEX_PICK(T, part, MAX, >, max) COMPLEX_PICK(T, part, MIN, <, min)
#define COMPLEX_PICK(T, part, op, better, pick) \
    static inline struct T T##_##op(struct T a, struct T b) { \
        if (a.re != a.re || a.im != a.im || b.re != b.re || b.im != b.im) \
            return (struct T){(part)NAN, (part)NAN}; \
        if (a.re == b.re && a.im == b.im) \
            return (struct T){part##_##pick(a.re, b.re), part##_##pick(a.im, b.im)}; \
        return a.re better b.re || (a.re == b.re && a.im better b.im) ? a : b; \
    }
COMPLEX_OPS(complex64, float)
COMPLEX_OPS(complex128, double)

/* reduce() for one type and one op, in blocks that stay in cache: the accumulator is local, so that output may be
 * any of the inputs. */
#define KERNEL(name, op, T, WIDE, load, combine, store) \
    static void name##_reduce_##op(const void *const *inputs, int n_inputs, void *output, size_t count) { \
        WIDE sofar[BLOCK]; \
        for (size_t start = 0; start < count; start += BLOCK) { \
            size_t n = count - start < BLOCK ? count - start : BLOCK; \
            const T *input = (const T *)inputs[0] + start; \
            for (size_t i = 0; i < n; i++) \
                sofar[i] = load(input[i]); \
            for (int k = 1; k < n_inputs; k++) { \
                input = (const T *)inputs[k] + start; \
                for (size_t i = 0; i < n; i++) { \
                    WIDE a = sofar[i], b = load(input[i]); \
                    sofar[i] = combine; \
                } \
            } \
            T *out = (T *)output + start; \
            for (size_t i = 0; i < n; i++) \
                out[i] = store(sofar[i]); \
        } \
    }

#define SAME(x) (x)
#define KERNELS_OF(name, numpy, T, arithmetic, mpi) arithmetic##_KERNELS(name, T)
#define LOGICAL_KERNELS(name, T) PLAIN_KERNELS(name, T, LOGICAL)
#define INTEGER_KERNELS(name, T) PLAIN_KERNELS(name, T, INTEGER)
#define REAL_KERNELS(name, T) PLAIN_KERNELS(name, T, REAL)
#define PLAIN_KERNELS(name, T, arithmetic) \
    KERNEL(name, SUM, T, T, SAME, arithmetic##_SUM(T, a, b), SAME) \
    KERNEL(name, MAX, T, T, SAME, arithmetic##_MAX(T, a, b), SAME) \
    KERNEL(name, MIN, T, T, SAME, arithmetic##_MIN(T, a, b), SAME)

#define HALF_KERNELS(name, T) \
    KERNEL(name, SUM, T, float, name##_LOAD, a + b, name##_STORE) \
    KERNEL(name, MAX, T, float, name##_LOAD, float_max(a, b), name##_STORE) \
    KERNEL(name, MIN, T, float, name##_LOAD, float_min(a, b), name##_STORE)
#define FLOAT16_LOAD float16_to_float32
#define FLOAT16_STORE float16_from_float32
#define BFLOAT16_LOAD bfloat16_to_float32
#define BFLOAT16_STORE bfloat16_from_float32

#define COMPLEX_KERNELS(name, T) \
    KERNEL(name, SUM, T, T, SAME, name##_PICK(SUM), SAME) \
    KERNEL(name, MAX, T, T, SAME, name##_PICK(MAX), SAME) \
    KERNEL(name, MIN, T, T, SAME, name##_PICK(MIN), SAME)
#define COMPLEX64_PICK(op) complex64_##op(a, b)
#define COMPLEX128_PICK(op) complex128_##op(a, b)

MLXDIST_TYPES(KERNELS_OF)

void reduce(enum element_type type, enum reduction op, const void *const *inputs, int n_inputs, void *output,
            size_t count) {
    typedef void kernel(const void *const *, int, void *, size_t);
#define ROW(name, ...) {name##_reduce_SUM, name##_reduce_MAX, name##_reduce_MIN},
    static kernel *const kernels[][REDUCTIONS] = {MLXDIST_TYPES(ROW)};
#undef ROW
    kernels[type][op](inputs, n_inputs, output, count);
}
