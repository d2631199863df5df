#include "mlxdist/job.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

struct job job;

static atomic_int closed, forked;
static pthread_t starter;

/* Read-held by every operation under way, write-held to close. */
static pthread_rwlock_t gate = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t one_call = PTHREAD_MUTEX_INITIALIZER;

const struct transport *job_load(void *library, int64_t max_count, struct outcome *outcome) {
    enum abi_family family;
    if (abi_identify(library, &family)) {
        outcome->what = LIBRARY_UNFIT;
        snprintf(outcome->text, sizeof outcome->text, "it is no MPI: it has no MPI_Get_library_version");
        return NULL;
    }
    const struct transport *loaded = family == ABI_MPICH ? &mpi_int : &mpi_ptr;
    return loaded->load(library, family, max_count, outcome) ? NULL : loaded;
}

/* In a child made by fork: MPI belongs to its parent. */
static void after_fork(void) {
    atomic_store(&forked, 1);
    atomic_store(&closed, 1);
    pthread_rwlock_init(&gate, NULL);
}

int job_start(const struct transport *transport, const struct settings *settings, struct comm **world,
              struct outcome *outcome) {
    starter = pthread_self();
    job.settings = *settings;
    if (transport->start(&job.ours, &job.threads, world, outcome))
        return outcome->what;
    if (transport != &alone)
        pthread_atfork(NULL, NULL, after_fork);
    job.transport = transport;
    return OK;
}

int job_is_closed(void) {
    return atomic_load_explicit(&closed, memory_order_acquire);
}

int job_is_forked(void) {
    return atomic_load(&forked);
}

int job_enter(struct outcome *outcome) {
    pthread_rwlock_rdlock(&gate);
    if (job_is_closed() || job.transport->is_over()) {
        outcome->what = GROUP_CLOSED;
        snprintf(outcome->text, sizeof outcome->text, "%s",
                 job_is_forked() ? "this process was forked from a rank: only the rank itself may communicate"
                                 : "MPI has been finalized: communicate before finalize() and the program's end");
    } else if (job.threads < THREADS_SERIALIZED && !pthread_equal(starter, pthread_self())) {
        outcome->what = WRONG_THREAD;
        snprintf(outcome->text, sizeof outcome->text,
                 "this MPI was initialized for one thread, and this is another: call from the thread that called "
                 "init(), or let mlxdist initialize MPI first (it asks for MPI_THREAD_MULTIPLE)");
    } else {
        return OK;
    }
    pthread_rwlock_unlock(&gate);
    return outcome->what;
}

void job_leave(void) {
    pthread_rwlock_unlock(&gate);
}

void job_begin_call(void) {
    if (job.threads < THREADS_MULTIPLE)
        pthread_mutex_lock(&one_call);
}

void job_end_call(void) {
    if (job.threads < THREADS_MULTIPLE)
        pthread_mutex_unlock(&one_call);
}

static int look_for_gate(void *it, int thorough, struct outcome *outcome) {
    (void)it, (void)thorough, (void)outcome;
    return !pthread_rwlock_trywrlock(&gate);
}

static void describe_gate(void *it, int to_all, char *text, size_t nbytes) {
    (void)it, (void)to_all;
    snprintf(text, nbytes, "finalize: another thread of this rank has not ended its call");
}

int job_close(struct outcome *outcome) {
    if (wait_for(&(struct awaited){look_for_gate, describe_gate, NULL, 0}, &job.settings.patience, outcome))
        return -1;
    if (job.transport && !atomic_exchange(&closed, 1))
        return 1;
    pthread_rwlock_unlock(&gate);
    return 0;
}
