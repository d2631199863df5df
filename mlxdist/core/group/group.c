#include "mlxdist/group/core.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mlxdist/group/p2p.h"
#include "mlxdist/kernels/kernels.h"
#include "mlxdist/measure.h"
#include "mlxdist/shm/pipeline.h"

struct group {
    struct members members;
    struct symmetric *symmetrics; /* those of arrays in shared memory */
    struct staging *staging;      /* opened with the first long call; NULL and has_no_window: cannot be had */
    int has_no_staging;
    pthread_mutex_t turn; /* of its collectives */
    atomic_int is_broken;
    struct outcome why_broken;
    atomic_long references;
    struct group *next; /* among all that live, or all that were let go of */
};

static struct group *world, *live, *retired;
static char why_not_shared[200];
static pthread_mutex_t groups_lock = PTHREAD_MUTEX_INITIALIZER;
/* MPI_Finalize would wait for a rank that is missing, or for a request that nobody will complete. */
static atomic_int skip_finalize;

static struct group *new_group(struct comm *comm, const struct wait_policy *policy, struct outcome *outcome) {
    struct group *group = calloc(1, sizeof *group);
    if (!group) {
        outcome->status = STATUS_OUT_OF_MEMORY;
        snprintf(outcome->text, sizeof outcome->text, "no memory for a group");
        return NULL;
    }
    group->members.comm = comm;
    group->members.policy = *policy;
    pthread_mutex_init(&group->turn, NULL);
    atomic_init(&group->references, 1);
    if (members_open_shm(&group->members, world ? &world->members : NULL, why_not_shared, sizeof why_not_shared,
                         outcome)) {
        free(group);
        return NULL;
    }
    pthread_mutex_lock(&groups_lock);
    group->next = live;
    live = group;
    pthread_mutex_unlock(&groups_lock);
    return group;
}

int core_start(const struct transport *transport, const struct settings *settings, struct outcome *outcome) {
    struct comm *comm;
    struct outcome second;
    int failed = runtime_start(transport, settings, &comm, outcome);
    struct group *started = failed ? NULL : new_group(comm, &settings->policy, outcome);
    if (!started) {
        if (runtime.ours)
            transport->finish(runtime.ours, &second);
        runtime.transport = NULL;
        return outcome->status;
    }
    if (started->members.comm->size > 1 && (!started->members.node || node_is_oversubscribed(started->members.node)))
        started->members.policy.spins = WAIT_SPINS_OVERSUBSCRIBED;
    world = started;
    return STATUS_OK;
}

struct group *core_world(void) {
    return world;
}

const char *core_why_not_shared(void) {
    return why_not_shared;
}

void core_abort(int status) {
    if (runtime.transport && !runtime_is_closed())
        runtime.transport->abort(status);
}

/* Free the communicators of groups let go of, on a thread that is in an MPI call anyway. */
static int free_retired(struct outcome *outcome) {
    pthread_mutex_lock(&groups_lock);
    struct group *group = retired;
    retired = NULL;
    pthread_mutex_unlock(&groups_lock);
    int result = STATUS_OK;
    while (group) {
        struct group *next = group->next;
        int released = TRANSPORT(release, group->members.comm, outcome);
        result = result ? result : released;
        free(group);
        group = next;
    }
    return result;
}

/* Whether ranks may have lost each other by it. */
static int breaks_group(int status) {
    return status == STATUS_MISMATCH || status == STATUS_PEER_DIED || status == STATUS_TIMED_OUT ||
           status == STATUS_INTERRUPTED;
}

/* The group cannot be used any more: ranks are not at the same call. */
static int break_group(struct group *group, const struct outcome *outcome) {
    if (!breaks_group(outcome->status))
        return outcome->status;
    if (outcome->status != STATUS_MISMATCH) {
        atomic_store(&skip_finalize, 1);
        if (group->members.node)
            node_give_up(group->members.node);
    }
    pthread_mutex_lock(&groups_lock);
    if (!atomic_load_explicit(&group->is_broken, memory_order_relaxed)) {
        group->why_broken = *outcome;
        if (outcome->status == STATUS_INTERRUPTED)
            group->why_broken.status = STATUS_GROUP_BROKEN;
        snprintf(group->why_broken.text, sizeof group->why_broken.text,
                 "this group cannot be used any more, since before: %.900s", outcome->text);
        atomic_store_explicit(&group->is_broken, 1, memory_order_release);
    }
    pthread_mutex_unlock(&groups_lock);
    return outcome->status;
}

