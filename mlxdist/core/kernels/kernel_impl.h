/* The kernels of every type and reduction, as plain loops. kernels_<variant>.c compile them for their processors; they
 * define TARGET, VARIANT and the converters of 16-bit floats. All give the same bits. */
#include <math.h>
#include <string.h>

#include "mlxdist/kernels/half.h"
#include "mlxdist/kernels/kernels.h"

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

/* Equal numbers have equal bits, except zeros: "and" is negative if both are, "or" if one is. */
#define ORDERED(T, BITS, pick, better, join) \
    static inline TARGET T pick(T a, T b) { \
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
    static inline TARGET struct T T##_SUM(struct T a, struct T b) { \
        return (struct T){a.re + b.re, a.im + b.im}; \
    } COMPLEX_PICK(T, part, MAX, >, max) COMPLEX_PICK(T, part, MIN, <, min)
#define COMPLEX_PICK(T, part, op, better, pick) \
    static inline TARGET struct T T##_##op(struct T a, struct T b) { \
        if (a.re != a.re || a.im != a.im || b.re != b.re || b.im != b.im) \
            return (struct T){(part)NAN, (part)NAN}; \
        if (a.re == b.re && a.im == b.im) \
            return (struct T){part##_##pick(a.re, b.re), part##_##pick(a.im, b.im)}; \
        return a.re better b.re || (a.re == b.re && a.im better b.im) ? a : b; \
    }
COMPLEX_OPS(complex64, float)
COMPLEX_OPS(complex128, double)

/* Each element of the output depends on no other, even if output is one of the inputs. */
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

/* to[i] = x[i] op y[i] */
#define COMBINE(T, n, to, x, y, combine) \
    INDEPENDENT for (size_t i = 0; i < n; i++) { \
        T a = (x)[i], b = (y)[i]; \
        (to)[i] = combine; \
    }

/* reduce() for one type and op; intermediate results stay in cache. */
#define KERNEL(name, op, T, combine) \
    static TARGET void name##_reduce_##op(const void *const *inputs, int n_inputs, void *output, size_t count) { \
        T sofar[BLOCK]; \
        const T *const *in = (const T *const *)inputs; \
        T *out = output; \
        if (n_inputs == 1) \
            memmove(out, *in, count * sizeof(T)); \
        if (n_inputs == 2) \
            COMBINE(T, count, out, in[0], in[1], combine) \
        for (size_t start = 0; n_inputs > 2 && start < count; start += BLOCK) { \
            size_t n = count - start < BLOCK ? count - start : BLOCK; \
            COMBINE(T, n, sofar, in[0] + start, in[1] + start, combine) \
            for (int k = 2; k < n_inputs - 1; k++) \
                COMBINE(T, n, sofar, sofar, in[k] + start, combine) \
            COMBINE(T, n, out + start, sofar, in[n_inputs - 1] + start, combine) \
        } \
    }

/* Two bfloat16 are one word: the even ones are lower halves, the odd ones upper halves, and no element has to move. An
 * odd count leaves one over. */
typedef uint32_t __attribute__((may_alias, aligned(2))) words;

static inline TARGET float even_of(uint32_t word) {
    return float32_from_bits(word << 16);
}

static inline TARGET float odd_of(uint32_t word) {
    return float32_from_bits(word & 0xffff0000u);
}

static inline TARGET uint32_t word_of(float even, float odd) {
    return bfloat16_word(even) >> 16 | (bfloat16_word(odd) & 0xffff0000u);
}

static TARGET void BFLOAT16_load(const uint16_t *halves, float *floats, size_t n) {
    const words *in = (const words *)halves;
    float *odd = floats + n / 2;
    for (size_t i = 0; i < n / 2; i++) {
        floats[i] = even_of(in[i]);
        odd[i] = odd_of(in[i]);
    }
    if (n % 2)
        floats[n - 1] = bfloat16_to_float32(halves[n - 1]);
}

static TARGET void BFLOAT16_store(const float *floats, uint16_t *halves, size_t n) {
    const float *odd = floats + n / 2;
    words *out = (words *)halves;
    for (size_t i = 0; i < n / 2; i++)
        out[i] = word_of(floats[i], odd[i]);
    if (n % 2)
        halves[n - 1] = bfloat16_from_float32(floats[n - 1]);
}

