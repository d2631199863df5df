/* The kernels of every type and reduction, as plain loops. kernels_<variant>.c compile them for their processors; they
 * define TARGET, VARIANT, VECTOR (bytes), AT_ONCE (elements) and the converters of float16. All give the same bits. */
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
#define LOGICAL_SUM(T, a, b) (T)((a | b) != 0)
#define LOGICAL_MAX(T, a, b) (T)((a | b) != 0)
#define LOGICAL_MIN(T, a, b) (T)((a != 0) & (b != 0))
#define LOGICAL_PROD(T, a, b) LOGICAL_MIN(T, a, b)
#define LOGICAL_BAND(T, a, b) LOGICAL_MIN(T, a, b)
#define LOGICAL_BOR(T, a, b) LOGICAL_MAX(T, a, b)

#define INTEGER_SUM(T, a, b) (T)((uint64_t)a + (uint64_t)b)
#define INTEGER_MAX(T, a, b) (a > b ? a : b)
#define INTEGER_MIN(T, a, b) (a < b ? a : b)
#define INTEGER_PROD(T, a, b) (T)((uint64_t)a * (uint64_t)b)
#define INTEGER_BAND(T, a, b) (T)(a & b)
#define INTEGER_BOR(T, a, b) (T)(a | b)

/* Where the sign does not matter, signed and unsigned numbers have the same function, and gcc keeps one of them. */
#define INTEGER_SUM_OF(T) UNSIGNED(T)
#define INTEGER_MAX_OF(T) T
#define INTEGER_MIN_OF(T) T
#define INTEGER_PROD_OF(T) UNSIGNED(T)
#define INTEGER_BAND_OF(T) UNSIGNED(T)
#define INTEGER_BOR_OF(T) UNSIGNED(T)
#define UNSIGNED(T) \
    __typeof__(_Generic((T)0, \
                   int8_t: (uint8_t)0, \
                   int16_t: (uint16_t)0, \
                   int32_t: (uint32_t)0, \
                   int64_t: (uint64_t)0, \
                   default: (T)0))

#define REAL_SUM(T, a, b) (a + b)
#define REAL_MAX(T, a, b) ORDERED(T, a, b, max, a > b, a + b)
#define REAL_MIN(T, a, b) ORDERED(T, a, b, min, a < b, -(-a - b))
#define REAL_PROD(T, a, b) (a * b)

#define COMPLEX_SUM(T, a, b) ((T){a.re + b.re, a.im + b.im})
#define COMPLEX_MAX(T, a, b) ORDERED_PAIR(T, a, b, >, REAL_MAX)
#define COMPLEX_MIN(T, a, b) ORDERED_PAIR(T, a, b, <, REAL_MIN)
/* Not a difference: beside a sum, gcc 12.2 fuses it in AVX-512's vectors, in spite of -ffp-contract=off. */
#define COMPLEX_PROD(T, a, b) ((T){a.re * b.re + -a.im * b.im, a.re * b.im + a.im * b.re})

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
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

/* to[i] = x[i] op y[i] */
#define COMBINE(T, n, to, x, y, combine) \
    do { \
        const T *one = x, *other = y; \
        T *result = to; \
        INDEPENDENT for (size_t i = 0; i < n; i++) { \
            T a = one[i], b = other[i]; \
            result[i] = combine; \
        } \
    } while (0);

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

/* Two bfloat16 are one word: the even ones are lower halves, the odd ones upper halves, and no element has to move.
 * Vectors, since compilers do not find them here (gcc 12, clang 14). */
typedef uint32_t __attribute__((vector_size(VECTOR))) words;
typedef float __attribute__((vector_size(VECTOR))) numbers;
enum { WORDS = VECTOR / sizeof(uint32_t) };

static HALF_INLINE TARGET void BFLOAT16_load(const uint16_t *halves, float *floats) {
    for (int i = 0; i < AT_ONCE; i += 2 * WORDS) {
        words both;
        memcpy(&both, halves + i, VECTOR);
        numbers even = (numbers)(both << 16), odd = (numbers)(both & 0xffff0000u);
        memcpy(floats + i, &even, VECTOR);
        memcpy(floats + i + WORDS, &odd, VECTOR);
    }
}

/* bfloat16_word() of each */
static HALF_INLINE TARGET words bfloat16_words(const float *floats) {
    numbers values;
    memcpy(&values, floats, VECTOR);
    words bits = (words)values, is_nan = (words)(values != values);
    return (bits | (is_nan & 0x400000)) + (~is_nan & (0x7fff + (bits >> 16 & 1)));
}

static HALF_INLINE TARGET void BFLOAT16_store(const float *floats, uint16_t *halves) {
    for (int i = 0; i < AT_ONCE; i += 2 * WORDS) {
        words even = bfloat16_words(floats + i), odd = bfloat16_words(floats + i + WORDS);
        words both = even >> 16 | (odd & 0xffff0000u);
        memcpy(halves + i, &both, VECTOR);
    }
}

static HALF_INLINE TARGET float BFLOAT16_to_float32(uint16_t half) {
    return bfloat16_to_float32(half);
}

static HALF_INLINE TARGET uint16_t BFLOAT16_from_float32(float value) {
    return bfloat16_from_float32(value);
}

