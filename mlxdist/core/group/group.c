#include "mlxdist/group/core.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "mlxdist/group/agreement.h"
#include "mlxdist/group/background.h"
#include "mlxdist/group/collective.h"
#include "mlxdist/measure.h"

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

/* Retired: their communicator is freed by the next split or at the end. Pending: MPI may use their memory for good. */
static struct group *world, *live, *retired, *pending;
static char why_not_shared[200]; /* of the world */
static pthread_mutex_t groups_lock = PTHREAD_MUTEX_INITIALIZER;
/* MPI_Finalize would wait for a rank that is missing, or for a request that no rank will complete. */
static atomic_int skip_finalize;

static const struct work_owner owner;

static struct group *new_group(const struct wait_policy *policy, struct outcome *outcome) {
    struct group *group = calloc(1, sizeof *group);
    if (!group) {
        outcome->status = STATUS_OUT_OF_MEMORY;
        snprintf(outcome->text, sizeof outcome->text,
                 "no memory for a group: free some, or start fewer ranks on a host");
        return NULL;
    }
    group->members.policy =
        (struct wait_policy){policy->spins, policy->timeout_s, policy->quiet, policy->interrupt, NULL, NULL};
    pthread_mutex_init(&group->turn, NULL);
    work_queue_open(&group->collectives, group, &owner, carry_out_collectives, &group->members);
    work_queue_open(&group->messages, group, &owner, carry_out_messages, &group->members);
    notices_open(&group->notices);
    atomic_init(&group->references, 1);
    return group;
}

static void free_group(struct group *group) {
    work_queue_close(&group->collectives);
    work_queue_close(&group->messages);
    pthread_mutex_destroy(&group->turn);
    notices_close(&group->notices);
    free(group);
}

static void add_to(struct group **list, struct group *group) {
    pthread_mutex_lock(&groups_lock);
    group->next = *list;
    *list = group;
    pthread_mutex_unlock(&groups_lock);
}

/* With its communicator: find out who shares memory, and list it among those that are live. */
static int open_group(struct group *group, struct outcome *outcome) {
    char ignored[sizeof why_not_shared];
    struct members *members = &group->members;
    struct wait_policy *policy = &members->policy;
    double timeout_s = policy->timeout_s;
    int (*interrupt)(int) = policy->interrupt;
    /* All ranks are in it: if one alone left, the others would wait in MPI. */
    if (world) {
        policy->timeout_s = 0;
        policy->interrupt = NULL;
    }
    int result = members_open(members, world ? &world->members : NULL, world ? ignored : why_not_shared,
                              sizeof why_not_shared, outcome);
    policy->timeout_s = timeout_s;
    policy->interrupt = interrupt;
    if (result)
        return result;
    /* What comes from another host takes longer than a yield; and other ranks of the job may need this processor. */
    const struct shm *job = world ? world->members.shm : members->shm;
    int is_close = members->shm && !members->net && !shm_is_oversubscribed(job);
    policy->spins = is_close ? WAIT_SPINS : WAIT_SPINS_OVERSUBSCRIBED;
    add_to(&live, group);
    return STATUS_OK;
}

/* After these, ranks of the group may not be at the same call. */
static int breaks_group(int status) {
    return status == STATUS_MISMATCH || status == STATUS_PEER_DIED || status == STATUS_TIMED_OUT ||
           status == STATUS_INTERRUPTED || status == STATUS_GROUP_CLOSED;
}

static int open_world(struct group *group, struct outcome *outcome) {
    struct members *members = &group->members;
    if (members->comm->size > 1 && members_compare_builds(members->comm, outcome))
        return outcome->status;
    if (open_group(group, outcome))
        return outcome->status;
    world = group;
    return STATUS_OK;
}

/* A fork copies the locks as they are; it waits for groups_lock, so that the child, too, can free its groups. */
static void before_fork(void) {
    pthread_mutex_lock(&groups_lock);
}

