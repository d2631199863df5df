/* A rank gives up a call between hosts, at any point: the others are told long before their own timeouts, no rank is
 * left in MPI, and what MPI may still read or write is not freed. Its peers' messages come after that. */
#include <sys/resource.h>

#include "job.h"
#include "mlxdist/net/news.h"

enum { TRIES = 3, LONG = 300000, SHORT = 5, PASSED = 12, SHORT_MS = 200, LONG_S = 80, SOON_S = 30 };

static const struct scene {
    const int *hosts;
    int loser, tag; /* of the messages that it does not get; 0: of a rank of its host that arrives late */
    int count;      /* of the call, or 0: a split */
    int impatient;  /* the rank that gives up */
} scenes[] = {
    {two_hosts, 0, 0, SHORT, 0},
    {two_hosts, 0, 0, LONG, 0},
    {two_hosts, 0, 0, 0, 0},
    {two_hosts, 0, NET_TAG_OPENING, SHORT, 0},
    {two_hosts, 1, NET_TAG_OPENING, LONG, 1},
    {two_hosts, 0, NET_TAG_OPENING, SHORT, 2},
    {two_hosts, 0, NET_TAG_OPENING, 0, 0},
    {two_hosts, 0, NET_TAG_OPENING, 0, 2},
    {two_hosts, 0, NET_TAG_PARTIAL, LONG, 0},
    {in_a_row, 3, NET_TAG_PARTIAL + 1, LONG, 3},
    {in_a_row, 2, NET_TAG_PARTIAL, LONG, 3},
    {three_and_one, 3, NET_TAG_PARTIAL + 2, LONG, 3},
    {two_and_two_alone, 2, NET_TAG_PARTIAL, LONG, 2},
    {two_and_two_alone, 0, NET_TAG_RESULT, LONG, 0},
    {two_and_two_alone, 3, NET_TAG_RESULT + 1, LONG, 3},
};
enum { SCENES = sizeof scenes / sizeof *scenes };
static const struct scene *scene;
static int passed;
static float x[LONG], out[LONG];

/* Some come before those that do not. */
static int is_of_tag(int from, int tag) {
    (void)from;
    return tag == scene->tag && (tag < NET_TAG_PARTIAL || ++passed > PASSED);
}

static int call_once(struct group *group, int count, struct outcome *outcome) {
    struct group *part;
    struct call call = flat_call(OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_FLOAT32, 0, count);
    if (!count)
        return group_split(group, 0, world_rank, &part, outcome);
    for (int i = 0; i < count; i++)
        x[i] = number(i, world_rank, 1);
    int result = group_run(group, &call, x, out, outcome);
    for (int i = 0; result == STATUS_OK && i < count; i++)
        CHECK(out[i] == number(i, 0, 1) + number(i, 1, 1) + number(i, 2, 1) + number(i, 3, 1));
    return result;
}

/* Others may have all that they need of a call, or of two. */
static int call_until_it_fails(struct group *group, int count, struct outcome *outcome) {
    for (int i = 0; i < TRIES; i++)
        if (call_once(group, count, outcome))
            return outcome->status;
    return STATUS_OK;
}

/* A program that goes on, so messages of the past move. */
static void go_on(struct group *world) {
    struct outcome outcome;
    CHECK(call_once(world, SHORT, &outcome) == STATUS_OK);
    CHECK(call_once(world, LONG, &outcome) == STATUS_OK);
    CHECK(call_once(world, SHORT, &outcome) == STATUS_OK);
}

static void release_and_go_on(struct group *world, struct group *part) {
    struct outcome outcome;
    CHECK(call_once(part, SHORT, &outcome) != STATUS_OK && group_is_broken(part));
    group_release(part);
    is_lost = NULL;
    go_on(world);
    if (world_rank == n_ranks - 1)
        sleep_s(SHORT_MS / 1e3 / 4); /* the others end meanwhile, without MPI, and still answer its host */
    CHECK(core_finish(&outcome) == STATUS_OK);
}

static void give_up(struct group *world) {
    struct outcome outcome;
    struct group *part;
    CHECK(group_split(world, 0, world_rank, &part, &outcome) == STATUS_OK);
    group_set_timeout(part, world_rank == scene->impatient ? SHORT_MS / 1e3 : LONG_S);
    if (scene->tag && world_rank == scene->loser)
        is_lost = is_of_tag;
    if (!scene->tag && world_rank != scene->impatient && host_of[world_rank] == host_of[scene->impatient])
        sleep_s(3 * SHORT_MS / 1e3);
    double begun_s = clock_s();
    int status = call_until_it_fails(part, scene->count, &outcome);
    CHECK(status == (world_rank == scene->impatient ? STATUS_TIMED_OUT : STATUS_PEER_DIED));
    CHECK(clock_s() - begun_s < SOON_S);
    release_and_go_on(world, part);
}

