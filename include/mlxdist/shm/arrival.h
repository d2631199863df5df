/* How the ranks of a node arrive at a call: the k-th arrival of a rank tells the others what it calls, may carry up to
 * NODE_SLOT bytes, and returns when all local ranks have arrived k times. */
#ifndef MLXDIST_SHM_ARRIVAL_H
#define MLXDIST_SHM_ARRIVAL_H

#include "mlxdist/shm/node.h"

/* Arrive with nbytes of payload, and wait for the others. commit: what follows cannot be given up, so either all go on
 * or none does. allow_mismatch: let the calls differ; the caller compares them by other means. After anything but OK
 * this rank arrives no more. */
int node_arrive(struct node *node, const struct call *call, const void *payload, size_t nbytes, int commit,
                int allow_mismatch, const struct wait_policy *policy, struct outcome *outcome);
/* What a local rank published with the arrival that has just succeeded; it stays until this rank arrives again. */
const void *node_payload(const struct node *node, int local_rank);
const struct call *node_call(const struct node *node, int local_rank); /* as long; NULL: none */
/* The number of this rank's arrivals. */
uint64_t node_sequence(const struct node *node);

#endif
