#include "mlxdist/core.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mlxdist/exchange.h"
#include "mlxdist/kernels.h"
#include "mlxdist/measure.h"
#include "mlxdist/message.h"

struct group {
    struct ranks ranks;
    struct pool *pools;    /* those of arrays in shared memory */
    struct window *window; /* opened with the first long call; NULL and has_no_window: cannot be had */
    int has_no_window;
    pthread_mutex_t turn; /* of its collectives */
    atomic_int is_spent;
    struct outcome why_spent;
    atomic_long references;
    struct group *next; /* among all that live, or all that were let go of */
};

static struct group *world, *living, *let_go;
static char not_sharing[200];
static pthread_mutex_t groups_lock = PTHREAD_MUTEX_INITIALIZER;
/* MPI_Finalize would wait for a rank that is missing, or for a request that nobody will complete. */
static atomic_int cannot_end;

static struct group *new_group(struct comm *comm, const struct patience *patience, struct outcome *outcome) {
    struct group *group = calloc(1, sizeof *group);
    if (!group) {
        outcome->what = OUT_OF_MEMORY;
        snprintf(outcome->text, sizeof outcome->text, "no memory for a group");
        return NULL;
    }
    group->ranks.comm = comm;
    group->ranks.patience = *patience;
    pthread_mutex_init(&group->turn, NULL);
    atomic_init(&group->references, 1);
    if (ranks_share(&group->ranks, world ? &world->ranks : NULL, not_sharing, sizeof not_sharing, outcome)) {
        free(group);
        return NULL;
    }
    pthread_mutex_lock(&groups_lock);
    group->next = living;
    living = group;
    pthread_mutex_unlock(&groups_lock);
    return group;
}

int core_start(const struct transport *transport, const struct settings *settings, struct outcome *outcome) {
    struct comm *comm;
    struct outcome second;
    int failed = job_start(transport, settings, &comm, outcome);
    struct group *started = failed ? NULL : new_group(comm, &settings->patience, outcome);
    if (!started) {
        if (job.ours)
            transport->finish(job.ours, &second);
        job.transport = NULL;
        return outcome->what;
    }
    if (started->ranks.comm->size > 1 && (!started->ranks.node || node_is_crowded(started->ranks.node)))
        started->ranks.patience.spins = SPINS_CROWDED;
    world = started;
    return OK;
}

struct group *core_world(void) {
    return world;
}

const char *core_not_sharing(void) {
    return not_sharing;
}

void core_abort(int status) {
    if (job.transport && !job_is_closed())
        job.transport->abort(status);
}

/* Free the communicators of groups let go of, on a thread that is in an MPI call anyway. */
static int free_let_go(struct outcome *outcome) {
    pthread_mutex_lock(&groups_lock);
    struct group *group = let_go;
    let_go = NULL;
    pthread_mutex_unlock(&groups_lock);
    int result = OK;
    while (group) {
        struct group *next = group->next;
        int released = CALL(release, group->ranks.comm, outcome);
        result = result ? result : released;
        free(group);
        group = next;
    }
    return result;
}

/* Whether ranks may have lost each other by it. */
static int spends(int what) {
    return what == MISMATCH || what == PEER_DIED || what == TIMED_OUT || what == INTERRUPTED;
}

/* The group cannot be used any more: ranks are not at the same call. */
static int spend(struct group *group, const struct outcome *outcome) {
    if (!spends(outcome->what))
        return outcome->what;
    if (outcome->what != MISMATCH) {
        atomic_store(&cannot_end, 1);
        if (group->ranks.node)
            node_give_up(group->ranks.node);
    }
    pthread_mutex_lock(&groups_lock);
    if (!atomic_load_explicit(&group->is_spent, memory_order_relaxed)) {
        group->why_spent = *outcome;
        if (outcome->what == INTERRUPTED)
            group->why_spent.what = GROUP_SPENT;
        snprintf(group->why_spent.text, sizeof group->why_spent.text,
                 "this group cannot be used any more, since before: %.900s", outcome->text);
        atomic_store_explicit(&group->is_spent, 1, memory_order_release);
    }
    pthread_mutex_unlock(&groups_lock);
    return outcome->what;
}

