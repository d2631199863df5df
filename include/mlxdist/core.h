/* An operation on (group, pointers, count, type): what stands between Python or MLX and a transport.
 *
 * It keeps the promises that no transport makes: one lock a group for its collectives, one for everything where MPI
 * does not allow threads, an error instead of a crash once MPI is finalized, and a group that may be let go of at any
 * time. Every function blocks and may be called by any thread; where
 * MPI does not allow that, a receive keeps every other call waiting until its message has come. */
#ifndef MLXDIST_CORE_H
#define MLXDIST_CORE_H

#include "mlxdist/transport.h"

#ifdef __cplusplus
extern "C" {
#endif

struct group;

struct world {
    struct group *group;
    int ours; /* MPI was initialized by us */
    enum thread_level threads;
};

/* The transport for an opened library, with all its functions looked up; NULL: see outcome. */
const struct transport *core_load(void *library, int64_t max_count, struct outcome *outcome);

/* Once in a process. core_world() is NULL before. */
int core_start(const struct transport *transport, struct outcome *outcome);
const struct world *core_world(void);

/* Waits for operations under way, then every later one fails with GROUP_CLOSED. Harmless when repeated. */
int core_finish(struct outcome *outcome);
int core_is_finished(void);
int core_is_forked(void); /* this process is a child of the rank, made by fork */
void core_abort(int status);

/* A group lives until its last reference goes. MPI frees a communicator at the next split or at the end, never at the
 * whim of a garbage collector. */
struct group *group_retain(struct group *group);
void group_release(struct group *group);

int group_rank(const struct group *group);
int group_size(const struct group *group);

/* color and key are not negative. */
int group_split(struct group *group, int color, int key, struct group **part, struct outcome *outcome);

/* See transport.h for the shapes of the buffers. */
int group_allreduce(struct group *group, const void *sendbuf, void *recvbuf, int64_t count, enum element_type type,
                    enum reduction op, struct outcome *outcome);
int group_reduce_scatter(struct group *group, const void *sendbuf, void *recvbuf, int64_t count, enum element_type type,
                         enum reduction op, struct outcome *outcome);
int group_allgather(struct group *group, const void *sendbuf, void *recvbuf, int64_t nbytes, struct outcome *outcome);
int group_broadcast(struct group *group, void *buf, int64_t nbytes, int root, struct outcome *outcome);
int group_barrier(struct group *group, struct outcome *outcome);
int group_send(struct group *group, const void *sendbuf, int64_t nbytes, int dst, struct outcome *outcome);
int group_recv(struct group *group, void *recvbuf, int64_t nbytes, int src, struct outcome *outcome);

#ifdef __cplusplus
}
#endif
#endif
