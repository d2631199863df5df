/* The one waiting loop: spin, then let others run, and look up once a millisecond, at interrupts, the time limit and
 * whoever is awaited. Nothing else in mlxdist waits for another rank or thread. */
#ifndef MLXDIST_WAIT_H
#define MLXDIST_WAIT_H

#include <pthread.h>

#include "mlxdist/types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    WAIT_SPINS = 2000, /* pauses before the processor is given to others: some 50 us */
    WAIT_SPINS_OVERSUBSCRIBED =
        15, /* the same where there are fewer cores than ranks, and the awaited one needs ours */
};

/* How long to wait, and what may end it. */
struct wait_policy {
    int spins;
    double timeout_s;               /* 0: none */
    int quiet;                      /* do not say on stderr who is awaited */
    int (*interrupt)(int signaled); /* asked after a SIGINT and every 0.1 s; nonzero: give up. May be NULL */
};

/* What is waited for. */
struct wait_condition {
    /* 1: it has come. 0: not yet. -1: it will never come, see outcome. thorough once a millisecond. */
    int (*poll)(void *it, int slow_check, struct outcome *outcome);
    /* What is done and who is awaited; nothing, where another rank says so. */
    void (*describe)(void *it, int to_all, char *text, size_t nbytes);
    void *it;
    int poll_drives_progress; /* looking moves messages on: never sleep meanwhile */
};

/* OK, TIMED_OUT, INTERRUPTED or what look() reports. */
int wait_for(const struct wait_condition *condition, const struct wait_policy *policy, struct outcome *outcome);

/* Lock what another thread of this rank may hold for long; OK, TIMED_OUT or INTERRUPTED. */
int wait_for_turn(pthread_mutex_t *turn, const struct wait_policy *policy, struct outcome *outcome);

/* Seconds of a clock that only goes forward. */
double wait_now_s(void);

/* Count SIGINTs from now on, before the handler that is there; only where there is one. */
void wait_watch_interrupts(void);
void wait_unwatch_interrupts(void);

#ifdef __cplusplus
}
#endif
#endif
