/* How the local ranks of a node get a new segment: either all have it, or none. */
#ifndef MLXDIST_SHM_HANDSHAKE_H
#define MLXDIST_SHM_HANDSHAKE_H

#include "mlxdist/shm/arrival.h"

/* Every local rank calls it. `part` bytes for each local rank, one after the other, each on the NUMA node of its local
 * rank; after them `more` bytes, which are there only when segment_reserve has reserved them. detachable: each can
 * detach its part, which is whole pages. segment is NULL if this rank has had no memory for what it needs besides.
 * NOT_SHARED on all local ranks if one of them cannot have its part. */
int handshake_segment(struct node *node, size_t part, size_t more, int detachable, struct segment *segment,
                      const struct wait_policy *policy, struct outcome *outcome);

#endif
