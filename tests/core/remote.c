/* Messages between hosts: in many pieces, of many threads, and given up in the middle. */
#include "mlxdist/group/remote.h"
#include "job.h"
#include "mlxdist/group/bounce.h"

enum {
    PIECE = (BOUNCE_NBYTES - CACHE_LINE) / sizeof(float),
    LONG = 6 * PIECE + 7,
    N_THREADS = 3,
    ROUNDS = 4,
    N_TAKEN = 8
};
static const int64_t counts[] = {0, 1, PIECE - 1, PIECE, PIECE + 1, REMOTE_IN_FLIGHT * PIECE + 1, LONG};
enum { N_COUNTS = sizeof counts / sizeof *counts };

static float *numbers(int64_t count, int rank, uint32_t draw) {
    float *x = malloc((size_t)count * sizeof *x + 1);
    CHECK(x);
    for (int64_t i = 0; i < count; i++)
        x[i] = number(i, rank, draw);
    return x;
}

static void check_numbers(const float *x, int64_t count, int rank, uint32_t draw) {
    for (int64_t i = 0; i < count; i++)
        CHECK(x[i] == number(i, rank, draw));
}

/* As the draw has it: with one call or two, in place, of memory that counts as a device's. */
static void exchange(struct group *group, int dst, int src, int64_t count, uint32_t draw) {
    struct outcome outcome;
    int is_one = draw / 2 % 2, rank = group_rank(group);
    float *x = numbers(count, rank, draw), *other = numbers(count, -1, draw), *out = other;
    struct call send = flat_call(is_one ? OPERATION_SENDRECV : OPERATION_SEND, 0, TYPE_FLOAT32, dst, count);
    struct call recv = flat_call(OPERATION_RECV, 0, TYPE_FLOAT32, src, count);
    send.src = src;
    send.on_device = draw / 4 % 3 == 0;
    recv.on_device = draw / 12 % 3 == 0;
    if (is_one && !send.on_device && draw % 2)
        out = x;
    if (is_one)
        CHECK(group_p2p(group, &send, x, out, &outcome) == STATUS_OK);
    for (int i = 0; !is_one && i < 2; i++)
        CHECK((i == !rank ? group_p2p(group, &recv, NULL, out, &outcome)
                          : group_p2p(group, &send, x, NULL, &outcome)) == STATUS_OK);
    check_numbers(out, count, src, draw);
    free(x);
    free(other);
}

static void exchange_all(struct group *world) {
    for (uint32_t draw = 0; draw < 4 * N_COUNTS; draw++)
        exchange(world, (world_rank + 1) % RANKS, (world_rank + RANKS - 1) % RANKS, counts[draw % N_COUNTS],
                 scramble(draw));
    end();
}

static void of_many_pieces(void) {
    run_groups(two_hosts, exchange_all, 0);
}

static void by_rendezvous_only(void) {
    eager_nbytes = -1;
    run_groups(two_and_two_alone, exchange_all, 0);
}

/* Another is expected: it is received whole, and thrown away. */
static void throw_away(struct group *world) {
    struct outcome outcome;
    int peer = world_rank ^ 1;
    for (int i = 0; i < N_COUNTS; i++) {
        float *x = numbers(counts[i], world_rank, 0);
        struct call send = flat_call(OPERATION_SEND, 0, TYPE_FLOAT32, peer, counts[i]);
        struct call recv = flat_call(OPERATION_RECV, 0, TYPE_FLOAT32, peer, counts[i] / 2 + 1);
        if (world_rank % 2)
            CHECK(group_p2p(world, &send, x, NULL, &outcome) == STATUS_OK);
        else
            CHECK(group_p2p(world, &recv, NULL, x, &outcome) == (counts[i] == 1 ? STATUS_OK : STATUS_MISMATCH));
        exchange(world, peer, peer, counts[i], 2);
        free(x);
    }
    end();
}

static void thrown_away(void) {
    run_groups(two_hosts, throw_away, 0);
}

/* Of threads of one group, two of which have the same peer: so either gets what the other's counterpart has sent. */
struct user {
    struct group *group;
    int peer;
    uint32_t draw;
};

static uint32_t draw_of(const float *x, int rank) {
    for (uint32_t draw = 0; draw < N_THREADS * ROUNDS; draw++)
        for (int i = 0; x[i] == number(i, rank, draw); i++)
            if (i == 9)
                return draw;
    CHECK(!"nobody has sent this");
    return 0;
}

