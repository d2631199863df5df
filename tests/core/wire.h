/* A transport between the processes of a test: the wire is memory that they share, and hosts are simulated.
 *
 * Collectives copy through areas between barriers; for messages see post.h. */
#ifndef WIRE_H
#define WIRE_H

#include <sched.h>

#include "mlxdist/kernels/kernels.h"
#include "post.h"

enum { MAX_LINES = 4096, AREA = 1 << 15, WORLD_LINE = 0, MADE = 512 };

/* Of a communicator. */
struct line {
    pthread_barrier_t barrier;
    int numbers[MOST][3];
    char areas[MOST][AREA];
    struct inboxes inboxes;
    atomic_int made[MADE]; /* by tag: the lines of groups that some of its ranks are making */
};

struct wire {
    atomic_int lines;
    struct line line[MAX_LINES];
    struct post post;
};
static struct wire *wire;
static int host_of[MOST]; /* by rank of the world */
static int world_rank;
static atomic_int live_comms;
/* What a test does with data that this rank puts on the wire; which of the next collectives fails on every rank. */
static void (*tamper)(void *data, int64_t nbytes);
static int fails_in;

struct fake {
    struct endpoint endpoint;
    struct line *line;
};

static inline int open_line(int n) {
    pthread_barrierattr_t shared;
    int number = atomic_fetch_add(&wire->lines, 1);
    CHECK(number < MAX_LINES);
    pthread_barrierattr_init(&shared);
    pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&wire->line[number].barrier, &shared, (unsigned)n);
    return number;
}

