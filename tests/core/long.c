/* Long arrays through a staging buffer and in symmetric memory: the right numbers whichever rank is late, and errors in
 * the middle of a call. */
#include "local_ranks.h"
#include "shm/staging.c"
/* As if the cache were small, so that most arrays are larger. */
#define copy_cache_nbytes() ((size_t)1 << 20)
#include "shm/pipeline.c"

#include "mlxdist/shm/symmetric.h"

/* COUNT of int32: more chunks than all samples take, and a part of one. */
enum { COUNT = 300000, LONG_CALLS = 15, CHUNK = 64 << 10 };

static const struct wait_policy for_ever = {WAIT_SPINS_OVERSUBSCRIBED, 0, 1, NULL, NULL, NULL},
                                a_while = {WAIT_SPINS_OVERSUBSCRIBED, 0.2, 1, NULL, NULL, NULL};
static struct staging *first_staging;

/* Threads share one mapping, see local_ranks.h. */
static struct staging *open_staging(struct node *node) {
    struct staging *staging;
    struct outcome outcome;
    CHECK(staging_open(node, &staging, &for_ever, &outcome) == STATUS_OK && staging);
    staging->chunk = CHUNK;
    if (board->pids[0] != board->pids[n_ranks - 1] || n_ranks == 1)
        return staging;
    if (node->local_rank == 0)
        first_staging = staging;
    meet();
    staging->memory = first_staging->memory;
    meet();
    return staging;
}

static void close_staging(struct staging *staging) {
    meet();
    staging_close(staging);
}

static int32_t value(int local_rank, uint32_t k, int64_t i) {
    return (int32_t)(scramble(k) % 1000 * (uint32_t)(local_rank + 1)) + (int32_t)(i % 777);
}

static void fill(int32_t *x, int64_t count, int local_rank, uint32_t k) {
    for (int64_t i = 0; i < count; i++)
        x[i] = value(local_rank, k, i);
}

static int32_t sum(uint32_t k, int64_t i) {
    int32_t total = 0;
    for (int local_rank = 0; local_rank < n_ranks; local_rank++)
        total += value(local_rank, k, i);
    return total;
}

static int arrive(struct node *node, const struct call *call, const void *recvbuf, const struct wait_policy *policy,
                  struct outcome *outcome) {
    struct buffer_descriptor own = {pipeline_own_offset(call, recvbuf), {0, 0}, {0, 0}};
    return node_arrive(node, call, &own, sizeof own, 0, 0, policy, outcome);
}

static void run_pipeline(struct node *node, struct staging *staging, struct call call, const void *in, void *out) {
    struct outcome outcome;
    call = call_of(node, call);
    if (scramble((uint32_t)(node_sequence(node) * MOST) + (uint32_t)node->local_rank) % 4 == 0)
        sleep_s(1e-4);
    CHECK(arrive(node, &call, out, &for_ever, &outcome) == STATUS_OK);
    CHECK(pipeline_run(staging, node, &call, in, out, pipeline_offset(node), &for_ever, &outcome) == STATUS_OK);
}

static void rooted_operations(struct node *node, struct staging *staging, uint32_t k, int64_t count, int32_t *x,
                              int32_t *y) {
    int local_rank = node->local_rank, root = (int)(k + 1) % n_ranks;
    int64_t part = count / n_ranks;
    fill(x, count, local_rank, k);
    run_pipeline(node, staging, flat_call(OPERATION_GATHER, 0, TYPE_INT32, root, count), x, y);
    for (int64_t i = 0; local_rank == root && i < count * n_ranks; i++)
        CHECK(y[i] == value((int)(i / count), k, i % count));
    run_pipeline(node, staging, flat_call(OPERATION_SCATTER, 0, TYPE_INT32, root, count), x, y);
    for (int64_t i = 0; i < part; i++)
        CHECK(y[i] == value(root, k, local_rank * part + i));
    run_pipeline(node, staging, flat_call(OPERATION_REDUCE, REDUCE_SUM, TYPE_INT32, root, count), x, y);
    for (int64_t i = 0; local_rank == root && i < count; i++)
        CHECK(y[i] == sum(k, i));
    int32_t *out = k % 2 ? x : y; /* in place, or not */
    run_pipeline(node, staging, flat_call(OPERATION_ALLTOALL, 0, TYPE_INT32, 0, count), x, out);
    for (int64_t i = 0; i < part * n_ranks; i++)
        CHECK(out[i] == value((int)(i / part), k, local_rank * part + i % part));
}

