/* A collective, by the way that suits the operation, the number of bytes, and where the ranks and buffers are. */
#ifndef MLXDIST_GROUP_COLLECTIVE_H
#define MLXDIST_GROUP_COLLECTIVE_H

#include "mlxdist/group/members.h"

/* From arrival to result; the buffers are those of group_run. */
int collective_run(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf,
                   struct outcome *outcome);

/* The call of libmpi alone, without an arrival. */
int collective_by_mpi(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf,
                      struct outcome *outcome);

#endif
