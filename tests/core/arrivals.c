/* Everybody arrives: order, payloads, calls that differ, and arrivals that are given up. */
#include "seats.h"

enum { ARRIVALS = 1500, RACES = 600, RACED = 3 };

static const struct patience for_ever = {SPINS_CROWDED, 0, 1, NULL}, a_moment = {SPINS_CROWDED, 1e-6, 1, NULL},
                             a_while = {SPINS_CROWDED, 0.05, 1, NULL};

static void fill(char *bytes, size_t nbytes, uint32_t seed) {
    for (size_t i = 0; i < nbytes; i += sizeof seed) {
        seed = seed * 1664525u + 1013904223u;
        memcpy(bytes + i, &seed, nbytes - i < sizeof seed ? nbytes - i : sizeof seed);
    }
}

static size_t nbytes_of(uint32_t random) {
    return random % 8 ? random / 8 % 700 : NODE_SLOT - random / 8 % 3;
}

static void bring(struct node *node, int seat) {
    char mine[NODE_SLOT], theirs[NODE_SLOT];
    struct outcome outcome;
    for (uint32_t k = 1; k <= ARRIVALS; k++) {
        uint32_t random = scramble(k), own = scramble(k * MOST + (uint32_t)seat);
        size_t nbytes = nbytes_of(random);
        struct call call = call_of(node, flat_call(ALLGATHER, 0, TYPE_UINT8, 0, (int64_t)nbytes));
        if (own % 32 == 0)
            sleep_s(own / 32 % 300 * 1e-6);
        fill(mine, nbytes, own);
        board->came[k % 2][seat] = k;
        CHECK(node_arrive(node, &call, mine, nbytes, random >> 31, 0, &for_ever, &outcome) == OK);
        CHECK(node_sequence(node) == k);
        for (int peer = 0; peer < n_seats; peer++) {
            CHECK(board->came[k % 2][peer] == (long)k);
            fill(theirs, nbytes, scramble(k * MOST + (uint32_t)peer));
            CHECK(!memcmp(node_payload(node, peer), theirs, nbytes));
        }
    }
}

static void payloads_of_processes(void) {
    run_seats(PROCESSES, 4, bring, 0);
}

static void payloads_of_threads(void) {
    run_seats(THREADS, 4, bring, 0);
}

static void one_alone(void) {
    run_seats(PROCESSES, 1, bring, 0);
}

/* What the seats call, and whether they agree. */
struct row {
    struct call calls[3];
    const char *text; /* NULL: they agree */
};
#define SUM_OF(type, count) \
    { \
        ALLREDUCE, REDUCE_SUM, type, 0, count, 0, 0, 1, { \
            count \
        } \
    }
