/* A transport between the processes of a test: the wire is memory that they share, and hosts are simulated.
 *
 * Collectives copy through areas between barriers; a message is done when it has been received. */
#ifndef WIRE_H
#define WIRE_H

#include "local_ranks.h"
#include "mlxdist/kernels/kernels.h"
#include "mlxdist/mpi/transport.h"

enum { MAX_LINES = 4096, AREA = 1 << 15, WORLD_LINE = 0 };

/* The first of those with a tag, or without (0), that have been sent and not received. */
struct mail {
    _Atomic int state; /* 0: empty, 1: sent, 2: found */
    int tag;
    int64_t nbytes;
    char bytes[2 * AREA];
};

/* Of a communicator. */
struct line {
    pthread_barrier_t barrier;
    int numbers[MOST][3];
    _Atomic uint64_t agreed[MOST];
    uint64_t own[2][MOST][2];
    char areas[MOST][AREA];
    struct mail mail[MOST][MOST][2]; /* from, to, whether it has a tag */
};

struct wire {
    atomic_int lines;
    struct line line[MAX_LINES];
};
static struct wire *wire;
static int n_hosts, world_rank;
static atomic_int live_comms;
/* What a test does with data that this rank puts on the wire; which of the next collectives fails on every rank. */
static void (*tamper)(void *data, int64_t nbytes);
static int fails_in;

struct fake {
    struct comm comm;
    struct line *line;
    uint64_t agreements;
};

/* A send or an agreement that has begun. */
struct pending {
    struct fake *fake;
    struct mail *mail;
    const void *sent;
    void *recvbuf;
    int64_t nbytes;
    int tag, placed;
    uint64_t *lowest, k;
    struct pending *next;
    int is_received;
};
static struct pending *all_pending; /* so that a request that is given up is not a leak */
static pthread_mutex_t pending_lock = PTHREAD_MUTEX_INITIALIZER;

static inline int open_line(int n) {
    pthread_barrierattr_t shared;
    int number = atomic_fetch_add(&wire->lines, 1);
    CHECK(number < MAX_LINES);
    pthread_barrierattr_init(&shared);
    pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&wire->line[number].barrier, &shared, (unsigned)n);
    return number;
}

static inline struct comm *new_comm(int number, int rank, int size) {
    struct fake *fake = calloc(1, sizeof *fake);
    CHECK(fake);
    *fake = (struct fake){{rank, size}, &wire->line[number], 0};
    atomic_fetch_add(&live_comms, 1);
    return &fake->comm;
}

static inline struct line *line_of(struct comm *comm) {
    return ((struct fake *)comm)->line;
}

static inline int wire_barrier(struct comm *comm, struct outcome *outcome) {
    (void)outcome;
    pthread_barrier_wait(&line_of(comm)->barrier);
    return STATUS_OK;
}

static inline int wire_fails(struct outcome *outcome) {
    if (!fails_in || --fails_in)
        return STATUS_OK;
    *outcome = (struct outcome){STATUS_MPI_FAILED, 1, "MPI_ERR_OTHER", "MPI_Wire", "the wire is cut"};
    return outcome->status;
}

