/* The staging buffer: memory for long arrays between the ranks of a host. Each rank has a few chunks in it, and
 * announces its progress.
 *
 * A wait for another rank's progress can be interrupted, time out, and find that the rank has died, even in the middle
 * of an array: no user buffer is in use by a peer. */
#ifndef MLXDIST_SHM_STAGING_H
#define MLXDIST_SHM_STAGING_H

#include "mlxdist/shm/arrival.h"
#include "mlxdist/shm/copy_policy.h"

/* The most bytes for all ranks of a group together, how many chunks a rank has, and their length unless that is too
 * much for so many ranks. */
enum { STAGING_NBYTES = 32 << 20, STAGING_SLOTS = 4, STAGING_CHUNK = 512 << 10, STAGING_MAX_RANKS = 64 };

/* What a rank has done with a chunk: copied in its own data; reduced its share. */
enum stage { STAGE_COPIED_IN, STAGE_REDUCED, STAGES };

struct staging;

/* Every local rank of the node calls it. *staging is NULL afterwards, on all of them, if there is no memory for it or
 * they are more than STAGING_MAX_RANKS. */
int staging_open(struct node *node, struct staging **staging, const struct wait_policy *policy,
                 struct outcome *outcome);
void staging_close(struct staging *staging);

/* Bytes of a chunk, a multiple of SEGMENT_LINE; the slot of a local rank's chunk k, which is also that of chunk
 * k + STAGING_SLOTS. */
size_t staging_chunk(const struct staging *staging);
char *staging_slot(const struct staging *staging, int local_rank, size_t k);

struct copy_autotune *staging_autotune(struct staging *staging);

/* Begin a call of so many chunks. All ranks have arrived at it, so all slots are free. */
void staging_begin(struct staging *staging, const struct call *call, size_t chunks, const struct wait_policy *policy);
/* This rank has done the stage for the first so many chunks; wait until all ranks have. */
void staging_announce(struct staging *staging, enum stage stage, size_t chunks);
int staging_await(struct staging *staging, enum stage stage, size_t chunks, struct outcome *outcome);

#endif
