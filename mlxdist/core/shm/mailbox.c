#include "mlxdist/shm/mailbox.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mlxdist/copy.h"
#include "mlxdist/shm/handshake.h"

enum { RING_NBYTES = 128 << 10, PIECE_NBYTES = 32 << 10, IN_HEADER = 40 };

/* CHANNEL_REFUSED: there was no memory for its ring. */
enum channel_state { CHANNEL_CLOSED, CHANNEL_OPEN, CHANNEL_REFUSED };

/* The state of a ring, in bytes since the start.
 *
 * Memory order: `filled` and `state` are written by the sender alone, `emptied` by the receiver alone, all with
 * release, and read by the other with acquire. A receiver that reads `filled` sees the bytes before it; a sender that
 * reads `emptied` may overwrite the bytes before it; a receiver that reads CHANNEL_OPEN may touch the ring. */
struct channel {
    _Alignas(SEGMENT_LINE) _Atomic uint64_t filled; /* the sender's line */
    _Atomic int state;
    _Alignas(SEGMENT_LINE) _Atomic uint64_t emptied; /* the receiver's line */
};

/* The start of a message, a cache line of the ring. A payload that does not fit in it follows, padded to whole lines.
 *
 * Memory order: the sender stores `mark` with release, after the first piece of the message, and the receiver waits for
 * it with acquire: so it learns from one line that a short message is there. Old bytes at the place of the next header
 * might look like its mark; the sender clears that before the mark or `filled` by which the receiver sees the end of
 * this message. */
struct header {
    _Atomic uint64_t mark; /* its place in the stream, and 1 */
    int64_t nbytes;
    int32_t type, by_mpi;
    char payload[IN_HEADER];
};

_Static_assert(sizeof(struct channel) == 2 * SEGMENT_LINE && offsetof(struct channel, emptied) == SEGMENT_LINE,
               "each end writes a line of its own");
_Static_assert(sizeof(struct header) == CACHE_LINE, "a header is a line, and a short payload comes with it");
_Static_assert(RING_NBYTES % CACHE_LINE == 0, "a header does not wrap around");
_Static_assert(PIECE_NBYTES + 2 * CACHE_LINE <= RING_NBYTES, "a piece fits, with its header and the next");

/* This rank's end of a ring: how far it is. */
struct end {
    pthread_mutex_t turn;
    uint64_t at;   /* where in the stream, in bytes */
    int is_broken; /* a message was given up after its start, so what follows would be taken for its rest */
};

struct mailbox {
    struct segment segment;
    char *memory; /* for each sender its channels, one for each receiver; then all rings */
    struct node *node;
    int local_rank, local_size;
    struct end *sending, *receiving; /* by the other's local rank */
};

