/* A message from one rank to another: begun without blocking, then waited for. Its tag is its element type. */
#ifndef MLXDIST_GROUP_P2P_H
#define MLXDIST_GROUP_P2P_H

#include "mlxdist/group/members.h"

/* pending = 1: the waiting has failed in the middle of the message, and the buffer may still belong to MPI. */
int p2p_send(struct members *members, const struct call *call, const void *sendbuf, int *pending,
             struct outcome *outcome);
/* A message of another type or length is taken off the wire, thrown away and reported: MISMATCH. */
int p2p_recv(struct members *members, const struct call *call, void *recvbuf, int *pending, struct outcome *outcome);

#endif