static void after_fork(void) {
    pthread_mutex_unlock(&groups_lock);
}

static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork, after_fork);
}

int core_start(const struct transport *transport, const struct settings *settings, struct outcome *outcome) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct outcome second;
    pthread_once(&once, watch_forks);
    struct group *group = new_group(&settings->policy, outcome);
    if (!group)
        return outcome->status;
    int result = runtime_start(transport, settings, &group->members.comm, outcome);
    if (!result && !(result = open_world(group, outcome)))
        return STATUS_OK;
    /* Without a rank that is missing MPI can neither free a communicator nor end. */
    if (result == STATUS_MISMATCH || !breaks_group(result)) {
        if (group->members.comm)
            transport->release(group->members.comm, &second);
        if (runtime.ours)
            transport->finish(runtime.ours, &second);
    }
    runtime.transport = NULL;
    free_group(group);
    return result;
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

/* On a thread that is in an MPI call anyway. */
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
        free_group(group);
        group = next;
    }
    return result;
}

/* What follows a timeout, a death, Ctrl-C or a mismatch. The ranks of the group may no longer be at the same call, so
 * every later call on it fails for this reason. Of a mismatch all ranks know; after the others, ranks that wait for
 * this one are told, and MPI will not be finalized. At the end the others are told in any case, and if MPI has
 * nothing of the call it can be finalized. Other outcomes change nothing, unless MPI has something of the call. */
static int break_group(struct group *group, int is_with_mpi, const struct outcome *outcome) {
    is_with_mpi |= members_are_pending(&group->members);
    if (!is_with_mpi && !breaks_group(outcome->status))
        return outcome->status;
    if (outcome->status != STATUS_MISMATCH && (outcome->status != STATUS_GROUP_CLOSED || is_with_mpi)) {
        atomic_store(&skip_finalize, 1);
        members_give_up(&group->members, outcome);
    }
    pthread_mutex_lock(&groups_lock);
    if (!atomic_load_explicit(&group->is_broken, memory_order_relaxed)) {
        group->why_broken = *outcome;
        if (outcome->status == STATUS_INTERRUPTED || !breaks_group(outcome->status))
            group->why_broken.status = STATUS_GROUP_BROKEN;
        snprintf(group->why_broken.text, sizeof group->why_broken.text,
                 "this group was broken by an earlier error: %.900s", outcome->text);
        atomic_store_explicit(&group->is_broken, 1, memory_order_release);
    }
    pthread_mutex_unlock(&groups_lock);
    return outcome->status;
}

void group_break(struct group *group, const char *why) {
    struct outcome outcome = {.status = STATUS_INTERRUPTED};
    snprintf(outcome.text, sizeof outcome.text, "%s", why);
    break_group(group, 1, &outcome);
}

/* The ranks end together, so that a rank that still waits for this one is told that it has ended. */
static int end_together(struct outcome *outcome) {
    const double last_s = 2; /* to wait, if something went wrong before */
    struct wait_policy policy = world->members.policy;
    pthread_mutex_lock(&groups_lock); /* another thread may free a group */
    for (struct group *group = live; group; group = group->next)
        if (group->members.shm)
            shm_leave(group->members.shm, !atomic_load(&skip_finalize));
    pthread_mutex_unlock(&groups_lock);
    /* After a mismatch the other hosts may not be at their end. */
    int is_agreed = !atomic_load(&world->is_broken) && members_end(&world->members, outcome) == STATUS_OK;
    if (!is_agreed && !atomic_load(&world->is_broken) && outcome->status != STATUS_MISMATCH)
        return break_group(world, 0, outcome);
    policy.quiet = 1;
    if (atomic_load(&skip_finalize))
        policy.timeout_s = last_s;
    struct outcome second;
    int result = world->members.shm ? shm_await_end(world->members.shm, &policy, outcome) : STATUS_OK;
    int ends_mpi = !result && !atomic_load(&skip_finalize);
    int confirmed =
        is_agreed ? members_end_mpi(&world->members, ends_mpi, &policy, result ? &second : outcome) : STATUS_OK;
    return result ? result : confirmed;
}

