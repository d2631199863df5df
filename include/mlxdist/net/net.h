/* The interface of what goes between hosts: collectives of ranks that do not all share memory. Nothing outside this
 * folder includes another of its headers.
 *
 * A call opens with a message from each host to each, in which the hosts compare what their ranks call; what is short
 * comes with it, what is long follows in chunks. All of it is sent from and received to memory of our own, so a wait
 * can end at any time: by the timeout, by Ctrl-C, or because another rank has given up, of which it tells the others.
 *
 * | a rank           | is told by                                                                                 |
 * | of the same host | shm_give_up()                                                                              |
 * | of another host  | net_give_up(): a message to each                                                           |
 */
#ifndef MLXDIST_NET_NET_H
#define MLXDIST_NET_NET_H

#include "mlxdist/call.h"
#include "mlxdist/mpi/runtime.h"
#include "mlxdist/shm/shm.h"

struct net;

/* Every rank of comm calls it; they are on different hosts. shm: of this host; NULL: this rank shares memory with no
 * other. Both must outlive it. end_together: all ranks will call net_end. */
int net_open(struct comm *comm, struct shm *shm, int end_together, const struct wait_policy *policy, struct net **net,
             struct outcome *outcome);
/* Nothing if MPI still uses its memory. */
void net_close(struct net *net);
int net_is_pending(const struct net *net);

/* A collective from arrival to result, of host memory; the buffers are those of group_run. */
int net_run(struct net *net, const struct call *call, const void *sendbuf, void *recvbuf,
            const struct wait_policy *policy, struct outcome *outcome);
/* Arrive at a call that MPI carries out: once all have arrived, all go on or none does. */
int net_arrive(struct net *net, const struct call *call, const struct wait_policy *policy, struct outcome *outcome);
/* This rank makes no more calls, and waits until the other hosts make none: MISMATCH if they do. */
int net_end(struct net *net, const struct wait_policy *policy, struct outcome *outcome);
/* Then, when all ranks of this host have ended: whether those of all hosts will finalize MPI, which waits for all of
 * them; PEER_DIED if not. */
int net_end_mpi(struct net *net, int ends_mpi, const struct wait_policy *policy, struct outcome *outcome);
/* Whether a rank of another host takes no part in the present or next call; a wait_policy's check of a net. */
int net_check(void *net, struct outcome *outcome);
/* This rank makes no more calls because of this failure: tell the other hosts, unless they know. Never waits. */
void net_give_up(struct net *net, const struct outcome *why);

/* The name of a rank's host. */
const char *net_host_of(const struct net *net, int rank);

#endif
