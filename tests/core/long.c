/* Long arrays through a window, and in pools: right numbers whoever is late, and an error in the middle of a call. */
#include "seats.h"
#include "window.c"
/* As if the cache were small, so that most messages are more than it holds. */
#define copy_cache_nbytes() ((size_t)1 << 20)
#include "exchange.c"

#include "mlxdist/pool.h"

enum { COUNT = 300000, CALLS = 15, CHUNK = 64 << 10 }; /* of int32: more chunks than a trial takes, and a part of one */

static const struct patience for_ever = {SPINS_CROWDED, 0, 1, NULL}, a_while = {SPINS_CROWDED, 0.2, 1, NULL};
static struct window *first_window;

/* Threads of one process use one mapping: a tool that looks for races knows memory by its address. */
static struct window *open_window(struct node *node) {
    struct window *window;
    struct outcome outcome;
    CHECK(window_open(node, &window, &for_ever, &outcome) == OK && window);
    window->chunk = CHUNK;
    if (board->pids[0] != board->pids[n_seats - 1] || n_seats == 1)
        return window;
    if (node->seat == 0)
        first_window = window;
    meet();
    window->memory = first_window->memory;
    meet();
    return window;
}

static void close_window(struct window *window) {
    meet();
    window_close(window);
}

static int32_t value(int seat, uint32_t k, int64_t i) {
    return (int32_t)(scramble(k) % 1000 * (uint32_t)(seat + 1)) + (int32_t)(i % 777);
}

static void fill(int32_t *x, int64_t count, int seat, uint32_t k) {
    for (int64_t i = 0; i < count; i++)
        x[i] = value(seat, k, i);
}

static int32_t sum(uint32_t k, int64_t i) {
    int32_t total = 0;
    for (int seat = 0; seat < n_seats; seat++)
        total += value(seat, k, i);
    return total;
}

static int arrive(struct node *node, const struct call *call, const void *recvbuf, const struct patience *patience,
                  struct outcome *outcome) {
    struct approach approach = {exchange_own_offset(call, recvbuf), {0, 0}, {0, 0}};
    return node_arrive(node, call, &approach, sizeof approach, 0, 0, patience, outcome);
}

static void exchange(struct node *node, struct window *window, struct call call, const void *in, void *out) {
    struct outcome outcome;
    call = call_of(node, call);
    if (scramble((uint32_t)(node_sequence(node) * MOST) + (uint32_t)node->seat) % 4 == 0)
        sleep_s(1e-4);
    CHECK(arrive(node, &call, out, &for_ever, &outcome) == OK);
    CHECK(exchange_run(window, node, &call, in, out, exchange_offset(node), &for_ever, &outcome) == OK);
}

static void all_operations(struct node *node, int seat) {
    struct window *window = open_window(node);
    int32_t *x = malloc((COUNT + 16) * sizeof *x), *y = malloc(sizeof *y * COUNT * (size_t)n_seats);
    for (uint32_t k = 1; k <= CALLS; k++) {
        int64_t count = k == 1 ? 1 : COUNT - scramble(k) % (k % 2 ? COUNT : 2000);
        int32_t *out = k % 3 ? x : y + k % 5; /* in place, or at some place in a line */
        count -= count % n_seats;
        fill(x, count, seat, k);
        if (!count)
            continue;
        exchange(node, window, flat_call(ALLREDUCE, REDUCE_SUM, TYPE_INT32, 0, count), x, out);
        for (int64_t i = 0; i < count; i++)
            CHECK(out[i] == sum(k, i));
        fill(x, count, seat, k);
        exchange(node, window, flat_call(REDUCE_SCATTER, REDUCE_SUM, TYPE_INT32, 0, count), x, y);
        for (int64_t i = 0; i < count / n_seats; i++)
            CHECK(y[i] == sum(k, seat * (count / n_seats) + i));
        exchange(node, window, flat_call(ALLGATHER, 0, TYPE_INT32, 0, count), x, y);
        for (int64_t i = 0; i < count * n_seats; i++)
            CHECK(y[i] == value((int)(i / count), k, i % count));
        int root = (int)k % n_seats;
        int32_t *copied = k % 2 ? x : y;
        exchange(node, window, flat_call(BROADCAST, 0, TYPE_INT32, root, count), x, copied);
        for (int64_t i = 0; i < count; i++)
            CHECK(copied[i] == value(root, k, i));
    }
    CHECK(window->trial.known_for); /* there was one */
    free(x);
    free(y);
    close_window(window);
}

