#include "mlxdist/group/core.h"
#include "mlxdist/group/group.h"

static int open_world(struct group *group, struct outcome *outcome) {
    struct members *members = &group->members;
    if (members->comm->size > 1 && members_compare_builds(members->comm, outcome))
        return outcome->status;
    if (group_open(group, outcome))
        return outcome->status;
    groups.world = group;
    return STATUS_OK;
}

/* A fork copies the locks as they are; it waits for groups.lock, so that the child, too, can free its groups. */
static void before_fork(void) {
    pthread_mutex_lock(&groups.lock);
}

static void after_fork(void) {
    pthread_mutex_unlock(&groups.lock);
}

static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork, after_fork);
}

int core_start(const struct transport *transport, const struct settings *settings, struct outcome *outcome) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct outcome second;
    pthread_once(&once, watch_forks);
    struct group *group = group_new(&settings->policy, outcome);
    if (!group)
        return outcome->status;
    int result = runtime_start(transport, settings, &group->members.comm, outcome);
    if (!result && !(result = open_world(group, outcome)))
        return STATUS_OK;
    /* Without a rank that is missing MPI can neither free a communicator nor end. */
    if (result == STATUS_MISMATCH || !group_is_broken_by(result)) {
        if (group->members.comm)
            transport->release(group->members.comm, &second);
        if (runtime.ours)
            transport->finish(runtime.ours, &second);
    }
    runtime.transport = NULL;
    group_dispose(group);
    return result;
}

struct group *core_world(void) {
    return groups.world;
}

const char *core_why_not_shared(void) {
    return groups.why_not_shared;
}

void core_abort(int status) {
    if (runtime.transport && !runtime_is_closed())
        runtime.transport->abort(status);
}

/* The ranks end together, so that a rank that still waits for this one is told that it has ended. */
static int end_together(struct outcome *outcome) {
    const double last_s = 2; /* to wait, if something went wrong before */
    struct group *world = groups.world;
    struct wait_policy policy = world->members.policy;
    pthread_mutex_lock(&groups.lock); /* another thread may free a group */
    for (struct group *group = groups.live; group; group = group->next)
        if (group->members.shm)
            shm_leave(group->members.shm, !atomic_load(&groups.skip_finalize));
    pthread_mutex_unlock(&groups.lock);
    /* After a mismatch the other hosts may not be at their end. */
    int is_agreed = !atomic_load(&world->is_broken) && members_end(&world->members, outcome) == STATUS_OK;
    if (!is_agreed && !atomic_load(&world->is_broken) && outcome->status != STATUS_MISMATCH)
        return group_break_by(world, 0, outcome);
    policy.quiet = 1;
    if (atomic_load(&groups.skip_finalize))
        policy.timeout_s = last_s;
    struct outcome second;
    int result = world->members.shm ? shm_await_end(world->members.shm, &policy, outcome) : STATUS_OK;
    int ends_mpi = !result && !atomic_load(&groups.skip_finalize);
    int confirmed =
        is_agreed ? members_end_mpi(&world->members, ends_mpi, &policy, result ? &second : outcome) : STATUS_OK;
    return result ? result : confirmed;
}

/* They end by themselves or by their timeout: none is cut off. */
static int await_works(struct outcome *outcome) {
    double timeout_s = groups.world ? groups.world->members.policy.timeout_s : 0;
    for (int result = STATUS_OK;;) {
        struct work *last = NULL;
        pthread_mutex_lock(&groups.lock);
        for (struct group *group = groups.live; group && !last; group = group->next)
            if (!(last = work_queue_last(&group->collectives, NULL)))
                last = work_queue_last(&group->messages, NULL);
        pthread_mutex_unlock(&groups.lock);
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
    int closed = runtime_close(groups.world ? &groups.world->members.policy : &none, outcome);
    if (closed <= 0)
        return closed ? outcome->status : STATUS_OK;
    int had_failed = atomic_load(&groups.skip_finalize), result = end_together(outcome);
    if (!result && !had_failed) {
        struct outcome second;
        result = groups_free_retired(outcome);
        int ended = runtime.transport->finish(runtime.ours, result ? &second : outcome);
        result = result ? result : ended;
    }
    runtime_leave();
    return had_failed ? STATUS_OK : result;
}
