/* What `mlxdist bench` needs below Python: what the clock costs, buffers written anew, and the speed of memory. */
#ifndef MLXDIST_MEASURE_H
#define MLXDIST_MEASURE_H

#include <stddef.h>
#include <stdint.h>

/* Every byte of a buffer that is written anew; as float32, float16 or bfloat16 a small number. */
enum { MEASURE_BYTE = 0x3c };

/* What reading the clock before and after something adds to it. */
double measure_own_s(void);
void measure_rewrite(void *buffer, size_t nbytes);
/* Time in `repeats` copies, past the cache or not; what is copied is written anew before each. */
double measure_copy_s(void *to, void *from, size_t nbytes, int non_temporal, int64_t repeats);

#endif