/* Two inputs, without a block of floats between. */
#define FLOAT16_OF_TWO(combine)
#define BFLOAT16_OF_TWO(combine) \
    if (n_inputs == 2) { \
        const words *x = inputs[0], *y = inputs[1]; \
        words *out = output; \
        INDEPENDENT for (size_t i = 0; i < count / 2; i++) { \
            float a = odd_of(x[i]), b = odd_of(y[i]), odd = combine; \
            a = even_of(x[i]), b = even_of(y[i]); \
            out[i] = word_of(combine, odd); \
        } \
        start = count / 2 * 2; \
    }

/* 16-bit floats: a block of each input becomes float32, in any order that suits the converter; rounded once. */
#define HALF_KERNEL(name, op, combine) \
    static TARGET void name##_reduce_##op(const void *const *inputs, int n_inputs, void *output, size_t count) { \
        float sofar[BLOCK], next[BLOCK]; \
        size_t start = 0; \
        name##_OF_TWO(combine) for (; start < count; start += BLOCK) { \
            size_t n = count - start < BLOCK ? count - start : BLOCK; \
            name##_load((const uint16_t *)inputs[0] + start, sofar, n); \
            for (int k = 1; k < n_inputs; k++) { \
                name##_load((const uint16_t *)inputs[k] + start, next, n); \
                COMBINE(float, n, sofar, sofar, next, combine) \
            } \
            name##_store(sofar, (uint16_t *)output + start, n); \
        } \
    }

/* numbers[i] /= n; a complex number by parts, so that infinities and signs of zeros are kept. */
#define DIVISION(name, T, real) \
    static TARGET void name##_divide(void *numbers, size_t count, int n) { \
        real *x = numbers, by = (real)n; \
        for (size_t i = 0; i < count * (sizeof(T) / sizeof(real)); i++) \
            x[i] /= by; \
    }
#define HALF_DIVISION(name) \
    static TARGET void name##_divide(void *numbers, size_t count, int n) { \
        float block[BLOCK], by = (float)n; \
        for (size_t start = 0; start < count; start += BLOCK) { \
            uint16_t *x = (uint16_t *)numbers + start; \
            size_t left = count - start < BLOCK ? count - start : BLOCK; \
            name##_load(x, block, left); \
            for (size_t i = 0; i < left; i++) \
                block[i] /= by; \
            name##_store(block, x, left); \
        } \
    }
DIVISION(FLOAT32, float, float)
DIVISION(FLOAT64, double, double)
DIVISION(COMPLEX64, struct complex64, float)
DIVISION(COMPLEX128, struct complex128, double)
HALF_DIVISION(FLOAT16)
HALF_DIVISION(BFLOAT16)

#define KERNELS_OF(name, numpy, T, arithmetic, mpi) arithmetic##_KERNELS(name, T)
#define LOGICAL_KERNELS(name, T) PLAIN_KERNELS(name, T, LOGICAL)
#define INTEGER_KERNELS(name, T) PLAIN_KERNELS(name, T, INTEGER)
#define REAL_KERNELS(name, T) PLAIN_KERNELS(name, T, REAL)
#define PLAIN_KERNELS(name, T, arithmetic) \
    KERNEL(name, SUM, T, arithmetic##_SUM(T, a, b)) \
    KERNEL(name, MAX, T, arithmetic##_MAX(T, a, b)) \
    KERNEL(name, MIN, T, arithmetic##_MIN(T, a, b))
#define HALF_KERNELS(name, T) \
    HALF_KERNEL(name, SUM, a + b) \
    HALF_KERNEL(name, MAX, float_max(a, b)) \
    HALF_KERNEL(name, MIN, float_min(a, b))
#define COMPLEX_KERNELS(name, T) \
    KERNEL(name, SUM, T, name##_PICK(SUM)) \
    KERNEL(name, MAX, T, name##_PICK(MAX)) \
    KERNEL(name, MIN, T, name##_PICK(MIN))
#define COMPLEX64_PICK(op) complex64_##op(a, b)
#define COMPLEX128_PICK(op) complex128_##op(a, b)

MLXDIST_TYPES(KERNELS_OF)

#define ROW(name, ...) {name##_reduce_SUM, name##_reduce_MAX, name##_reduce_MIN},
const struct kernels VARIANT = {
    .reduce = {MLXDIST_TYPES(ROW)},
    .divide =
        {
            [TYPE_FLOAT16] = FLOAT16_divide,
            [TYPE_BFLOAT16] = BFLOAT16_divide,
            [TYPE_FLOAT32] = FLOAT32_divide,
            [TYPE_FLOAT64] = FLOAT64_divide,
            [TYPE_COMPLEX64] = COMPLEX64_divide,
            [TYPE_COMPLEX128] = COMPLEX128_divide,
        },
};
