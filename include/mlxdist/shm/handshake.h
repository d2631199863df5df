/* A new segment for all local ranks of a node, however far they have come. */
#ifndef MLXDIST_SHM_HANDSHAKE_H
#define MLXDIST_SHM_HANDSHAKE_H

#include "mlxdist/shm/arrival.h"

/* Every local rank calls it. part bytes for each local rank, one behind the other, each near the processor of its local
 * rank; behind them `spare` bytes that are there only when segment_reserve has had them. NOT_SHARED on all local ranks
 * where one of them cannot have its part. */
int handshake_segment(struct node *node, size_t part, size_t spare, struct segment *segment,
                      const struct wait_policy *policy, struct outcome *outcome);

#endif
