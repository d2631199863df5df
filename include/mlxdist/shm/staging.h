/* Memory for long messages between the ranks of a host: each has a few chunks in it, and says how far it is.
 *
 * Whoever waits for another's progress can be interrupted, timed out, and told that a peer has died, also in the middle
 * of a message: no buffer is in anybody else's hands. */
#ifndef MLXDIST_SHM_STAGING_H
#define MLXDIST_SHM_STAGING_H

#include "mlxdist/shm/arrival.h"
#include "mlxdist/shm/copy_policy.h"

/* At most so many bytes for all ranks of a group together; a rank's chunks that are under way, and their length where
 * that is not too much. */
enum { STAGING_NBYTES = 32 << 20, STAGING_SLOTS = 4, STAGING_CHUNK = 512 << 10, STAGING_MAX_RANKS = 64 };

/* What a rank has done with a chunk: brought its part; reduced its share. */
enum stage { STAGE_COPIED_IN, STAGE_REDUCED, STAGES };

struct staging;

/* Every local rank of the node calls it. staging buffer is NULL afterwards where the memory is not to be had or
 * there are more than WINDOW_SEATS. */
int staging_open(struct node *node, struct staging **staging, const struct wait_policy *policy,
                 struct outcome *outcome);
void staging_close(struct staging *staging);

/* Bytes of a chunk, a multiple of SEGMENT_LINE, and where a local rank's k-th one lies: chunk k + WINDOW_SLOTS lies
 * there too. */
size_t staging_chunk(const struct staging *staging);
char *staging_slot(const struct staging *staging, int local_rank, size_t k);

struct copy_autotune *staging_autotune(struct staging *staging);

/* A call of so many chunks. All have arrived at it, so that all slots are free. */
void staging_begin(struct staging *staging, const struct call *call, size_t chunks, const struct wait_policy *policy);
/* This rank is through with the first so many chunks; wait until all are. */
void staging_announce(struct staging *staging, enum stage stage, size_t chunks);
int staging_await(struct staging *staging, enum stage stage, size_t chunks, struct outcome *outcome);

#endif