/* They end by themselves or by their timeout: none is cut off. */
static int await_works(struct outcome *outcome) {
    double timeout_s = world ? world->members.policy.timeout_s : 0;
    for (int result = STATUS_OK;;) {
        struct work *last = NULL;
        pthread_mutex_lock(&groups_lock);
        for (struct group *group = live; group && !last; group = group->next)
            if (!(last = work_queue_last(&group->collectives, NULL)))
                last = work_queue_last(&group->messages, NULL);
        pthread_mutex_unlock(&groups_lock);
        if (!last)
            return result;
        result = work_await(last, timeout_s > 0 ? timeout_s : -1, outcome);
        work_release(last);
        if (result)
            return result;
    }
}

int core_finish(struct outcome *outcome) {
    static const struct wait_policy none;
    if (!runtime_is_closed() && await_works(outcome))
        return outcome->status;
    int closed = runtime_close(world ? &world->members.policy : &none, outcome);
    if (closed <= 0)
        return closed ? outcome->status : STATUS_OK;
    int had_failed = atomic_load(&skip_finalize), result = end_together(outcome);
    if (!result && !had_failed) {
        struct outcome second;
        result = free_retired(outcome);
        int ended = runtime.transport->finish(runtime.ours, result ? &second : outcome);
        result = result ? result : ended;
    }
    runtime_leave();
    return had_failed ? STATUS_OK : result;
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
    pthread_mutex_unlock(&groups_lock);
    int is_pending = members_are_pending(&group->members) || notices_are_pending(&group->notices);
    if (group->members.shm && !runtime_is_forked())
        shm_leave(group->members.shm, 1);
    members_close(&group->members);
    add_to(is_pending ? &pending : &retired, group);
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
        return end_call(group, &call, break_group(group, 0, outcome));
    int result = free_retired(outcome);
    if (!result)
        result = TRANSPORT(split, group->members.comm, color, key, &part->members.comm, outcome);
    if (!result)
        result = open_group(part, outcome);
    part->notices.group = notices_mix(group->notices.group, ++group->splits << 32 | (uint32_t)color);
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
        result = free_retired(outcome);
    if (!result)
        result = TRANSPORT(create, group->members.comm, ranks, n, agreed.tag, &part->members.comm, outcome);
    if (!result)
        result = open_group(part, outcome);
    if (!result)
        part->notices.group = agreed.group;
    runtime_leave();
    return result;
}

/* One that was not made goes the way of those that were freed. */
static int made(int result, struct group *created, struct group **part) {
    *part = result ? NULL : created;
    if (result && created->members.comm)
        add_to(&retired, created);
    else if (result)
        free_group(created);
    return result;
}

int group_split(struct group *group, int color, int key, struct group **part, struct outcome *outcome) {
    struct group *created = new_group(&group->members.policy, outcome);
    *part = NULL;
    return created ? made(split_members(group, color, key, created, outcome), created, part) : outcome->status;
}

int group_create(struct group *group, const int *ranks, int n, int is_only_thread, struct group **part,
                 struct outcome *outcome) {
    struct group *created = new_group(&group->members.policy, outcome);
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
    return end_call(group, call, result ? break_group(group, 0, outcome) : STATUS_OK);
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
        return end_call(group, &call, break_group(group, 0, outcome));
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
        break_group(group, pending, outcome);
    return end_call(group, call, result);
}

int group_p2p(struct group *group, struct call *call, const void *sendbuf, void *recvbuf, struct outcome *outcome) {
    int pending;
    if (begin_call(group, call, outcome))
        return outcome->status;
    int result = p2p_run(&group->members, call, sendbuf, recvbuf, &pending, outcome);
    return end_message(group, call, pending, result, outcome);
}

static const struct work_owner owner = {group_retain, group_release, begin_call, group_run, end_message};

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
