/* Arrays in memory that the ranks of a host share: reductions read everybody's input and write everybody's output where
 * they lie. Every rank has a part of each; those of one symmetric block, made by one call, have the same length. */
#ifndef MLXDIST_SHM_SYMMETRIC_H
#define MLXDIST_SHM_SYMMETRIC_H

#include "mlxdist/shm/arrival.h"

struct symmetric;

/* Where a buffer lies: in which symmetric block, and how far from the beginning of the rank's part. id 0: in none. */
struct symmetric_offset {
    uint64_t id, offset;
};

/* What a rank brings to the arrival at a call on a long array, for all to know. */
struct buffer_descriptor {
    uint64_t offset; /* of the result within a cache line */
    struct symmetric_offset in, out;
};

/* Every local rank of the node calls it with the same nbytes. NOT_SHARED on all of them where it cannot be had. The
 * symmetric blocks of a group are a list, whose newest this becomes. */
int symmetric_open(struct node *node, size_t nbytes, struct symmetric **newest, const struct wait_policy *policy,
                   struct outcome *outcome);
/* This rank's part; zeros at first. */
void *symmetric_memory(const struct symmetric *symmetric);
/* It is not used any more: any thread may say so at any time. */
void symmetric_drop(struct symmetric *symmetric);
/* Take those that were dropped out of the list and give them back; the other ranks keep theirs. */
void symmetric_sweep(struct symmetric **newest);

struct symmetric_offset symmetric_offset(const struct symmetric *newest, const void *buffer, size_t nbytes);

/* After all have arrived: whether their inputs and outputs lie in the same symmetric blocks at the same places. */
int symmetric_is_common(const struct node *node);
/* If so, reduce all inputs into all outputs; they may be the same. */
int symmetric_reduce(struct node *node, const struct symmetric *newest, const struct call *call,
                     const struct wait_policy *policy, struct outcome *outcome);

#endif