/* The ranks end together, so that whoever still waits for this one learns that it has ended. */
static int end_together(struct outcome *outcome) {
    const double last_s = 2; /* to wait, where something went wrong before */
    struct wait_policy policy = world->members.policy;
    pthread_mutex_lock(&groups_lock); /* another thread may let go of a group */
    for (struct group *group = live; group; group = group->next)
        if (group->members.node)
            node_leave(group->members.node, !atomic_load(&skip_finalize));
    pthread_mutex_unlock(&groups_lock);
    if (!atomic_load(&world->is_broken) && members_end(&world->members, outcome) && outcome->status != STATUS_MISMATCH)
        return break_group(world, outcome);
    policy.quiet = 1;
    if (atomic_load(&skip_finalize))
        policy.timeout_s = last_s;
    return world->members.node ? node_await_end(world->members.node, &policy, outcome) : STATUS_OK;
}

int core_finish(struct outcome *outcome) {
    int closed = runtime_close(outcome);
    if (closed <= 0)
        return closed ? outcome->status : STATUS_OK;
    int knew = atomic_load(&skip_finalize), result = end_together(outcome);
    if (!result && !knew) {
        struct outcome second;
        result = free_retired(outcome);
        int ended = runtime.transport->finish(runtime.ours, result ? &second : outcome);
        result = result ? result : ended;
    }
    runtime_leave();
    return knew ? STATUS_OK : result;
}

struct group *group_retain(struct group *group) {
    atomic_fetch_add_explicit(&group->references, 1, memory_order_relaxed);
    return group;
}

void group_release(struct group *group) {
    if (atomic_fetch_sub_explicit(&group->references, 1, memory_order_acq_rel) > 1)
        return;
    pthread_mutex_lock(&groups_lock);
    struct group **place = &live;
    while (*place != group)
        place = &(*place)->next;
    *place = group->next;
    if (group->members.node) {
        if (!runtime_is_forked())
            node_leave(group->members.node, 1);
        symmetric_sweep(&group->symmetrics);
        if (group->staging)
            staging_close(group->staging);
        if (group->members.mailbox)
            mailbox_close(group->members.mailbox);
        node_close(group->members.node);
    }
    pthread_mutex_destroy(&group->turn);
    if (!group->members.is_pending) {
        group->next = retired;
        retired = group;
    }
    pthread_mutex_unlock(&groups_lock);
}

int group_rank(const struct group *group) {
    return group->members.comm->rank;
}

int group_size(const struct group *group) {
    return group->members.comm->size;
}

int group_is_broken(const struct group *group) {
    return atomic_load_explicit(&group->is_broken, memory_order_acquire);
}

int group_local_size(const struct group *group) {
    return group->members.node ? node_local_size(group->members.node) : 1;
}

void group_set_timeout(struct group *group, double timeout_s) {
    group->members.policy.timeout_s = timeout_s;
}

/* What every operation does first and last. A collective waits for its turn in the group; send and recv do not, or a
 * thread that waits for a message would keep another from sending the one that it waits for. */
static int begin_call(struct group *group, struct call *call, struct outcome *outcome) {
    int is_collective = call_is_collective(call);
    call->rank = group->members.comm->rank;
    if (runtime_enter(outcome))
        return outcome->status;
    if (!is_collective || !wait_for_turn(&group->turn, &group->members.policy, outcome)) {
        if (!group_is_broken(group))
            return STATUS_OK;
        *outcome = group->why_broken;
        if (is_collective)
            pthread_mutex_unlock(&group->turn);
    }
    runtime_leave();
    return outcome->status;
}

static int end_call(struct group *group, const struct call *call, int result) {
    if (call_is_collective(call))
        pthread_mutex_unlock(&group->turn);
    runtime_leave();
    return result;
}

static int split_comm(struct group *group, int color, int key, struct group **part, struct outcome *outcome) {
    struct comm *comm;
    int result = free_retired(outcome);
    if (result || (result = TRANSPORT(split, group->members.comm, color, key, &comm, outcome)))
        return result;
    *part = new_group(comm, &group->members.policy, outcome);
    return *part ? STATUS_OK : outcome->status;
}

int group_split(struct group *group, int color, int key, struct group **part, struct outcome *outcome) {
    struct call call = flat_call(OPERATION_SPLIT, 0, 0, 0, 0);
    *part = NULL;
    if (begin_call(group, &call, outcome))
        return outcome->status;
    if (group->members.comm->size > 1 && members_arrive(&group->members, &call, NULL, 0, 1, outcome))
        return end_call(group, &call, break_group(group, outcome));
    return end_call(group, &call, split_comm(group, color, key, part, outcome));
}

