/* An operation on (group, call, pointers): what stands between Python or MLX and a transport.
 *
 * Ranks arrive, then communicate: all waiting is done before any buffer is in MPI's hands, and can be interrupted,
 * timed out, and told that a peer is dead or asks for something else. Every function blocks, may be called by any
 * thread, and ends with an outcome. */
#ifndef MLXDIST_GROUP_CORE_H
#define MLXDIST_GROUP_CORE_H

#include "mlxdist/call.h"
#include "mlxdist/mpi/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

struct group;

/* Once in a process. core_world() is NULL before. */
int core_start(const struct transport *transport, const struct settings *settings, struct outcome *outcome);
struct group *core_world(void);

/* Waits for operations under way, then for the other ranks of the host; then every call fails with GROUP_CLOSED.
 * Harmless when repeated. */
int core_finish(struct outcome *outcome);
void core_abort(int status);

/* A group lives until its last reference goes. MPI frees a communicator at the next split or at the end, never at the
 * whim of a garbage collector. */
struct group *group_retain(struct group *group);
void group_release(struct group *group);

int group_rank(const struct group *group);
int group_size(const struct group *group);
/* An error has ended it. */
int group_is_broken(const struct group *group);
/* Ranks that share this host's memory, this one among them. */
int group_local_size(const struct group *group);
/* Why they could not, where they are alone though other ranks run on this host; else empty. */
const char *core_why_not_shared(void);
/* Groups split from it afterwards inherit the limit. 0: none. */
void group_set_timeout(struct group *group, double timeout_s);

/* color and key are not negative. */
int group_split(struct group *group, int color, int key, struct group **part, struct outcome *outcome);

/* A collective. count is that of sendbuf; recvbuf has as much, ALLGATHER size times, REDUCE_SCATTER a size-th of it.
 * ALLREDUCE and BROADCAST may have sendbuf == recvbuf; BROADCAST of a device's memory must. After MISMATCH, PEER_DIED,
 * TIMED_OUT or INTERRUPTED the group is broken: every later call on it fails with the same reason. call->rank is filled
 * in. */
int group_run(struct group *group, struct call *call, const void *sendbuf, void *recvbuf, struct outcome *outcome);
/* For measurements: the same collective, `repeats` times, by libmpi alone: no arrival, nothing of ours around it but
 * the loop. sendbuf is written anew before each call where rewrite is not 0; *spent_s is the time within the calls. */
int group_run_raw(struct group *group, struct call *call, void *sendbuf, void *recvbuf, int64_t repeats, int rewrite,
                  double *spent_s, struct outcome *outcome);
/* nbytes of this rank in memory that all ranks of the group share; every rank calls it with the same nbytes.
 * NOT_SHARED, on all, where that cannot be. Keeps the group until group_free, which any thread may call at any time. */
struct symmetric;
int group_empty(struct group *group, int64_t nbytes, struct symmetric **symmetric, void **memory,
                struct outcome *outcome);
void group_free(struct group *group, struct symmetric *symmetric);

/* After a send that failed in its middle the buffer may still belong to MPI, and the group is broken; so it is after
 * PEER_DIED. */
int group_send(struct group *group, struct call *call, const void *sendbuf, struct outcome *outcome);
/* A message of another type or length is taken off the wire, thrown away and reported: MISMATCH. After that and after
 * TIMED_OUT or INTERRUPTED the group is as good as before, unless in the middle of a message: then the buffer still
 * belongs to MPI, and the group is broken. */
int group_recv(struct group *group, struct call *call, void *recvbuf, struct outcome *outcome);

#ifdef __cplusplus
}
#endif
#endif
