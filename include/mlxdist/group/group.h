/* What a group is, and the lists that all groups of this process are in: for operations on one (operations.c), and for
 * the beginning and the end of the job (job.c). */
#ifndef MLXDIST_GROUP_GROUP_H
#define MLXDIST_GROUP_GROUP_H

#include <pthread.h>
#include <stdatomic.h>

#include "mlxdist/group/members.h"
#include "mlxdist/group/notices.h"
#include "mlxdist/group/queue.h"

struct group {
    struct members members;
    pthread_mutex_t turn; /* of its collectives */
    struct work_queue collectives, messages;
    struct notices notices;
    uint64_t splits; /* so far, as on the other ranks */
    atomic_int is_broken;
    struct outcome why_broken;
    atomic_long references;
    struct group *next; /* among all of one list */
};

extern struct groups {
    pthread_mutex_t lock; /* of the lists, and of the reason for which a group is broken */
    /* Retired: their communicator is freed by the next split or at the end. Pending: MPI may use their memory for good.
     */
    struct group *world, *live, *retired, *pending;
    char why_not_shared[200]; /* of the world */
    /* MPI_Finalize would wait for a rank that is missing, or for a request that no rank will complete. */
    atomic_int skip_finalize;
} groups;

/* How the threads of its queues call it. */
extern const struct work_owner group_owner;

/* Without a communicator. */
struct group *group_new(const struct wait_policy *policy, struct outcome *outcome);
void group_dispose(struct group *group);
/* With its communicator: find out who shares memory, and list it among those that are live. */
int group_open(struct group *group, struct outcome *outcome);
void groups_add(struct group **list, struct group *group);
/* On a thread that is in an MPI call anyway. */
int groups_free_retired(struct outcome *outcome);

/* After these, ranks of the group may not be at the same call. */
int group_is_broken_by(int status);
/* What follows a timeout, a death, Ctrl-C or a mismatch. The ranks of the group may no longer be at the same call, so
 * every later call on it fails for this reason. Of a mismatch all ranks know; after the others, ranks that wait for
 * this one are told, and MPI will not be finalized. At the end the others are told in any case, and if MPI has
 * nothing of the call it can be finalized. Other outcomes change nothing, unless MPI has something of the call. */
int group_break_by(struct group *group, int is_with_mpi, const struct outcome *outcome);

#endif
