/* Arithmetic on arrays: reduce several inputs into one output; divide; narrow and widen. There are no MPI and no ranks
 * here. */
#ifndef MLXDIST_KERNELS_KERNELS_H
#define MLXDIST_KERNELS_KERNELS_H

#include "mlxdist/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* output[i] = inputs[0][i] op ... op inputs[n_inputs - 1][i], from the first to the last, for i < count.
 *
 * output may be one of the inputs, but may not overlap one otherwise. is_reducible(type, op). Integers wrap. Bool: any
 * byte but 0 is true; sum, max and bor are "or", min, prod and band are "and", 0 or 1. 16-bit floats are reduced in
 * float32 and rounded once. Complex numbers are ordered by real, then imaginary part; their product is rounded in each
 * step. max and min of anything and NaN are NaN; of zeros of both signs, max is +0 and min -0: so the order of the
 * inputs never shows in their result. */
void reduce(enum element_type type, enum reduction op, const void *const *inputs, int n_inputs, void *output,
            size_t count);

/* numbers[i] /= n, rounded once to the type. 0: integers and bools, whose quotient is another type, are left alone. */
int divide_by(enum element_type type, void *numbers, size_t count, int n);

/* float32 to FLOAT16 or BFLOAT16, and back; the arrays do not overlap. narrow rounds to nearest even, and what is too
 * large to infinity; widen is exact. A NaN stays one. */
void narrow(enum element_type to, const float *numbers, void *narrowed, size_t count);
void widen(enum element_type from, const void *narrowed, float *numbers, size_t count);

/* One variant of the above, by type and op. All give the same bits. */
struct kernels {
    /* Any of them may be NULL. */
    void (*reduce[ELEMENT_TYPES][REDUCTIONS])(const void *const *inputs, int n_inputs, void *output, size_t count);
    void (*divide[ELEMENT_TYPES])(void *numbers, size_t count, int n);
    void (*narrow[ELEMENT_TYPES])(const float *numbers, void *narrowed, size_t count);
    void (*widen[ELEMENT_TYPES])(const void *narrowed, float *numbers, size_t count);
};
extern const struct kernels kernels_plain, kernels_avx2, kernels_avx512, kernels_neon;

/* Names of the variants in this build, the fastest first; NULL after the last. */
const char *kernels_variant(int i);
/* Use the variant of this name, or "" for the fastest that this processor can run. -1: it cannot, or there is none. */
int kernels_choose(const char *name);
const char *kernels_chosen(void);

#ifdef __cplusplus
}
#endif
#endif