/* What a rank puts into its slot. */
static int64_t payload_nbytes(const struct members *members, const struct call *call) {
    return call->operation == OPERATION_BROADCAST && call->peer != members->comm->rank ? 0 : call_nbytes(call);
}

/* Every rank's payload has come, and all slots stay as they are until this rank arrives again. */
static void collect(const struct members *members, const struct call *call, const void *sendbuf, void *recvbuf) {
    int size = members->comm->size;
    int64_t nbytes = call_nbytes(call), part = call->count / size;
    const void *payloads[NODE_MAX_RANKS];
    int64_t offset = call->operation == OPERATION_REDUCE_SCATTER ? members->comm->rank * (nbytes / size) : 0;
    for (int i = 0; i < size; i++)
        payloads[i] = (const char *)node_payload(members->node, i) + offset;
    if (call->operation == OPERATION_ALLREDUCE || call->operation == OPERATION_REDUCE_SCATTER)
        reduce((enum element_type)call->type, (enum reduction)call->op, payloads, size, recvbuf,
               (size_t)(call->operation == OPERATION_ALLREDUCE ? call->count : part));
    else if (call->operation == OPERATION_ALLGATHER)
        for (int i = 0; i < size; i++)
            memcpy((char *)recvbuf + i * nbytes, payloads[i], (size_t)nbytes);
    else if (call->operation == OPERATION_BROADCAST && (call->peer != members->comm->rank || sendbuf != recvbuf))
        memcpy(recvbuf, payloads[call->peer], (size_t)nbytes);
}

static int communicate(const struct members *members, const struct call *call, const void *sendbuf, void *recvbuf,
                       struct outcome *outcome) {
    struct comm *comm = members->comm;
    enum element_type type = (enum element_type)call->type;
    enum reduction op = (enum reduction)call->op;
    switch (call->operation) {
    case OPERATION_ALLREDUCE:
        return TRANSPORT(allreduce, comm, sendbuf, recvbuf, call->count, type, op, outcome);
    case OPERATION_REDUCE_SCATTER:
        return TRANSPORT(reduce_scatter, comm, sendbuf, recvbuf, call->count / comm->size, type, op, outcome);
    case OPERATION_ALLGATHER:
        return TRANSPORT(allgather, comm, sendbuf, recvbuf, call_nbytes(call), outcome);
    case OPERATION_BROADCAST:
        if (comm->rank == call->peer && sendbuf != recvbuf)
            memcpy(recvbuf, sendbuf, (size_t)call_nbytes(call));
        return TRANSPORT(broadcast, comm, recvbuf, call_nbytes(call), call->peer, outcome);
    default:
        return TRANSPORT(barrier, comm, outcome);
    }
}

/* Short: one arrival with all that is needed. */
static int run_in_slots(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf,
                        struct outcome *outcome) {
    if (members_arrive(members, call, sendbuf, (size_t)payload_nbytes(members, call), 0, outcome))
        return outcome->status;
    collect(members, call, sendbuf, recvbuf);
    return STATUS_OK;
}

/* Long. The first time ranks find out whether they can share the memory for it, and if not, go on to MPI together. */
static int run_staged(struct group *group, const struct call *call, const void *sendbuf, void *recvbuf,
                      struct outcome *outcome) {
    struct members *members = &group->members;
    size_t nbytes = (size_t)call_nbytes(call);
    struct buffer_descriptor mine = {pipeline_own_offset(call, recvbuf), {0, 0}, {0, 0}};
    if (call->operation == OPERATION_ALLREDUCE) {
        mine.in = symmetric_offset(group->symmetrics, sendbuf, nbytes);
        mine.out = symmetric_offset(group->symmetrics, recvbuf, nbytes);
    }
    if (members_arrive(members, call, &mine, sizeof mine, 0, outcome))
        return outcome->status;
    if (symmetric_is_common(members->node))
        return symmetric_reduce(members->node, group->symmetrics, call, &members->policy, outcome);
    size_t offset = pipeline_offset(members->node);
    if (!group->staging && staging_open(members->node, &group->staging, &members->policy, outcome))
        return outcome->status;
    if (group->staging)
        return pipeline_run(group->staging, members->node, call, sendbuf, recvbuf, offset, &members->policy, outcome);
    group->has_no_staging = 1;
    struct call onward = flat_call(OPERATION_SHARE, 0, 0, 0, 0);
    if (node_arrive(members->node, &onward, NULL, 0, 1, 0, &members->policy, outcome))
        return outcome->status;
    return communicate(members, call, sendbuf, recvbuf, outcome);
}

