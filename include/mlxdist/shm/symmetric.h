/* Symmetric memory: arrays in memory that the ranks of a host share, so that reductions read every rank's input and
 * write every rank's output in place. A block is made by one call of all ranks, and has a part of the same length for
 * each. */
#ifndef MLXDIST_SHM_SYMMETRIC_H
#define MLXDIST_SHM_SYMMETRIC_H

#include "mlxdist/shm/arrival.h"

struct symmetric;

/* Where a buffer lies: in which block, and how far from the start of the rank's part. id 0: in none. */
struct symmetric_offset {
    uint64_t id, offset;
};

/* What a rank publishes with its arrival at a call on a long array. */
struct buffer_descriptor {
    uint64_t offset; /* of recvbuf within a cache line */
    struct symmetric_offset in, out;
};

/* Every local rank of the node calls it with the same nbytes. NOT_SHARED on all of them if there is no memory for it.
 * The blocks of a group are a list, to which this is added as the newest. */
int symmetric_open(struct node *node, size_t nbytes, struct symmetric **newest, const struct wait_policy *policy,
                   struct outcome *outcome);
/* This rank's part; zeros at first. */
void *symmetric_memory(const struct symmetric *symmetric);
/* It is not used any more; any thread may call this at any time. */
void symmetric_drop(struct symmetric *symmetric);
/* Unmap those that were dropped; the other ranks keep their own mapping. */
void symmetric_sweep(struct symmetric **newest);

/* Of nbytes from buffer on, in this rank's part of a block. */
struct symmetric_offset symmetric_offset(const struct symmetric *newest, const void *buffer, size_t nbytes);

/* After all have arrived: whether their inputs and outputs lie in the same blocks at the same offsets. */
int symmetric_is_common(const struct node *node);
/* If so, reduce all inputs into all outputs, which may be the same. */
int symmetric_reduce(struct node *node, struct symmetric *newest, const struct call *call,
                     const struct wait_policy *policy, struct outcome *outcome);
/* After a failure, of that or of the arrival before it, that leaves the others free to go on: the nbytes of this rank's
 * buffers become its own memory, where the others neither read nor write. */
void symmetric_detach(struct symmetric *newest, const struct buffer_descriptor *own, size_t nbytes,
                      struct outcome *outcome);

#endif
