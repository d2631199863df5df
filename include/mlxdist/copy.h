/* Copying memory: the fastest way depends on whether the data are in memory, in this processor's cache, or in others'.
 */
#ifndef MLXDIST_COPY_H
#define MLXDIST_COPY_H

#include <stddef.h>

enum { CACHE_LINE = 64 };

enum copy_way {
    COPY_PLAIN,        /* memcpy */
    COPY_FULL_LINES,   /* to lines in the caches of others, which are not fetched first since they are overwritten */
    COPY_FROM_MEMORY,  /* from memory that is in no cache */
    COPY_NON_TEMPORAL, /* to memory, past the cache; others see it only after copy_fence() */
};

/* Each way gives the same result as memcpy. */
void copy(void *to, const void *from, size_t nbytes, enum copy_way way);
void copy_fence(void);
/* Start to fetch lines into this cache for writing, from the caches of others. */
void copy_prefetch_for_write(const void *memory, size_t nbytes);

/* For memory of some MiB that may be written for the first time: let the system use huge pages for it. */
void copy_use_huge_pages(void *memory, size_t nbytes);

/* Bytes of the last-level cache, as the system reports it; a usual size if it does not. */
size_t copy_cache_nbytes(void);

#endif
