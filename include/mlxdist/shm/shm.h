/* The interface of shared memory: everything that the ranks of a host do in it. Nothing outside this folder includes
 * another of its headers; messages under way are described in mailbox.h, which comes with this one.
 *
 * A group has a struct shm for its ranks on this host. Here ranks are numbered twice: by their rank in the group, and
 * by their local rank among those that share the memory. There is no MPI here: NOT_SHARED leaves it to the caller. */
#ifndef MLXDIST_SHM_H
#define MLXDIST_SHM_H

#include "mlxdist/call.h"
#include "mlxdist/shm/mailbox.h"
#include "mlxdist/wait.h"

/* Of everything that ranks tell each other: structs in shared memory, struct call, what is sent over MPI. Raise it when
 * one of these changes. */
enum { SHM_LAYOUT = 4 };

/* The most bytes that come with an arrival, the most ranks, and how far apart in shared memory must lie what different
 * ranks write. */
enum { SHM_PAYLOAD = NODE_SLOT, SHM_MAX_RANKS = NODE_MAX_RANKS, SHM_LINE = SEGMENT_LINE };

/* Which build of this library a rank runs. Ranks with different builds may not share memory. */
struct shm_build {
    int32_t layout;
    char version[28];
};
extern const struct shm_build shm_own_build;

struct shm;

/* The memory for so many local ranks, made by the first of them; the others learn the handle over MPI and attach.
 * NOT_SHARED if that fails. is_named: they cannot attach without a name. */
int shm_create(int local_size, int is_named, struct shm_handle *handle, struct shm **shm, struct outcome *outcome);
int shm_attach(const struct shm_handle *handle, struct shm **shm, struct outcome *outcome);
/* Take this local rank, as this rank of the group. world: the memory of the whole job, in which ranks see who is alive,
 * and which must outlive this one; NULL if this is it. NOT_SHARED: the others could not see that. */
int shm_join(struct shm *shm, const struct shm_handle *handle, int local_rank, int rank, const struct shm *world,
             struct outcome *outcome);
/* When all have joined, or have failed: nobody can attach any more, and no name is left. */
void shm_seal(struct shm *shm, const struct shm_handle *handle);
/* All call it, when all have joined. If there is no memory for it, messages go by MPI. */
int shm_open_mailbox(struct shm *shm, const struct wait_policy *policy, struct outcome *outcome);
void shm_close(struct shm *shm);

int shm_local_size(const struct shm *shm);
int shm_local_rank(const struct shm *shm);           /* of this rank */
int shm_rank(const struct shm *shm, int local_rank); /* in the group */
/* Fewer processors than local ranks. */
int shm_is_oversubscribed(const struct shm *shm);

/* Arrive at a call that is carried out by MPI, and wait for the other local ranks; once all have arrived, all go on or
 * none does. */
int shm_arrive(struct shm *shm, const struct call *call, const struct wait_policy *policy, struct outcome *outcome);
/* Arrive at a call that goes on between hosts, with up to SHM_PAYLOAD bytes for the other local ranks. The calls may
 * differ: they and the payloads stay readable until this rank arrives again. */
int shm_gather(struct shm *shm, const struct call *call, const void *payload, size_t nbytes,
               const struct wait_policy *policy, struct outcome *outcome);
const struct call *shm_call(const struct shm *shm, int local_rank); /* NULL: it has not arrived */
const void *shm_payload(const struct shm *shm, int local_rank);
/* nbytes that the local ranks have in common until shm_close, zeros at first; all of them call it. wanted: 0 if this
 * rank has no use for them. OUT_OF_MEMORY on all of them if there is too little, or one does not want them. */
int shm_share(struct shm *shm, size_t nbytes, int wanted, void **memory, const struct wait_policy *policy,
              struct outcome *outcome);
/* A collective from arrival to result, if all ranks of the group share the memory; the buffers are those of group_run.
 * NOT_SHARED, on all ranks: there is too little memory, or the operation is not one of those here, but all have
 * arrived, so carry it out by MPI; outcome is not filled in. */
int shm_run(struct shm *shm, const struct call *call, const void *sendbuf, void *recvbuf,
            const struct wait_policy *policy, struct outcome *outcome);

/* nbytes for this rank in memory that all ranks of the group share; they all arrive at call. NOT_SHARED, on all ranks,
 * if there is too little memory. */
struct symmetric;
int shm_empty(struct shm *shm, const struct call *call, size_t nbytes, struct symmetric **symmetric, void **memory,
              const struct wait_policy *policy, struct outcome *outcome);
/* It is not used any more; any thread may call this at any time. The memory is given back by the next shm_sweep or
 * shm_empty. */
void shm_free(struct symmetric *symmetric);
void shm_sweep(struct shm *shm);

/* Begin a message with call->peer, which goes on as mailbox.h says. NOT_SHARED: the memory does not reach that rank. */
int shm_begin(struct shm *shm, const struct call *call, void *buf, int by_mpi, struct transfer *transfer);

/* OK while this rank of the group may still answer, or if it is on another host; PEER_DIED, or MISMATCH if it has left.
 */
int shm_check(const struct shm *shm, int rank, struct outcome *outcome);
/* The same for all local ranks while hosts agree on a call: a rank that has left in order to end MPI takes part in
 * that, see members_end. */
int shm_check_agreement(const struct shm *shm, struct outcome *outcome);
/* The same while they agree to end: a rank may have left for any reason, and its process may be gone then, unless it is
 * the one that is awaited. */
int shm_check_end(const struct shm *shm, int awaited, struct outcome *outcome);
/* This rank makes no more calls on the group; ends_mpi: but it will finalize MPI with the others. */
void shm_leave(struct shm *shm, int ends_mpi);
/* The same, because of a failure; does nothing if the rank has left already. */
void shm_give_up(struct shm *shm);
/* Wait until every local rank has left. PEER_DIED: not all of them will finalize MPI. */
int shm_await_end(struct shm *shm, const struct wait_policy *policy, struct outcome *outcome);

#endif
