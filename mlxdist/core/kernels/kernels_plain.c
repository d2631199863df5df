/* For every processor: the loops as the compiler vectorizes them. */
#include "mlxdist/kernels/half.h"
#include "mlxdist/kernels/kernels.h"

#define TARGET
#define VARIANT kernels_plain

static void FLOAT16_load(const uint16_t *halves, float *floats, size_t n) {
    for (size_t i = 0; i < n; i++)
        floats[i] = float16_to_float32(halves[i]);
}

static void FLOAT16_store(const float *floats, uint16_t *halves, size_t n) {
    for (size_t i = 0; i < n; i++)
        halves[i] = float16_from_float32(floats[i]);
}

#include "kernel_impl.h"
