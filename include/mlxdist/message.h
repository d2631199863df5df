/* A message from one rank to another: begun without blocking, then waited for. Its tag is its element type. */
#ifndef MLXDIST_MESSAGE_H
#define MLXDIST_MESSAGE_H

#include "mlxdist/arrive.h"

/* After a failure of the waiting the buffer still belongs to MPI: pending = 1. */
int message_send(struct ranks *ranks, const struct call *call, const void *sendbuf, int *pending,
                 struct outcome *outcome);
/* A message of another type or length is taken off the wire, thrown away and reported: MISMATCH. */
int message_recv(struct ranks *ranks, const struct call *call, void *recvbuf, struct outcome *outcome);

#endif
