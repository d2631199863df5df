/* The ranks of a host that share memory: who they are, and whether they are alive. How they arrive at a call is in
 * arrival.h.
 *
 * A rank of a group has a local rank in the group's node. There is no MPI here: the local ranks may be processes made
 * by fork, or threads. */
#ifndef MLXDIST_SHM_NODE_H
#define MLXDIST_SHM_NODE_H

#include <sched.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "mlxdist/call.h"
#include "mlxdist/shm/consensus.h"
#include "mlxdist/shm/segment.h"
#include "mlxdist/wait.h"

/* The longest payload of an arrival, the most local ranks, and the longest payload that shares the flag's line. */
enum { NODE_SLOT = 32768, NODE_MAX_RANKS = 1024, NODE_IN_FLAG = 40 };

/* NODE_LEFT_ALONE: has left, and will not end MPI with the others. NODE_ENDED: has seen that all have left. */
enum node_state { NODE_JOINED, NODE_GAVE_UP, NODE_LEFT, NODE_LEFT_ALONE, NODE_ENDED };

/* What a rank publishes with its k-th arrival, in entry k % 2.
 *
 * Memory order: only its own rank writes it. It stores `arrived` last, with release; a rank that reads k there with
 * acquire sees the payload, the fingerprint, the call and the slot of arrival k. Two entries are enough: a rank
 * overwrites those of arrival k at its arrival k + 2, so after it has seen the arrival k + 1 of all, and each rank
 * stores that only when it has finished reading arrival k. */
struct flag {
    _Alignas(SEGMENT_LINE) _Atomic uint64_t arrived;
    uint64_t fingerprint, nbytes;
    char payload[NODE_IN_FLAG]; /* a short payload: it comes with the flag's cache line */
};

/* A local rank in shared memory. */
struct member {
    struct flag flags[2];
    _Alignas(SEGMENT_LINE) struct call calls[2];
    /* Memory order: only its own rank writes it, with release, and never goes back to NODE_JOINED; a rank that reads it
     * with acquire sees the arrivals before it. A process changes it before its lock of the segment is gone, so a rank
     * without a lock that is read as NODE_JOINED afterwards has died. */
    _Alignas(SEGMENT_LINE) _Atomic int state;
    /* Written in node_join; the ranks read them only after they have agreed over MPI that all have joined. */
    int rank, watch_rank;
    pid_t pid;
#ifdef __linux__
    cpu_set_t processors;
#endif
    _Alignas(SEGMENT_LINE) char slots[2][NODE_SLOT]; /* a longer payload; who may use it when: see struct flag */
};

struct node_memory {
    int local_size; /* written before the others learn where the memory is */
    struct consensus consensus;
    struct member members[];
};

/* A rank's own view. */
struct node {
    struct segment segment; /* of the whole job: locked at the byte of this local rank while the process lives */
    struct node_memory *memory;
    struct node *watch; /* where the others' locks are */
    int local_rank;
    uint64_t sequence; /* of arrivals */
    uint64_t calls;    /* of the user's, for error texts */
};

/* The memory for so many local ranks; NOT_SHARED if there is none or too little. Seal it when all have joined, so that
 * no name is left behind. */
int node_create(int local_size, int is_named, struct shm_handle *handle, struct node **node, struct outcome *outcome);
int node_attach(const struct shm_handle *handle, struct node **node, struct outcome *outcome);

/* Take a local rank. watch: the node, perhaps this one, in which this process holds the lock of local rank watch_rank
 * that shows it is alive; it must outlive this one. NOT_SHARED: it cannot be locked. */
int node_join(struct node *node, const struct shm_handle *handle, int local_rank, int rank, struct node *watch,
              int watch_rank, struct outcome *outcome);
/* All have joined, or it has failed: nobody can attach any more. */
void node_seal(struct node *node, const struct shm_handle *handle);
/* This rank will not arrive any more; ends_mpi: but it will finalize MPI with the others. */
void node_leave(struct node *node, int ends_mpi);
/* The same, because of a failure; does nothing if the rank has left already. */
void node_give_up(struct node *node);
void node_close(struct node *node);

int node_local_size(const struct node *node);
int node_local_rank(const struct node *node);
int node_rank(const struct node *node, int local_rank);
int node_local_rank_of(const struct node *node, int rank); /* -1: it is on another host */
int node_is_alive(const struct node *node, int local_rank);
/* Fewer processors than local ranks, counting those that any local rank may run on. */
int node_is_oversubscribed(const struct node *node);

/* OK while the local rank may still answer; PEER_DIED, or MISMATCH if it has left. */
int node_check(const struct node *node, int local_rank, struct outcome *outcome);
/* The same while ranks agree with other hosts: a rank that has left in order to end MPI takes part in that, see
 * members_end; one that has left because something failed does not. */
int node_check_agreement(const struct node *node, int local_rank, struct outcome *outcome);
/* The same while they agree to end: a rank may have left for any reason, and its process may be gone then, unless it is
 * awaited. */
int node_check_end(const struct node *node, int local_rank, int is_awaited, struct outcome *outcome);
/* Wait until every local rank has left. PEER_DIED: not all of them will end MPI. */
int node_await_end(struct node *node, const struct wait_policy *policy, struct outcome *outcome);

#endif