/* The ranks end together, so that whoever still waits for this one learns that it has ended. */
static int end_together(struct outcome *outcome) {
    const double last_s = 2; /* to wait, where something went wrong before */
    struct patience patience = world->ranks.patience;
    pthread_mutex_lock(&groups_lock); /* another thread may let go of a group */
    for (struct group *group = living; group; group = group->next)
        if (group->ranks.node)
            node_leave(group->ranks.node, !atomic_load(&cannot_end));
    pthread_mutex_unlock(&groups_lock);
    if (!atomic_load(&world->is_spent) && ranks_end(&world->ranks, outcome) && outcome->what != MISMATCH)
        return spend(world, outcome);
    patience.quiet = 1;
    if (atomic_load(&cannot_end))
        patience.limit_s = last_s;
    return world->ranks.node ? node_await_end(world->ranks.node, &patience, outcome) : OK;
}

int core_finish(struct outcome *outcome) {
    int closed = job_close(outcome);
    if (closed <= 0)
        return closed ? outcome->what : OK;
    int knew = atomic_load(&cannot_end), result = end_together(outcome);
    if (!result && !knew) {
        struct outcome second;
        result = free_let_go(outcome);
        int ended = job.transport->finish(job.ours, result ? &second : outcome);
        result = result ? result : ended;
    }
    job_leave();
    return knew ? OK : result;
}

struct group *group_retain(struct group *group) {
    atomic_fetch_add_explicit(&group->references, 1, memory_order_relaxed);
    return group;
}

void group_release(struct group *group) {
    if (atomic_fetch_sub_explicit(&group->references, 1, memory_order_acq_rel) > 1)
        return;
    pthread_mutex_lock(&groups_lock);
    struct group **place = &living;
    while (*place != group)
        place = &(*place)->next;
    *place = group->next;
    if (group->ranks.node) {
        if (!job_is_forked())
            node_leave(group->ranks.node, 1);
        pool_sweep(&group->pools);
        if (group->window)
            window_close(group->window);
        if (group->ranks.post)
            post_close(group->ranks.post);
        node_close(group->ranks.node);
    }
    pthread_mutex_destroy(&group->turn);
    if (!group->ranks.is_pending) {
        group->next = let_go;
        let_go = group;
    }
    pthread_mutex_unlock(&groups_lock);
}

int group_rank(const struct group *group) {
    return group->ranks.comm->rank;
}

int group_size(const struct group *group) {
    return group->ranks.comm->size;
}

int group_is_spent(const struct group *group) {
    return atomic_load_explicit(&group->is_spent, memory_order_acquire);
}

int group_sharing(const struct group *group) {
    return group->ranks.node ? node_seats(group->ranks.node) : 1;
}

void group_limit(struct group *group, double limit_s) {
    group->ranks.patience.limit_s = limit_s;
}

/* What every operation does first and last. A collective waits for its turn in the group; send and recv do not, or a
 * thread that waits for a message would keep another from sending the one that it waits for. */
static int enter(struct group *group, struct call *call, struct outcome *outcome) {
    int is_collective = call_is_collective(call);
    call->rank = group->ranks.comm->rank;
    if (job_enter(outcome))
        return outcome->what;
    if (!is_collective || !wait_for_turn(&group->turn, &group->ranks.patience, outcome)) {
        if (!group_is_spent(group))
            return OK;
        *outcome = group->why_spent;
        if (is_collective)
            pthread_mutex_unlock(&group->turn);
    }
    job_leave();
    return outcome->what;
}

static int leave(struct group *group, const struct call *call, int result) {
    if (call_is_collective(call))
        pthread_mutex_unlock(&group->turn);
    job_leave();
    return result;
}

static int divide(struct group *group, int color, int key, struct group **part, struct outcome *outcome) {
    struct comm *comm;
    int result = free_let_go(outcome);
    if (result || (result = CALL(split, group->ranks.comm, color, key, &comm, outcome)))
        return result;
    *part = new_group(comm, &group->ranks.patience, outcome);
    return *part ? OK : outcome->what;
}

int group_split(struct group *group, int color, int key, struct group **part, struct outcome *outcome) {
    struct call call = flat_call(SPLIT, 0, 0, 0, 0);
    *part = NULL;
    if (enter(group, &call, outcome))
        return outcome->what;
    if (group->ranks.comm->size > 1 && ranks_arrive(&group->ranks, &call, NULL, 0, 1, outcome))
        return leave(group, &call, spend(group, outcome));
    return leave(group, &call, divide(group, color, key, part, outcome));
}

/* What a rank puts into its slot. */
static int64_t brought(const struct ranks *ranks, const struct call *call) {
    return call->operation == BROADCAST && call->peer != ranks->comm->rank ? 0 : call_nbytes(call);
}

