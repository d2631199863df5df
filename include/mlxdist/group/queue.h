/* Calls that are carried out in the background, in the order in which they were started. A group has two queues, of its
 * collectives and of its messages; each has a thread as long as there is something in it. */
#ifndef MLXDIST_GROUP_QUEUE_H
#define MLXDIST_GROUP_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>

#include "mlxdist/group/p2p.h"
#include "mlxdist/group/work.h"

struct group;

/* What a queue uses of groups: what is before and after a message, and a whole collective. */
struct work_owner {
    struct group *(*retain)(struct group *);
    void (*release)(struct group *);
    int (*begin)(struct group *, struct call *, struct outcome *);
    int (*run)(struct group *, struct call *, const void *sendbuf, void *recvbuf, struct outcome *);
    int (*end)(struct group *, const struct call *, int pending, int result, struct outcome *);
};

struct work_queue {
    struct group *group;
    const struct work_owner *owner;
    void (*carry_out)(struct work_queue *); /* by the thread */
    struct members *members;
    atomic_int pending;   /* release after the end of a call, acquire where another one looks: that comes after it */
    pthread_mutex_t lock; /* for some instructions only, or to create the thread; for all that follows */
    pthread_cond_t ended;
    struct work *first;
    int has_thread;
    double checked_s; /* for the thread alone: when it last made slow checks */
};

/* In the queue while it is not done. Its caller and the queue hold a reference, and it holds the group. */
struct work {
    struct work_queue *queue;
    struct call call;
    const void *sendbuf;
    void *recvbuf;
    atomic_long references;
    struct outcome outcome;
    int result;
    atomic_int is_done;    /* release: publishes the outcome, and what was received */
    struct work *next;     /* under the lock of the queue */
    struct work *after[2]; /* the same; of a message: that to the same rank, that from the same rank; NULL: done */
    int descriptor;        /* the same; -1: nobody is told */
    /* Of a message, for the thread alone. */
    struct p2p p2p;
    int is_begun;
    double moved_s; /* when it last made progress */
};

void work_queue_open(struct work_queue *queue, struct group *group, const struct work_owner *owner,
                     void (*carry_out)(struct work_queue *), struct members *members);
void work_queue_close(struct work_queue *queue);

/* NULL: there is no memory, see outcome. */
struct work *work_new(struct work_queue *queue, const struct call *call, const void *sendbuf, void *recvbuf,
                      struct outcome *outcome);
/* Start the thread if there is none; OUT_OF_MEMORY: it cannot be, and the work is not in the queue. */
int work_queue_add(struct work_queue *queue, struct work *work, struct outcome *outcome);
/* The first, after NULL, or the next one. Only the thread takes works out of the queue. */
struct work *work_queue_next(struct work_queue *queue, struct work *work);
/* No message that it comes after is in the queue. */
int work_is_first(struct work *work);
/* It has ended with this result, and its outcome has been filled in: take it out of the queue, where it
 * need not be, and tell who waits. */
void work_finish(struct work *work, int result);

/* Of those in the queue, the last after which such a call comes: of collectives, the last; of messages, those in the
 * same direction, to or from the same rank. call: NULL: the last at all. Retained; NULL: none. */
struct work *work_queue_last(struct work_queue *queue, const struct call *call);
/* OK when it has ended, however; or why the wait has. timeout_s < 0: none. */
int work_await(struct work *work, double timeout_s, struct outcome *outcome);

/* The same for all after which a call comes that is not put into the queue. */
int work_queue_await_earlier(struct work_queue *queue, const struct call *call, struct outcome *outcome);
static inline int work_queue_await(struct work_queue *queue, const struct call *call, struct outcome *outcome) {
    int is_empty = !atomic_load_explicit(&queue->pending, memory_order_acquire);
    return is_empty ? STATUS_OK : work_queue_await_earlier(queue, call, outcome);
}

#endif
