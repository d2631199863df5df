#include "mlxdist/group/background.h"

void carry_out_collectives(struct work_queue *queue) {
    struct work *work;
    while ((work = work_queue_next(queue, NULL)))
        work_finish(work, queue->owner->run(queue->group, &work->call, work->sendbuf, work->recvbuf, &work->outcome));
}

static int finish(struct work *work, int result) {
    struct work_queue *queue = work->queue;
    int pending;
    result = p2p_end(&work->p2p, result, &pending, &work->outcome);
    work_finish(work, queue->owner->end(queue->group, &work->call, pending, result, &work->outcome));
    return 1;
}

static int begin(struct work *work) {
    struct work_queue *queue = work->queue;
    if (queue->owner->begin(queue->group, &work->call, &work->outcome)) {
        work_finish(work, work->outcome.status);
        return 0;
    }
    work->is_begun = 1;
    work->moved_s = wait_now_s();
    int failed = p2p_begin(&work->p2p, queue->members, &work->call, work->sendbuf, work->recvbuf, &work->outcome);
    return failed ? !finish(work, failed) : 1;
}

/* 1: some progress, or its end. The timeout is for each step, as in p2p_run(). */
static int advance(struct work *work, int slow_check) {
    double timeout_s = work->queue->members->policy.timeout_s;
    if (!work->is_begun && !begin(work))
        return 1;
    int moved = p2p_advance(&work->p2p, slow_check, &work->outcome);
    if (moved < 0 || p2p_is_done(&work->p2p))
        return finish(work, moved < 0 ? work->outcome.status : STATUS_OK);
    if (moved)
        work->moved_s = wait_now_s();
    if (moved || !slow_check || timeout_s <= 0 || wait_now_s() - work->moved_s < timeout_s)
        return moved;
    struct wait_condition it = {NULL, p2p_describe, &work->p2p, POLL_ONLY_LOOKS, 0};
    return finish(work, wait_timed_out(&it, timeout_s, &work->outcome));
}

static int poll_messages(void *it, int slow_check, struct outcome *outcome) {
    struct work_queue *queue = it;
    struct work *work = work_queue_next(queue, NULL), *next;
    int moved = !work;
    double now_s = wait_now_s();
    (void)outcome;
    /* A wait ends with each progress: else those that make none would not be checked while another does. */
    if ((slow_check |= now_s - queue->checked_s >= WAIT_CHECK_S))
        queue->checked_s = now_s;
    for (; work; work = next) {
        int is_first = work->is_begun || work_is_first(work);
        next = work_queue_next(queue, work);
        moved |= is_first && advance(work, slow_check);
    }
    return moved;
}

/* The first that is under way: others come after it. */
static void describe_messages(void *it, int to_all, char *text, size_t nbytes) {
    struct work *work = work_queue_next(it, NULL);
    while (work && !work->is_begun)
        work = work_queue_next(it, work);
    if (work)
        p2p_describe(&work->p2p, to_all, text, nbytes);
}

static int polling_of(struct work_queue *queue) {
    int polling = POLL_ONLY_LOOKS;
    for (struct work *work = NULL; polling == POLL_ONLY_LOOKS && (work = work_queue_next(queue, work));)
        polling = work->is_begun ? p2p_polling(&work->p2p) : POLL_ONLY_LOOKS;
    return polling;
}

/* All of them, at the end. */
static void give_up(struct work_queue *queue, const struct outcome *why) {
    struct work *work = work_queue_next(queue, NULL), *next;
    for (; work; work = next) {
        next = work_queue_next(queue, work);
        work->outcome = *why;
        if (work->is_begun)
            finish(work, why->status);
        else
            work_finish(work, why->status);
    }
}

void carry_out_messages(struct work_queue *queue) {
    struct outcome why;
    struct wait_policy policy = queue->members->policy;
    policy.timeout_s = 0; /* see advance() */
    while (work_queue_next(queue, NULL)) {
        struct wait_condition progress = {poll_messages, describe_messages, queue, polling_of(queue), 0};
        if (wait_for(&progress, &policy, &why))
            give_up(queue, &why);
    }
}
