/* Groups that only their members make: at once and in any order, and calls that some of them give up. */
#include "job.h"

enum { SETS = (1 << RANKS) - 1, ROUNDS = 2, ATTEMPTS = 3, ROUNDS_OF_ATTEMPTS = 20 };

/* The ranks of a set, a bit for each, in an order that the set has. */
static int ranks_of(int set, int *ranks) {
    int n = 0;
    for (int i = 0; i < RANKS; i++) {
        int rank = (i + set) % RANKS;
        if (set >> rank & 1)
            ranks[n++] = rank;
    }
    return n;
}

struct maker {
    struct group *group;
    int set;
    double delay_s;
};

static void *make(void *argument) {
    const struct maker *maker = argument;
    struct group *part;
    struct outcome outcome;
    int ranks[RANKS], n = ranks_of(maker->set, ranks), sum = 0;
    int32_t x = world_rank;
    struct call call = flat_call(OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_INT32, 0, 1);
    sleep_s(maker->delay_s);
    CHECK(group_create(maker->group, ranks, n, 0, &part, &outcome) == STATUS_OK);
    CHECK(group_size(part) == n && ranks[group_rank(part)] == world_rank);
    CHECK(group_local_rank(part) < group_local_size(part) && group_local_size(part) <= n);
    for (int i = 0; i < n; i++)
        sum += ranks[i];
    CHECK(group_run(part, &call, &x, &x, &outcome) == STATUS_OK && x == sum);
    group_release(part);
    return NULL;
}

/* Every set of ranks on a thread of its own. */
static void make_all(struct group *world) {
    struct group *part;
    struct outcome outcome;
    CHECK(group_split(world, 0, RANKS - world_rank, &part, &outcome) == STATUS_OK);
    group_release(part); /* its communicator is freed while others are made */
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct maker makers[SETS];
        pthread_t threads[SETS];
        int n = 0;
        for (int set = 1; set <= SETS; set++) {
            if (!(set >> world_rank & 1))
                continue;
            double delay_s = 1e-6 * (scramble(round * 256 + (uint32_t)(set * RANKS + world_rank)) % 2000);
            makers[n] = (struct maker){world, set, round % 2 ? delay_s : 0};
            CHECK(!pthread_create(&threads[n], NULL, make, &makers[n]));
            n++;
        }
        for (int i = 0; i < n; i++)
            CHECK(!pthread_join(threads[i], NULL));
    }
    end();
    CHECK(atomic_load(&live_comms) == 1);
}

static void at_once(void) {
    run_groups(one_host, make_all, 0);
    eager_nbytes = -1;
    run_groups(two_hosts, make_all, 0);
}

/* Ranks that come late, and some with a timeout: an attempt works on all of them, or fails once on each. The last of a
 * round has no timeout, so it works, whatever is still under way of the others. */
static void give_up(struct group *world) {
    struct outcome outcome;
    struct group *parent, *part;
    const int ranks[] = {2, 0, 3, 1};
    int64_t made = 0, failed = 0;
    CHECK(group_split(world, 0, world_rank, &parent, &outcome) == STATUS_OK);
    for (uint32_t attempt = 0; attempt < ROUNDS_OF_ATTEMPTS * ATTEMPTS; attempt++) {
        uint32_t draw = scramble(attempt * RANKS + (uint32_t)world_rank);
        int is_last = attempt % ATTEMPTS == ATTEMPTS - 1;
        if (draw % 3 == 0)
            sleep_s(1e-6 * (draw % 6000));
        group_set_timeout(parent, is_last || draw % 4 ? 0 : 1e-6 * (1 + draw % 4000));
        int result = group_create(parent, ranks, RANKS, 0, &part, &outcome);
        CHECK(!result || (!is_last && (result == STATUS_TIMED_OUT || result == STATUS_PEER_DIED)));
        CHECK(!result == !!part && !group_is_broken(parent));
        *(result ? &failed : &made) |= (int64_t)1 << attempt;
        if (part) {
            CHECK(ranks[group_rank(part)] == world_rank);
            group_release(part);
        }
    }
    struct call call = flat_call(OPERATION_ALLREDUCE, REDUCE_MIN, TYPE_INT64, 0, 2);
    int64_t same[2] = {made, failed};
    CHECK(group_run(world, &call, same, same, &outcome) == STATUS_OK);
    CHECK(same[0] == made && same[1] == failed && failed);
    group_release(parent);
    end();
}

static void given_up(void) {
    run_groups(one_host, give_up, 0);
    run_groups(two_hosts, give_up, 0);
}

/* Whatever is passed: all are told who passed what. Ranks that wait for each other in different calls have no other
 * thread. */
static void differ(struct group *world) {
    struct outcome outcome;
    struct group *part;
    struct call call = flat_call(OPERATION_BARRIER, 0, 0, 0, 0);
    const int straight[] = {0, 1, 2, 3}, crossed[] = {0, 2, 1, 3}, fewer[] = {0, 3};
    CHECK(group_create(world, world_rank == 2 ? crossed : straight, RANKS, 0, &part, &outcome) == STATUS_MISMATCH);
    CHECK_TEXT(outcome, "the ranks differ:\n  rank 0: group([0, 1, 2, 3])\n  rank 2: group([0, 2, 1, 3])\npass");
    CHECK(group_run(world, &call, NULL, NULL, &outcome) == STATUS_OK);
    int is_last = world_rank == 3;
    CHECK(group_create(world, is_last ? fewer : straight, is_last ? 2 : RANKS, 1, &part, &outcome) == STATUS_MISMATCH);
    CHECK_TEXT(outcome, "group([0, 1, 2, 3])\n");
    CHECK_TEXT(outcome, "group([0, 3])\n");
    CHECK(group_run(world, &call, NULL, NULL, &outcome) == STATUS_OK);
    end();
}

static void who_differs(void) {
    run_groups(one_host, differ, 0);
    run_groups(two_hosts, differ, 0);
}

/* A member dies before it calls: those of its host see it, and tell the others. */
static void last_dies(struct group *world) {
    struct outcome outcome;
    struct group *part;
    const int ranks[] = {3, 2, 1, 0};
    if (world_rank == RANKS - 1)
        kill(getpid(), SIGKILL);
    CHECK(group_create(world, ranks, RANKS, 0, &part, &outcome) == STATUS_PEER_DIED && !part);
    CHECK_TEXT(outcome, "rank 3 (pid ");
    CHECK_TEXT(outcome, "has died");
    core_finish(&outcome);
}

static void one_dies(void) {
    timeout_s = TOO_LONG_S - 10;
    run_groups(one_host, last_dies, 1);
    run_groups(two_hosts, last_dies, 1);
}

PROGRAM({"at-once", at_once}, {"given-up", given_up}, {"who-differs", who_differs}, {"one-dies", one_dies})
