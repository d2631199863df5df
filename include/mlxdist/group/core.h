/* The interface of the core: operations on a group, for Python and MLX.
 *
 * Operations block, and any thread may call them. A wait can be interrupted, time out, and find that a peer has died,
 * has given up or makes another call. What cannot be given up is a collective of MPI: a split, one of a device's
 * memory, or a long one on a host with too little memory to share. It begins when all ranks have reached it. */
#ifndef MLXDIST_GROUP_CORE_H
#define MLXDIST_GROUP_CORE_H

#include "mlxdist/call.h"
#include "mlxdist/group/work.h"
#include "mlxdist/mpi/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

struct group;

/* Once in a process. MISMATCH, on all ranks, if they run different builds. core_world() is NULL before. */
int core_start(const struct transport *transport, const struct settings *settings, struct outcome *outcome);
struct group *core_world(void);

/* Waits for works and operations under way, then for the other ranks; afterwards every call fails with GROUP_CLOSED.
 * Does nothing when repeated. */
int core_finish(struct outcome *outcome);
/* End all ranks of the job with this exit status. */
void core_abort(int status);

/* A group is freed with its last reference. Its communicator is freed at the next split or at the end, not when a
 * garbage collector happens to run. */
struct group *group_retain(struct group *group);
void group_release(struct group *group);

int group_rank(const struct group *group);
int group_size(const struct group *group);
/* An earlier error broke it: every call on it fails. */
int group_is_broken(const struct group *group);
/* Break it from outside of a call, because this rank cannot make one that the others wait for. */
void group_break(struct group *group, const char *why);
/* Ranks that share this host's memory, this one among them, and its rank among these. */
int group_local_size(const struct group *group);
int group_local_rank(const struct group *group);
/* Why ranks of this host do not share memory; empty if they do, or if there is only one. */
const char *core_why_not_shared(void);
/* Groups split from it afterwards inherit the timeout. 0: none. */
void group_set_timeout(struct group *group, double timeout_s);

/* color and key are not negative. */
int group_split(struct group *group, int color, int key, struct group **part, struct outcome *outcome);

/* Of these n ranks of the group, different ones, in this order; only they call it, this one among them. Threads may
 * make several at a time, in any order if they are of different ranks. is_only_thread: no other thread of this process
 * makes any; only between such ranks is a call with another list always found to be one: MISMATCH. A failure leaves the
 * group as it was, and happens once on each of these ranks: their nth calls belong together. */
int group_create(struct group *group, const int *ranks, int n, int is_only_thread, struct group **part,
                 struct outcome *outcome);
/* The ranks of the group that a communicator of the program's has, by its own ranks, as far as they fit into as many as
 * the group has; negative: not one of them. *n: how many it has. */
int group_ranks_of(struct group *group, comm_handle comm, int *ranks, int *n, struct outcome *outcome);

/* A collective. call->count is that of sendbuf; recvbuf has the same, for ALLGATHER and GATHER size times as much, for
 * REDUCE_SCATTER and SCATTER a size-th. BROADCAST and SCATTER use only root's sendbuf, GATHER and REDUCE only root's
 * recvbuf. ALLREDUCE, REDUCE, BROADCAST and, in host memory, ALLTOALL may have sendbuf == recvbuf; BROADCAST of a
 * device's memory must. The smaller buffer of ALLGATHER, GATHER, SCATTER and, in host memory, of REDUCE_SCATTER may be
 * this rank's part of the larger.
 * After MISMATCH, PEER_DIED, TIMED_OUT or INTERRUPTED the group is broken: every later call on it fails for the same
 * reason. call->rank is filled in. */
int group_run(struct group *group, struct call *call, const void *sendbuf, void *recvbuf, struct outcome *outcome);
/* For measurements: the same collective, `repeats` times, by libmpi alone, without an arrival. If rewrite is not 0,
 * sendbuf is rewritten before each call; *spent_s is the time within the calls. */
int group_run_raw(struct group *group, struct call *call, void *sendbuf, void *recvbuf, int64_t repeats, int rewrite,
                  double *spent_s, struct outcome *outcome);

/* nbytes for this rank in memory that all ranks of the group share; every rank calls it with the same nbytes.
 * NOT_SHARED, on all ranks, if they cannot share memory. Holds a reference to the group until group_free, which any
 * thread may call at any time. */
struct symmetric;
int group_empty(struct group *group, int64_t nbytes, struct symmetric **symmetric, void **memory,
                struct outcome *outcome);
void group_free(struct group *group, struct symmetric *symmetric);

/* A SEND of sendbuf, a RECV into recvbuf, or a SENDRECV, whose directions progress together and which may have sendbuf
 * == recvbuf. A message of another type or length is received, thrown away and reported: MISMATCH. After that, and
 * after TIMED_OUT or INTERRUPTED before a message began, the group can still be used; after a failure in the middle of
 * a message, and after PEER_DIED, it is broken. Nothing of the caller's is in use afterwards, except memory of a device
 * when the group was broken: MPI may still read or write that. */
int group_p2p(struct group *group, struct call *call, const void *sendbuf, void *recvbuf, struct outcome *outcome);

/* Either of these in the background, see work.h. Collectives are carried out in the order in which they were started;
 * messages progress together, and those to one rank, or from one rank, are sent or received in that order. A call that
 * is not started like this comes after those that were. The buffers are in use until the work is done; call is copied.
 * Where MPI allows one thread only, a collective is carried out at once, and a message is refused: WRONG_THREAD. */
int group_start(struct group *group, const struct call *call, const void *sendbuf, void *recvbuf, struct work **work,
                struct outcome *outcome);

#ifdef __cplusplus
}
#endif
#endif
