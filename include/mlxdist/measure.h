/* What `mlxdist bench` needs in C: the cost of the clock, rewritten buffers, and the speed of memory. */
#ifndef MLXDIST_MEASURE_H
#define MLXDIST_MEASURE_H

#include <stddef.h>
#include <stdint.h>

/* Every byte of a rewritten buffer; a small number as float32, float16 and bfloat16. */
enum { MEASURE_BYTE = 0x3c };

/* Seconds that reading the clock before and after something adds to its time. */
double measure_own_s(void);
void measure_rewrite(void *buffer, size_t nbytes);
/* Seconds in `repeats` copies, past the cache if non_temporal; the source is rewritten before each. */
double measure_copy_s(void *to, void *from, size_t nbytes, int non_temporal, int64_t repeats);

#endif
