#include "mlxdist/core.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct group {
    struct comm *comm;
    struct group *next; /* among those let go of */
    pthread_mutex_t turn;
    atomic_long references;
};

static const struct transport *transport;
static struct world world;
static atomic_int finished, forked;
static pthread_t starter;

/* Read-held by every operation under way, write-held to finish. */
static pthread_rwlock_t open_gate = PTHREAD_RWLOCK_INITIALIZER;
/* Where MPI provides less than MPI_THREAD_MULTIPLE, one call at a time. */
static pthread_mutex_t one_call = PTHREAD_MUTEX_INITIALIZER;

/* Groups let go of, whose communicators wait to be freed. */
static struct group *let_go;
static pthread_mutex_t let_go_lock = PTHREAD_MUTEX_INITIALIZER;

const struct transport *core_load(void *library, int64_t max_count, struct outcome *outcome) {
    enum abi_family family;
    if (abi_identify(library, &family)) {
        outcome->what = LIBRARY_UNFIT;
        snprintf(outcome->text, sizeof outcome->text, "it is no MPI: it has no MPI_Get_library_version");
        return NULL;
    }
    const struct transport *loaded = family == ABI_MPICH ? &mpi_int : &mpi_ptr;
    return loaded->load(library, family, max_count, outcome) ? NULL : loaded;
}

static struct group *new_group(struct comm *comm, struct outcome *outcome) {
    struct group *group = malloc(sizeof *group);
    if (!group) {
        outcome->what = OUT_OF_MEMORY;
        snprintf(outcome->text, sizeof outcome->text, "no memory for a group");
        return NULL;
    }
    group->comm = comm;
    pthread_mutex_init(&group->turn, NULL);
    atomic_init(&group->references, 1);
    return group;
}

/* In a child made by fork: MPI belongs to its parent. */
static void after_fork(void) {
    atomic_store(&forked, 1);
    atomic_store(&finished, 1);
    pthread_rwlock_init(&open_gate, NULL);
}

int core_start(const struct transport *chosen, struct outcome *outcome) {
    struct comm *comm;
    starter = pthread_self();
    int failed = chosen->start(&world.ours, &world.threads, &comm, outcome);
    world.group = failed ? NULL : new_group(comm, outcome);
    if (!world.group) {
        struct outcome second;
        if (world.ours)
            chosen->finish(world.ours, &second);
        return outcome->what;
    }
    if (chosen != &alone)
        pthread_atfork(NULL, NULL, after_fork);
    transport = chosen;
    return OK;
}

const struct world *core_world(void) {
    return transport ? &world : NULL;
}

int core_is_finished(void) {
    return atomic_load_explicit(&finished, memory_order_acquire);
}

int core_is_forked(void) {
    return atomic_load(&forked);
}

void core_abort(int status) {
    if (transport && !core_is_finished())
        transport->abort(status);
}

/* Free the communicators of groups let go of, on a thread that is in an MPI call anyway. */
static int free_let_go(struct outcome *outcome) {
    pthread_mutex_lock(&let_go_lock);
    struct group *group = let_go;
    let_go = NULL;
    pthread_mutex_unlock(&let_go_lock);
    int result = OK;
    while (group) {
        struct group *next = group->next;
        int released = transport->release(group->comm, outcome);
        result = result ? result : released;
        free(group);
        group = next;
    }
    return result;
}

int core_finish(struct outcome *outcome) {
    int result = OK;
    pthread_rwlock_wrlock(&open_gate);
    if (transport && !core_is_finished()) {
        atomic_store_explicit(&finished, 1, memory_order_release);
        result = free_let_go(outcome);
        int ended = transport->finish(world.ours, outcome);
        result = result ? result : ended;
    }
    pthread_rwlock_unlock(&open_gate);
    return result;
}

struct group *group_retain(struct group *group) {
    atomic_fetch_add_explicit(&group->references, 1, memory_order_relaxed);
    return group;
}

