/* For arm64, every one of which has these instructions. */
#include "mlxdist/kernels/half.h"
#include "mlxdist/kernels/kernels.h"

#ifdef __aarch64__
#include <arm_neon.h>

#define TARGET
#define VARIANT kernels_neon

static void FLOAT16_load(const uint16_t *halves, float *floats, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(floats + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves + i))));
    for (; i < n; i++)
        floats[i] = float16_to_float32(halves[i]);
}

static void FLOAT16_store(const float *floats, uint16_t *halves, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1_u16(halves + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(floats + i))));
    for (; i < n; i++)
        halves[i] = float16_from_float32(floats[i]);
}

#include "kernel_impl.h"
#endif
