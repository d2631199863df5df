/* The whole core over a transport of the tests: ranks are processes, on one host or on several, with threads. */
#include "job.h"
#include "mlxdist/shm/shm.h"

enum { ROUNDS = 120, KEPT = 4, SMALL = 50, LARGE = 20000, N_THREADS = 3, SAMPLES = 25 };

static struct group *not_made;

static float number_of_all(int64_t i, const int *members, int size, uint32_t draw) {
    float total = 0;
    for (int k = 0; k < size; k++)
        total += number(i, members[k], draw);
    return total;
}

/* members: ranks of the world. */
static void operate(struct group *group, const int *members, uint32_t draw) {
    int size = group_size(group), rank = group_rank(group);
    int64_t count = draw % 3 ? (int64_t)(draw / 3 % SMALL) * size : (int64_t)(draw / 3 % LARGE) / size * size;
    float *x = malloc((size_t)count * sizeof *x + 1), *out = malloc((size_t)(count * size) * sizeof *out + 1);
    int root = (int)(draw % (uint32_t)size);
    struct outcome outcome;
    CHECK(x && out);
    for (int64_t i = 0; i < count; i++)
        x[i] = number(i, world_rank, draw);
    struct call sum = flat_call(OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_FLOAT32, 0, count);
    struct call scatter = flat_call(OPERATION_REDUCE_SCATTER, REDUCE_SUM, TYPE_FLOAT32, 0, count);
    struct call gather = flat_call(OPERATION_ALLGATHER, 0, TYPE_FLOAT32, 0, count);
    struct call from_root = flat_call(OPERATION_BROADCAST, 0, TYPE_FLOAT32, root, count);
    struct call barrier = flat_call(OPERATION_BARRIER, 0, 0, 0, 0);
    CHECK(group_run(group, &sum, x, out, &outcome) == STATUS_OK);
    for (int64_t i = 0; i < count; i++)
        CHECK(out[i] == number_of_all(i, members, size, draw));
    CHECK(size == 1 || group_run(group, &scatter, x, out, &outcome) == STATUS_OK);
    for (int64_t i = 0; size > 1 && i < count / size; i++)
        CHECK(out[i] == number_of_all(i + rank * (count / size), members, size, draw));
    CHECK(size == 1 || group_run(group, &gather, x, out, &outcome) == STATUS_OK);
    for (int64_t i = 0; size > 1 && i < count * size; i++)
        CHECK(out[i] == number(i % count, members[i / count], draw));
    CHECK(group_run(group, &barrier, NULL, NULL, &outcome) == STATUS_OK);
    CHECK(group_run(group, &from_root, x, x, &outcome) == STATUS_OK);
    for (int64_t i = 0; i < count; i++)
        CHECK(x[i] == number(i, members[root], draw));
    CHECK(group_run(group, &sum, x, x, &outcome) == STATUS_OK);
    if (size > 1 && count * (int64_t)sizeof *x <= AREA) {
        struct call send = flat_call(OPERATION_SEND, 0, TYPE_FLOAT32, (rank + 1) % size, count);
        struct call recv = flat_call(OPERATION_RECV, 0, TYPE_FLOAT32, (rank + size - 1) % size, count);
        for (int i = 0; i < 2; i++)
            CHECK((i == !rank ? group_p2p(group, &recv, NULL, out, &outcome)
                              : group_p2p(group, &send, x, NULL, &outcome)) == STATUS_OK);
        CHECK(!memcmp(x, out, (size_t)count * sizeof *x));
        struct call both = flat_call(OPERATION_SENDRECV, 0, TYPE_FLOAT32, (rank + 1) % size, count);
        float *to = draw % 2 ? x : out, first = count ? x[0] : 0; /* the same on every rank */
        both.src = recv.peer;
        if (count)
            x[0] += (float)rank;
        CHECK(group_p2p(group, &both, x, to, &outcome) == STATUS_OK);
        CHECK(!count || to[0] == first + (float)recv.peer);
    }
    free(x);
    free(out);
}

