/* For x86-64 with AVX2 and F16C. */
#include "mlxdist/kernels/half.h"
#include "mlxdist/kernels/kernels.h"

#ifdef __x86_64__
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,f16c")))
#define VARIANT kernels_avx2

static TARGET void FLOAT16_load(const uint16_t *halves, float *floats, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(floats + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(halves + i))));
    for (; i < n; i++)
        floats[i] = float16_to_float32(halves[i]);
}

static TARGET void FLOAT16_store(const float *floats, uint16_t *halves, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(halves + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(floats + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++)
        halves[i] = float16_from_float32(floats[i]);
}

#include "kernel_impl.h"
#endif
