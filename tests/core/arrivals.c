/* Arrivals: order, payloads, calls that differ, and arrivals that are given up. */
#include "local_ranks.h"

enum { ARRIVALS = 1500, RACES = 600, RACED = 3 };

static const struct wait_policy for_ever = {WAIT_SPINS_OVERSUBSCRIBED, 0, 1, NULL, NULL, NULL},
                                a_moment = {WAIT_SPINS_OVERSUBSCRIBED, 1e-6, 1, NULL, NULL, NULL},
                                a_while = {WAIT_SPINS_OVERSUBSCRIBED, 0.05, 1, NULL, NULL, NULL};

static void fill(char *bytes, size_t nbytes, uint32_t seed) {
    for (size_t i = 0; i < nbytes; i += sizeof seed) {
        seed = seed * 1664525u + 1013904223u;
        memcpy(bytes + i, &seed, nbytes - i < sizeof seed ? nbytes - i : sizeof seed);
    }
}

static size_t nbytes_of(uint32_t random) {
    return random % 8 ? random / 8 % 700 : NODE_SLOT - random / 8 % 3;
}

static void arrive_with_payloads(struct node *node, int local_rank) {
    char mine[NODE_SLOT], theirs[NODE_SLOT];
    struct outcome outcome;
    for (uint32_t k = 1; k <= ARRIVALS; k++) {
        uint32_t random = scramble(k), own = scramble(k * MOST + (uint32_t)local_rank);
        size_t nbytes = nbytes_of(random);
        struct call call = call_of(node, flat_call(OPERATION_ALLGATHER, 0, TYPE_UINT8, 0, (int64_t)nbytes));
        if (own % 32 == 0)
            sleep_s(own / 32 % 300 * 1e-6);
        fill(mine, nbytes, own);
        board->reached[k % 2][local_rank] = k;
        CHECK(node_arrive(node, &call, mine, nbytes, random >> 31, 0, &for_ever, &outcome) == STATUS_OK);
        CHECK(node_sequence(node) == k);
        for (int peer = 0; peer < n_ranks; peer++) {
            CHECK(board->reached[k % 2][peer] == (long)k);
            fill(theirs, nbytes, scramble(k * MOST + (uint32_t)peer));
            CHECK(!memcmp(node_payload(node, peer), theirs, nbytes));
        }
    }
}

static void payloads_of_processes(void) {
    run_ranks(PROCESSES, 4, arrive_with_payloads, 0);
}

static void payloads_of_threads(void) {
    run_ranks(THREADS, 4, arrive_with_payloads, 0);
}

static void one_alone(void) {
    run_ranks(PROCESSES, 1, arrive_with_payloads, 0);
}

/* The calls of the local ranks, and whether they agree. */
struct row {
    struct call calls[3];
    const char *text; /* NULL: they agree */
};
#define CALL(...) {__VA_ARGS__}
#define SUM_OF(kind, elements) \
    CALL(.operation = OPERATION_ALLREDUCE, .type = kind, .count = elements, .ndim = 1, .shape = {elements})
#define FOUR SUM_OF(TYPE_FLOAT32, 4)
#define FOUR_IN_ROWS \
    CALL(.operation = OPERATION_ALLREDUCE, .type = TYPE_FLOAT32, .count = 4, .ndim = 2, .shape = {2, 2})
#define MAX_OF_FOUR \
    CALL(.operation = OPERATION_ALLREDUCE, .op = REDUCE_MAX, .type = TYPE_FLOAT32, .count = 4, .ndim = 1, .shape = {4})
#define ROOT(root) CALL(.operation = OPERATION_BROADCAST, .type = TYPE_INT8, .peer = root, .count = 1)
#define TREE(number) \
    CALL(.operation = OPERATION_ALLREDUCE, .type = TYPE_FLOAT32, .count = 4, .ndim = 1, .shape = {4}, \
         .name = CALL_AVERAGE_GRADIENTS, .digest = number)
#define AS(wire_type) \
    CALL(.operation = OPERATION_ALLREDUCE, .type = TYPE_FLOAT32, .count = 4, .ndim = 1, .shape = {4}, .wire = wire_type)