/* Every rank's payload has come, and all slots stay as they are until this rank arrives again. */
static void collect(const struct ranks *ranks, const struct call *call, const void *sendbuf, void *recvbuf) {
    int size = ranks->comm->size;
    int64_t nbytes = call_nbytes(call), part = call->count / size;
    const void *payloads[NODE_SEATS];
    int64_t offset = call->operation == REDUCE_SCATTER ? ranks->comm->rank * (nbytes / size) : 0;
    for (int i = 0; i < size; i++)
        payloads[i] = (const char *)node_payload(ranks->node, i) + offset;
    if (call->operation == ALLREDUCE || call->operation == REDUCE_SCATTER)
        reduce((enum element_type)call->type, (enum reduction)call->op, payloads, size, recvbuf,
               (size_t)(call->operation == ALLREDUCE ? call->count : part));
    else if (call->operation == ALLGATHER)
        for (int i = 0; i < size; i++)
            memcpy((char *)recvbuf + i * nbytes, payloads[i], (size_t)nbytes);
    else if (call->operation == BROADCAST && (call->peer != ranks->comm->rank || sendbuf != recvbuf))
        memcpy(recvbuf, payloads[call->peer], (size_t)nbytes);
}

static int communicate(const struct ranks *ranks, const struct call *call, const void *sendbuf, void *recvbuf,
                       struct outcome *outcome) {
    struct comm *comm = ranks->comm;
    enum element_type type = (enum element_type)call->type;
    enum reduction op = (enum reduction)call->op;
    switch (call->operation) {
    case ALLREDUCE:
        return CALL(allreduce, comm, sendbuf, recvbuf, call->count, type, op, outcome);
    case REDUCE_SCATTER:
        return CALL(reduce_scatter, comm, sendbuf, recvbuf, call->count / comm->size, type, op, outcome);
    case ALLGATHER:
        return CALL(allgather, comm, sendbuf, recvbuf, call_nbytes(call), outcome);
    case BROADCAST:
        if (comm->rank == call->peer && sendbuf != recvbuf)
            memcpy(recvbuf, sendbuf, (size_t)call_nbytes(call));
        return CALL(broadcast, comm, recvbuf, call_nbytes(call), call->peer, outcome);
    default:
        return CALL(barrier, comm, outcome);
    }
}

/* Short: one arrival with all that is needed. */
static int run_in_slots(struct ranks *ranks, const struct call *call, const void *sendbuf, void *recvbuf,
                        struct outcome *outcome) {
    if (ranks_arrive(ranks, call, sendbuf, (size_t)brought(ranks, call), 0, outcome))
        return outcome->what;
    collect(ranks, call, sendbuf, recvbuf);
    return OK;
}

/* Long. The first time ranks find out whether they can share the memory for it, and if not, go on to MPI together. */
static int run_in_window(struct group *group, const struct call *call, const void *sendbuf, void *recvbuf,
                         struct outcome *outcome) {
    struct ranks *ranks = &group->ranks;
    size_t nbytes = (size_t)call_nbytes(call);
    struct approach mine = {exchange_own_offset(call, recvbuf), {0, 0}, {0, 0}};
    if (call->operation == ALLREDUCE) {
        mine.in = pool_place(group->pools, sendbuf, nbytes);
        mine.out = pool_place(group->pools, recvbuf, nbytes);
    }
    if (ranks_arrive(ranks, call, &mine, sizeof mine, 0, outcome))
        return outcome->what;
    if (pool_is_common(ranks->node))
        return pool_reduce(ranks->node, group->pools, call, &ranks->patience, outcome);
    size_t offset = exchange_offset(ranks->node);
    if (!group->window && window_open(ranks->node, &group->window, &ranks->patience, outcome))
        return outcome->what;
    if (group->window)
        return exchange_run(group->window, ranks->node, call, sendbuf, recvbuf, offset, &ranks->patience, outcome);
    group->has_no_window = 1;
    struct call onward = flat_call(SHARE, 0, 0, 0, 0);
    if (node_arrive(ranks->node, &onward, NULL, 0, 1, 0, &ranks->patience, outcome))
        return outcome->what;
    return communicate(ranks, call, sendbuf, recvbuf, outcome);
}