#define FOUR SUM_OF(TYPE_FLOAT32, 4)
static const struct row rows[] = {
    {{FOUR, FOUR, FOUR}, NULL},
    {{FOUR, {ALLREDUCE, REDUCE_SUM, TYPE_FLOAT32, 0, 4, 0, 0, 2, {2, 2}}, FOUR}, NULL},
    {{FOUR, FOUR, SUM_OF(TYPE_FLOAT32, 5)}, "rank 3, 13: all_sum float32 (4,)\n  rank 23: all_sum float32 (5,)"},
    {{FOUR, SUM_OF(TYPE_INT32, 4), FOUR}, "rank 3, 23: all_sum float32 (4,)\n  rank 13: all_sum int32 (4,)"},
    {{{ALLREDUCE, REDUCE_MAX, TYPE_FLOAT32, 0, 4, 0, 0, 1, {4}}, FOUR, FOUR},
     "rank 3: all_max float32 (4,)\n  rank 13, 23"},
    {{{BARRIER, 0, 0, 0, 0, 0, 0, 0, {0}}, FOUR, {SPLIT, 0, 0, 0, 0, 0, 0, 0, {0}}},
     "rank 3: barrier\n  rank 13: all_sum"},
    {{{BROADCAST, 0, TYPE_INT8, 1, 1, 0, 0, 0, {0}}, {BROADCAST, 0, TYPE_INT8, 2, 1, 0, 0, 0, {0}}, FOUR},
     "from rank 2"},
    {{SUM_OF(TYPE_FLOAT16, 1), SUM_OF(HALF_UNNAMED, 1), SUM_OF(TYPE_FLOAT16, 1)}, NULL},
    {{SUM_OF(TYPE_FLOAT16, 1), SUM_OF(HALF_UNNAMED, 1), SUM_OF(TYPE_BFLOAT16, 1)}, "rank 23: all_sum bfloat16 (1,)"},
    {{SUM_OF(HALF_UNNAMED, 1), SUM_OF(TYPE_INT16, 1), SUM_OF(HALF_UNNAMED, 1)}, "rank 3, 23: all_sum 16-bit float"},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static void differ(struct node *node, int seat) {
    for (int i = 0; i < ROWS; i++)
        for (int binding = 0; binding < 2; binding++) {
            struct call call = call_of(node, rows[i].calls[seat]);
            struct outcome outcome = {0};
            begin_anew(node);
            CHECK(node_arrive(node, &call, NULL, 0, binding, 1, &for_ever, &outcome) == OK);
            int result = node_arrive(node, &call, NULL, 0, binding, 0, &for_ever, &outcome);
            CHECK(result == (rows[i].text ? MISMATCH : OK) && outcome.what == result);
            CHECK(!rows[i].text || strstr(outcome.text, rows[i].text));
            CHECK(!rows[i].text || strstr(outcome.text, "the ranks differ in call 2 on this group of 3:\n  rank 3"));
        }
}

static void calls_that_differ(void) {
    run_seats(PROCESSES, 3, differ, 0);
    run_seats(THREADS, 3, differ, 0);
}

/* The first seat has a time limit, the last comes too late for it. */
static void give_up(struct node *node, int seat) {
    struct call call = call_of(node, flat_call(BARRIER, 0, 0, 0, 0));
    for (int binding = 0; binding < 2; binding++) {
        struct outcome outcome;
        begin_anew(node);
        if (seat == n_seats - 1)
            sleep_s(0.3);
        int result = node_arrive(node, &call, NULL, 0, binding, 0, seat ? &for_ever : &a_while, &outcome);
        CHECK(result == (seat == 0 ? TIMED_OUT : binding ? PEER_DIED : OK));
        if (seat == 0)
            CHECK_TEXT(outcome, "waited for 0.05 s in barrier, call 1 of rank 3 on this group: rank 33 (pid ");
        if (seat && !binding)
            CHECK(node_arrive(node, &call, NULL, 0, 0, 0, &for_ever, &outcome) == PEER_DIED);
        if (seat)
            CHECK_TEXT(outcome, "has given up a call on this group");
    }
}

static void given_up(void) {
    run_seats(PROCESSES, 4, give_up, 0);
    run_seats(THREADS, 4, give_up, 0);
}

static void leave(struct node *node, int seat) {
    struct call call = call_of(node, flat_call(BARRIER, 0, 0, 0, 0));
    for (int binding = 0; binding < 2; binding++) {
        struct outcome outcome;
        begin_anew(node);
        int last = seat == n_seats - 1;
        if (!last && seat)
            sleep_s(0.05); /* who leaves has arrived, and does not disturb those who come after */
        CHECK(last || node_arrive(node, &call, NULL, 0, 0, 0, &for_ever, &outcome) == OK);
        if (last) {
            CHECK(node_arrive(node, &call, NULL, 0, 0, 0, &for_ever, &outcome) == OK);
            node_leave(node, 1);
            continue;
        }
        CHECK(node_arrive(node, &call, NULL, 0, binding, 0, &for_ever, &outcome) == MISMATCH);
        CHECK_TEXT(outcome, "rank 33 (pid ");
        CHECK_TEXT(outcome, "has ended or let go of this group");
    }
}

static void left(void) {
    run_seats(PROCESSES, 4, leave, 0);
    run_seats(THREADS, 4, leave, 0);
}

/* The first gives up after a millisecond, about when the last comes: all go on or none does, time after time. */
static void race(struct node *node, int seat) {
    struct call call = call_of(node, flat_call(SPLIT, 0, 0, 0, 0));
    int all = 0, none = 0;
    for (uint32_t i = 0; i < RACES; i++) {
        begin_anew(node);
        for (int k = 0; k < RACED; k++)
            board->results[k][seat] = -1;
        for (int k = 0; k < RACED; k++) {
            struct outcome outcome = {0};
            uint32_t random = scramble(i * RACED + (uint32_t)k);
            if (seat == n_seats - 1)
                sleep_s(random % 1500 * 1e-6);
            int result = node_arrive(node, &call, NULL, 0, 1, 0, seat ? &for_ever : &a_moment, &outcome);
            CHECK(result == OK || (result == PEER_DIED && seat) || (result == TIMED_OUT && !seat));
            board->results[k][seat] = result;
            if (result)
                break;
        }
        meet();
        for (int k = 0; k < RACED && seat == 0; k++) {
            int n_ok = 0;
            for (int peer = 0; peer < n_seats; peer++)
                n_ok += board->results[k][peer] == OK;
            CHECK(n_ok == 0 || n_ok == n_seats);
            all += n_ok > 0;
            none += n_ok == 0 && board->results[k][0] == TIMED_OUT;
        }
    }
    if (seat == 0) {
        printf("all went on %d times, none %d times\n", all, none);
        CHECK(all > RACES / 100 && none > RACES / 100);
    }
}

static void race_of_processes(void) {
    run_seats(PROCESSES, 5, race, 0);
}

static void race_of_threads(void) {
    run_seats(THREADS, 5, race, 0);
}

static atomic_int asked, signals;

static int ask(int signaled) {
    atomic_fetch_add(&asked, 1);
    return signaled;
}

static void count_signal(int number) {
    atomic_fetch_add(&signals, number == SIGINT);
}

/* The first is interrupted while it waits for the others. */
static void interrupt_first(struct node *node, int seat) {
    struct call call = call_of(node, flat_call(BARRIER, 0, 0, 0, 0));
    struct patience interruptible = {SPINS_CROWDED, 0, 1, ask};
    struct outcome outcome;
    if (seat) {
        sleep_s(0.25);
        CHECK(seat != 1 || !kill(board->pids[0], SIGINT));
        sleep_s(0.25);
        CHECK(node_arrive(node, &call, NULL, 0, 1, 0, &for_ever, &outcome) == PEER_DIED);
        return;
    }
    signal(SIGINT, count_signal);
    wait_watch_interrupts();
    CHECK(node_arrive(node, &call, NULL, 0, 1, 0, &interruptible, &outcome) == INTERRUPTED);
    CHECK(atomic_load(&signals) == 1 && atomic_load(&asked) >= 2);
    CHECK_TEXT(outcome, "interrupted in barrier, call 1 of rank 3 on this group: ranks 13 (pid ");
    wait_unwatch_interrupts();
    raise(SIGINT);
    CHECK(atomic_load(&signals) == 2);
}

static void interrupted(void) {
    run_seats(PROCESSES, 3, interrupt_first, 0);
}

PROGRAM({"payloads-of-processes", payloads_of_processes}, {"payloads-of-threads", payloads_of_threads},
        {"one-alone", one_alone}, {"calls-that-differ", calls_that_differ}, {"given-up", given_up}, {"left", left},
        {"interrupted", interrupted}, {"race-of-processes", race_of_processes}, {"race-of-threads", race_of_threads})
