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

/* One element, a is the result so far: a reduction has a macro for each arithmetic, and 16-bit floats take that of
 * REAL. Unsigned arithmetic wraps where signed would be undefined. */
#define LOGICAL_SUM(T, a, b) (T)(a | b)
#define LOGICAL_MAX(T, a, b) (T)(a | b)
#define LOGICAL_MIN(T, a, b) (T)(a & b)

#define INTEGER_SUM(T, a, b) (T)((uint64_t)a + (uint64_t)b)
#define INTEGER_MAX(T, a, b) (a > b ? a : b)
#define INTEGER_MIN(T, a, b) (a < b ? a : b)

#define REAL_SUM(T, a, b) (a + b)
#define REAL_MAX(T, a, b) ORDERED(T, a, b, max, a > b, a + b)
#define REAL_MIN(T, a, b) ORDERED(T, a, b, min, a < b, -(-a - b))

#define COMPLEX_SUM(T, a, b) ((T){a.re + b.re, a.im + b.im})
#define COMPLEX_MAX(T, a, b) ORDERED_PAIR(T, a, b, >, REAL_MAX)
#define COMPLEX_MIN(T, a, b) ORDERED_PAIR(T, a, b, <, REAL_MIN)

/* join gives NaN if one is NaN, and the right one of two zeros. float and double are faster by their bits. */
#define ORDERED(T, a, b, pick, is_better, join) \
    _Generic((T)0, \
        float: float_##pick((float)a, (float)b), \
        double: double_##pick((double)a, (double)b), \
        default: (a != a || b != b || (a == 0 && b == 0) ? join \
                  : is_better                            ? a \
                                                         : b))
#define ORDERED_PAIR(T, a, b, better, pick) \
    (a.re != a.re || a.im != a.im || b.re != b.re || b.im != b.im ? (T){NAN, NAN} \
     : a.re == b.re && a.im == b.im ? (T){pick(__typeof__(a.re), a.re, b.re), pick(__typeof__(a.im), a.im, b.im)} \
     : a.re better b.re || (a.re == b.re && a.im better b.im) ? a \
                                                              : b)

/* Equal numbers have equal bits, except zeros: "and" is negative if both are, "or" if one is. */
#define ORDERED_BY_BITS(T, BITS, pick, better, join) \
    static inline TARGET T pick(T a, T b) { \
        T chosen = a better b ? a : b; \
        T tied = BITS##_from_bits(BITS##_bits(a) join BITS##_bits(b)); \
        chosen = a == b ? tied : chosen; \
        return a != a || b != b ? (T)NAN : chosen; \
    }
ORDERED_BY_BITS(float, float32, float_max, >, &)
ORDERED_BY_BITS(float, float32, float_min, <, |)
ORDERED_BY_BITS(double, float64, double_max, >, &)
ORDERED_BY_BITS(double, float64, double_min, <, |)

/* Each element of the output depends on no other, even if output is one of the inputs. */
#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed" /* loops over complex numbers stay as they are (clang 14) */
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
#define KERNEL_OF_HALVES(name, op, combine) \
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
#define DIVISION(name, T, quotient) \
    static TARGET void name##_divide(void *numbers, size_t count, int n) { \
        T *x = numbers; \
        for (size_t i = 0; i < count; i++) { \
            T a = x[i]; \
            x[i] = quotient; \
        } \
    }
#define DIVISION_OF_HALVES(name) \
    static TARGET void name##_divide(void *numbers, size_t count, int n) { \
        float block[BLOCK]; \
        for (size_t start = 0; start < count; start += BLOCK) { \
            uint16_t *x = (uint16_t *)numbers + start; \
            size_t left = count - start < BLOCK ? count - start : BLOCK; \
            name##_load(x, block, left); \
            for (size_t i = 0; i < left; i++) \
                block[i] /= (float)n; \
            name##_store(block, x, left); \
        } \
    }

/* The kernels of a type, by its arithmetic. */
#define LOGICAL_KERNEL(op, called, name, T) KERNEL(name, op, T, LOGICAL_##op(T, a, b))
#define INTEGER_KERNEL(op, called, name, T) KERNEL(name, op, T, INTEGER_##op(T, a, b))
#define REAL_KERNEL(op, called, name, T) KERNEL(name, op, T, REAL_##op(T, a, b))
#define COMPLEX_KERNEL(op, called, name, T) \
    static inline TARGET T name##_##op(T a, T b) { \
        return COMPLEX_##op(T, a, b); \
    } \
    KERNEL(name, op, T, name##_##op(a, b))
#define HALF_KERNEL(op, called, name, T) KERNEL_OF_HALVES(name, op, REAL_##op(float, a, b))
#define LOGICAL_DIVISION(name, T)
#define INTEGER_DIVISION(name, T)
#define REAL_DIVISION(name, T) DIVISION(name, T, a / (T)n)
#define COMPLEX_DIVISION(name, T) DIVISION(name, T, ((T){a.re / n, a.im / n}))
#define HALF_DIVISION(name, T) DIVISION_OF_HALVES(name)
#define KERNELS_OF(name, numpy, T, arithmetic, mpi) \
    MLXDIST_REDUCTIONS(arithmetic##_KERNEL, name, T) arithmetic##_DIVISION(name, T)

MLXDIST_TYPES(KERNELS_OF)

#define REDUCE_OF(op, called, name) name##_reduce_##op,
#define REDUCE_ROW(name, ...) {MLXDIST_REDUCTIONS(REDUCE_OF, name)},
#define LOGICAL_DIVIDE(name) NULL
#define INTEGER_DIVIDE(name) NULL
#define REAL_DIVIDE(name) name##_divide
#define COMPLEX_DIVIDE(name) name##_divide
#define HALF_DIVIDE(name) name##_divide
#define DIVIDE_OF(name, numpy, T, arithmetic, mpi) arithmetic##_DIVIDE(name),
const struct kernels VARIANT = {
    .reduce = {MLXDIST_TYPES(REDUCE_ROW)},
    .divide = {MLXDIST_TYPES(DIVIDE_OF)},
};