/* Groups of groups, freed by each rank at a time of its own. */
static void split_and_free(struct group *world) {
    struct group *groups[KEPT] = {world};
    int members[KEPT][RANKS] = {{0, 1, 2, 3}}, n = 1;
    struct outcome outcome;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t draw = scramble(i), from = draw % (uint32_t)n;
        if (n == KEPT)
            group_release(groups[--n]);
        int color = (int)(scramble(i * RANKS + (uint32_t)world_rank) % 3), size = 0, colors[RANKS];
        for (int rank = 0; rank < RANKS; rank++)
            colors[rank] = (int)(scramble(i * RANKS + (uint32_t)rank) % 3);
        from = from < (uint32_t)n ? from : 0;
        CHECK(group_split(groups[from], color, RANKS - world_rank, &groups[n], &outcome) == STATUS_OK);
        for (int rank = RANKS - 1; rank >= 0; rank--)
            for (int k = 0; k < group_size(groups[from]); k++)
                if (members[from][k] == rank && colors[rank] == color)
                    members[n][size++] = rank;
        CHECK(size == group_size(groups[n]) && members[n][group_rank(groups[n])] == world_rank);
        operate(groups[n], members[n], scramble(draw));
        operate(groups[from], members[from], scramble(draw + 1));
        n++;
    }
    while (n > 1)
        group_release(groups[--n]);
    end();
    CHECK(atomic_load(&live_comms) == 1); /* the world */
}

static void on_one_host(void) {
    run_groups(one_host, split_and_free, 0);
}

static void on_two_hosts(void) {
    run_groups(two_hosts, split_and_free, 0);
    eager_nbytes = -1;
    run_groups(in_a_row, split_and_free, 0);
}

static void on_uneven_hosts(void) {
    run_groups(three_and_one, split_and_free, 0);
    run_groups(two_and_two_alone, split_and_free, 0);
}

static void not_shared_at_all(void) {
    shares = 0;
    run_groups(one_host, split_and_free, 0);
}

/* Collectives of several threads, and groups that a thread frees while another ends all. */
static void *use_group(void *argument) {
    struct group *group = argument, *part;
    static const int members[RANKS] = {0, 1, 2, 3};
    struct outcome outcome;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        operate(group, members, 3 * i + 1);
        CHECK(group_split(group, 0, world_rank, &part, &outcome) == STATUS_OK);
        group_release(part);
    }
    return NULL;
}

static void *free_slowly(void *argument) {
    struct group **groups = argument;
    for (int i = 0; i < SAMPLES; i++) {
        sleep_s(1e-4);
        group_release(groups[i]);
    }
    return NULL;
}

static void at_once(struct group *world) {
    struct group *groups[N_THREADS], *more[SAMPLES];
    pthread_t threads[N_THREADS], other;
    struct outcome outcome;
    for (int i = 0; i < N_THREADS; i++)
        CHECK(group_split(world, 0, world_rank, &groups[i], &outcome) == STATUS_OK);
    for (int i = 0; i < SAMPLES; i++)
        CHECK(group_split(world, world_rank % 2, world_rank, &more[i], &outcome) == STATUS_OK);
    for (int i = 0; i < N_THREADS; i++)
        CHECK(!pthread_create(&threads[i], NULL, use_group, groups[i]));
    for (int i = 0; i < N_THREADS; i++)
        CHECK(!pthread_join(threads[i], NULL));
    CHECK(!pthread_create(&other, NULL, free_slowly, more));
    end();
    CHECK(!pthread_join(other, NULL));
    for (int i = 0; i < N_THREADS; i++)
        group_release(groups[i]);
    struct call call = flat_call(OPERATION_BARRIER, 0, 0, 0, 0);
    CHECK(group_run(world, &call, NULL, NULL, &outcome) == STATUS_GROUP_CLOSED);
}

static void threads_on_one_host(void) {
    run_groups(one_host, at_once, 0);
}

static void threads_on_two_hosts(void) {
    run_groups(two_hosts, at_once, 0);
}

