#include "mlxdist/measure.h"

#include <string.h>

#include "mlxdist/copy.h"
#include "mlxdist/wait.h"

double measure_own_s(void) {
    enum { TRIALS = 1000 };
    static _Atomic double known = -1;
    if (known < 0) {
        double spent = 0;
        for (int i = 0; i < TRIALS; i++) {
            double begun = wait_now_s();
            spent += wait_now_s() - begun;
        }
        known = spent / TRIALS;
    }
    return known;
}

void measure_rewrite(void *buffer, size_t nbytes) {
    memset(buffer, MEASURE_BYTE, nbytes);
}

double measure_copy_s(void *to, void *from, size_t nbytes, int non_temporal, int64_t repeats) {
    double spent = 0;
    for (int64_t i = 0; i < repeats; i++) {
        measure_rewrite(from, nbytes);
        double begun = wait_now_s();
        copy(to, from, nbytes, non_temporal ? COPY_NON_TEMPORAL : COPY_PLAIN);
        copy_fence();
        spent += wait_now_s() - begun;
    }
    return spent - (double)repeats * measure_own_s();
}