/* Before the ranks are forked. */
static inline void wire_open(int size) {
    wire = mmap(NULL, sizeof *wire, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(wire != MAP_FAILED);
    post_open(&wire->post);
    CHECK(open_line(size) == WORLD_LINE);
}

static inline void wire_close(void) {
    munmap(wire, sizeof *wire);
}

static inline struct comm *new_comm(int number, int rank, int size) {
    struct fake *fake = calloc(1, sizeof *fake);
    CHECK(fake);
    *fake = (struct fake){{{rank, size}, &wire->line[number].inboxes}, &wire->line[number]};
    atomic_fetch_add(&live_comms, 1);
    return &fake->endpoint.comm;
}

static inline struct line *line_of(struct comm *comm) {
    return ((struct fake *)comm)->line;
}

static inline int wire_barrier(struct comm *comm, struct outcome *outcome) {
    (void)outcome;
    pthread_barrier_wait(&line_of(comm)->barrier);
    return STATUS_OK;
}

static inline int wire_start(comm_handle of, await_function *await_world, await_function *await_collective, int *ours,
                             enum thread_level *threads, struct comm **world, struct outcome *outcome) {
    (void)of, (void)await_world, (void)await_collective, (void)outcome;
    *ours = 1;
    drawn = scramble(drawn + (uint32_t)world_rank);
    *threads = THREADS_MULTIPLE;
    *world = new_comm(WORLD_LINE, world_rank, n_ranks);
    return STATUS_OK;
}

static inline int wire_is_over(void) {
    return 0;
}

static inline int wire_finish(int ours, struct outcome *outcome) {
    (void)outcome;
    CHECK(ours == 1);
    post_finish();
    return STATUS_OK;
}

static inline int wire_split(struct comm *comm, int color, int key, struct comm **part, struct outcome *outcome) {
    int (*numbers)[3] = line_of(comm)->numbers, rank = 0, size = 0, first = comm->rank;
    numbers[comm->rank][0] = color;
    numbers[comm->rank][1] = key;
    wire_barrier(comm, outcome);
    for (int i = 0; i < comm->size; i++) {
        if (numbers[i][0] != color)
            continue;
        if (!size++)
            first = i;
        rank += numbers[i][1] < key || (numbers[i][1] == key && i < comm->rank);
    }
    if (first == comm->rank)
        numbers[first][2] = open_line(size);
    wire_barrier(comm, outcome);
    *part = new_comm(numbers[first][2], rank, size);
    wire_barrier(comm, outcome);
    return STATUS_OK;
}

static inline int wire_create(struct comm *comm, const int *ranks, int n, int tag, struct comm **part,
                              struct outcome *outcome) {
    atomic_int *made = &line_of(comm)->made[tag % MADE];
    int number, rank = 0;
    while (ranks[rank] != comm->rank)
        rank++;
    if (!rank) {
        CHECK(!atomic_load(made)); /* no other has this tag */
        atomic_store(made, open_line(n));
    }
    while (!(number = atomic_load(made)))
        sched_yield();
    *part = new_comm(number, rank, n);
    wire_barrier(*part, outcome);
    if (!rank)
        atomic_store(made, 0);
    return wire_barrier(*part, outcome);
}

static inline int wire_split_host(struct comm *comm, struct comm **part, struct outcome *outcome) {
    return wire_split(comm, host_of[world_rank], comm->rank, part, outcome);
}

static inline int wire_release(struct comm *comm, struct outcome *outcome) {
    (void)outcome;
    atomic_fetch_sub(&live_comms, 1);
    free(comm);
    return STATUS_OK;
}

static inline int wire_allreduce(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t count,
                                 enum element_type type, enum reduction op, struct outcome *outcome) {
    struct line *line = line_of(comm);
    size_t nbytes = element_size(type);
    int64_t most = AREA / (int64_t)nbytes;
    const void *inputs[MOST];
    if (fails(&fails_in, outcome))
        return outcome->status;
    for (int i = 0; i < comm->size; i++)
        inputs[i] = line->areas[i];
    for (int64_t at = 0; at < count; at += most) {
        size_t n = (size_t)(count - at < most ? count - at : most), offset = (size_t)at * nbytes;
        memcpy(line->areas[comm->rank], (const char *)sendbuf + offset, n * nbytes);
        if (tamper)
            tamper(line->areas[comm->rank], (int64_t)(n * nbytes));
        wire_barrier(comm, outcome);
        reduce(type, op, inputs, comm->size, (char *)recvbuf + offset, n);
        wire_barrier(comm, outcome);
    }
    return STATUS_OK;
}

static inline int wire_reduce_scatter(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t count,
                                      enum element_type type, enum reduction op, struct outcome *outcome) {
    size_t nbytes = (size_t)count * element_size(type);
    char *whole = malloc((size_t)comm->size * nbytes + 1);
    CHECK(whole);
    wire_allreduce(comm, sendbuf, whole, comm->size * count, type, op, outcome);
    memcpy(recvbuf, whole + (size_t)comm->rank * nbytes, nbytes);
    free(whole);
    return STATUS_OK;
}

static inline int wire_broadcast(struct comm *comm, void *buf, int64_t nbytes, int root, struct outcome *outcome) {
    struct line *line = line_of(comm);
    if (fails(&fails_in, outcome))
        return outcome->status;
    for (int64_t at = 0; at < nbytes; at += AREA) {
        size_t n = (size_t)(nbytes - at < AREA ? nbytes - at : AREA);
        if (comm->rank == root)
            memcpy(line->areas[root], (char *)buf + at, n);
        wire_barrier(comm, outcome);
        if (comm->rank != root)
            memcpy((char *)buf + at, line->areas[root], n);
        wire_barrier(comm, outcome);
    }
    return STATUS_OK;
}

static inline int wire_allgather(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t nbytes,
                                 struct outcome *outcome) {
    memcpy((char *)recvbuf + comm->rank * nbytes, sendbuf, (size_t)nbytes);
    if (tamper)
        tamper((char *)recvbuf + comm->rank * nbytes, nbytes);
    for (int root = 0; root < comm->size; root++)
        wire_broadcast(comm, (char *)recvbuf + root * nbytes, nbytes, root, outcome);
    return STATUS_OK;
}

static const struct transport by_wire = {
    .start = wire_start,
    .is_over = wire_is_over,
    .finish = wire_finish,
    .abort = _exit,
    .split = wire_split,
    .create = wire_create,
    .split_host = wire_split_host,
    .release = wire_release,
    .allreduce = wire_allreduce,
    .reduce_scatter = wire_reduce_scatter,
    .allgather = wire_allgather,
    .broadcast = wire_broadcast,
    .barrier = wire_barrier,
    .send = post_send,
    .test = post_test,
    .recv = post_recv,
    .probe = post_probe,
    .look = post_look,
    .recv_found = post_recv_found,
};

#endif