/* Every rank of every host is told who called what, and the group is broken. */
static void call_differently(struct group *world) {
    struct outcome outcome;
    float x[2] = {1, 2};
    struct call call = flat_call(OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_FLOAT32, 0, 1 + (world_rank == 2));
    CHECK(group_run(world, &call, x, x, &outcome) == STATUS_MISMATCH);
    CHECK_TEXT(outcome,
               "the ranks differ in call 1 on this group of 4:\n  rank 0, 1, 3: all_sum float32 (1,)\n  rank 2");
    CHECK(group_run(world, &call, x, x, &outcome) == STATUS_MISMATCH);
    CHECK_TEXT(outcome, "this group was broken by an earlier error: the ranks differ");
    CHECK(group_split(world, 0, 0, &not_made, &outcome) == STATUS_MISMATCH && !not_made);
    end();
}

/* Arrays on a GPU go another way than those on the host, so one rank would wait for the other forever. */
static void call_from_a_device(struct group *world) {
    struct outcome outcome;
    float x[2] = {1, 2};
    struct call call = flat_call(OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_FLOAT32, 0, 2);
    call.on_device = world_rank == 2;
    CHECK(group_run(world, &call, x, x, &outcome) == STATUS_MISMATCH);
    CHECK_TEXT(outcome, "\n  rank 0, 1, 3: all_sum float32 (2,)\n  rank 2: all_sum float32 (2,) on a GPU");
    end();
}

static void who_differs(void) {
    run_groups(one_host, call_differently, 0);
    run_groups(two_hosts, call_differently, 0);
    run_groups(one_host, call_from_a_device, 0);
    run_groups(two_hosts, call_from_a_device, 0);
}

/* The ranks of its host see that the last has died, and tell the other host, long before the timeout. */
static void last_dies(struct group *world) {
    struct outcome outcome;
    struct call call = flat_call(OPERATION_BARRIER, 0, 0, 0, 0);
    CHECK(group_run(world, &call, NULL, NULL, &outcome) == STATUS_OK);
    if (world_rank == RANKS - 1)
        kill(getpid(), SIGKILL);
    int is_neighbour = host_of[world_rank] == host_of[RANKS - 1];
    CHECK(group_run(world, &call, NULL, NULL, &outcome) == STATUS_PEER_DIED);
    CHECK(!is_neighbour || (strstr(outcome.text, "rank 3 (pid ") && strstr(outcome.text, "has died")));
    CHECK(is_neighbour || strstr(outcome.text, "has given up a call on this group: "));
    CHECK(group_run(world, &call, NULL, NULL, &outcome) == STATUS_PEER_DIED);
    CHECK_TEXT(outcome, "this group was broken by an earlier error: ");
    end();
}

static void one_dies(void) {
    timeout_s = TOO_LONG_S - 10;
    run_groups(one_host, last_dies, 1);
    run_groups(two_hosts, last_dies, 1);
}

/* A message that has been received in part cannot be received again: giving it up breaks the group. Every second rank
 * receives, and what goes by MPI does not arrive: the message to the receiver, or its data to its own device. */
static int goes_to_device;

static int does_not_arrive(int from, int tag) {
    return goes_to_device ? from == world_rank : from != world_rank && !tag;
}

static void receive_half(struct group *world) {
    struct outcome outcome;
    float x[100] = {0};
    int receives = world_rank % 2, peer = receives ? world_rank - 1 : world_rank + 1;
    struct call call = flat_call(receives ? OPERATION_RECV : OPERATION_SEND, 0, TYPE_FLOAT32, peer, 100);
    struct call barrier = flat_call(OPERATION_BARRIER, 0, 0, 0, 0);
    call.on_device = receives == goes_to_device;
    eager_nbytes = -1; /* or a message would be sent before it has arrived */
    if (receives) {
        is_lost = does_not_arrive;
        group_set_timeout(world, 1);
    }
    CHECK(group_run(world, &barrier, NULL, NULL, &outcome) == STATUS_OK);
    if (receives)
        CHECK(group_p2p(world, &call, NULL, x, &outcome) == STATUS_TIMED_OUT && group_is_broken(world));
    else
        CHECK((group_p2p(world, &call, x, NULL, &outcome) == STATUS_OK) == goes_to_device);
    CHECK(group_run(world, &barrier, NULL, NULL, &outcome) != STATUS_OK);
    CHECK(group_is_broken(world));
    core_finish(&outcome);
}