static void all_operations(struct node *node, int local_rank) {
    struct staging *staging = open_staging(node);
    int32_t *x = malloc((COUNT + 16) * sizeof *x), *y = malloc(sizeof *y * COUNT * (size_t)n_ranks);
    for (uint32_t k = 1; k <= LONG_CALLS; k++) {
        int64_t count = k == 1 ? 1 : COUNT - scramble(k) % (k % 2 ? COUNT : 2000);
        int32_t *out = k % 3 ? x : y + k % 5; /* in place, or at some offset in a line */
        count -= count % n_ranks;
        fill(x, count, local_rank, k);
        if (!count)
            continue;
        run_pipeline(node, staging, flat_call(OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_INT32, 0, count), x, out);
        for (int64_t i = 0; i < count; i++)
            CHECK(out[i] == sum(k, i));
        fill(x, count, local_rank, k);
        run_pipeline(node, staging, flat_call(OPERATION_REDUCE_SCATTER, REDUCE_SUM, TYPE_INT32, 0, count), x, y);
        for (int64_t i = 0; i < count / n_ranks; i++)
            CHECK(y[i] == sum(k, local_rank * (count / n_ranks) + i));
        run_pipeline(node, staging, flat_call(OPERATION_ALLGATHER, 0, TYPE_INT32, 0, count), x, y);
        for (int64_t i = 0; i < count * n_ranks; i++)
            CHECK(y[i] == value((int)(i / count), k, i % count));
        int root = (int)k % n_ranks;
        int32_t *copied = k % 2 ? x : y;
        run_pipeline(node, staging, flat_call(OPERATION_BROADCAST, 0, TYPE_INT32, root, count), x, copied);
        for (int64_t i = 0; i < count; i++)
            CHECK(copied[i] == value(root, k, i));
        rooted_operations(node, staging, k, count, x, y);
    }
    CHECK(staging->autotune.known_for); /* it was tuned */
    free(x);
    free(y);
    close_staging(staging);
}

static void operations_of_processes(void) {
    for (int local_size = 1; local_size <= 5; local_size++)
        run_ranks(PROCESSES, local_size, all_operations, 0);
}

static void operations_of_threads(void) {
    run_ranks(THREADS, 3, all_operations, 0);
}

static void last_stops_in_the_middle(struct node *node, int local_rank) {
    struct staging *staging = open_staging(node);
    struct outcome outcome;
    struct call call = call_of(node, flat_call(OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_INT32, 0, COUNT));
    int32_t *x = calloc(COUNT, sizeof *x);
    CHECK(arrive(node, &call, x, &for_ever, &outcome) == STATUS_OK);
    if (local_rank == n_ranks - 1) {
        if (board->dies[local_rank])
            raise(SIGKILL);
        sleep_s(0.5);
        CHECK(pipeline_run(staging, node, &call, x, x, 0, &for_ever, &outcome) == STATUS_PEER_DIED);
    } else {
        int result = pipeline_run(staging, node, &call, x, x, 0, &a_while, &outcome);
        CHECK(result == STATUS_PEER_DIED || (result == STATUS_TIMED_OUT && !board->dies[n_ranks - 1]));
        if (result == STATUS_TIMED_OUT)
            CHECK_TEXT(outcome, ": rank 23 has stopped at chunk 0 of ");
        else
            CHECK_TEXT(outcome, " has ");
    }
    free(x);
    staging_close(staging);
}

static void stopped(void) {
    run_ranks(PROCESSES, 3, last_stops_in_the_middle, 0);
    run_ranks(PROCESSES, 3, last_stops_in_the_middle, SIGKILL);
}

static void reduce_in_symmetric_memory(struct node *node, int local_rank) {
    struct symmetric *newest = NULL;
    struct outcome outcome;
    CHECK(symmetric_open(node, COUNT * sizeof(int32_t), &newest, &for_ever, &outcome) == STATUS_OK);
    struct symmetric *in = newest;
    CHECK(symmetric_open(node, COUNT * sizeof(int32_t), &newest, &for_ever, &outcome) == STATUS_OK);
    struct symmetric *out = newest;
    for (uint32_t k = 1; k <= LONG_CALLS; k++) {
        int64_t first = scramble(k) % 1000, count = COUNT - first - scramble(k + 1) % 200000;
        int32_t *x = (int32_t *)symmetric_memory(in) + first, *y = k % 2 ? x : (int32_t *)symmetric_memory(out) + first;
        struct call call = call_of(node, flat_call(OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_INT32, 0, count));
        struct buffer_descriptor own = {0, symmetric_offset(newest, x, (size_t)count * 4),
                                        symmetric_offset(newest, y, (size_t)count * 4)};
        fill(x, count, local_rank, k);
        CHECK(node_arrive(node, &call, &own, sizeof own, 0, 0, &for_ever, &outcome) == STATUS_OK);
        CHECK(symmetric_is_common(node));
        CHECK(symmetric_reduce(node, newest, &call, &for_ever, &outcome) == STATUS_OK);
        for (int64_t i = 0; i < count; i++)
            CHECK(y[i] == sum(k, i));
    }
    CHECK(symmetric_offset(newest, &outcome, 1).id == 0);
    symmetric_drop(in);
    CHECK(newest == out && symmetric_offset(newest, symmetric_memory(in), 1).id);
    symmetric_sweep(&newest);
    CHECK(newest == out);
    symmetric_drop(out);
    symmetric_sweep(&newest);
    CHECK(!newest);
}