static const struct row rows[] = {
    {{FOUR, FOUR, FOUR}, NULL},
    {{FOUR, FOUR_IN_ROWS, FOUR}, NULL},
    {{FOUR, FOUR, SUM_OF(TYPE_FLOAT32, 5)}, "rank 3, 13: all_sum float32 (4,)\n  rank 23: all_sum float32 (5,)"},
    {{FOUR, SUM_OF(TYPE_INT32, 4), FOUR}, "rank 3, 23: all_sum float32 (4,)\n  rank 13: all_sum int32 (4,)"},
    {{MAX_OF_FOUR, FOUR, FOUR}, "rank 3: all_max float32 (4,)\n  rank 13, 23"},
    {{CALL(.operation = OPERATION_BARRIER), FOUR, CALL(.operation = OPERATION_SPLIT)},
     "rank 3: barrier\n  rank 13: all_sum"},
    {{ROOT(1), ROOT(2), FOUR}, "from rank 2"},
    {{TREE(7), TREE(7), TREE(7)}, NULL},
    {{TREE(7), TREE(8), TREE(7)}, "rank 13: average_gradients float32 (4,) of tree 00000008"},
    {{AS(TYPE_BFLOAT16), AS(TYPE_BFLOAT16), AS(TYPE_BFLOAT16)}, NULL},
    {{AS(0), AS(TYPE_BFLOAT16), AS(TYPE_FLOAT16)},
     "rank 3: all_sum float32 (4,)\n  rank 13: all_sum float32 (4,) as bfloat16 between hosts\n"
     "  rank 23: all_sum float32 (4,) as float16 between hosts"},
    {{SUM_OF(TYPE_FLOAT16, 1), SUM_OF(HALF_UNNAMED, 1), SUM_OF(TYPE_FLOAT16, 1)}, NULL},
    {{SUM_OF(TYPE_FLOAT16, 1), SUM_OF(HALF_UNNAMED, 1), SUM_OF(TYPE_BFLOAT16, 1)}, "rank 23: all_sum bfloat16 (1,)"},
    {{SUM_OF(HALF_UNNAMED, 1), SUM_OF(TYPE_INT16, 1), SUM_OF(HALF_UNNAMED, 1)}, "rank 3, 23: all_sum 16-bit float"},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static void call_differently(struct node *node, int local_rank) {
    for (int i = 0; i < ROWS; i++)
        for (int commit = 0; commit < 2; commit++) {
            struct call call = call_of(node, rows[i].calls[local_rank]);
            struct outcome outcome = {0};
            begin_anew(node);
            CHECK(node_arrive(node, &call, NULL, 0, commit, 1, &for_ever, &outcome) == STATUS_OK);
            int result = node_arrive(node, &call, NULL, 0, commit, 0, &for_ever, &outcome);
            CHECK(result == (rows[i].text ? STATUS_MISMATCH : STATUS_OK) && outcome.status == result);
            CHECK(!rows[i].text || strstr(outcome.text, rows[i].text));
            CHECK(!rows[i].text || strstr(outcome.text, "the ranks differ in call 2 on this group of 3:\n  rank 3"));
        }
}

static void calls_that_differ(void) {
    run_ranks(PROCESSES, 3, call_differently, 0);
    run_ranks(THREADS, 3, call_differently, 0);
}

/* The first local rank has a timeout, and the last is too late for it. */
static void give_up(struct node *node, int local_rank) {
    struct call call = call_of(node, flat_call(OPERATION_BARRIER, 0, 0, 0, 0));
    for (int commit = 0; commit < 2; commit++) {
        struct outcome outcome;
        begin_anew(node);
        if (local_rank == n_ranks - 1)
            sleep_s(0.3);
        int result = node_arrive(node, &call, NULL, 0, commit, 0, local_rank ? &for_ever : &a_while, &outcome);
        CHECK(result == (local_rank == 0 ? STATUS_TIMED_OUT : commit ? STATUS_PEER_DIED : STATUS_OK));
        if (local_rank == 0)
            CHECK_TEXT(outcome, "waited for 0.05 s in barrier, call 1 of rank 3 on this group: rank 33 (pid ");
        if (local_rank && !commit)
            CHECK(node_arrive(node, &call, NULL, 0, 0, 0, &for_ever, &outcome) == STATUS_PEER_DIED);
        if (local_rank)
            CHECK_TEXT(outcome, "has given up a call on this group");
    }
}

static void given_up(void) {
    run_ranks(PROCESSES, 4, give_up, 0);
    run_ranks(THREADS, 4, give_up, 0);
}

static void leave(struct node *node, int local_rank) {
    struct call call = call_of(node, flat_call(OPERATION_BARRIER, 0, 0, 0, 0));
    for (int commit = 0; commit < 2; commit++) {
        struct outcome outcome;
        begin_anew(node);
        int last = local_rank == n_ranks - 1;
        if (!last && local_rank)
            sleep_s(0.05); /* a rank that has arrived and left does not disturb those that arrive later */
        CHECK(last || node_arrive(node, &call, NULL, 0, 0, 0, &for_ever, &outcome) == STATUS_OK);
        if (last) {
            CHECK(node_arrive(node, &call, NULL, 0, 0, 0, &for_ever, &outcome) == STATUS_OK);
            node_leave(node, 1);
            continue;
        }
        CHECK(node_arrive(node, &call, NULL, 0, commit, 0, &for_ever, &outcome) == STATUS_MISMATCH);
        CHECK_TEXT(outcome, "rank 33 (pid ");
        CHECK_TEXT(outcome, "has ended or freed this group");
    }
}

static void left(void) {
    run_ranks(PROCESSES, 4, leave, 0);
    run_ranks(THREADS, 4, leave, 0);
}

/* The first gives up after a millisecond, about when the last arrives: all go on or none does, each time. */
static void race(struct node *node, int local_rank) {
    struct call call = call_of(node, flat_call(OPERATION_SPLIT, 0, 0, 0, 0));
    int all = 0, none = 0;
    for (uint32_t i = 0; i < RACES; i++) {
        begin_anew(node);
        for (int k = 0; k < RACED; k++)
            board->results[k][local_rank] = -1;
        for (int k = 0; k < RACED; k++) {
            struct outcome outcome = {0};
            uint32_t random = scramble(i * RACED + (uint32_t)k);
            if (local_rank == n_ranks - 1)
                sleep_s(random % 1500 * 1e-6);
            int result = node_arrive(node, &call, NULL, 0, 1, 0, local_rank ? &for_ever : &a_moment, &outcome);
            CHECK(result == STATUS_OK || (result == STATUS_PEER_DIED && local_rank) ||
                  (result == STATUS_TIMED_OUT && !local_rank));
            board->results[k][local_rank] = result;
            if (result)
                break;
        }
        meet();
        for (int k = 0; k < RACED && local_rank == 0; k++) {
            int n_ok = 0;
            for (int peer = 0; peer < n_ranks; peer++)
                n_ok += board->results[k][peer] == STATUS_OK;
            CHECK(n_ok == 0 || n_ok == n_ranks);
            all += n_ok > 0;
            none += n_ok == 0 && board->results[k][0] == STATUS_TIMED_OUT;
        }
    }
    if (local_rank == 0) {
        printf("all went on %d times, none %d times\n", all, none);
        CHECK(all > RACES / 100 && none > RACES / 100);
    }
}

static void race_of_processes(void) {
    run_ranks(PROCESSES, 5, race, 0);
}

static void race_of_threads(void) {
    run_ranks(THREADS, 5, race, 0);
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
static void interrupt_first(struct node *node, int local_rank) {
    struct call call = call_of(node, flat_call(OPERATION_BARRIER, 0, 0, 0, 0));
    struct wait_policy interruptible = {WAIT_SPINS_OVERSUBSCRIBED, 0, 1, ask, NULL, NULL};
    struct outcome outcome;
    if (local_rank) {
        sleep_s(0.25);
        CHECK(local_rank != 1 || !kill(board->pids[0], SIGINT));
        sleep_s(0.25);
        CHECK(node_arrive(node, &call, NULL, 0, 1, 0, &for_ever, &outcome) == STATUS_PEER_DIED);
        return;
    }
    signal(SIGINT, count_signal);
    wait_watch_interrupts();
    CHECK(node_arrive(node, &call, NULL, 0, 1, 0, &interruptible, &outcome) == STATUS_INTERRUPTED);
    CHECK(atomic_load(&signals) == 1 && atomic_load(&asked) >= 2);
    CHECK_TEXT(outcome, "interrupted in barrier, call 1 of rank 3 on this group: ranks 13 (pid ");
    wait_unwatch_interrupts();
    raise(SIGINT);
    CHECK(atomic_load(&signals) == 2);
}

static void interrupted(void) {
    run_ranks(PROCESSES, 3, interrupt_first, 0);
}

PROGRAM({"payloads-of-processes", payloads_of_processes}, {"payloads-of-threads", payloads_of_threads},
        {"one-alone", one_alone}, {"calls-that-differ", calls_that_differ}, {"given-up", given_up}, {"left", left},
        {"interrupted", interrupted}, {"race-of-processes", race_of_processes}, {"race-of-threads", race_of_threads})