static void half_received(void) {
    for (goes_to_device = 0; goes_to_device < 2; goes_to_device++)
        run_groups(one_host, receive_half, 0);
}

/* Mapped into this process. */
static int n_segments(void) {
    char line[512];
    int n = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps);
    while (fgets(line, sizeof line, maps))
        n += strstr(line, "/dev/shm/") != NULL;
    fclose(maps);
    return n;
}

/* What was made for a group that fails to open is given back: its memory soon, its communicator by the end. */
static void fail_to_split(struct group *world) {
    enum { COLLECTIVES = 3 }; /* of a split: the handle, whether all have it, whether all are on one host */
    struct outcome outcome;
    struct group *part;
    int before = n_segments();
    for (int which = 1; which <= COLLECTIVES; which++) {
        fails_in = which;
        CHECK(group_split(world, 0, world_rank, &part, &outcome) == STATUS_MPI_FAILED && !part && !fails_in);
        CHECK_TEXT(outcome, "the wire is cut");
        CHECK(n_segments() == before);
    }
    CHECK(group_split(world, 0, world_rank, &part, &outcome) == STATUS_OK);
    operate(part, (const int[]){0, 1, 2, 3}, 7);
    group_release(part);
    CHECK(n_segments() == before);
    end();
    CHECK(atomic_load(&live_comms) == 1);
}

static void split_that_fails(void) {
    run_groups(one_host, fail_to_split, 0);
}

/* The last rank says that it is of another build. */
static void be_of_another_build(void *data, int64_t nbytes) {
    uint64_t *digest = data;
    struct shm_build *build = data;
    if (nbytes == sizeof *build)
        strcpy(build->version, "0.0.other");
    else if (nbytes == 2 * sizeof *digest)
        digest[1] = ~(digest[0] ^= 1);
}

static void another_build(void) {
    snprintf(refused, sizeof refused,
             "the ranks run different builds of mlxdist:\n  rank 0, 1, 2: version %s, memory layout %d\n"
             "  rank 3: version 0.0.other, memory layout %d\ninstall the same mlxdist for all ranks",
             shm_own_build.version, SHM_LAYOUT, SHM_LAYOUT);
    tamper_of_last = be_of_another_build;
    run_groups(one_host, NULL, 0);
    run_groups(two_hosts, NULL, 0);
}

/* A thread waits for a message without a timeout; the thread that ends all has one. */
static void *wait_for_message(void *argument) {
    struct outcome outcome;
    float x;
    struct call call = flat_call(OPERATION_RECV, 0, TYPE_FLOAT32, 1, 1);
    CHECK(group_p2p(argument, &call, NULL, &x, &outcome) == STATUS_OK && x == 7);
    return NULL;
}

static void time_out_at_the_end(struct group *world) {
    struct outcome outcome;
    struct group *part;
    pthread_t thread;
    float x = 7;
    CHECK(group_split(world, 0, world_rank, &part, &outcome) == STATUS_OK);
    if (world_rank == 0) {
        CHECK(!pthread_create(&thread, NULL, wait_for_message, part));
        sleep_s(0.1);
        group_set_timeout(world, 0.2);
        double began_s = clock_s();
        CHECK(core_finish(&outcome) == STATUS_TIMED_OUT && clock_s() - began_s >= 0.2);
        CHECK_TEXT(outcome, "waited for 0.2 s in finalize: another thread of this rank");
        group_set_timeout(world, 0);
    }
    struct call barrier = flat_call(OPERATION_BARRIER, 0, 0, 0, 0);
    struct call send = flat_call(OPERATION_SEND, 0, TYPE_FLOAT32, 0, 1);
    CHECK(group_run(world, &barrier, NULL, NULL, &outcome) == STATUS_OK);
    CHECK(world_rank != 1 || group_p2p(part, &send, &x, NULL, &outcome) == STATUS_OK);
    CHECK(world_rank || !pthread_join(thread, NULL));
    group_release(part);
    end();
}

static void timeout_of_the_end(void) {
    run_groups(one_host, time_out_at_the_end, 0);
}

