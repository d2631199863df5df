/* Memory that processes of a host share: made by one, opened by the others by its name, which is then taken away, so
 * that nothing is left of it whatever becomes of them. */
#ifndef MLXDIST_SHM_SEGMENT_H
#define MLXDIST_SHM_SEGMENT_H

#include "mlxdist/types.h"

/* Two cache lines, since processors fetch lines in pairs: what one process writes and others watch lies this far apart.
 */
enum { SEGMENT_LINE = 128, SEGMENT_NAME = 48 };

/* What the maker tells the others. The token proves that what they open by this name is the same memory. */
struct shm_handle {
    char name[SEGMENT_NAME];
    uint64_t token;
};

struct segment {
    char *memory; /* nbytes, zeros at first */
    size_t nbytes;
    int file; /* -1 once closed; the memory stays */
};

/* Addresses for so much; NOT_SHARED where there is no such memory. */
int segment_create(size_t nbytes, struct shm_handle *handle, struct segment *segment, struct outcome *outcome);
int segment_attach(const struct shm_handle *handle, struct segment *segment, struct outcome *outcome);
/* Have this part of it, near the processor that asks; before anybody uses it, and by one process for all. NOT_SHARED
 * where there is too little. */
int segment_reserve(const struct segment *segment, size_t at, size_t nbytes, struct outcome *outcome);
/* Let the first nbytes, which are there, be seen by this process without a page fault later. */
void segment_touch(const struct segment *segment, size_t nbytes);
void segment_unlink(const struct shm_handle *handle);
void segment_close_file(struct segment *segment);
void segment_free(struct segment *segment);

/* Fill in NOT_SHARED. */
int segment_fails(struct outcome *outcome, const char *call, int error);

#endif
