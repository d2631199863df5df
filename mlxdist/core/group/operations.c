#include <stdio.h>

#include "mlxdist/group/agreement.h"
#include "mlxdist/group/collective.h"
#include "mlxdist/group/core.h"
#include "mlxdist/group/group.h"
#include "mlxdist/measure.h"

struct group *group_retain(struct group *group) {
    atomic_fetch_add_explicit(&group->references, 1, memory_order_relaxed);
    return group;
}

void group_release(struct group *group) {
    if (atomic_fetch_sub_explicit(&group->references, 1, memory_order_acq_rel) > 1)
        return;
    pthread_mutex_lock(&groups.lock);
    struct group **place = &groups.live;
    while (*place != group)
        place = &(*place)->next;
    *place = group->next;
    pthread_mutex_unlock(&groups.lock);
    int is_pending = members_are_pending(&group->members) || notices_are_pending(&group->notices);
    if (group->members.shm && !runtime_is_forked())
        shm_leave(group->members.shm, 1);
    members_close(&group->members);
    groups_add(is_pending ? &groups.pending : &groups.retired, group);
}

void group_break(struct group *group, const char *why) {
    struct outcome outcome = {.status = STATUS_INTERRUPTED};
    snprintf(outcome.text, sizeof outcome.text, "%s", why);
    group_break_by(group, 1, &outcome);
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

int group_local_rank(const struct group *group) {
    return group->members.shm ? shm_local_rank(group->members.shm) : 0;
}

int group_local_size(const struct group *group) {
    return group->members.shm ? shm_local_size(group->members.shm) : 1;
}

void group_set_timeout(struct group *group, double timeout_s) {
    group->members.policy.timeout_s = timeout_s;
}

/* What every operation does first and last. Collectives of a group take turns; messages do not, or a thread that
 * waits for a message could keep another from sending the one that its peer waits for. */
static int begin_call(struct group *group, struct call *call, struct outcome *outcome) {
    int is_collective = call_is_collective(call);
    call->rank = group->members.comm->rank;
    if (runtime_enter(outcome))
        return outcome->status;
    if (!work_queue_await(is_collective ? &group->collectives : &group->messages, call, outcome) &&
        (!is_collective || !wait_for_turn(&group->turn, &group->members.policy, outcome))) {
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

static int split_members(struct group *group, int color, int key, struct group *part, struct outcome *outcome) {
    struct call call = flat_call(OPERATION_SPLIT, 0, 0, 0, 0);
    if (begin_call(group, &call, outcome))
        return outcome->status;
    if (group->members.comm->size > 1 && members_arrive(&group->members, &call, outcome))
        return end_call(group, &call, group_break_by(group, 0, outcome));
    int result = groups_free_retired(outcome);
    if (!result)
        result = TRANSPORT(split, group->members.comm, color, key, &part->members.comm, outcome);
    if (!result)
        result = group_open(part, outcome);
    part->notices.group = digest_mix(group->notices.group, ++group->splits << 32 | (uint32_t)color);
    return end_call(group, &call, result);
}

/* The other ranks of the group may be in a call: so this one takes no turn, and cannot break it. */
static int create_members(struct group *group, const int *ranks, int n, int is_only_thread, struct group *part,
                          struct outcome *outcome) {
    struct agreed agreed;
    if (runtime_enter(outcome))
        return outcome->status;
    int result = group_is_broken(group) ? (*outcome = group->why_broken).status : STATUS_OK;
    if (!result)
        result = agreement_reach(&group->members, &group->notices, ranks, n, is_only_thread, &agreed, outcome);
    if (!result)
        result = groups_free_retired(outcome);
    if (!result)
        result = TRANSPORT(create, group->members.comm, ranks, n, agreed.tag, &part->members.comm, outcome);
    if (!result)
        result = group_open(part, outcome);
    if (!result)
        part->notices.group = agreed.group;
    runtime_leave();
    return result;
}

/* One that was not made goes the way of those that were freed. */
static int made(int result, struct group *created, struct group **part) {
    *part = result ? NULL : created;
    if (result && created->members.comm)
        groups_add(&groups.retired, created);
    else if (result)
        group_dispose(created);
    return result;
}

int group_split(struct group *group, int color, int key, struct group **part, struct outcome *outcome) {
    struct group *created = group_new(&group->members.policy, outcome);
    *part = NULL;
    return created ? made(split_members(group, color, key, created, outcome), created, part) : outcome->status;
}

int group_create(struct group *group, const int *ranks, int n, int is_only_thread, struct group **part,
                 struct outcome *outcome) {
    struct group *created = group_new(&group->members.policy, outcome);
    *part = NULL;
    return created ? made(create_members(group, ranks, n, is_only_thread, created, outcome), created, part)
                   : outcome->status;
}

int group_ranks_of(struct group *group, comm_handle comm, int *ranks, int *n, struct outcome *outcome) {
    if (runtime_enter(outcome))
        return outcome->status;
    int result = TRANSPORT(ranks_of, group->members.comm, comm, ranks, n, outcome);
    runtime_leave();
    return result;
}

int group_run(struct group *group, struct call *call, const void *sendbuf, void *recvbuf, struct outcome *outcome) {
    if (begin_call(group, call, outcome))
        return outcome->status;
    int result = collective_run(&group->members, call, sendbuf, recvbuf, outcome);
    return end_call(group, call, result ? group_break_by(group, 0, outcome) : STATUS_OK);
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
        result = collective_by_mpi(&group->members, call, sendbuf, recvbuf, outcome);
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
    if (!members->shm || members->net) {
        outcome->status = STATUS_NOT_SHARED;
        snprintf(
            outcome->text, sizeof outcome->text,
            "not all ranks of the group share this host's memory: use a group of ranks that do, or see mlxdist doctor");
        return end_call(group, &call, STATUS_NOT_SHARED);
    }
    int result = shm_empty(members->shm, &call, (size_t)nbytes, symmetric, memory, &members->policy, outcome);
    if (result)
        return end_call(group, &call, group_break_by(group, 0, outcome));
    group_retain(group);
    return end_call(group, &call, STATUS_OK);
}

/* An array may be freed by a signal handler that runs while this thread waits in a call on the group: never wait here.
 */
void group_free(struct group *group, struct symmetric *symmetric) {
    shm_free(symmetric);
    if (!pthread_mutex_trylock(&group->turn)) {
        shm_sweep(group->members.shm);
        pthread_mutex_unlock(&group->turn);
    }
    group_release(group);
}

static int end_message(struct group *group, const struct call *call, int pending, int result, struct outcome *outcome) {
    if (pending || result == STATUS_PEER_DIED)
        group_break_by(group, pending, outcome);
    return end_call(group, call, result);
}

int group_p2p(struct group *group, struct call *call, const void *sendbuf, void *recvbuf, struct outcome *outcome) {
    int pending;
    if (begin_call(group, call, outcome))
        return outcome->status;
    int result = p2p_run(&group->members, call, sendbuf, recvbuf, &pending, outcome);
    return end_message(group, call, pending, result, outcome);
}

const struct work_owner group_owner = {group_retain, group_release, begin_call, group_run, end_message};

int group_start(struct group *group, const struct call *call, const void *sendbuf, void *recvbuf, struct work **work,
                struct outcome *outcome) {
    int is_collective = call_is_collective(call), result = STATUS_OK;
    struct work_queue *queue = is_collective ? &group->collectives : &group->messages;
    *work = NULL;
    if (runtime_enter(outcome))
        return outcome->status;
    if (group_is_broken(group)) {
        *outcome = group->why_broken;
        result = outcome->status;
    } else if (!runtime_allows_threads() && !is_collective) {
        result = outcome->status = STATUS_WRONG_THREAD;
        snprintf(outcome->text, sizeof outcome->text,
                 "MPI was initialized for one thread, which cannot carry out messages while it computes: leave out "
                 "wait=False, or let mlxdist initialize MPI (it asks for MPI_THREAD_MULTIPLE)");
    } else if (!(*work = work_new(queue, call, sendbuf, recvbuf, outcome))) {
        result = outcome->status;
    } else if (!runtime_allows_threads()) {
        work_finish(*work, group_run(group, &(*work)->call, sendbuf, recvbuf, &(*work)->outcome));
    } else if ((result = work_queue_add(queue, *work, outcome))) {
        work_finish(*work, result);
        work_release(*work);
        *work = NULL;
    }
    runtime_leave();
    return result;
}
