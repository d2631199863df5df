/* For x86-64 with AVX2 and F16C. */
#include "mlxdist/kernels/half.h"
#include "mlxdist/kernels/kernels.h"

#ifdef __x86_64__
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,f16c")))
#define VARIANT kernels_avx2
enum { VECTOR = 32, AT_ONCE = VECTOR / 2 };

static HALF_INLINE TARGET void FLOAT16_load(const uint16_t *halves, float *floats) {
    for (int i = 0; i < AT_ONCE; i += 8)
        _mm256_storeu_ps(floats + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(halves + i))));
}

static HALF_INLINE TARGET void FLOAT16_store(const float *floats, uint16_t *halves) {
    for (int i = 0; i < AT_ONCE; i += 8)
        _mm_storeu_si128((__m128i *)(halves + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(floats + i), _MM_FROUND_TO_NEAREST_INT));
}

static HALF_INLINE TARGET float FLOAT16_to_float32(uint16_t half) {
    return _cvtsh_ss(half);
}

static HALF_INLINE TARGET uint16_t FLOAT16_from_float32(float value) {
    return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
}

#include "kernel_impl.h"
#endif
