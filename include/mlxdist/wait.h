/* The one waiting loop: spin, then yield, and check once a millisecond for interrupts, the timeout, and whether the
 * awaited rank is alive. All waits for another rank go through it, and those for another thread that may take long. */
#ifndef MLXDIST_WAIT_H
#define MLXDIST_WAIT_H

#include <pthread.h>

#include "mlxdist/types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    WAIT_SPINS = 2000,              /* before it yields: some 50 us */
    WAIT_SPINS_OVERSUBSCRIBED = 15, /* if there are fewer cores than ranks, and the awaited rank needs ours */
};

/* How long to wait, and what may end it. */
struct wait_policy {
    int spins;
    double timeout_s;               /* 0: none */
    int quiet;                      /* print nothing about long waits */
    int (*interrupt)(int signaled); /* called after a SIGINT and every 0.1 s; nonzero: give up. May be NULL */
};

/* What is waited for. */
struct wait_condition {
    /* 1: it is there. 0: not yet. -1: it will never be, see outcome. slow_check: once a millisecond. */
    int (*poll)(void *it, int slow_check, struct outcome *outcome);
    /* The operation and who is awaited. to_all: for stderr; empty if another rank prints it. */
    void (*describe)(void *it, int to_all, char *text, size_t nbytes);
    void *it;
    int poll_drives_progress; /* without poll messages do not move: never sleep */
};

/* OK, TIMED_OUT, INTERRUPTED or what poll reports. */
int wait_for(const struct wait_condition *condition, const struct wait_policy *policy, struct outcome *outcome);

/* Lock a mutex that another thread of this rank may hold for long; OK, TIMED_OUT or INTERRUPTED. */
int wait_for_turn(pthread_mutex_t *turn, const struct wait_policy *policy, struct outcome *outcome);

/* Seconds of a monotonic clock. */
double wait_now_s(void);

/* Count SIGINTs from now on, before the present handler gets them; does nothing if there is none. */
void wait_watch_interrupts(void);
void wait_unwatch_interrupts(void);

#ifdef __cplusplus
}
#endif
#endif