void group_release(struct group *group) {
    if (atomic_fetch_sub_explicit(&group->references, 1, memory_order_acq_rel) > 1)
        return;
    pthread_mutex_destroy(&group->turn);
    pthread_mutex_lock(&let_go_lock);
    group->next = let_go;
    let_go = group;
    pthread_mutex_unlock(&let_go_lock);
}

int group_rank(const struct group *group) {
    return group->comm->rank;
}

int group_size(const struct group *group) {
    return group->comm->size;
}

/* What every operation does first and last. A collective waits for its turn in the group; send and recv do not, or a
 * thread that waits for a message would keep another from sending the one that it waits for. */
static int enter(struct group *group, int collective, struct outcome *outcome) {
    pthread_rwlock_rdlock(&open_gate);
    if (core_is_finished() || transport->is_over()) {
        outcome->what = GROUP_CLOSED;
        snprintf(outcome->text, sizeof outcome->text, "%s",
                 core_is_forked() ? "this process was forked from a rank: only the rank itself may communicate"
                                  : "MPI has been finalized: communicate before finalize() and the program's end");
    } else if (world.threads < THREADS_SERIALIZED && !pthread_equal(starter, pthread_self())) {
        outcome->what = WRONG_THREAD;
        snprintf(outcome->text, sizeof outcome->text,
                 "this MPI was initialized for one thread, and this is another: call from the thread that called "
                 "init(), or let mlxdist initialize MPI first (it asks for MPI_THREAD_MULTIPLE)");
    } else {
        if (collective)
            pthread_mutex_lock(&group->turn);
        if (world.threads < THREADS_MULTIPLE)
            pthread_mutex_lock(&one_call);
        return OK;
    }
    pthread_rwlock_unlock(&open_gate);
    return outcome->what;
}

static int leave(struct group *group, int collective, int result) {
    if (world.threads < THREADS_MULTIPLE)
        pthread_mutex_unlock(&one_call);
    if (collective)
        pthread_mutex_unlock(&group->turn);
    pthread_rwlock_unlock(&open_gate);
    return result;
}

#define RUN(collective, operation, ...) \
    return enter(group, collective, outcome) \
               ? outcome->what \
               : leave(group, collective, transport->operation(group->comm, __VA_ARGS__))

static int split_comm(struct comm *comm, int color, int key, struct comm **part, struct outcome *outcome) {
    int result = free_let_go(outcome);
    return result ? result : transport->split(comm, color, key, part, outcome);
}

int group_split(struct group *group, int color, int key, struct group **part, struct outcome *outcome) {
    struct comm *comm;
    *part = NULL;
    if (enter(group, 1, outcome) || leave(group, 1, split_comm(group->comm, color, key, &comm, outcome)))
        return outcome->what;
    *part = new_group(comm, outcome);
    return *part ? OK : outcome->what;
}

int group_allreduce(struct group *group, const void *sendbuf, void *recvbuf, int64_t count, enum element_type type,
                    enum reduction op, struct outcome *outcome) {
    RUN(1, allreduce, sendbuf, recvbuf, count, type, op, outcome);
}

int group_reduce_scatter(struct group *group, const void *sendbuf, void *recvbuf, int64_t count, enum element_type type,
                         enum reduction op, struct outcome *outcome) {
    RUN(1, reduce_scatter, sendbuf, recvbuf, count, type, op, outcome);
}

int group_allgather(struct group *group, const void *sendbuf, void *recvbuf, int64_t nbytes, struct outcome *outcome) {
    RUN(1, allgather, sendbuf, recvbuf, nbytes, outcome);
}

int group_broadcast(struct group *group, void *buf, int64_t nbytes, int root, struct outcome *outcome) {
    RUN(1, broadcast, buf, nbytes, root, outcome);
}

int group_barrier(struct group *group, struct outcome *outcome) {
    RUN(1, barrier, outcome);
}

int group_send(struct group *group, const void *sendbuf, int64_t nbytes, int dst, struct outcome *outcome) {
    RUN(0, send, sendbuf, nbytes, dst, outcome);
}

int group_recv(struct group *group, void *recvbuf, int64_t nbytes, int src, struct outcome *outcome) {
    RUN(0, recv, recvbuf, nbytes, src, outcome);
}
