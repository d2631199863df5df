/* Memory that the ranks of a host share: there they see each other arrive at a call, and that one has died.
 *
 * A rank of a group has a seat in the group's node. Its k-th arrival shows what it calls, may bring up to NODE_SLOT
 * bytes, and returns when all seats have arrived k times. By then nobody looks at what the arrival before brought, so
 * two slots in turn are enough: who sees a rank's next arrival knows it is through with the last. No MPI here: the
 * seats may be processes made by fork, or threads. */
#ifndef MLXDIST_NODE_H
#define MLXDIST_NODE_H

#include "mlxdist/call.h"
#include "mlxdist/segment.h"
#include "mlxdist/wait.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { NODE_SLOT = 32768, NODE_SEATS = 1024 };

struct node;

/* The memory for so many seats; NOT_SHARED where there is none or too little. Its name is taken away when all have
 * attached. */
int node_create(int seats, struct ticket *ticket, struct node **node, struct outcome *outcome);
int node_attach(const struct ticket *ticket, struct node **node, struct outcome *outcome);

/* Take a seat, before all have attached. watch: a node, perhaps this, in whose seat watch_seat this process already
 * shows that it lives; it must outlive this one. */
void node_sit(struct node *node, int seat, int rank, struct node *watch, int watch_seat);
/* This rank will not arrive any more; those that wait for it are told, and whether it ends MPI with them. */
void node_leave(struct node *node, int ends_mpi);
/* The same, because of a failure; nothing where it has left already. */
void node_give_up(struct node *node);
void node_close(struct node *node);

int node_seats(const struct node *node);
int node_seat(const struct node *node);
int node_rank(const struct node *node, int seat);
int node_seat_of(const struct node *node, int rank); /* -1: it is on another host */
/* Fewer processors than seats, counting those that any seat may run on. */
int node_is_crowded(const struct node *node);

/* Arrive, bringing nbytes of payload, and wait for the others. binding: what follows cannot be given up, so either all
 * go on or none does. differ: let calls differ, who asks finds out by other means. After anything but OK this rank
 * arrives no more. */
int node_arrive(struct node *node, const struct call *call, const void *payload, size_t nbytes, int binding, int differ,
                const struct patience *patience, struct outcome *outcome);
/* What a seat brought to the arrival that has just succeeded. */
const void *node_payload(const struct node *node, int seat);
uint64_t node_sequence(const struct node *node);

/* OK while the seat may still answer; PEER_DIED, or MISMATCH if it has left. */
int node_look(const struct node *node, int seat, struct outcome *outcome);
/* The same for a rank that agrees with other hosts: who has left to end MPI with all agrees to that, see ranks_end; who
 * has left because something failed does not. */
int node_look_at_agreement(const struct node *node, int seat, struct outcome *outcome);
/* Wait until every seat has left. PEER_DIED: not all of them will end MPI. */
int node_await_end(struct node *node, const struct patience *patience, struct outcome *outcome);

#ifdef __cplusplus
}
#endif
#endif
