/* For x86-64 with AVX-512, without its BF16 instructions, which treat subnormal numbers as zero. */
#include "mlxdist/kernels/half.h"
#include "mlxdist/kernels/kernels.h"

#ifdef __x86_64__
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c")))
#define VARIANT kernels_avx512
enum { VECTOR = 64, AT_ONCE = VECTOR / 2 };

static HALF_INLINE TARGET void FLOAT16_load(const uint16_t *halves, float *floats) {
    for (int i = 0; i < AT_ONCE; i += 16)
        _mm512_storeu_ps(floats + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(halves + i))));
}

static HALF_INLINE TARGET void FLOAT16_store(const float *floats, uint16_t *halves) {
    for (int i = 0; i < AT_ONCE; i += 16)
        _mm256_storeu_si256((__m256i *)(halves + i),
                            _mm512_cvtps_ph(_mm512_loadu_ps(floats + i), _MM_FROUND_TO_NEAREST_INT));
}

static HALF_INLINE TARGET float FLOAT16_to_float32(uint16_t half) {
    return _cvtsh_ss(half);
}

static HALF_INLINE TARGET uint16_t FLOAT16_from_float32(float value) {
    return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
}

#include "kernel_impl.h"
#endif