static int run_by_mpi(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf,
                      struct outcome *outcome) {
    if (members->comm->size > 1 && members_arrive(members, call, NULL, 0, 1, outcome))
        return outcome->status;
    return communicate(members, call, sendbuf, recvbuf, outcome);
}

/* Up to so many bytes the slots are quicker than the staging buffer, measured on Zen 4: by 2 ranks, and by 3 and 4
 * ranks on 2 processors, to which each wait costs more than what is copied once more. */
static int64_t most_in_slots(const struct members *members, int operation) {
    static const int64_t most[OPERATIONS] = {[OPERATION_ALLREDUCE] = 12 << 10,
                                             [OPERATION_ALLGATHER] = 6 << 10,
                                             [OPERATION_REDUCE_SCATTER] = NODE_SLOT,
                                             [OPERATION_BROADCAST] = NODE_SLOT};
    return members->policy.spins == WAIT_SPINS_OVERSUBSCRIBED ? NODE_SLOT : most[operation];
}

int group_run(struct group *group, struct call *call, const void *sendbuf, void *recvbuf, struct outcome *outcome) {
    struct members *members = &group->members;
    int result, in_memory = members->node && members->is_whole && !call->on_device;
    if (begin_call(group, call, outcome))
        return outcome->status;
    if (in_memory && call_nbytes(call) <= most_in_slots(members, call->operation))
        result = run_in_slots(members, call, sendbuf, recvbuf, outcome);
    else if (in_memory && !group->has_no_staging)
        result = run_staged(group, call, sendbuf, recvbuf, outcome);
    else
        result = run_by_mpi(members, call, sendbuf, recvbuf, outcome);
    return end_call(group, call, result ? break_group(group, outcome) : STATUS_OK);
}

int group_run_raw(struct group *group, struct call *call, void *sendbuf, void *recvbuf, int64_t repeats, int rewrite,
                  double *spent_s, struct outcome *outcome) {
    int result = STATUS_OK;
    if (begin_call(group, call, outcome))
        return outcome->status;
    *spent_s = 0;
    for (int64_t i = 0; i < repeats && !result; i++) {
        if (rewrite)
            measure_rewrite(sendbuf, (size_t)call_nbytes(call));
        double begun_s = wait_now_s();
        result = communicate(&group->members, call, sendbuf, recvbuf, outcome);
        *spent_s += wait_now_s() - begun_s;
    }
    *spent_s -= (double)repeats * measure_own_s();
    return end_call(group, call, result);
}

int group_empty(struct group *group, int64_t nbytes, struct symmetric **symmetric, void **memory,
                struct outcome *outcome) {
    struct call call = flat_call(OPERATION_EMPTY, 0, TYPE_UINT8, 0, nbytes);
    struct members *members = &group->members;
    *symmetric = NULL;
    if (begin_call(group, &call, outcome))
        return outcome->status;
    if (!members->node || !members->is_whole) {
        segment_fails(outcome, "not all ranks of the group share this host's memory", ENOTSUP);
        return end_call(group, &call, STATUS_NOT_SHARED);
    }
    symmetric_sweep(&group->symmetrics);
    int result = members_arrive(members, &call, NULL, 0, 0, outcome);
    if (!result)
        result = symmetric_open(members->node, (size_t)nbytes, &group->symmetrics, &members->policy, outcome);
    if (result)
        return end_call(group, &call, break_group(group, outcome));
    *symmetric = group->symmetrics;
    *memory = symmetric_memory(*symmetric);
    group_retain(group);
    return end_call(group, &call, STATUS_OK);
}

/* A signal handler, run while this very thread waits in a call on the group, may let go of an array: never wait here.
 */
void group_free(struct group *group, struct symmetric *symmetric) {
    symmetric_drop(symmetric);
    if (!pthread_mutex_trylock(&group->turn)) {
        symmetric_sweep(&group->symmetrics);
        pthread_mutex_unlock(&group->turn);
    }
    group_release(group);
}

int group_send(struct group *group, struct call *call, const void *sendbuf, struct outcome *outcome) {
    int pending;
    if (begin_call(group, call, outcome))
        return outcome->status;
    int result = message_send(&group->members, call, sendbuf, &pending, outcome);
    if (pending || result == STATUS_PEER_DIED)
        break_group(group, outcome);
    return end_call(group, call, result);
}

int group_recv(struct group *group, struct call *call, void *recvbuf, struct outcome *outcome) {
    int pending;
    if (begin_call(group, call, outcome))
        return outcome->status;
    int result = message_recv(&group->members, call, recvbuf, &pending, outcome);
    if (pending || result == STATUS_PEER_DIED)
        break_group(group, outcome);
    return end_call(group, call, result);
}