static void *use(void *argument) {
    const struct user *user = argument;
    struct outcome outcome;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        float *x = numbers(LONG, world_rank, user->draw + i);
        struct call call = flat_call(OPERATION_SENDRECV, 0, TYPE_FLOAT32, user->peer, LONG);
        call.src = user->peer;
        CHECK(group_p2p(user->group, &call, x, x, &outcome) == STATUS_OK);
        check_numbers(x, LONG, user->peer, draw_of(x, user->peer));
        free(x);
    }
    return NULL;
}

static void at_once(struct group *world) {
    struct user users[N_THREADS];
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) {
        users[i] = (struct user){world, world_rank ^ (i ? 1 : 3), (uint32_t)(i * ROUNDS)};
        CHECK(!pthread_create(&threads[i], NULL, use, &users[i]));
    }
    for (int i = 0; i < N_THREADS; i++)
        CHECK(!pthread_join(threads[i], NULL));
    end();
}

static void of_many_threads(void) {
    run_groups(two_hosts, at_once, 0);
}

/* Of each pair one rank has a timeout, and the pieces after the first do not come. Memory of a device is MPI's itself.
 */
static int sender_gives_up, is_sent_from_device, is_received_on_device;

static int is_further_piece(int from, int tag) {
    (void)from;
    return tag != REMOTE_HEADER && tag != REMOTE_GIVEN_UP;
}

/* MPI goes on with what it has. That is nothing of later messages. */
static void go_on(void) {
    char *taken[N_TAKEN];
    for (int i = 0; i < N_TAKEN; i++) {
        CHECK((taken[i] = bounce_take()));
        memset(taken[i], world_rank, BOUNCE_NBYTES);
    }
    is_lost = NULL;
    post_finish();
    for (int i = 0; i < N_TAKEN; i++) {
        for (int k = 0; k < BOUNCE_NBYTES; k++)
            CHECK(taken[i][k] == world_rank);
        bounce_put(taken[i]);
    }
}

static void give_up(struct group *world) {
    struct outcome outcome;
    struct group *part;
    int sends = world_rank % 2 == 0, peer = world_rank ^ 1, gives_up = sends == sender_gives_up;
    float *x = numbers(LONG, world_rank, 0);
    struct call call = flat_call(sends ? OPERATION_SEND : OPERATION_RECV, 0, TYPE_FLOAT32, peer, LONG);
    call.on_device = sends ? is_sent_from_device : is_received_on_device;
    CHECK(group_split(world, 0, world_rank, &part, &outcome) == STATUS_OK);
    is_lost = is_further_piece;
    if (gives_up)
        group_set_timeout(part, 0.2);
    CHECK(group_p2p(part, &call, x, x, &outcome) == (gives_up ? STATUS_TIMED_OUT : STATUS_PEER_DIED));
    if (!gives_up)
        CHECK_TEXT(outcome, "has given up a message with this rank on this group: see its own error");
    CHECK(group_is_broken(part));
    group_release(part);
    if (!call.on_device)
        free(x);
    meet();
    go_on();
    if (call.on_device)
        free(x);
    exchange(world, peer, peer, LONG, 2);
    end();
    if (is_sent_from_device)
        _exit(0); /* remote_end() has kept the memory of the header, too: that is no leak to look for */
}

static void given_up(void) {
    for (int way = 0; way < 6; way++) {
        sender_gives_up = way % 2, is_sent_from_device = way / 2 > 0, is_received_on_device = way / 2 > 1;
        run_groups(two_hosts, give_up, 0);
    }
}

/* A call of MPI fails in the middle of a message, on one side. */
static int sender_fails;

static void fail_in_the_middle(struct group *world) {
    struct outcome outcome;
    struct group *part;
    int sends = world_rank % 2 == 0, peer = world_rank ^ 1, fails_here = sends == sender_fails;
    float *x = numbers(LONG, world_rank, 0);
    struct call call = flat_call(sends ? OPERATION_SEND : OPERATION_RECV, 0, TYPE_FLOAT32, peer, LONG);
    CHECK(group_split(world, 0, world_rank, &part, &outcome) == STATUS_OK);
    if (fails_here)
        messages_fail_in = 3;
    CHECK(group_p2p(part, &call, x, x, &outcome) == (fails_here ? STATUS_MPI_FAILED : STATUS_PEER_DIED));
    CHECK(group_is_broken(part) && !messages_fail_in);
    free(x);
    group_release(part);
    exchange(world, peer, peer, LONG, 2);
    meet();
    end();
}

