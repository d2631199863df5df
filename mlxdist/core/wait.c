#include "mlxdist/wait.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

static atomic_int interrupts, is_watching;
static struct sigaction earlier;
/* Threads that end the waits of others, whether this is one, and signal handlers that run within its waits. */
static atomic_int endings;
static _Thread_local int own_endings, handlers, is_in_background;
static atomic_int hurries; /* relaxed: how a thread waits orders nothing */

static void count_interrupt(int number, siginfo_t *info, void *context) {
    atomic_fetch_add_explicit(&interrupts, 1, memory_order_relaxed);
    if (earlier.sa_flags & SA_SIGINFO)
        earlier.sa_sigaction(number, info, context);
    else
        earlier.sa_handler(number);
}

static int is_ours(const struct sigaction *action) {
    return action->sa_flags & SA_SIGINFO && action->sa_sigaction == count_interrupt;
}

/* Another handler than the first may call ours, which would then call it without end: only the first is preceded. */
static int may_precede(const struct sigaction *present) {
    if (present->sa_flags & SA_SIGINFO)
        return !earlier.sa_sigaction || present->sa_sigaction == earlier.sa_sigaction;
    return present->sa_handler != SIG_DFL && present->sa_handler != SIG_IGN &&
           (!earlier.sa_handler || present->sa_handler == earlier.sa_handler);
}

static void count_interrupts(void) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct sigaction present, ours;
    if (!atomic_load_explicit(&is_watching, memory_order_relaxed) || pthread_mutex_trylock(&lock))
        return;
    if (!sigaction(SIGINT, NULL, &present) && !is_ours(&present) && may_precede(&present)) {
        if (!earlier.sa_handler)
            earlier = present;
        ours = present;
        ours.sa_flags |= SA_SIGINFO;
        ours.sa_sigaction = count_interrupt;
        sigaction(SIGINT, &ours, NULL);
    }
    pthread_mutex_unlock(&lock);
}

void wait_watch_interrupts(void) {
    atomic_store(&is_watching, 1);
    count_interrupts();
}

void wait_unwatch_interrupts(void) {
    struct sigaction present;
    atomic_store(&is_watching, 0);
    if (!sigaction(SIGINT, NULL, &present) && is_ours(&present))
        sigaction(SIGINT, &earlier, NULL);
}

static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* "yield" has no effect on most of these processors */
#endif
}

