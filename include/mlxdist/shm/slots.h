/* Short collectives: each rank's input comes with its arrival, and each rank computes its own result from them. */
#ifndef MLXDIST_SHM_SLOTS_H
#define MLXDIST_SHM_SLOTS_H

#include "mlxdist/shm/arrival.h"

/* Arrive at call and carry it out; the input is at most NODE_SLOT bytes. */
int slots_run(struct node *node, const struct call *call, const void *sendbuf, void *recvbuf,
              const struct wait_policy *policy, struct outcome *outcome);

#endif
