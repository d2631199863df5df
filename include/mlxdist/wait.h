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
#define WAIT_CHECK_S 1e-3 /* between slow checks */

#ifdef __cplusplus
typedef double wait_seconds; /* C++ has no _Atomic, and nothing there reads it */
#else
typedef _Atomic double wait_seconds;
#endif

/* How long to wait, and what may end it. */
struct wait_policy {
    int spins;
    wait_seconds timeout_s; /* 0: none; another thread may change it during a wait */
    int quiet;              /* print nothing about long waits */
    /* Called after each SIGINT, with the number of those since the wait began, and every 0.1 s, with 0. Nonzero: give
     * up. May be NULL. */
    int (*interrupt)(int signals);
    /* Of a wait for all ranks of a group, once a millisecond: nonzero, with an outcome, if one of them will never take
     * part. May be NULL. */
    int (*check)(void *checked, struct outcome *outcome);
    void *checked;
};

/* Of what cannot be given up: no timeout, no interrupt, and nothing to say. */
extern const struct wait_policy wait_for_good;

/* What a poll does besides looking. DRIVES_PROGRESS: without it messages do not move: never sleep. SLEEPS: by itself,
 * for about a millisecond, unless it is there sooner. */
enum { POLL_ONLY_LOOKS, POLL_DRIVES_PROGRESS, POLL_SLEEPS };

/* What is waited for. */
struct wait_condition {
    /* 1: it is there. 0: not yet. -1: it will never be, see outcome. slow_check: every WAIT_CHECK_S. */
    int (*poll)(void *it, int slow_check, struct outcome *outcome);
    /* The operation and who is awaited. to_all: for stderr; empty if another rank prints it. NULL: it cannot be given
     * up; the policy then has no timeout and no interrupt, and is quiet. */
    void (*describe)(void *it, int to_all, char *text, size_t nbytes);
    void *it;
    int polling;    /* one of the above */
    int is_for_all; /* of a group, which policy->check is for */
};

/* OK, TIMED_OUT, INTERRUPTED, GROUP_CLOSED or what poll reports. */
int wait_for(const struct wait_condition *condition, const struct wait_policy *policy, struct outcome *outcome);
/* TIMED_OUT, in the words of wait_for, for a condition that is one of several in a wait. */
int wait_timed_out(const struct wait_condition *condition, double timeout_s, struct outcome *outcome);

/* Lock a mutex that another thread of this rank may hold for long; as wait_for. WRONG_THREAD: it is held, and this is a
 * signal handler within another wait, which may be the one that holds it. */
int wait_for_turn(pthread_mutex_t *turn, const struct wait_policy *policy, struct outcome *outcome);

/* This thread is in a wait: what runs is a signal handler, called by policy->interrupt. */
int wait_is_under_way(void);

/* From now on this thread works while the program computes: SIGINT does not end its waits, which leave the processor to
 * others between polls, unless a thread waits for what it does (wait_hurry). */
void wait_in_background(void);
int wait_is_in_background(void);
/* 1: until the call with 0, background threads wait as others do. */
void wait_hurry(int hurry);

/* 1: from now on waits of other threads end with GROUP_CLOSED if they last for half a second more; 0: no longer. */
void wait_end_others(int end);

/* Seconds of a monotonic clock. */
double wait_now_s(void);

/* Count SIGINTs from now on, before the program's handler gets them, if it has one. A wait looks again whether they are
 * still counted, since Python installs its handler anew whenever the program sets one. */
void wait_watch_interrupts(void);
void wait_unwatch_interrupts(void);

#ifdef __cplusplus
}
#endif
#endif
