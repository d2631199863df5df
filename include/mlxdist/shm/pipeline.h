/* Pipelined collectives on long arrays between the ranks of a host, chunk by chunk through their staging buffer.
 *
 * While chunk k + 1 is copied in, chunk k is reduced, a share by each rank, and chunk k - 1 is copied out. The order of
 * summation is that of the ranks: the same bits on every rank and in every run. */
#ifndef MLXDIST_SHM_PIPELINE_H
#define MLXDIST_SHM_PIPELINE_H

#include "mlxdist/shm/staging.h"
#include "mlxdist/shm/symmetric.h"

/* The offset of recvbuf within a cache line, for a rank's buffer_descriptor; and after the arrival the one that all
 * ranks have, or 0 if they differ. By it, chunks in the staging buffer get the alignment of the results. */
size_t pipeline_own_offset(const struct call *call, const void *recvbuf);
size_t pipeline_offset(const struct node *node);

/* After all have arrived at call. The buffers are those of group_run; count is not 0. */
int pipeline_run(struct staging *staging, const struct node *node, const struct call *call, const void *sendbuf,
                 void *recvbuf, size_t offset, const struct wait_policy *policy, struct outcome *outcome);

#endif
