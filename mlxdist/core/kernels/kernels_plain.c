/* For every processor: the loops as the compiler vectorizes them. */
#include "mlxdist/kernels/half.h"
#include "mlxdist/kernels/kernels.h"

#define TARGET
#define VARIANT kernels_plain
enum { VECTOR = 16, AT_ONCE = 64 };

static HALF_INLINE TARGET void FLOAT16_load(const uint16_t *halves, float *floats) {
    for (int i = 0; i < AT_ONCE; i++)
        floats[i] = float16_to_float32(halves[i]);
}

static HALF_INLINE TARGET void FLOAT16_store(const float *floats, uint16_t *halves) {
    for (int i = 0; i < AT_ONCE; i++)
        halves[i] = float16_from_float32(floats[i]);
}

static HALF_INLINE TARGET float FLOAT16_to_float32(uint16_t half) {
    return float16_to_float32(half);
}

static HALF_INLINE TARGET uint16_t FLOAT16_from_float32(float value) {
    return float16_from_float32(value);
}

#include "kernel_impl.h"