/* 16-bit floats: of each input AT_ONCE elements become float32, in any order that suits the converter; rounded once. */
#define KERNEL_OF_HALVES(name, op, combine) \
    static HALF_INLINE TARGET void name##_##op(const uint16_t *const *in, int n_inputs, uint16_t *out, size_t count) { \
        size_t start = 0; \
        for (; start + AT_ONCE <= count; start += AT_ONCE) { \
            float sofar[AT_ONCE], next[AT_ONCE]; \
            name##_load(in[0] + start, sofar); \
            for (int k = 1; k < n_inputs; k++) { \
                name##_load(in[k] + start, next); \
                COMBINE(float, AT_ONCE, sofar, sofar, next, combine) \
            } \
            name##_store(sofar, out + start); \
        } \
        for (; start < count; start++) { \
            float a = name##_to_float32(in[0][start]); \
            for (int k = 1; k < n_inputs; k++) { \
                float b = name##_to_float32(in[k][start]); \
                a = combine; \
            } \
            out[start] = name##_from_float32(a); \
        } \
    } \
    static TARGET void name##_reduce_##op(const void *const *inputs, int n_inputs, void *output, size_t count) { \
        if (n_inputs == 2) /* a loop of its own, without the inner one */ \
            name##_##op((const uint16_t *const *)inputs, 2, output, count); \
        else \
            name##_##op((const uint16_t *const *)inputs, n_inputs, output, count); \
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
        uint16_t *x = numbers; \
        size_t start = 0; \
        for (; start + AT_ONCE <= count; start += AT_ONCE) { \
            float block[AT_ONCE]; \
            name##_load(x + start, block); \
            for (int i = 0; i < AT_ONCE; i++) \
                block[i] /= (float)n; \
            name##_store(block, x + start); \
        } \
        for (; start < count; start++) \
            x[start] = name##_from_float32(name##_to_float32(x[start]) / (float)n); \
    }

/* The loads and stores of float16 keep the order of elements. For bfloat16 compilers vectorize the plain loops. */
enum { FLOAT16_IN_ORDER = 1, BFLOAT16_IN_ORDER = 0 };
#define CONVERSIONS(name) \
    static TARGET void name##_narrow(const float *numbers, void *narrowed, size_t count) { \
        uint16_t *halves = narrowed; \
        size_t start = 0; \
        for (; name##_IN_ORDER && start + AT_ONCE <= count; start += AT_ONCE) \
            name##_store(numbers + start, halves + start); \
        for (; start < count; start++) \
            halves[start] = name##_from_float32(numbers[start]); \
    } \
    static TARGET void name##_widen(const void *narrowed, float *numbers, size_t count) { \
        const uint16_t *halves = narrowed; \
        size_t start = 0; \
        for (; name##_IN_ORDER && start + AT_ONCE <= count; start += AT_ONCE) \
            name##_load(halves + start, numbers + start); \
        for (; start < count; start++) \
            numbers[start] = name##_to_float32(halves[start]); \
    }
CONVERSIONS(FLOAT16)
CONVERSIONS(BFLOAT16)

/* The kernels of a type, by its arithmetic. A complex number is passed to no function: clang does that in a vector
 * register, and then vectorizes no loop (clang 14, and zig 0.17.1, on x86-64). */
#define LOGICAL_KERNEL(op, called, name, T) KERNEL(name, op, T, LOGICAL_##op(T, a, b))
#define INTEGER_KERNEL(op, called, name, T) KERNEL(name, op, INTEGER_##op##_OF(T), INTEGER_##op(UNSIGNED(T), a, b))
#define REAL_KERNEL(op, called, name, T) KERNEL(name, op, T, REAL_##op(T, a, b))
#define COMPLEX_KERNEL(op, called, name, T) KERNEL(name, op, T, COMPLEX_##op(T, a, b))
#define HALF_KERNEL(op, called, name, T) KERNEL_OF_HALVES(name, op, REAL_##op(float, a, b))
#define LOGICAL_DIVISION(name, T)
#define INTEGER_DIVISION(name, T)
#define REAL_DIVISION(name, T) DIVISION(name, T, a / (T)n)
#define COMPLEX_DIVISION(name, T) DIVISION(name, T, ((T){a.re / n, a.im / n}))
#define HALF_DIVISION(name, T) DIVISION_OF_HALVES(name)
#define KERNELS_OF(name, numpy, T, arithmetic, mpi) \
    MLXDIST_##arithmetic##_REDUCTIONS(arithmetic##_KERNEL, name, T) arithmetic##_DIVISION(name, T)

MLXDIST_TYPES(KERNELS_OF)

#define REDUCE_OF(op, called, name) name##_reduce_##op,
#define REDUCE_ROW(name, numpy, T, arithmetic, mpi) {MLXDIST_##arithmetic##_REDUCTIONS(REDUCE_OF, name)},
#define LOGICAL_DIVIDE(name) NULL
#define INTEGER_DIVIDE(name) NULL
#define REAL_DIVIDE(name) name##_divide
#define COMPLEX_DIVIDE(name) name##_divide
#define HALF_DIVIDE(name) name##_divide
#define DIVIDE_OF(name, numpy, T, arithmetic, mpi) arithmetic##_DIVIDE(name),
const struct kernels VARIANT = {
    .reduce = {MLXDIST_TYPES(REDUCE_ROW)},
    .divide = {MLXDIST_TYPES(DIVIDE_OF)},
    .narrow = {[TYPE_FLOAT16] = FLOAT16_narrow, [TYPE_BFLOAT16] = BFLOAT16_narrow},
    .widen = {[TYPE_FLOAT16] = FLOAT16_widen, [TYPE_BFLOAT16] = BFLOAT16_widen},
};