static void failed_in_the_middle(void) {
    for (sender_fails = 0; sender_fails < 2; sender_fails++)
        run_groups(two_hosts, fail_in_the_middle, 0);
}

/* Rank 1 waits for two messages on two threads; rank 0 gives up the one that it has begun. */
static void *wait_in_vain(void *argument) {
    struct outcome outcome;
    float *x = numbers(LONG, 0, 0);
    struct call call = flat_call(OPERATION_RECV, 0, TYPE_FLOAT32, 0, LONG);
    CHECK(group_p2p(argument, &call, NULL, x, &outcome) == STATUS_PEER_DIED);
    CHECK_TEXT(outcome, "rank 0 has given up a message");
    free(x);
    return NULL;
}

static void tell_all(struct group *world) {
    struct outcome outcome;
    pthread_t threads[2];
    float *x = numbers(LONG, world_rank, 0);
    struct call send = flat_call(OPERATION_SEND, 0, TYPE_FLOAT32, 1, LONG);
    is_lost = is_further_piece;
    if (world_rank == 0) {
        group_set_timeout(world, 0.2);
        CHECK(group_p2p(world, &send, x, NULL, &outcome) == STATUS_TIMED_OUT);
    }
    for (int i = 0; world_rank == 1 && i < 2; i++)
        CHECK(!pthread_create(&threads[i], NULL, wait_in_vain, world));
    for (int i = 0; world_rank == 1 && i < 2; i++)
        CHECK(!pthread_join(threads[i], NULL));
    free(x);
    meet();
}

static void all_are_told(void) {
    run_groups(two_hosts, tell_all, 0);
}

/* Rank 0 has sent a message before it gave up another: rank 1 gets it, though it sees the notice first. */
static double shown_s;

static int is_early(int from, int tag) {
    (void)from;
    return tag == REMOTE_HEADER && clock_s() < shown_s;
}

static void see_the_notice_first(struct group *world) {
    struct outcome outcome;
    int peer = world_rank ^ 1, count = world_rank ? 1 : LONG;
    float *x = numbers(count, world_rank, 0);
    struct call send = flat_call(OPERATION_SEND, 0, TYPE_FLOAT32, peer, 1);
    struct call more = flat_call(OPERATION_SEND, 0, TYPE_FLOAT32, peer, LONG);
    struct call recv = flat_call(OPERATION_RECV, 0, TYPE_FLOAT32, peer, 1);
    if (world_rank == 0) {
        CHECK(group_p2p(world, &send, x, NULL, &outcome) == STATUS_OK);
        group_set_timeout(world, 0.1);
        CHECK(group_p2p(world, &more, x, NULL, &outcome) == STATUS_TIMED_OUT);
    }
    meet();
    shown_s = clock_s() + 0.05;
    is_lost = is_early;
    if (world_rank == 1) {
        CHECK(group_p2p(world, &recv, NULL, x, &outcome) == STATUS_OK);
        check_numbers(x, 1, 0, 0);
    }
    free(x);
    meet();
}

static void sent_before(void) {
    run_groups(two_hosts, see_the_notice_first, 0);
}

/* A receive that times out before its message comes has changed nothing. */
static void come_late(struct group *world) {
    struct outcome outcome;
    int peer = world_rank ^ 1;
    float x;
    struct call recv = flat_call(OPERATION_RECV, 0, TYPE_FLOAT32, peer, 1);
    group_set_timeout(world, 0.1);
    CHECK(group_p2p(world, &recv, NULL, &x, &outcome) == STATUS_TIMED_OUT && !group_is_broken(world));
    group_set_timeout(world, 0);
    meet();
    exchange(world, peer, peer, LONG, 2);
    end();
}

static void before_it_comes(void) {
    run_groups(two_hosts, come_late, 0);
}

PROGRAM({"of-many-pieces", of_many_pieces}, {"by-rendezvous-only", by_rendezvous_only}, {"thrown-away", thrown_away},
        {"of-many-threads", of_many_threads}, {"given-up", given_up}, {"failed-in-the-middle", failed_in_the_middle},
        {"all-are-told", all_are_told}, {"sent-before", sent_before}, {"before-it-comes", before_it_comes})
