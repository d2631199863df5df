/* Arrays in memory that the ranks of a host share: reductions read everybody's input and write everybody's output where
 * they lie. Every rank has a part of each; those of one pool, made by one call, have the same length. */
#ifndef MLXDIST_POOL_H
#define MLXDIST_POOL_H

#include "mlxdist/node.h"

struct pool;

/* Where a buffer lies: in which pool, and how far from the beginning of the rank's part. id 0: in none. */
struct place {
    uint64_t id, offset;
};

/* What a rank brings to the arrival at a call on a long array, for all to know. */
struct approach {
    uint64_t offset; /* of the result within a cache line */
    struct place in, out;
};

/* Every seat of the node calls it with the same nbytes. NOT_SHARED on all of them where it cannot be had. The pools of
 * a group are a list, whose newest this becomes. */
int pool_open(struct node *node, size_t nbytes, struct pool **newest, const struct patience *patience,
              struct outcome *outcome);
/* This rank's part; zeros at first. */
void *pool_memory(const struct pool *pool);
/* It is not used any more: any thread may say so at any time. */
void pool_drop(struct pool *pool);
/* Take those that were dropped out of the list and give them back; the other ranks keep theirs. */
void pool_sweep(struct pool **newest);

struct place pool_place(const struct pool *newest, const void *buffer, size_t nbytes);

/* After all have arrived: whether their inputs and outputs lie in the same pools at the same places. */
int pool_is_common(const struct node *node);
/* If so, reduce all inputs into all outputs; they may be the same. */
int pool_reduce(struct node *node, const struct pool *newest, const struct call *call, const struct patience *patience,
                struct outcome *outcome);

#endif