static void operations_of_processes(void) {
    for (int seats = 1; seats <= 5; seats++)
        run_seats(PROCESSES, seats, all_operations, 0);
}

static void operations_of_threads(void) {
    run_seats(THREADS, 3, all_operations, 0);
}

static void last_stops_in_the_middle(struct node *node, int seat) {
    struct window *window = open_window(node);
    struct outcome outcome;
    struct call call = call_of(node, flat_call(ALLREDUCE, REDUCE_SUM, TYPE_INT32, 0, COUNT));
    int32_t *x = calloc(COUNT, sizeof *x);
    CHECK(arrive(node, &call, x, &for_ever, &outcome) == OK);
    if (seat == n_seats - 1) {
        if (board->dies[seat])
            raise(SIGKILL);
        sleep_s(0.5);
        CHECK(exchange_run(window, node, &call, x, x, 0, &for_ever, &outcome) == PEER_DIED);
    } else {
        int result = exchange_run(window, node, &call, x, x, 0, &a_while, &outcome);
        CHECK(result == PEER_DIED || (result == TIMED_OUT && !board->dies[n_seats - 1]));
        if (result == TIMED_OUT)
            CHECK_TEXT(outcome, "in its middle: rank 23 has stopped at chunk 0 of ");
        else
            CHECK_TEXT(outcome, " has ");
    }
    free(x);
    window_close(window);
}

static void stopped(void) {
    run_seats(PROCESSES, 3, last_stops_in_the_middle, 0);
    run_seats(PROCESSES, 3, last_stops_in_the_middle, SIGKILL);
}

static void reduce_in_pools(struct node *node, int seat) {
    struct pool *pools = NULL;
    struct outcome outcome;
    CHECK(pool_open(node, COUNT * sizeof(int32_t), &pools, &for_ever, &outcome) == OK);
    struct pool *in = pools;
    CHECK(pool_open(node, COUNT * sizeof(int32_t), &pools, &for_ever, &outcome) == OK);
    struct pool *out = pools;
    for (uint32_t k = 1; k <= CALLS; k++) {
        int64_t first = scramble(k) % 1000, count = COUNT - first - scramble(k + 1) % 200000;
        int32_t *x = (int32_t *)pool_memory(in) + first, *y = k % 2 ? x : (int32_t *)pool_memory(out) + first;
        struct call call = call_of(node, flat_call(ALLREDUCE, REDUCE_SUM, TYPE_INT32, 0, count));
        struct approach approach = {0, pool_place(pools, x, (size_t)count * 4),
                                    pool_place(pools, y, (size_t)count * 4)};
        fill(x, count, seat, k);
        CHECK(node_arrive(node, &call, &approach, sizeof approach, 0, 0, &for_ever, &outcome) == OK);
        CHECK(pool_is_common(node));
        CHECK(pool_reduce(node, pools, &call, &for_ever, &outcome) == OK);
        for (int64_t i = 0; i < count; i++)
            CHECK(y[i] == sum(k, i));
    }
    CHECK(pool_place(pools, &outcome, 1).id == 0);
    pool_drop(in);
    CHECK(pools == out && pool_place(pools, pool_memory(in), 1).id);
    pool_sweep(&pools);
    CHECK(pools == out);
    pool_drop(out);
    pool_sweep(&pools);
    CHECK(!pools);
}

static void pools(void) {
    for (int seats = 1; seats <= 4; seats++)
        run_seats(PROCESSES, seats, reduce_in_pools, 0);
}

PROGRAM({"operations-of-processes", operations_of_processes}, {"operations-of-threads", operations_of_threads},
        {"stopped", stopped}, {"pools", pools})
