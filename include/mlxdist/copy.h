/* Copies between memory, one's own cache and that of others, and which way is quickest. */
#ifndef MLXDIST_COPY_H
#define MLXDIST_COPY_H

#include <stddef.h>

enum { CACHE_LINE = 64 };

enum copy_way {
    COPY_PLAIN,        /* memcpy */
    COPY_FULL_LINES,   /* to lines that others have in their caches: not fetched first, since nothing of them is left */
    COPY_FROM_MEMORY,  /* what is copied is in no cache */
    COPY_NON_TEMPORAL, /* to memory; seen by others only after copy_fence() */
};

/* As memcpy, whatever the way. */
void copy(void *to, const void *from, size_t nbytes, enum copy_way way);
void copy_fence(void);
/* Begin to take memory out of the caches of others, since it will be written soon. */
void copy_prefetch_for_write(const void *memory, size_t nbytes);

/* Memory of some MiB will be written for the first time, perhaps: let the system give it in large pages. */
void copy_use_huge_pages(void *memory, size_t nbytes);

/* Bytes of the last-level cache, as the system describes it; a usual size where it does not. */
size_t copy_cache_nbytes(void);

#endif