static int run_by_mpi(struct ranks *ranks, const struct call *call, const void *sendbuf, void *recvbuf,
                      struct outcome *outcome) {
    if (ranks->comm->size > 1 && ranks_arrive(ranks, call, NULL, 0, 1, outcome))
        return outcome->what;
    return communicate(ranks, call, sendbuf, recvbuf, outcome);
}

/* Up to so many bytes the slots are quicker than the window, measured on Zen 4: by 2 ranks, and by 3 and 4 ranks on 2
 * processors, to which each wait costs more than what is copied once more. */
static int64_t most_in_slots(const struct ranks *ranks, int operation) {
    static const int64_t most[OPERATIONS] = {
        [ALLREDUCE] = 12 << 10, [ALLGATHER] = 6 << 10, [REDUCE_SCATTER] = NODE_SLOT, [BROADCAST] = NODE_SLOT};
    return ranks->patience.spins == SPINS_CROWDED ? NODE_SLOT : most[operation];
}

int group_run(struct group *group, struct call *call, const void *sendbuf, void *recvbuf, struct outcome *outcome) {
    struct ranks *ranks = &group->ranks;
    int result, in_memory = ranks->node && ranks->is_whole && !call->on_device;
    if (enter(group, call, outcome))
        return outcome->what;
    if (in_memory && call_nbytes(call) <= most_in_slots(ranks, call->operation))
        result = run_in_slots(ranks, call, sendbuf, recvbuf, outcome);
    else if (in_memory && !group->has_no_window)
        result = run_in_window(group, call, sendbuf, recvbuf, outcome);
    else
        result = run_by_mpi(ranks, call, sendbuf, recvbuf, outcome);
    return leave(group, call, result ? spend(group, outcome) : OK);
}

int group_run_bare(struct group *group, struct call *call, void *sendbuf, void *recvbuf, int64_t repeats, int rewrite,
                   double *spent_s, struct outcome *outcome) {
    int result = OK;
    if (enter(group, call, outcome))
        return outcome->what;
    *spent_s = 0;
    for (int64_t i = 0; i < repeats && !result; i++) {
        if (rewrite)
            measure_rewrite(sendbuf, (size_t)call_nbytes(call));
        double begun_s = wait_now_s();
        result = communicate(&group->ranks, call, sendbuf, recvbuf, outcome);
        *spent_s += wait_now_s() - begun_s;
    }
    *spent_s -= (double)repeats * measure_own_s();
    return leave(group, call, result);
}

int group_empty(struct group *group, int64_t nbytes, struct pool **pool, void **memory, struct outcome *outcome) {
    struct call call = flat_call(EMPTY, 0, TYPE_UINT8, 0, nbytes);
    struct ranks *ranks = &group->ranks;
    *pool = NULL;
    if (enter(group, &call, outcome))
        return outcome->what;
    if (!ranks->node || !ranks->is_whole) {
        segment_fails(outcome, "not all ranks of the group share this host's memory", ENOTSUP);
        return leave(group, &call, NOT_SHARED);
    }
    pool_sweep(&group->pools);
    int result = ranks_arrive(ranks, &call, NULL, 0, 0, outcome);
    if (!result)
        result = pool_open(ranks->node, (size_t)nbytes, &group->pools, &ranks->patience, outcome);
    if (result)
        return leave(group, &call, spend(group, outcome));
    *pool = group->pools;
    *memory = pool_memory(*pool);
    group_retain(group);
    return leave(group, &call, OK);
}

/* A signal handler, run while this very thread waits in a call on the group, may let go of an array: never wait here.
 */
void group_free(struct group *group, struct pool *pool) {
    pool_drop(pool);
    if (!pthread_mutex_trylock(&group->turn)) {
        pool_sweep(&group->pools);
        pthread_mutex_unlock(&group->turn);
    }
    group_release(group);
}

int group_send(struct group *group, struct call *call, const void *sendbuf, struct outcome *outcome) {
    int pending;
    if (enter(group, call, outcome))
        return outcome->what;
    int result = message_send(&group->ranks, call, sendbuf, &pending, outcome);
    if (pending || result == PEER_DIED)
        spend(group, outcome);
    return leave(group, call, result);
}

int group_recv(struct group *group, struct call *call, void *recvbuf, struct outcome *outcome) {
    int pending;
    if (enter(group, call, outcome))
        return outcome->what;
    int result = message_recv(&group->ranks, call, recvbuf, &pending, outcome);
    if (pending || result == PEER_DIED)
        spend(group, outcome);
    return leave(group, call, result);
}
