/* A new segment for all seats of a node, however far they have come. */
#ifndef MLXDIST_SHARE_H
#define MLXDIST_SHARE_H

#include "mlxdist/node.h"

/* Every seat calls it. NOT_SHARED on all of them where one of them cannot have the memory. */
int share(struct node *node, size_t nbytes, struct segment *segment, const struct patience *patience,
          struct outcome *outcome);

#endif
