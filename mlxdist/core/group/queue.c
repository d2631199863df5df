#include "mlxdist/group/queue.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void work_queue_open(struct work_queue *queue, struct group *group, const struct work_owner *owner,
                     void (*carry_out)(struct work_queue *), struct members *members) {
    *queue = (struct work_queue){.group = group, .owner = owner, .carry_out = carry_out, .members = members};
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->ended, NULL);
}

void work_queue_close(struct work_queue *queue) {
    pthread_mutex_destroy(&queue->lock);
    pthread_cond_destroy(&queue->ended);
}

struct work *work_new(struct work_queue *queue, const struct call *call, const void *sendbuf, void *recvbuf,
                      struct outcome *outcome) {
    struct work *work = malloc(sizeof *work);
    if (!work) {
        outcome->status = STATUS_OUT_OF_MEMORY;
        snprintf(outcome->text, sizeof outcome->text, "no memory for a pending call: free some");
        return NULL;
    }
    work->queue = queue, work->call = *call, work->sendbuf = sendbuf, work->recvbuf = recvbuf;
    work->next = work->after[0] = work->after[1] = NULL;
    work->descriptor = -1, work->is_begun = 0;
    atomic_init(&work->references, 2);
    atomic_init(&work->is_done, 0);
    queue->owner->retain(queue->group);
    return work;
}

void work_release(struct work *work) {
    if (atomic_fetch_sub_explicit(&work->references, 1, memory_order_acq_rel) > 1)
        return;
    work->queue->owner->release(work->queue->group);
    free(work);
}

/* Whether two messages have a direction (0: to, 1: from) and its rank in common. */
static int share_direction(const struct call *one, const struct call *other, int direction) {
    const struct call *calls[] = {one, other};
    int ranks[2];
    for (int i = 0; i < 2; i++) {
        const struct call *call = calls[i];
        ranks[i] = call->operation == OPERATION_SENDRECV ? direction ? call->src : call->peer
                   : call->operation == (direction ? OPERATION_RECV : OPERATION_SEND) ? call->peer
                                                                                      : -1;
    }
    return ranks[0] >= 0 && ranks[0] == ranks[1];
}

static int comes_after(const struct call *call, const struct work *work) {
    return !call || call_is_collective(call) || share_direction(call, &work->call, 0) ||
           share_direction(call, &work->call, 1);
}

/* It ends when the queue is empty: threads that are idle would have to be ended before a group is freed. */
static int has_more(struct work_queue *queue) {
    pthread_mutex_lock(&queue->lock);
    int more = queue->has_thread = queue->first != NULL;
    pthread_mutex_unlock(&queue->lock);
    return more;
}

static void *run_thread(void *it) {
    struct work_queue *queue = it;
    wait_in_background();
    do
        queue->carry_out(queue);
    while (has_more(queue));
    queue->owner->release(queue->group);
    return NULL;
}

/* Signals are for the program's threads, except those that this one may cause. */
static int start_thread(struct work_queue *queue) {
    const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&blocked, own[i]);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    int failed = pthread_create(&thread, &attributes, run_thread, queue);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failed;
}

int work_queue_add(struct work_queue *queue, struct work *work, struct outcome *outcome) {
    int failed = 0;
    pthread_mutex_lock(&queue->lock);
    struct work **place = &queue->first;
    for (; *place; place = &(*place)->next)
        for (int direction = 0; direction < 2; direction++)
            if (share_direction(&work->call, &(*place)->call, direction))
                work->after[direction] = *place;
    *place = work;
    atomic_fetch_add_explicit(&queue->pending, 1, memory_order_relaxed);
    if (!queue->has_thread) {
        queue->owner->retain(queue->group);
        if ((failed = start_thread(queue))) {
            queue->owner->release(queue->group);
            atomic_fetch_sub_explicit(&queue->pending, 1, memory_order_relaxed);
            *place = NULL;
        }
        queue->has_thread = !failed;
    }
    pthread_mutex_unlock(&queue->lock);
    if (!failed)
        return STATUS_OK;
    outcome->status = STATUS_OUT_OF_MEMORY;
    snprintf(outcome->text, sizeof outcome->text, "a thread cannot be started (%s): leave out wait=False",
             strerror(failed));
    return STATUS_OUT_OF_MEMORY;
}

struct work *work_queue_next(struct work_queue *queue, struct work *work) {
    pthread_mutex_lock(&queue->lock);
    struct work *next = work ? work->next : queue->first;
    pthread_mutex_unlock(&queue->lock);
    return next;
}

int work_is_first(struct work *work) {
    pthread_mutex_lock(&work->queue->lock);
    int is_first = !work->after[0] && !work->after[1];
    pthread_mutex_unlock(&work->queue->lock);
    return is_first;
}

static void tell(int descriptor) {
    while (write(descriptor, "", 1) < 0 && errno == EINTR)
        ;
}