/* A thread of rank 0 waits in a call that no other rank makes, when all end. */
static void *wait_for_all(void *argument) {
    struct outcome outcome;
    struct call barrier = flat_call(OPERATION_BARRIER, 0, 0, 0, 0);
    CHECK(group_run(argument, &barrier, NULL, NULL, &outcome) == STATUS_GROUP_CLOSED);
    CHECK_TEXT(outcome, "ended by finalize() or the program's end in barrier, call 1 of rank 0");
    return NULL;
}

static void end_in_a_call(struct group *world) {
    struct outcome outcome;
    struct group *part;
    pthread_t thread;
    CHECK(group_split(world, 0, world_rank, &part, &outcome) == STATUS_OK);
    if (world_rank == 0) {
        CHECK(!pthread_create(&thread, NULL, wait_for_all, part));
        sleep_s(0.1);
        group_set_timeout(part, 30); /* while the thread reads it */
    }
    sleep_s(world_rank ? 2 : 0); /* else the thread would learn that the others have left */
    CHECK(core_finish(&outcome) == STATUS_OK);
    CHECK(world_rank || !pthread_join(thread, NULL));
}

static void calls_at_the_end(void) {
    run_groups(one_host, end_in_a_call, 0);
    run_groups(two_hosts, end_in_a_call, 0);
}

/* Rank 0 gives up a call and frees the group, while rank 2, on the same host, waits for the other host: it is told. */
static void give_up_and_free(struct group *world) {
    struct outcome outcome;
    struct group *part;
    struct call barrier = flat_call(OPERATION_BARRIER, 0, 0, 0, 0);
    CHECK(group_split(world, 0, world_rank, &part, &outcome) == STATUS_OK);
    if (world_rank == 0) {
        group_set_timeout(part, 0.2);
        CHECK(group_run(part, &barrier, NULL, NULL, &outcome) == STATUS_TIMED_OUT);
        group_release(part);
    } else if (world_rank == 2) {
        group_set_timeout(part, 30);
        CHECK(group_run(part, &barrier, NULL, NULL, &outcome) == STATUS_PEER_DIED);
        CHECK_TEXT(outcome, "rank 0 ");
    }
    meet();
}

static void given_up_and_freed(void) {
    run_groups(two_hosts, give_up_and_free, 0);
}

/* A collective of one is its input: only a barrier may be asked for. */
static void alone_without_a_wire(void) {
    struct settings settings = {{WAIT_SPINS, 0, 1, NULL, NULL, NULL}, 1, 0};
    struct outcome outcome;
    struct group *part;
    struct call barrier = flat_call(OPERATION_BARRIER, 0, 0, 0, 0);
    CHECK(core_start(&alone, &settings, &outcome) == STATUS_OK && group_size(core_world()) == 1);
    CHECK(group_split(core_world(), 5, 0, &part, &outcome) == STATUS_OK && group_size(part) == 1);
    CHECK(group_run(part, &barrier, NULL, NULL, &outcome) == STATUS_OK);
    group_release(part);
    CHECK(group_create(core_world(), (const int[]){0}, 1, 1, &part, &outcome) == STATUS_OK && group_size(part) == 1);
    CHECK(!group_local_rank(part) && group_local_size(part) == 1);
    group_release(part);
    end();
    CHECK(group_run(core_world(), &barrier, NULL, NULL, &outcome) == STATUS_GROUP_CLOSED);
    CHECK(group_create(core_world(), (const int[]){0}, 1, 1, &part, &outcome) == STATUS_GROUP_CLOSED && !part);
}

PROGRAM({"on-one-host", on_one_host}, {"on-two-hosts", on_two_hosts}, {"on-uneven-hosts", on_uneven_hosts},
        {"not-shared-at-all", not_shared_at_all}, {"threads-on-one-host", threads_on_one_host},
        {"threads-on-two-hosts", threads_on_two_hosts}, {"who-differs", who_differs}, {"one-dies", one_dies},
        {"half-received", half_received}, {"split-that-fails", split_that_fails}, {"another-build", another_build},
        {"timeout-of-the-end", timeout_of_the_end}, {"calls-at-the-end", calls_at_the_end},
        {"given-up-and-freed", given_up_and_freed}, {"alone-without-a-wire", alone_without_a_wire})
