/* Every variant of the kernels that this processor has gives the same bits as half.h and as plain C. */
#include "local_ranks.h"

#include "mlxdist/kernels/half.h"
#include "mlxdist/kernels/kernels.h"

/* BLOCK_BYTES: elements of the widest type, and not a round number of them. */
enum { HALVES = 1 << 16, BLOCK_BYTES = 16 * 2055, TRIALS = 3 };
/* In each byte, so that no exponent is the highest: of two NaN a sum may give either. */
enum { NO_NAN = 0xbf };

/* What every variant makes of the same inputs; the last is plain C. */
static void compare_variants(enum element_type type, enum reduction op, const void *const *inputs, int n,
                             size_t count) {
    static char expected[BLOCK_BYTES], found[BLOCK_BYTES];
    CHECK(kernels_choose("plain") == 0);
    reduce(type, op, inputs, n, expected, count);
    for (int i = 0; kernels_variant(i); i++) {
        if (kernels_choose(kernels_variant(i)))
            continue;
        memset(found, 0, sizeof found);
        reduce(type, op, inputs, n, found, count);
        CHECK(!memcmp(found, expected, count * element_size(type)));
    }
}

static void random_blocks(void) {
    static _Alignas(64) char raw[5][BLOCK_BYTES + 64];
    for (uint32_t trial = 0; trial < TRIALS; trial++) {
        const void *inputs[5];
        for (uint32_t i = 0; i < 5; i++) {
            for (uint32_t at = 0; at < sizeof raw[i]; at++)
                raw[i][at] = (char)(scramble(trial * 1000003 + i * 50021 + at) & NO_NAN);
            inputs[i] = raw[i] + 16 * (scramble(trial + i) % 4);
        }
        for (int type = 0; type < ELEMENT_TYPES; type++)
            for (int op = 0; op < REDUCTIONS && is_reducible((enum element_type)type, (enum reduction)op); op++) {
                size_t most = BLOCK_BYTES / element_size((enum element_type)type);
                int n = 1 + (int)((trial + (uint32_t)op) % 5);
                compare_variants((enum element_type)type, (enum reduction)op, inputs, n, trial % 3 ? most : trial);
            }
    }
}

static int is_nan(float value) {
    return value != value;
}

/* x + 0 is x again: each half becomes float32 and is rounded back. */
static void every_half(void) {
    static uint16_t halves[HALVES], zeros[HALVES], out[HALVES];
    for (uint32_t i = 0; i < HALVES; i++)
        halves[i] = (uint16_t)i;
    for (int i = 0; kernels_variant(i); i++) {
        const void *inputs[] = {halves, zeros};
        if (kernels_choose(kernels_variant(i)))
            continue;
        reduce(TYPE_FLOAT16, REDUCE_SUM, inputs, 2, out, HALVES);
        for (uint32_t k = 0; k < HALVES; k++)
            CHECK(out[k] == float16_from_float32(float16_to_float32((uint16_t)k) + 0.0f));
        reduce(TYPE_BFLOAT16, REDUCE_SUM, inputs, 2, out, HALVES);
        for (uint32_t k = 0; k < HALVES; k++)
            CHECK(out[k] == bfloat16_from_float32(bfloat16_to_float32((uint16_t)k) + 0.0f));
    }
}

/* Counts beside those of a vector, and float32 of all magnitudes, ties and NaN among them. */
static void conversions(void) {
    enum { COUNT = 4099 };
    static const uint32_t lower[] = {0, 1, 0xfff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001};
    static uint16_t halves[HALVES], found[COUNT];
    static float floats[COUNT], wide[HALVES];
    for (uint32_t i = 0; i < HALVES; i++)
        halves[i] = (uint16_t)i;
    for (int i = 0; kernels_variant(i); i++) {
        if (kernels_choose(kernels_variant(i)))
            continue;
        widen(TYPE_FLOAT16, halves, wide, HALVES);
        for (uint32_t k = 0; k < HALVES; k++)
            CHECK(float32_bits(wide[k]) == float32_bits(float16_to_float32((uint16_t)k)));
        widen(TYPE_BFLOAT16, halves, wide, HALVES);
        for (uint32_t k = 0; k < HALVES; k++)
            CHECK(float32_bits(wide[k]) == float32_bits(bfloat16_to_float32((uint16_t)k)));
        for (uint32_t trial = 0; trial < TRIALS * 16; trial++) {
            for (uint32_t k = 0; k < COUNT; k++) {
                uint32_t random = scramble(trial * COUNT + k);
                floats[k] = float32_from_bits(random & 1 ? random : (random & ~0xffffu) | lower[random >> 1 & 7]);
            }
            size_t count = trial % 2 ? COUNT : trial;
            narrow(TYPE_FLOAT16, floats, found, count);
            for (size_t k = 0; k < count; k++)
                CHECK(found[k] == float16_from_float32(floats[k]));
            narrow(TYPE_BFLOAT16, floats, found, count);
            for (size_t k = 0; k < count; k++)
                CHECK(found[k] == bfloat16_from_float32(floats[k]));
        }
    }
}

/* Sums that lie between two halves are rounded to the nearest, and to the even one of two that are as near. */
static void rounding(void) {
    enum { COUNT = 4096 };
    static uint16_t x[COUNT], y[COUNT], out[COUNT];
    const void *inputs[] = {x, y};
    for (uint32_t trial = 0; trial < TRIALS; trial++) {
        for (uint32_t k = 0; k < COUNT; k++) {
            x[k] = (uint16_t)scramble(trial * COUNT + k);
            y[k] = (uint16_t)(x[k] - 0x400 * (scramble(k) % 14));
        }
        for (int i = 0; kernels_variant(i); i++) {
            if (kernels_choose(kernels_variant(i)))
                continue;
            reduce(TYPE_FLOAT16, REDUCE_SUM, inputs, 2, out, COUNT);
            for (uint32_t k = 0; k < COUNT; k++) {
                float sum = float16_to_float32(x[k]) + float16_to_float32(y[k]);
                CHECK(is_nan(sum) ? is_nan(float16_to_float32(out[k])) : out[k] == float16_from_float32(sum));
            }
            reduce(TYPE_BFLOAT16, REDUCE_SUM, inputs, 2, out, COUNT);
            for (uint32_t k = 0; k < COUNT; k++) {
                float sum = bfloat16_to_float32(x[k]) + bfloat16_to_float32(y[k]);
                CHECK(is_nan(sum) ? is_nan(bfloat16_to_float32(out[k])) : out[k] == bfloat16_from_float32(sum));
            }
        }
    }
}

PROGRAM({"random-blocks", random_blocks}, {"every-half", every_half}, {"rounding", rounding},
        {"conversions", conversions})