void work_finish(struct work *work, int result) {
    struct work_queue *queue = work->queue;
    work->result = result;
    pthread_mutex_lock(&queue->lock);
    struct work **place = &queue->first;
    while (*place && *place != work)
        place = &(*place)->next;
    if (*place) {
        *place = work->next;
        atomic_fetch_sub_explicit(&queue->pending, 1, memory_order_release);
    }
    for (struct work *later = work->next; later; later = later->next)
        for (int direction = 0; direction < 2; direction++)
            if (later->after[direction] == work)
                later->after[direction] = NULL;
    atomic_store_explicit(&work->is_done, 1, memory_order_release);
    if (work->descriptor >= 0)
        tell(work->descriptor);
    pthread_cond_broadcast(&queue->ended);
    pthread_mutex_unlock(&queue->lock);
    work_release(work);
}

struct work *work_queue_last(struct work_queue *queue, const struct call *call) {
    struct work *last = NULL;
    pthread_mutex_lock(&queue->lock);
    for (struct work *work = queue->first; work; work = work->next)
        if (comes_after(call, work))
            last = work;
    if (last)
        atomic_fetch_add_explicit(&last->references, 1, memory_order_relaxed);
    pthread_mutex_unlock(&queue->lock);
    return last;
}

int work_is_done(const struct work *work) {
    return atomic_load_explicit(&work->is_done, memory_order_acquire);
}

static int poll_work(void *it, int slow_check, struct outcome *outcome) {
    struct work *work = it;
    struct timespec until;
    (void)slow_check, (void)outcome;
    if (work_is_done(work))
        return 1;
    clock_gettime(CLOCK_REALTIME, &until); /* if it is set back, only Ctrl-C and the timeout come late */
    until.tv_nsec += 1000000;
    until.tv_sec += until.tv_nsec / 1000000000, until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&work->queue->lock);
    if (!work_is_done(work))
        pthread_cond_timedwait(&work->queue->ended, &work->queue->lock, &until);
    pthread_mutex_unlock(&work->queue->lock);
    return work_is_done(work);
}

static void describe_work(void *it, int to_all, char *text, size_t nbytes) {
    const struct work *work = it;
    (void)to_all;
    call_text(&work->call, text, nbytes);
    snprintf(text + strlen(text), nbytes - strlen(text), ": it is still under way");
}

int work_await(struct work *work, double timeout_s, struct outcome *outcome) {
    struct wait_condition condition = {poll_work, describe_work, work, POLL_SLEEPS, 0};
    /* The thread has the timeout of the group, and says what it waits for. */
    struct wait_policy policy = {0,   timeout_s < 0 ? 0 : timeout_s, 1, work->queue->members->policy.interrupt, NULL,
                                 NULL};
    if (work_is_done(work))
        return STATUS_OK;
    if (runtime_is_forked() || wait_is_under_way()) {
        outcome->status = runtime_is_forked() ? STATUS_GROUP_CLOSED : STATUS_WRONG_THREAD;
        snprintf(outcome->text, sizeof outcome->text, "%s",
                 runtime_is_forked()
                     ? "this process was forked from a rank: only the rank itself may wait for its calls"
                     : "a signal handler cannot wait for a pending call while its thread waits in another: set a flag "
                       "in the handler and wait after that call");
        return outcome->status;
    }
    if (timeout_s == 0)
        return wait_timed_out(&condition, timeout_s, outcome);
    wait_hurry(1);
    int result = wait_for(&condition, &policy, outcome);
    wait_hurry(0);
    return result;
}

/* The thread of the queue makes the calls themselves. */
int work_queue_await_earlier(struct work_queue *queue, const struct call *call, struct outcome *outcome) {
    if (wait_is_in_background())
        return STATUS_OK;
    int is_both = call->operation == OPERATION_SENDRECV, result = STATUS_OK;
    for (int i = 0; i <= is_both && !result; i++) {
        struct call half = *call;
        if (is_both) {
            half.operation = i ? OPERATION_RECV : OPERATION_SEND;
            half.peer = i ? call->src : call->peer;
        }
        struct work *last = work_queue_last(queue, &half);
        if (!last)
            continue;
        result = work_await(last, -1, outcome);
        work_release(last);
    }
    return result;
}

int work_wait(struct work *work, double timeout_s, struct outcome *outcome) {
    if (work_await(work, timeout_s, outcome))
        return outcome->status;
    if (work->result)
        *outcome = work->outcome;
    return work->result;
}

void work_notify(struct work *work, int descriptor) {
    if (runtime_is_forked()) /* the thread may have held the lock, and is not in this process */
        return;
    pthread_mutex_lock(&work->queue->lock);
    work->descriptor = descriptor;
    if (work_is_done(work) && descriptor >= 0)
        tell(descriptor);
    pthread_mutex_unlock(&work->queue->lock);
}
