/* For arm64, every one of which has these instructions. */
#include "mlxdist/kernels/half.h"
#include "mlxdist/kernels/kernels.h"

#ifdef __aarch64__
#include <arm_neon.h>

#define TARGET
#define VARIANT kernels_neon
enum { VECTOR = 16, AT_ONCE = VECTOR / 2 };

static HALF_INLINE TARGET void FLOAT16_load(const uint16_t *halves, float *floats) {
    for (int i = 0; i < AT_ONCE; i += 4)
        vst1q_f32(floats + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves + i))));
}

static HALF_INLINE TARGET void FLOAT16_store(const float *floats, uint16_t *halves) {
    for (int i = 0; i < AT_ONCE; i += 4)
        vst1_u16(halves + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(floats + i))));
}

static HALF_INLINE TARGET float FLOAT16_to_float32(uint16_t half) {
    return float16_to_float32(half);
}

static HALF_INLINE TARGET uint16_t FLOAT16_from_float32(float value) {
    return float16_from_float32(value);
}

#include "kernel_impl.h"
#endif