static void run_scenes(int first, int end) {
    for (scene = scenes + first; scene < scenes + end; scene++)
        run_groups(scene->hosts, give_up, 0);
}

static void before_it_begins(void) {
    run_scenes(0, 8);
}

static void in_the_middle(void) {
    for (int i = 8; i < SCENES; i++) {
        eager_nbytes = i % 2 ? -1 : 1 << 14;
        run_scenes(i, i + 1);
    }
}

/* MPI fails: here, as one of the sends and receives of a call begins. */
static int fails_at;

static void fail_to_send(struct group *world) {
    struct outcome outcome;
    struct group *part;
    int count = fails_at > 6 ? LONG : SHORT, is_failing = world_rank == 2;
    CHECK(group_split(world, 0, world_rank, &part, &outcome) == STATUS_OK);
    group_set_timeout(part, LONG_S);
    messages_fail_in = is_failing ? fails_at : 0;
    double begun_s = clock_s();
    int status = call_until_it_fails(part, count, &outcome);
    if (is_failing)
        CHECK(status == STATUS_MPI_FAILED && !messages_fail_in);
    else if (host_of[world_rank] == host_of[2]) /* the leader of the host may have answered for it */
        CHECK(status == STATUS_MPI_FAILED || status == STATUS_PEER_DIED);
    else
        CHECK(status == STATUS_PEER_DIED);
    CHECK(clock_s() - begun_s < SOON_S);
    release_and_go_on(world, part);
}

static void mpi_fails(void) {
    static const int tried[] = {1, 2, 7, 9, 12, 20};
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        fails_at = tried[i];
        run_groups(two_and_two_alone, fail_to_send, 0);
        run_groups(in_a_row, fail_to_send, 0);
    }
}

/* The last is killed in the middle of a call. Ranks of its host see it, and tell the others; if it was alone there, all
 * wait for their timeouts. */
static int kill_me(int from, int tag) {
    (void)from;
    if (tag >= NET_TAG_PARTIAL && ++passed > PASSED)
        kill(getpid(), SIGKILL);
    return 0;
}

static void be_killed(struct group *world) {
    struct outcome outcome;
    int is_alone = host_of[RANKS - 1] == 1 && host_of[1] == 0;
    group_set_timeout(world, is_alone ? 1 : LONG_S);
    if (world_rank == RANKS - 1)
        is_lost = kill_me;
    double begun_s = clock_s();
    int status = call_until_it_fails(world, LONG, &outcome);
    CHECK(status == STATUS_PEER_DIED || (is_alone && status == STATUS_TIMED_OUT));
    CHECK(clock_s() - begun_s < SOON_S);
    core_finish(&outcome);
}

static void one_is_killed(void) {
    run_groups(in_a_row, be_killed, 1);
    run_groups(two_hosts, be_killed, 1);
    run_groups(three_and_one, be_killed, 1);
}

/* No memory on one host for what long calls need: all are told, and short calls go on, as do long ones with memory. */
static void limit_files(rlim_t to) {
    struct rlimit limit;
    CHECK(!getrlimit(RLIMIT_FSIZE, &limit));
    limit.rlim_cur = to;
    CHECK(!setrlimit(RLIMIT_FSIZE, &limit));
}

static int poor; /* rank */

static void want_memory(struct group *world) {
    struct outcome outcome;
    signal(SIGXFSZ, SIG_IGN);
    for (int again = 0; again < 2; again++) {
        if (world_rank == poor)
            limit_files(1 << 16);
        CHECK(call_once(world, LONG, &outcome) == STATUS_OUT_OF_MEMORY && !group_is_broken(world));
        CHECK_TEXT(outcome, "has no memory for what its ranks send to other hosts");
        CHECK(call_once(world, SHORT, &outcome) == STATUS_OK);
        if (world_rank == poor)
            limit_files(RLIM_INFINITY);
    }
    go_on(world);
    end();
}

static void no_memory(void) {
    for (poor = 0; poor < 2; poor++)
        run_groups(two_hosts, want_memory, 0);
}

PROGRAM({"before-it-begins", before_it_begins}, {"in-the-middle", in_the_middle}, {"mpi-fails", mpi_fails},
        {"one-is-killed", one_is_killed}, {"no-memory", no_memory})
