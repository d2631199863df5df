/* Copies that go past the cache: for results that nobody reads soon, beyond what the last-level cache holds. */
#ifndef MLXDIST_COPY_H
#define MLXDIST_COPY_H

#include <stddef.h>

/* As memcpy; past the cache, what it writes is seen by others only after copy_fence(). */
void copy(void *to, const void *from, size_t nbytes, int past_cache);
void copy_fence(void);

/* Bytes of the last-level cache, as the system describes it; a usual size where it does not. */
size_t copy_cache_nbytes(void);

#endif
