/* Calls in the background: in the order in which they were started, whichever thread and whatever comes between. */
#include "job.h"

enum { CALLS_AT_ONCE = 40, LONG = 300000 };

static struct work *start(struct group *group, struct call call, const void *sendbuf, void *recvbuf) {
    struct work *work;
    struct outcome outcome;
    CHECK(group_start(group, &call, sendbuf, recvbuf, &work, &outcome) == STATUS_OK && work);
    return work;
}

static void finish(struct work *work, int expected) {
    struct outcome outcome;
    CHECK(work_wait(work, -1, &outcome) == expected);
    CHECK(work_is_done(work));
    work_release(work);
}

static struct call sum_of(int64_t n) {
    return flat_call(OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_FLOAT32, 0, n);
}

static struct call message_of(enum operation operation, int peer, int64_t n) {
    return flat_call(operation, 0, TYPE_FLOAT32, peer, n);
}

/* Of every length, and in their order, although nobody waits in that; a call in between comes after all of them. */
static void sum_in_order(struct group *world) {
    struct work *works[CALLS_AT_ONCE];
    struct outcome outcome;
    float *x = calloc(CALLS_AT_ONCE * (size_t)LONG, sizeof *x), total = 0;
    int rank = group_rank(world), size = group_size(world);
    for (int k = 0; k < CALLS_AT_ONCE; k++) {
        int64_t n = k % 8 ? 1 + k * 50 : LONG;
        float *at = x + (size_t)k * LONG;
        for (int64_t i = 0; i < n; i++)
            at[i] = number(i, rank, (uint32_t)k);
        works[k] = start(world, sum_of(n), at, at);
        if (k == CALLS_AT_ONCE / 2) {
            struct call call = sum_of(1);
            float one = 1;
            CHECK(group_run(world, &call, &one, &total, &outcome) == STATUS_OK && total == (float)size);
            for (int before = 0; before <= k; before++)
                CHECK(work_is_done(works[before]));
        }
    }
    for (int k = CALLS_AT_ONCE - 1; k >= 0; k--) {
        finish(works[k], STATUS_OK);
        for (int64_t i = 0; i < 50; i++) {
            float sum = 0;
            for (int other = 0; other < size; other++)
                sum += number(i, other, (uint32_t)k);
            CHECK(i >= (k % 8 ? 1 + k * 50 : LONG) || x[(size_t)k * LONG + (size_t)i] == sum);
        }
    }
    free(x);
    end();
}

/* Every rank sends to all before it receives, long ones too, while a collective waits that the last rank joins late. */
static void exchange(struct group *world) {
    int rank = group_rank(world), size = group_size(world);
    struct work *sends[RANKS][3], *recvs[RANKS][3], *sum = NULL;
    float *sent = calloc(3 * RANKS * (size_t)LONG, sizeof *sent), *received = calloc(3 * RANKS * (size_t)LONG, 4);
    float one = 1, total = 0;
    if (rank != size - 1)
        sum = start(world, sum_of(1), &one, &total);
    for (int k = 0; k < 3; k++)
        for (int peer = 0; peer < size; peer++) {
            size_t at = (size_t)(k * RANKS + peer) * LONG;
            if (peer == rank)
                continue;
            for (int64_t i = 0; i < LONG; i++)
                sent[at + (size_t)i] = number(i, rank, (uint32_t)(k * RANKS + peer));
            sends[peer][k] = start(world, message_of(OPERATION_SEND, peer, k == 1 ? 3 : LONG), sent + at, NULL);
        }
    for (int k = 0; k < 3; k++)
        for (int peer = size - 1; peer >= 0; peer--)
            if (peer != rank)
                recvs[peer][k] = start(world, message_of(OPERATION_RECV, peer, k == 1 ? 3 : LONG), NULL,
                                       received + (size_t)(k * RANKS + peer) * LONG);
    for (int peer = 0; peer < size; peer++)
        for (int k = 2; peer != rank && k >= 0; k--) {
            finish(recvs[peer][k], STATUS_OK);
            finish(sends[peer][k], STATUS_OK);
            for (int64_t i = 0; i < (k == 1 ? 3 : LONG); i++)
                CHECK(received[(size_t)(k * RANKS + peer) * LONG + (size_t)i] ==
                      number(i, peer, (uint32_t)(k * RANKS + rank)));
        }
    if (rank == size - 1)
        sum = start(world, sum_of(1), &one, &total);
    finish(sum, STATUS_OK);
    CHECK(total == (float)size);
    free(sent);
    free(received);
    end();
}

