/* Point-to-point messages: through shared memory if it reaches the peer, otherwise by MPI, where they are started
 * without blocking and then waited for. Their tag is the element type. */
#ifndef MLXDIST_GROUP_P2P_H
#define MLXDIST_GROUP_P2P_H

#include "mlxdist/group/members.h"

/* pending = 1: it failed in the middle of the message, and MPI may still use the buffer. */
int p2p_send(struct members *members, const struct call *call, const void *sendbuf, int *pending,
             struct outcome *outcome);
/* A message of another type or length is received, thrown away and reported: MISMATCH. */
int p2p_recv(struct members *members, const struct call *call, void *recvbuf, int *pending, struct outcome *outcome);

#endif
