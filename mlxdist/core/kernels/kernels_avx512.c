/* For x86-64 with AVX-512, without its BF16 instructions, which treat subnormal numbers as zero. */
#include "mlxdist/kernels/half.h"
#include "mlxdist/kernels/kernels.h"

#ifdef __x86_64__
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c")))
#define VARIANT kernels_avx512

static TARGET void FLOAT16_load(const uint16_t *halves, float *floats, size_t n) {
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(floats + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(halves + i))));
    for (; i < n; i++)
        floats[i] = float16_to_float32(halves[i]);
}

static TARGET void FLOAT16_store(const float *floats, uint16_t *halves, size_t n) {
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(halves + i),
                            _mm512_cvtps_ph(_mm512_loadu_ps(floats + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++)
        halves[i] = float16_from_float32(floats[i]);
}

#include "kernel_impl.h"
#endif