/* Two groups in another order on each rank; freed before their calls have ended. */
static void cross(struct group *world) {
    struct group *parts[2];
    struct work *works[2];
    struct outcome outcome;
    float one = 1, totals[2];
    for (int i = 0; i < 2; i++)
        CHECK(group_split(world, 0, group_rank(world), &parts[i], &outcome) == STATUS_OK);
    for (int i = 0; i < 2; i++) {
        int which = (i + group_rank(world)) % 2;
        works[which] = start(parts[which], sum_of(1), &one, &totals[which]);
        if (group_rank(world) % 2)
            sleep_s(0.02);
    }
    for (int i = 0; i < 2; i++)
        group_release(parts[i]);
    for (int i = 0; i < 2; i++) {
        finish(works[i], STATUS_OK);
        CHECK(totals[i] == (float)group_size(world));
    }
    end();
}

/* A wait that ends early leaves the call alone; what nobody waits for is done at the end. */
static void late(struct group *world) {
    struct outcome outcome;
    static float one = 1, total, dropped;
    struct work *work;
    if (group_rank(world) == 0)
        sleep_s(0.3);
    work = start(world, sum_of(1), &one, &total);
    if (group_rank(world)) {
        CHECK(work_wait(work, 0, &outcome) == STATUS_TIMED_OUT);
        CHECK(work_wait(work, 0.02, &outcome) == STATUS_TIMED_OUT);
        CHECK_TEXT(outcome, "waited for 0.02 s in all_sum float32 (1,): it is still under way");
    }
    finish(work, STATUS_OK);
    CHECK(total == (float)group_size(world));
    if (group_rank(world) == 0)
        sleep_s(0.1);
    work_release(start(world, sum_of(1), &one, &dropped));
    end();
    CHECK(dropped == (float)group_size(world));
    CHECK(group_start(world, &(struct call){0}, NULL, NULL, &work, &outcome) == STATUS_GROUP_CLOSED && !work);
}

/* The last rank dies: what waits for it fails, and what comes later. */
static void die(struct group *world) {
    struct outcome outcome;
    float one = 1, totals[2], x[LONG];
    int last = group_size(world) - 1;
    if (group_rank(world) == last)
        raise(SIGKILL);
    struct work *first = start(world, sum_of(1), &one, &totals[0]), *second = start(world, sum_of(1), &one, &totals[1]),
                *message = start(world, message_of(OPERATION_RECV, last, LONG), NULL, x);
    CHECK(work_wait(first, -1, &outcome) == STATUS_PEER_DIED);
    CHECK(work_wait(first, -1, &outcome) == STATUS_PEER_DIED);
    work_release(first);
    finish(second, STATUS_PEER_DIED);
    finish(message, STATUS_PEER_DIED);
    struct work *refused;
    struct call call = sum_of(1);
    CHECK(group_start(world, &call, &one, totals, &refused, &outcome) == STATUS_PEER_DIED && !refused);
    core_finish(&outcome);
}

/* Its timeout is that of the call: a receive can be called again, a collective cannot. */
static void time_out(struct group *world) {
    struct outcome outcome;
    float one = 1, total, x;
    int rank = group_rank(world), last = group_size(world) - 1;
    if (rank == last) {
        sleep_s(1);
        core_finish(&outcome);
        return;
    }
    group_set_timeout(world, 0.2);
    finish(start(world, message_of(OPERATION_RECV, last, 1), NULL, &x), STATUS_TIMED_OUT);
    CHECK(!group_is_broken(world));
    struct work *work = start(world, sum_of(1), &one, &total);
    int result = work_wait(work, -1, &outcome);
    CHECK(result == STATUS_TIMED_OUT || result == STATUS_PEER_DIED);
    CHECK(group_is_broken(world));
    work_release(work);
    core_finish(&outcome);
}

static void in_order(void) {
    run_groups(one_host, sum_in_order, 0);
    run_groups(two_hosts, sum_in_order, 0);
}

static void messages(void) {
    run_groups(one_host, exchange, 0);
    run_groups(two_hosts, exchange, 0);
}

static void two_groups(void) {
    run_groups(one_host, cross, 0);
    run_groups(two_hosts, cross, 0);
}

static void waits(void) {
    run_groups(one_host, late, 0);
    run_groups(two_hosts, late, 0);
}

static void one_dies(void) {
    run_groups(one_host, die, 1);
}

static void timeouts(void) {
    run_groups(one_host, time_out, 0);
    run_groups(two_hosts, time_out, 0);
}

PROGRAM({"in-order", in_order}, {"messages", messages}, {"two-groups", two_groups}, {"waits", waits},
        {"one-dies", one_dies}, {"timeouts", timeouts})