double wait_now_s(void) {
    struct timespec now;
#ifdef CLOCK_UPTIME_RAW
    clock_gettime(CLOCK_UPTIME_RAW, &now); /* macOS: CLOCK_MONOTONIC runs on while the machine sleeps */
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* After a long wait, one that is longer by a small share of it does not matter, and a processor that is free for others
 * does. */
static void rest(double waited_s, double share, double least_s, double most_s) {
    double pause_s = waited_s * share;
    pause_s = pause_s < least_s ? least_s : pause_s > most_s ? most_s : pause_s;
    nanosleep(&(struct timespec){0, (long)(pause_s * 1e9)}, NULL);
}

static void say(const struct wait_condition *condition, double waited_s) {
    char text[900] = "";
    condition->describe(condition->it, 1, text, sizeof text);
    if (*text)
        fprintf(stderr, "mlxdist: waiting for %.0f s in %s\n", waited_s, text);
}

static int give_up(const struct wait_condition *condition, int status, const char *how, struct outcome *outcome) {
    char text[900] = "";
    condition->describe(condition->it, 0, text, sizeof text);
    outcome->status = status;
    snprintf(outcome->text, sizeof outcome->text, "%s in %s", how, text);
    return status;
}

int wait_timed_out(const struct wait_condition *condition, double timeout_s, struct outcome *outcome) {
    char how[40];
    snprintf(how, sizeof how, "waited for %.3g s", timeout_s);
    return give_up(condition, STATUS_TIMED_OUT, how, outcome);
}

static int is_interrupted(const struct wait_policy *policy, int signals) {
    handlers++;
    int gives_up = policy->interrupt(signals);
    handlers--;
    return gives_up;
}

int wait_is_under_way(void) {
    return handlers > 0;
}

void wait_in_background(void) {
    is_in_background = 1;
}

int wait_is_in_background(void) {
    return is_in_background;
}

void wait_hurry(int hurry) {
    atomic_fetch_add_explicit(&hurries, hurry ? 1 : -1, memory_order_relaxed);
}

static int gives_way(void) {
    return is_in_background && !atomic_load_explicit(&hurries, memory_order_relaxed);
}

void wait_end_others(int end) {
    own_endings += end ? 1 : -1;
    atomic_fetch_add(&endings, end ? 1 : -1);
}

const struct wait_policy wait_for_good = {WAIT_SPINS_OVERSUBSCRIBED, 0, 1, NULL, NULL, NULL};

int wait_for(const struct wait_condition *condition, const struct wait_policy *policy, struct outcome *outcome) {
    enum { POLLS_PER_CLOCK = 16 };
    const double check_s = WAIT_CHECK_S, ask_s = 0.1, idle_s = 1e-2, last_s = 0.5;
    struct outcome why;
    int done, spins = gives_way() || condition->polling == POLL_SLEEPS ? 0 : policy->spins;
    for (int i = 0; i < spins; i++) {
        if ((done = condition->poll(condition->it, 0, outcome)))
            return done > 0 ? STATUS_OK : outcome->status;
        pause_briefly();
    }
    int before = atomic_load_explicit(&interrupts, memory_order_relaxed), seen = before;
    double began_s = wait_now_s(), checked_s = began_s, asked_s = 0, say_s = 10, ended_s = 0;
    for (;;) {
        int gives = gives_way(), polls = gives || condition->polling == POLL_SLEEPS ? 1 : POLLS_PER_CLOCK;
        for (int i = 0; i < polls; i++) {
            if ((done = condition->poll(condition->it, 0, outcome)))
                return done > 0 ? STATUS_OK : outcome->status;
            if (condition->polling != POLL_SLEEPS)
                sched_yield();
        }
        double now = wait_now_s(), waited_s = now - began_s;
        if (now - checked_s >= check_s) {
            checked_s = now;
            /* First: what is awaited may have come before. */
            int is_gone = condition->is_for_all && policy->check && policy->check(policy->checked, &why);
            if ((done = condition->poll(condition->it, 1, outcome)))
                return done > 0 ? STATUS_OK : outcome->status;
            if (is_gone) {
                *outcome = why;
                return why.status;
            }
            int signals = atomic_load_explicit(&interrupts, memory_order_relaxed);
            if (policy->interrupt && !is_in_background && (signals != seen || now - asked_s >= ask_s)) {
                count_interrupts();
                if (is_interrupted(policy, signals != seen ? signals - before : 0))
                    return give_up(condition, STATUS_INTERRUPTED, "interrupted", outcome);
                seen = signals;
                asked_s = now;
            }
            double timeout_s = atomic_load_explicit(&policy->timeout_s, memory_order_relaxed);
            if (timeout_s > 0 && waited_s >= timeout_s)
                return wait_timed_out(condition, timeout_s, outcome);
            int is_ended = condition->describe && atomic_load_explicit(&endings, memory_order_relaxed) && !own_endings;
            ended_s = !is_ended ? 0 : ended_s > 0 ? ended_s : now;
            if (is_ended && now - ended_s >= last_s)
                return give_up(condition, STATUS_GROUP_CLOSED, "ended by finalize() or the program's end", outcome);
            if (!policy->quiet && waited_s >= say_s) {
                say(condition, waited_s);
                say_s *= 2;
            }
        }
        if (gives)
            rest(waited_s, 0.1, 20e-6, 500e-6);
        else if (waited_s >= idle_s && condition->polling == POLL_ONLY_LOOKS)
            rest(waited_s, 1e-3, 0, 1e-3);
    }
}

static int poll_turn(void *it, int slow_check, struct outcome *outcome) {
    (void)slow_check, (void)outcome;
    return !pthread_mutex_trylock(it);
}

static void describe_turn(void *it, int to_all, char *text, size_t nbytes) {
    (void)it, (void)to_all;
    snprintf(text, nbytes, "a group that another thread of this rank uses: that thread is still in its call");
}

int wait_for_turn(pthread_mutex_t *turn, const struct wait_policy *policy, struct outcome *outcome) {
    if (!pthread_mutex_trylock(turn))
        return STATUS_OK;
    if (wait_is_under_way()) {
        outcome->status = STATUS_WRONG_THREAD;
        snprintf(outcome->text, sizeof outcome->text,
                 "a signal handler cannot make this call while another of the group is under way: set a flag in the "
                 "handler and communicate after the call that it interrupts, or raise an exception to leave that call");
        return STATUS_WRONG_THREAD;
    }
    return wait_for(&(struct wait_condition){poll_turn, describe_turn, turn, 0, 0}, policy, outcome);
}