static size_t round_up(size_t nbytes) {
    return (nbytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
}

static size_t part_of(int local_size) {
    return (size_t)local_size * sizeof(struct channel);
}

static struct end *new_ends(int local_size) {
    struct end *ends = calloc((size_t)local_size, sizeof *ends);
    for (int i = 0; ends && i < local_size; i++)
        pthread_mutex_init(&ends[i].turn, NULL);
    return ends;
}

static void free_ends(struct end *ends, int local_size) {
    for (int i = 0; ends && i < local_size; i++)
        pthread_mutex_destroy(&ends[i].turn);
    free(ends);
}

static void free_mailbox(struct mailbox *mailbox) {
    if (!mailbox)
        return;
    free_ends(mailbox->sending, mailbox->local_size);
    free_ends(mailbox->receiving, mailbox->local_size);
    free(mailbox);
}

int mailbox_open(struct node *node, struct mailbox **mailbox, const struct wait_policy *policy,
                 struct outcome *outcome) {
    int local_size = node_local_size(node), result = STATUS_NOT_SHARED;
    struct mailbox *opened = calloc(1, sizeof *opened);
    *mailbox = NULL;
    if (opened) {
        *opened = (struct mailbox){.node = node, .local_rank = node_local_rank(node), .local_size = local_size};
        opened->sending = new_ends(local_size);
        opened->receiving = new_ends(local_size);
    }
    if (local_size <= MAILBOX_MAX_RANKS)
        result = handshake_segment(node, part_of(local_size), (size_t)local_size * (size_t)local_size * RING_NBYTES, 0,
                                   opened && opened->sending && opened->receiving ? &opened->segment : NULL, policy,
                                   outcome);
    if (result) {
        free_mailbox(opened);
        return result == STATUS_NOT_SHARED ? STATUS_OK : result;
    }
    opened->memory = opened->segment.memory;
    *mailbox = opened;
    return STATUS_OK;
}

void mailbox_close(struct mailbox *mailbox) {
    segment_free(&mailbox->segment);
    free_mailbox(mailbox);
}

/* A message under way, on the side of its sender or its receiver. */
struct transfer {
    struct mailbox *mailbox;
    const struct call *call;
    int local_rank; /* the other's */
    struct end *end;
    struct channel *channel;
    size_t ring;    /* its offset in the segment */
    uint64_t until; /* the place in the stream that it waits for */
};

static struct transfer transfer_of(struct mailbox *mailbox, const struct call *call, int local_rank) {
    int sends = call->operation == OPERATION_SEND, from = sends ? mailbox->local_rank : local_rank,
        to = sends ? local_rank : mailbox->local_rank;
    struct end *end = sends ? &mailbox->sending[local_rank] : &mailbox->receiving[local_rank];
    struct channel *channel = (struct channel *)(mailbox->memory + part_of(mailbox->local_size) * (size_t)from) + to;
    size_t pair = (size_t)from * (size_t)mailbox->local_size + (size_t)to;
    return (struct transfer){
        mailbox, call,    local_rank,
        end,     channel, part_of(mailbox->local_size) * (size_t)mailbox->local_size + pair * RING_NBYTES,
        0};
}

static char *address_of(const struct transfer *transfer, uint64_t at) {
    return transfer->mailbox->memory + transfer->ring + at % RING_NBYTES;
}

static struct header *header_at(const struct transfer *transfer, uint64_t at) {
    return (struct header *)address_of(transfer, at);
}

/* Check first whether the peer is alive: what it has not done by then it will not do if it is not. */
static int poll_transfer(struct transfer *transfer, int (*is_ready)(const struct transfer *), int slow_check,
                         struct outcome *outcome) {
    int is_gone = slow_check && node_check(transfer->mailbox->node, transfer->local_rank, outcome);
    return is_ready(transfer) ? 1 : is_gone ? -1 : 0;
}

static int has_room(const struct transfer *transfer) {
    return transfer->until - atomic_load_explicit(&transfer->channel->emptied, memory_order_acquire) <= RING_NBYTES;
}

static int has_bytes(const struct transfer *transfer) {
    return atomic_load_explicit(&transfer->channel->filled, memory_order_acquire) >= transfer->until;
}

static int has_message(const struct transfer *transfer) {
    int state = atomic_load_explicit(&transfer->channel->state, memory_order_acquire);
    uint64_t at = transfer->end->at;
    return state == CHANNEL_REFUSED || (state == CHANNEL_OPEN && atomic_load_explicit(&header_at(transfer, at)->mark,
                                                                                      memory_order_acquire) == at + 1);
}

static int poll_room(void *it, int slow_check, struct outcome *outcome) {
    return poll_transfer(it, has_room, slow_check, outcome);
}

static int poll_bytes(void *it, int slow_check, struct outcome *outcome) {
    return poll_transfer(it, has_bytes, slow_check, outcome);
}

static int poll_message(void *it, int slow_check, struct outcome *outcome) {
    return poll_transfer(it, has_message, slow_check, outcome);
}

static void describe(void *it, int to_all, char *text, size_t nbytes) {
    (void)to_all;
    const struct transfer *transfer = it;
    call_awaits_peer(transfer->call, text, nbytes);
}

static int await(struct transfer *transfer, int (*poll)(void *, int, struct outcome *),
                 const struct wait_policy *policy, struct outcome *outcome) {
    return wait_for(&(struct wait_condition){poll, describe, transfer, 0}, policy, outcome);
}

/* Between a buffer, `from` or else `in`, and the ring, where the range may wrap around. */
static void copy_around(const struct transfer *transfer, uint64_t at, char *in, const char *from, size_t nbytes,
                        enum copy_way way) {
    size_t first = RING_NBYTES - at % RING_NBYTES < nbytes ? RING_NBYTES - (size_t)(at % RING_NBYTES) : nbytes;
    if (from) {
        copy(address_of(transfer, at), from, first, way);
        copy(address_of(transfer, 0), from + first, nbytes - first, way);
    } else {
        copy(in, address_of(transfer, at), first, way);
        copy(in + first, address_of(transfer, 0), nbytes - first, way);
    }
}

/* Other threads of this rank wait for their turn at this end of the channel. */
static int lock_channel(const struct transfer *transfer, const struct wait_policy *policy, struct outcome *outcome) {
    if (wait_for_turn(&transfer->end->turn, policy, outcome))
        return outcome->status;
    if (!transfer->end->is_broken)
        return STATUS_OK;
    pthread_mutex_unlock(&transfer->end->turn);
    outcome->status = STATUS_GROUP_BROKEN;
    snprintf(outcome->text, sizeof outcome->text, "another thread gave up a message with rank %d after its start",
             transfer->call->peer);
    return STATUS_GROUP_BROKEN;
}

static int unlock_channel(const struct transfer *transfer, int begun, int result) {
    transfer->end->is_broken = begun;
    pthread_mutex_unlock(&transfer->end->turn);
    return result;
}

static void open_channel(const struct transfer *transfer) {
    struct outcome why;
    int refused = segment_reserve(&transfer->mailbox->segment, transfer->ring, RING_NBYTES, &why);
    atomic_store_explicit(&transfer->channel->state, refused ? CHANNEL_REFUSED : CHANNEL_OPEN, memory_order_release);
}

/* Let the receiver see the ring up to `at`; is_all: and that no message begins there yet. */
static void publish(const struct transfer *transfer, uint64_t at, int is_all) {
    if (is_all)
        atomic_store_explicit(&header_at(transfer, at)->mark, 0, memory_order_relaxed);
    atomic_store_explicit(&transfer->channel->filled, at, memory_order_release);
}

static int copy_in(struct transfer *transfer, const char *sendbuf, int by_mpi, int *begun,
                   const struct wait_policy *policy, struct outcome *outcome) {
    const struct call *call = transfer->call;
    size_t nbytes = by_mpi ? 0 : (size_t)call_nbytes(call), done = nbytes <= IN_HEADER ? nbytes : 0;
    uint64_t start = transfer->end->at, at = start + CACHE_LINE;
    struct header *header = header_at(transfer, start);
    do {
        size_t n = nbytes - done < PIECE_NBYTES ? nbytes - done : PIECE_NBYTES, room = round_up(n);
        transfer->until = at + room + CACHE_LINE; /* and the next header */
        if (await(transfer, poll_room, policy, outcome))
            return outcome->status;
        if (done == 0 || nbytes <= IN_HEADER) {
            header->nbytes = call_nbytes(call), header->type = call->type, header->by_mpi = by_mpi;
            memcpy(header->payload, sendbuf, nbytes <= IN_HEADER ? nbytes : 0);
        }
        copy_around(transfer, at, NULL, sendbuf + done, n, COPY_FULL_LINES);
        done += n, at += room;
        publish(transfer, at, done == nbytes);
        if (!*begun)
            atomic_store_explicit(&header->mark, start + 1, memory_order_release);
        *begun = 1;
    } while (done < nbytes);
    transfer->end->at = at;
    *begun = 0;
    return STATUS_OK;
}

int mailbox_send(struct mailbox *mailbox, int local_rank, const struct call *call, const void *sendbuf, int by_mpi,
                 int *begun, const struct wait_policy *policy, struct outcome *outcome) {
    struct transfer transfer = transfer_of(mailbox, call, local_rank);
    *begun = 0;
    if (lock_channel(&transfer, policy, outcome))
        return outcome->status;
    if (atomic_load_explicit(&transfer.channel->state, memory_order_relaxed) == CHANNEL_CLOSED)
        open_channel(&transfer);
    int result = STATUS_NOT_SHARED;
    if (atomic_load_explicit(&transfer.channel->state, memory_order_relaxed) == CHANNEL_OPEN)
        result = copy_in(&transfer, sendbuf, by_mpi, begun, policy, outcome);
    return unlock_channel(&transfer, *begun, !result && by_mpi ? STATUS_NOT_SHARED : result);
}

/* recvbuf: NULL to throw away. */
static int copy_out(struct transfer *transfer, const struct header *header, char *recvbuf, int *begun,
                    const struct wait_policy *policy, struct outcome *outcome) {
    size_t nbytes = header->by_mpi ? 0 : (size_t)header->nbytes, done = nbytes <= IN_HEADER ? nbytes : 0;
    enum copy_way way = nbytes > copy_cache_nbytes() / 4 ? COPY_NON_TEMPORAL : COPY_PLAIN;
    uint64_t at = transfer->end->at + CACHE_LINE;
    if (recvbuf && nbytes <= IN_HEADER)
        memcpy(recvbuf, header->payload, nbytes);
    *begun = 1;
    while (done < nbytes) {
        size_t n = nbytes - done < PIECE_NBYTES ? nbytes - done : PIECE_NBYTES;
        transfer->until = at + round_up(n);
        if (await(transfer, poll_bytes, policy, outcome))
            return outcome->status;
        if (recvbuf)
            copy_around(transfer, at, recvbuf + done, NULL, n, way);
        done += n, at = transfer->until;
        atomic_store_explicit(&transfer->channel->emptied, at, memory_order_release);
    }
    copy_fence();
    atomic_store_explicit(&transfer->channel->emptied, at, memory_order_release);
    transfer->end->at = at;
    *begun = 0;
    return STATUS_OK;
}

static int receive(struct transfer *transfer, void *recvbuf, int *begun, const struct wait_policy *policy,
                   struct outcome *outcome) {
    const struct call *call = transfer->call;
    if (await(transfer, poll_message, policy, outcome))
        return outcome->status;
    if (atomic_load_explicit(&transfer->channel->state, memory_order_relaxed) == CHANNEL_REFUSED)
        return STATUS_NOT_SHARED;
    const struct header *header = header_at(transfer, transfer->end->at);
    int by_mpi = header->by_mpi, type = header->type;
    int64_t nbytes = header->nbytes;
    int is_expected = nbytes == call_nbytes(call) && types_agree(type, call->type);
    if (copy_out(transfer, header, is_expected ? recvbuf : NULL, begun, policy, outcome))
        return outcome->status;
    *begun = by_mpi;
    if (by_mpi)
        return STATUS_NOT_SHARED;
    return is_expected ? STATUS_OK : call_gets_another(call, nbytes, type, outcome);
}

int mailbox_recv(struct mailbox *mailbox, int local_rank, const struct call *call, void *recvbuf, int *begun,
                 const struct wait_policy *policy, struct outcome *outcome) {
    struct transfer transfer = transfer_of(mailbox, call, local_rank);
    *begun = 0;
    if (lock_channel(&transfer, policy, outcome))
        return outcome->status;
    int result = receive(&transfer, recvbuf, begun, policy, outcome);
    return unlock_channel(&transfer, *begun && result != STATUS_NOT_SHARED, result);
}
