#include "mlxdist/measure.h"

#include <string.h>
#include <time.h>

#include "mlxdist/copy.h"

double measure_clock_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double measure_own_s(void) {
    enum { TRIALS = 1000 };
    static double known = -1;
    if (known < 0) {
        double spent = 0;
        for (int i = 0; i < TRIALS; i++) {
            double begun = measure_clock_s();
            spent += measure_clock_s() - begun;
        }
        known = spent / TRIALS;
    }
    return known;
}

void measure_rewrite(void *buffer, size_t nbytes) {
    memset(buffer, MEASURE_BYTE, nbytes);
}

double measure_copy_s(void *to, void *from, size_t nbytes, int past_cache, int64_t repeats) {
    double spent = 0;
    for (int64_t i = 0; i < repeats; i++) {
        measure_rewrite(from, nbytes);
        double begun = measure_clock_s();
        (past_cache ? copy_past_cache : copy_plainly)(to, from, nbytes);
        copy_fence();
        spent += measure_clock_s() - begun;
    }
    return spent - (double)repeats * measure_own_s();
}
