/* A new segment for all seats of a node, however far they have come. */
#ifndef MLXDIST_SHARE_H
#define MLXDIST_SHARE_H

#include "mlxdist/node.h"

/* Every seat calls it. part bytes for each seat, one behind the other, each near the processor of its seat; behind them
 * `spare` bytes that are there only when segment_reserve has had them. NOT_SHARED on all seats where one of them cannot
 * have its part. */
int share(struct node *node, size_t part, size_t spare, struct segment *segment, const struct patience *patience,
          struct outcome *outcome);

#endif