static inline int wire_start(await_function *await_world, await_function *await_collective, int *ours,
                             enum thread_level *threads, struct comm **world, struct outcome *outcome) {
    (void)await_world, (void)await_collective, (void)outcome;
    *ours = 1;
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

static inline int wire_split_host(struct comm *comm, struct comm **part, struct outcome *outcome) {
    return wire_split(comm, world_rank % n_hosts, comm->rank, part, outcome);
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
    if (wire_fails(outcome))
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
    if (wire_fails(outcome))
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

static inline request_handle begun(struct pending what) {
    struct pending *pending = malloc(sizeof *pending);
    CHECK(pending);
    pthread_mutex_lock(&pending_lock);
    what.next = all_pending;
    *pending = what;
    all_pending = pending;
    pthread_mutex_unlock(&pending_lock);
    return (request_handle)pending;
}

static inline int wire_agree(struct comm *comm, const uint64_t *own, uint64_t *lowest, request_handle *request,
                             struct outcome *outcome) {
    struct fake *fake = (struct fake *)comm;
    uint64_t k = ++fake->agreements;
    (void)outcome;
    memcpy(fake->line->own[k % 2][comm->rank], own, sizeof fake->line->own[0][0]);
    atomic_store(&fake->line->agreed[comm->rank], k);
    *request = begun((struct pending){.fake = fake, .lowest = lowest, .k = k});
    return STATUS_OK;
}

static inline int is_sent(struct pending *pending) {
    struct mail *mail = pending->mail;
    if (pending->placed)
        return atomic_load(&mail->state) == 0;
    if (atomic_load(&mail->state) == 0) {
        memcpy(mail->bytes, pending->sent, (size_t)pending->nbytes);
        mail->nbytes = pending->nbytes;
        mail->tag = pending->tag;
        atomic_store(&mail->state, 1);
        pending->placed = 1;
    }
    return 0;
}

static inline int wire_send(struct comm *comm, const void *sent, int64_t nbytes, int dst, int tag,
                            request_handle *request, struct outcome *outcome) {
    struct mail *mail = &line_of(comm)->mail[comm->rank][dst][tag > 0];
    (void)outcome;
    CHECK(nbytes <= (int64_t)sizeof mail->bytes);
    *request = begun((struct pending){.mail = mail, .sent = sent, .nbytes = nbytes, .tag = tag});
    is_sent((struct pending *)*request);
    return STATUS_OK;
}

static inline int is_agreed(const struct pending *pending) {
    struct line *line = pending->fake->line;
    int size = pending->fake->comm.size;
    for (int i = 0; i < size; i++)
        if (atomic_load(&line->agreed[i]) < pending->k)
            return 0;
    pending->lowest[0] = pending->lowest[1] = UINT64_MAX;
    for (int i = 0; i < size; i++)
        for (int j = 0; j < 2; j++)
            if (line->own[pending->k % 2][i][j] < pending->lowest[j])
                pending->lowest[j] = line->own[pending->k % 2][i][j];
    return 1;
}

static inline int is_received(struct pending *pending) {
    struct mail *mail = pending->mail;
    int sent = 1;
    if (mail->tag != pending->tag || !atomic_compare_exchange_strong(&mail->state, &sent, 2))
        return 0;
    CHECK(mail->nbytes == pending->nbytes);
    memcpy(pending->recvbuf, mail->bytes, (size_t)mail->nbytes);
    atomic_store(&mail->state, 0);
    return 1;
}

static inline int wire_test(request_handle *request, int *done, struct outcome *outcome) {
    struct pending *pending = (struct pending *)*request, **place = &all_pending;
    (void)outcome;
    *done = pending->is_received ? 1
            : pending->recvbuf   ? is_received(pending)
            : pending->mail      ? is_sent(pending)
                                 : is_agreed(pending);
    if (!*done)
        return STATUS_OK;
    pthread_mutex_lock(&pending_lock);
    while (*place != pending)
        place = &(*place)->next;
    *place = pending->next;
    pthread_mutex_unlock(&pending_lock);
    free(pending);
    return STATUS_OK;
}

static inline int wire_recv(struct comm *comm, void *recvbuf, int64_t nbytes, int src, int tag, request_handle *request,
                            struct outcome *outcome) {
    struct mail *mail = &line_of(comm)->mail[src][comm->rank][tag > 0];
    (void)outcome;
    *request = begun((struct pending){.mail = mail, .recvbuf = recvbuf, .nbytes = nbytes, .tag = tag});
    return STATUS_OK;
}

static inline int wire_probe(struct comm *comm, int src, int tag, int *found, struct message *message,
                             struct outcome *outcome) {
    struct mail *mail = &line_of(comm)->mail[src][comm->rank][tag > 0];
    int sent = 1;
    (void)outcome;
    *found = atomic_compare_exchange_strong(&mail->state, &sent, 2);
    if (*found)
        *message = (struct message){(message_handle)mail, mail->nbytes};
    return STATUS_OK;
}

/* Nobody is told of what was given up: a mail slot is one for all tags. */
static inline int wire_look(struct comm *comm, int src, int tag, int *found, struct outcome *outcome) {
    (void)comm, (void)src, (void)tag, (void)outcome;
    *found = 0;
    return STATUS_OK;
}

static inline int wire_recv_found(void *recvbuf, struct message *message, request_handle *request,
                                  struct outcome *outcome) {
    struct mail *mail = (struct mail *)message->handle;
    (void)outcome;
    memcpy(recvbuf, mail->bytes, (size_t)mail->nbytes);
    atomic_store(&mail->state, 0);
    *request = begun((struct pending){.is_received = 1});
    return STATUS_OK;
}

static const struct transport by_wire = {
    .start = wire_start,
    .is_over = wire_is_over,
    .finish = wire_finish,
    .abort = _exit,
    .split = wire_split,
    .split_host = wire_split_host,
    .release = wire_release,
    .allreduce = wire_allreduce,
    .reduce_scatter = wire_reduce_scatter,
    .allgather = wire_allgather,
    .broadcast = wire_broadcast,
    .barrier = wire_barrier,
    .send = wire_send,
    .agree = wire_agree,
    .test = wire_test,
    .recv = wire_recv,
    .probe = wire_probe,
    .look = wire_look,
    .recv_found = wire_recv_found,
};

#endif
