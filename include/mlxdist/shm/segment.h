/* Memory that processes of a host share: one creates it, the others open it. On Linux it has no name, so that nothing
 * is left behind however the processes end: the others open the creator's descriptor, below /proc. Where they cannot,
 * as in different pid namespaces, and on other systems it has a name until all have opened it. */
#ifndef MLXDIST_SHM_SEGMENT_H
#define MLXDIST_SHM_SEGMENT_H

#include "mlxdist/types.h"

/* Two cache lines, since processors prefetch lines in pairs: what different processes write lies this far apart. */
enum { SEGMENT_LINE = 128, SEGMENT_NAME = 48 };

/* What the creator tells the others: the name, or "/proc/PID/fd/N". The token, a random number at the start of the
 * memory, proves that what they open by this name is the same memory.
 *
 * Memory order: the creator writes the token before it passes the handle on, by MPI or by an arrival, either of which
 * orders it before the others read it. */
struct shm_handle {
    char name[SEGMENT_NAME];
    uint64_t token;
};

struct segment {
    char *memory; /* nbytes, zeros at first */
    size_t nbytes;
    int file;     /* -1 once closed; the memory stays mapped. On macOS, after segment_lock, that of the locks */
    int is_named; /* the others attach by a name, not below /proc */
    void *lock;   /* Linux: a page of the file that keeps the lock of segment_lock, or NULL */
    struct {
        char *memory; /* NULL: there is none */
        size_t at, nbytes;
    } spare; /* see segment_map_spare */
};

/* Map nbytes of address space; NOT_SHARED if that fails, or if another memory has this name. The others can attach
 * until the creator closes the file. */
int segment_create(size_t nbytes, int is_named, struct shm_handle *handle, struct segment *segment,
                   struct outcome *outcome);
int segment_attach(const struct shm_handle *handle, struct segment *segment, struct outcome *outcome);
/* Allocate this part of it on the NUMA node of the caller, before it is used; one process does it for all.
 * NOT_SHARED if there is too little memory: to write to a part that is not reserved may be a SIGBUS. */
int segment_reserve(const struct segment *segment, size_t at, size_t nbytes, struct outcome *outcome);
/* Map the pages of the first nbytes, which have been reserved, into this process, to save page faults later. */
void segment_touch(const struct segment *segment, size_t nbytes);
/* Prepare this part, whole pages from that of memory + at on, to be detached. Needs the open file. NOT_SHARED: there is
 * no address space for it. */
int segment_map_spare(struct segment *segment, size_t at, size_t nbytes, struct outcome *outcome);
/* From now on nothing that this process writes to the part is seen by others, and nothing that others write to these
 * bytes of it is seen here. Other threads may use the part meanwhile. Returns 0, or an errno: then all is as before. */
int segment_detach(struct segment *segment, char *memory, size_t nbytes);
/* Remove the name, if it has one. */
void segment_unlink(const struct shm_handle *handle);
/* Lock a byte of the file until this process ends, however it ends; while others can still attach. */
int segment_lock(const struct shm_handle *handle, size_t at, struct segment *segment, struct outcome *outcome);
/* Whether a process holds the lock of that byte. The answer is wrong if the program has closed the file. */
int segment_is_locked(const struct segment *segment, size_t at);
/* The processes that have it may not see each other's pids. */
int segment_hides_pids(const struct segment *segment);
void segment_close_file(struct segment *segment);
void segment_free(struct segment *segment);

/* Fill in outcome with what failed and why, an errno; return NOT_SHARED. */
int segment_fails(struct outcome *outcome, const char *call, int error);

#endif
