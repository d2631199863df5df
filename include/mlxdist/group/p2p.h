/* Point-to-point messages: through shared memory if it reaches the peer, otherwise by MPI. */
#ifndef MLXDIST_GROUP_P2P_H
#define MLXDIST_GROUP_P2P_H

#include "mlxdist/group/members.h"

/* A SEND, a RECV, or both at a time: SENDRECV, where sendbuf may be recvbuf. Both buffers are the caller's again
 * afterwards, whatever happened, unless they are a device's. A message of another type or length is received, thrown
 * away and reported: MISMATCH. pending = 1: it failed in the middle of a message. */
int p2p_run(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf, int *pending,
            struct outcome *outcome);

#endif
