/* float16 and bfloat16 from and to float32: the scalar reference that every faster variant must match bit for bit.
 *
 * Rounding is to nearest even. A NaN stays a NaN, made quiet, with the upper bits of its payload, as in hardware.
 * Nothing here reads or makes a float32 that is subnormal and matters, so flush-to-zero modes change nothing. */
#ifndef MLXDIST_KERNELS_HALF_H
#define MLXDIST_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

/* Of converters of many: not inlined, their floats would go through memory. */
#define HALF_INLINE inline __attribute__((always_inline))

static inline uint32_t float32_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float32_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float float16_to_float32(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, rest = half & 0x7fffu;
    uint32_t normal = (rest << 13) + 0x38000000u;
    uint32_t special = (rest << 13) | 0x7f800000u;
    /* 2^-14 (1 + m / 1024) - 2^-14 = m 2^-24 */
    uint32_t subnormal = float32_bits(float32_from_bits((rest << 13) | 0x38800000u) - 0x1p-14f);
    uint32_t quiet = rest > 0x7c00u ? 0x400000u : 0;
    return float32_from_bits(sign | (rest >= 0x7c00u ? special | quiet : rest < 0x400u ? subnormal : normal));
}

static inline uint16_t float16_from_float32(float value) {
    uint32_t bits = float32_bits(value), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    uint32_t nan = 0x7e00u | (rest >> 13 & 0x3ffu);
    uint32_t normal = (rest + 0xfffu + (rest >> 13 & 1u) - 0x38000000u) >> 13;
    /* the spacing of float32 at 0.5 is the spacing of float16's subnormals: the addition rounds */
    uint32_t subnormal = float32_bits(float32_from_bits(rest) + 0.5f) - 0x3f000000u;
    return (uint16_t)(sign | (rest > 0x7f800000u    ? nan
                              : rest >= 0x477ff000u ? 0x7c00u
                              : rest < 0x38800000u  ? subnormal
                                                    : normal));
}

static inline float bfloat16_to_float32(uint16_t half) {
    return float32_from_bits((uint32_t)half << 16);
}

/* The bfloat16 in the upper half of a word; the lower half is to be ignored. */
static inline uint32_t bfloat16_word(float value) {
    uint32_t bits = float32_bits(value), rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    return (bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : rounded;
}

static inline uint16_t bfloat16_from_float32(float value) {
    return (uint16_t)(bfloat16_word(value) >> 16);
}

#endif