/* Another thread of the first rank counts in the last page of the block while the rank gives up; on Linux it must not
 * miss one. */
struct counter {
    atomic_int ends;
    volatile long *place;
    long counted;
};

static void *count_up(void *it) {
    struct counter *counter = it;
    while (!atomic_load(&counter->ends))
        *counter->place = ++counter->counted;
    return NULL;
}

/* The last rank comes late to the call, or stops in it, and the first does not wait for it. */
static void give_up_in_symmetric_memory(struct node *node, int local_rank) {
    enum { PATTERN = 0x5a5a5a5a };
    const size_t nbytes = COUNT * sizeof(int32_t), page = (size_t)sysconf(_SC_PAGESIZE);
    for (uint32_t round = 0; round < 4; round++) {
        int is_late = round % 2, is_in_place = round / 2, is_first = local_rank == 0;
        struct symmetric *newest = NULL;
        struct outcome outcome = {0};
        begin_anew(node);
        if (round && !geteuid()) /* others may lock too little */
            mlockall(MCL_FUTURE);
        CHECK(symmetric_open(node, 2 * nbytes + 2 * page, &newest, &for_ever, &outcome) == STATUS_OK);
        munlockall();
        int32_t *x = symmetric_memory(newest), *y = is_in_place ? x : x + COUNT;
        struct counter counter = {0, (volatile long *)((char *)x + 2 * nbytes + page), 0};
        struct buffer_descriptor own = {0, symmetric_offset(newest, x, nbytes), symmetric_offset(newest, y, nbytes)};
        struct call call = call_of(node, flat_call(OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_INT32, 0, COUNT));
        const struct wait_policy *policy = is_first ? &a_while : &for_ever;
        fill(x, COUNT, local_rank, round);
        meet();
        if (is_late && local_rank == n_ranks - 1)
            sleep_s(0.4);
        int result = node_arrive(node, &call, &own, sizeof own, 0, 0, policy, &outcome);
        if (!result && local_rank == n_ranks - 1)
            sleep_s(0.4);
        if (!result)
            result = symmetric_reduce(node, newest, &call, policy, &outcome);
        if (is_first) {
            pthread_t thread;
            CHECK(result == STATUS_TIMED_OUT);
            CHECK(!pthread_create(&thread, NULL, count_up, &counter));
            symmetric_detach(newest, &own, nbytes, &outcome);
            atomic_store(&counter.ends, 1);
            CHECK(!pthread_join(thread, NULL) && (!IS_LINUX || *counter.place == counter.counted));
            for (int64_t i = 0; i < COUNT; i++)
                CHECK(is_in_place || x[i] == value(local_rank, round, i));
            for (int64_t i = 0; i < COUNT; i++)
                x[i] = y[i] = PATTERN;
        } else if (is_late) { /* the first has not computed its share */
            CHECK(result == STATUS_PEER_DIED);
        } else {
            CHECK(result == STATUS_OK);
            for (int64_t i = 0; i < COUNT; i++)
                CHECK(y[i] == sum(round, i));
        }
        meet();
        for (int64_t i = 0; is_first && i < COUNT; i++)
            CHECK(x[i] == PATTERN && y[i] == PATTERN);
        symmetric_drop(newest);
        symmetric_sweep(&newest);
    }
}

static void given_up_in_symmetric_memory(void) {
    run_ranks(PROCESSES, 3, give_up_in_symmetric_memory, 0);
}

static void in_symmetric_memory(void) {
    for (int local_size = 1; local_size <= 4; local_size++)
        run_ranks(PROCESSES, local_size, reduce_in_symmetric_memory, 0);
}

PROGRAM({"operations-of-processes", operations_of_processes}, {"operations-of-threads", operations_of_threads},
        {"stopped", stopped}, {"symmetric-memory", in_symmetric_memory},
        {"symmetric-memory-given-up", given_up_in_symmetric_memory})
