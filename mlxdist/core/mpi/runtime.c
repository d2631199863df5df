#include "mlxdist/mpi/runtime.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

struct runtime runtime;

static atomic_int closing, closed, forked, has_started, has_initialized;
static pthread_t starter;

/* Read-held by every operation under way, write-held to close. */
static pthread_rwlock_t shutdown_lock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t one_call = PTHREAD_MUTEX_INITIALIZER;

const struct transport *runtime_load(void *library, int64_t max_count, struct outcome *outcome) {
    enum abi_family family;
    if (abi_identify(library, &family)) {
        outcome->status = STATUS_LIBRARY_UNFIT;
        snprintf(outcome->text, sizeof outcome->text, "not an MPI library: symbol MPI_Get_library_version is missing");
        return NULL;
    }
    const struct transport *loaded = family == ABI_MPICH ? &mpi_int : &mpi_ptr;
    return loaded->load(library, family, max_count, outcome) ? NULL : loaded;
}

/* In a child made by fork: MPI is its parent's. */
static void after_fork(void) {
    atomic_store(&forked, 1);
    atomic_store(&closed, 1);
    atomic_store(&closing, 1);
    pthread_rwlock_init(&shutdown_lock, NULL);
}

static int poll_request(void *it, int slow_check, struct outcome *outcome) {
    int done = 0;
    (void)slow_check;
    runtime_begin_call();
    int result = runtime.transport->test(it, &done, outcome);
    runtime_end_call();
    return result ? -1 : done;
}

/* Of a collective that MPI has begun: it cannot be given up, so this wait has no timeout and nothing to say. */
static int await_request(request_handle *request, struct outcome *outcome) {
    runtime_end_call();
    int result = wait_for(&(struct wait_condition){poll_request, NULL, request, POLL_DRIVES_PROGRESS, 0},
                          &wait_for_good, outcome);
    runtime_begin_call();
    return result;
}

static int poll_start(void *it, int slow_check, struct outcome *outcome) {
    (void)it, (void)slow_check, (void)outcome;
    return atomic_load(&has_started);
}

static void describe_start(void *it, int to_all, char *text, size_t nbytes) {
    (void)it, (void)to_all;
    snprintf(text, nbytes, "init: not every process that the launcher started has called it");
}

/* Of the ranks that have initialized MPI; who is awaited is said by runtime_await_start. */
static int await_world(request_handle *request, struct outcome *outcome) {
    const double least_s = 8; /* other ranks may still be loading their program */
    struct wait_policy policy = runtime.settings.policy;
    atomic_store(&has_initialized, 1);
    policy.quiet = 1;
    if (policy.timeout_s > 0 && policy.timeout_s < least_s)
        policy.timeout_s = least_s;
    return wait_for(&(struct wait_condition){poll_request, describe_start, request, POLL_DRIVES_PROGRESS, 0}, &policy,
                    outcome);
}

int runtime_start(const struct transport *transport, const struct settings *settings, struct comm **world,
                  struct outcome *outcome) {
    starter = pthread_self();
    runtime.settings = *settings;
    runtime.transport = transport;
    if (transport->start(settings->comm, await_world, await_request, &runtime.ours, &runtime.threads, world, outcome))
        return outcome->status;
    if (transport != &alone)
        pthread_atfork(NULL, NULL, after_fork);
    return STATUS_OK;
}

int runtime_await_start(const struct wait_policy *policy, struct outcome *outcome) {
    int result = wait_for(&(struct wait_condition){poll_start, describe_start, NULL, 0, 0}, policy, outcome);
    /* The same SIGINT and the timeout also end await_world, whichever thread sees them first. */
    return atomic_load(&has_initialized) ? STATUS_OK : result;
}

void runtime_end_start(void) {
    atomic_store(&has_started, 1);
}

int runtime_is_over(void) {
    return runtime_is_closed() || (runtime.transport && runtime.transport->is_over());
}

int runtime_is_closed(void) {
    return atomic_load_explicit(&closed, memory_order_acquire);
}

int runtime_is_forked(void) {
    return atomic_load(&forked);
}

int runtime_allows_threads(void) {
    return runtime.threads >= THREADS_SERIALIZED;
}

int runtime_enter(struct outcome *outcome) {
    /* Never wait for it: the thread that closes may keep it for long, and a signal handler may run on that very thread.
     */
    int has_lock = !atomic_load(&closing) && !pthread_rwlock_tryrdlock(&shutdown_lock);
    if (!has_lock || runtime_is_over()) {
        outcome->status = STATUS_GROUP_CLOSED;
        snprintf(outcome->text, sizeof outcome->text, "%s",
                 runtime_is_forked() ? "this process was forked from a rank: only the rank itself may communicate"
                                     : "MPI has been finalized: communicate before finalize() and the program's end");
    } else if (!runtime_allows_threads() && !pthread_equal(starter, pthread_self())) {
        outcome->status = STATUS_WRONG_THREAD;
        snprintf(outcome->text, sizeof outcome->text,
                 "MPI was initialized for one thread, and this is another: call from the thread that called init(), "
                 "or let mlxdist initialize MPI (it asks for MPI_THREAD_MULTIPLE)");
    } else {
        return STATUS_OK;
    }
    if (has_lock)
        pthread_rwlock_unlock(&shutdown_lock);
    return outcome->status;
}

void runtime_leave(void) {
    pthread_rwlock_unlock(&shutdown_lock);
}

void runtime_begin_call(void) {
    if (runtime.threads < THREADS_MULTIPLE)
        pthread_mutex_lock(&one_call);
}

void runtime_end_call(void) {
    if (runtime.threads < THREADS_MULTIPLE)
        pthread_mutex_unlock(&one_call);
}

static int poll_shutdown_lock(void *it, int slow_check, struct outcome *outcome) {
    (void)it, (void)slow_check, (void)outcome;
    return !pthread_rwlock_trywrlock(&shutdown_lock);
}

static void describe_shutdown_lock(void *it, int to_all, char *text, size_t nbytes) {
    (void)it, (void)to_all;
    snprintf(text, nbytes, "finalize: another thread of this rank is still in a call");
}

int runtime_close(const struct wait_policy *policy, struct outcome *outcome) {
    if (wait_is_under_way()) {
        if (runtime_is_closed())
            return 0;
        outcome->status = STATUS_WRONG_THREAD;
        snprintf(
            outcome->text, sizeof outcome->text,
            "a signal handler cannot call it while its thread is in another call: raise SystemExit in the handler, "
            "and the program's end will finalize");
        return -1;
    }
    atomic_fetch_add(&closing, 1);
    wait_end_others(1);
    int result =
        wait_for(&(struct wait_condition){poll_shutdown_lock, describe_shutdown_lock, NULL, 0, 0}, policy, outcome);
    wait_end_others(0);
    if (!result && runtime.transport && !atomic_exchange(&closed, 1))
        return 1;
    atomic_fetch_sub(&closing, 1);
    if (result)
        return -1;
    pthread_rwlock_unlock(&shutdown_lock);
    return 0;
}
