/* Memory that the ranks of a host share: there they see each other arrive at a call, and that one has died.
 *
 * A rank of a group has a local rank in the group's node. Its k-th arrival shows what it calls, may bring up to
 * NODE_SLOT bytes, and returns when all local ranks have arrived k times. By then nobody looks at what the arrival
 * before brought, so two slots in turn are enough: who sees a rank's next arrival knows it is through with the last. No
 * MPI here: the local ranks may be processes made by fork, or threads. */
#ifndef MLXDIST_NODE_H
#define MLXDIST_NODE_H

#include "mlxdist/call.h"
#include "mlxdist/shm/segment.h"
#include "mlxdist/wait.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { NODE_SLOT = 32768, NODE_MAX_RANKS = 1024 };

struct node;

/* The memory for so many local ranks; NOT_SHARED where there is none or too little. Its name is taken away when all
 * have attached. */
int node_create(int local_size, struct shm_handle *handle, struct node **node, struct outcome *outcome);
int node_attach(const struct shm_handle *handle, struct node **node, struct outcome *outcome);

/* Take a local rank, before all have attached. watch: a node, perhaps this, in whose local rank watch_seat this process
 * already shows that it lives; it must outlive this one. */
void node_join(struct node *node, int local_rank, int rank, struct node *watch, int watch_rank);
/* This rank will not arrive any more; those that wait for it are told, and whether it ends MPI with them. */
void node_leave(struct node *node, int ends_mpi);
/* The same, because of a failure; nothing where it has left already. */
void node_give_up(struct node *node);
void node_close(struct node *node);

int node_local_size(const struct node *node);
int node_local_rank(const struct node *node);
int node_rank(const struct node *node, int local_rank);
int node_local_rank_of(const struct node *node, int rank); /* -1: it is on another host */
/* Fewer processors than local ranks, counting those that any local rank may run on. */
int node_is_oversubscribed(const struct node *node);

/* Arrive, bringing nbytes of payload, and wait for the others. binding: what follows cannot be given up, so either all
 * go on or none does. differ: let calls differ, who asks finds out by other means. After anything but OK this rank
 * arrives no more. */
int node_arrive(struct node *node, const struct call *call, const void *payload, size_t nbytes, int commit,
                int allow_mismatch, const struct wait_policy *policy, struct outcome *outcome);
/* What a local rank brought to the arrival that has just succeeded. */
const void *node_payload(const struct node *node, int local_rank);
uint64_t node_sequence(const struct node *node);

/* OK while the local rank may still answer; PEER_DIED, or MISMATCH if it has left. */
int node_check(const struct node *node, int local_rank, struct outcome *outcome);
/* The same for a rank that agrees with other hosts: who has left to end MPI with all agrees to that, see ranks_end; who
 * has left because something failed does not. */
int node_check_agreement(const struct node *node, int local_rank, struct outcome *outcome);
/* Wait until every local rank has left. PEER_DIED: not all of them will end MPI. */
int node_await_end(struct node *node, const struct wait_policy *policy, struct outcome *outcome);

#ifdef __cplusplus
}
#endif
#endif
