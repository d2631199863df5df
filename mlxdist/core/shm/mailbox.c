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
    _Atomic int is_stuck; /* the sender has waited long for room and receives nothing meanwhile; for error texts */
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

static struct channel *channel_of(const struct mailbox *mailbox, int from, int to) {
    return (struct channel *)(mailbox->memory + part_of(mailbox->local_size) * (size_t)from) + to;
}

static int sends(const struct transfer *transfer) {
    return transfer->call->operation == OPERATION_SEND;
}

static char *address_of(const struct transfer *transfer, uint64_t at) {
    return transfer->mailbox->memory + transfer->ring + at % RING_NBYTES;
}

static struct header *header_at(const struct transfer *transfer, uint64_t at) {
    return (struct header *)address_of(transfer, at);
}

static int state_of(const struct transfer *transfer) {
    return atomic_load_explicit(&transfer->channel->state, memory_order_acquire);
}

static int has_room(const struct transfer *transfer) {
    return transfer->until - atomic_load_explicit(&transfer->channel->emptied, memory_order_acquire) <= RING_NBYTES;
}

static int has_bytes(const struct transfer *transfer) {
    return atomic_load_explicit(&transfer->channel->filled, memory_order_acquire) >= transfer->until;
}

static int has_message(const struct transfer *transfer) {
    uint64_t at = transfer->end->at;
    int state = state_of(transfer);
    return state == CHANNEL_REFUSED || (state == CHANNEL_OPEN && atomic_load_explicit(&header_at(transfer, at)->mark,
                                                                                      memory_order_acquire) == at + 1);
}

/* Check first whether the peer is alive: what it has not done by then it will not do if it is not. */
static int poll(const struct transfer *transfer, int (*is_ready)(const struct transfer *), int slow_check,
                struct outcome *outcome) {
    int is_gone = slow_check && node_check(transfer->mailbox->node, transfer->local_rank, outcome);
    return is_ready(transfer) ? 1 : is_gone ? -1 : 0;
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

static void open_channel(const struct transfer *transfer) {
    struct outcome why;
    int refused = segment_reserve(&transfer->mailbox->segment, transfer->ring, RING_NBYTES, &why);
    atomic_store_explicit(&transfer->channel->state, refused ? CHANNEL_REFUSED : CHANNEL_OPEN, memory_order_release);
}

/* sendrecv receives while it waits. Memory order: relaxed, since it is a hint and guards nothing. */
static void show_stuck(const struct transfer *transfer, int is_stuck) {
    if (sends(transfer) && transfer->call->name != CALL_SENDRECV &&
        atomic_load_explicit(&transfer->channel->is_stuck, memory_order_relaxed) != is_stuck)
        atomic_store_explicit(&transfer->channel->is_stuck, is_stuck, memory_order_relaxed);
}

static int finish(struct transfer *transfer, int result) {
    transfer->is_done = 1;
    transfer->result = result;
    transfer->is_begun = 0;
    show_stuck(transfer, 0);
    pthread_mutex_unlock(&transfer->end->turn);
    return 1;
}

/* Let the receiver see the ring up to `at`; is_all: and that no message begins there yet. */
static void publish(const struct transfer *transfer, uint64_t at, int is_all) {
    if (is_all)
        atomic_store_explicit(&header_at(transfer, at)->mark, 0, memory_order_relaxed);
    atomic_store_explicit(&transfer->channel->filled, at, memory_order_release);
}

static size_t next_piece(const struct transfer *transfer, size_t nbytes) {
    return nbytes - transfer->done < PIECE_NBYTES ? nbytes - transfer->done : PIECE_NBYTES;
}

static int copy_in(struct transfer *transfer, int slow_check, struct outcome *outcome) {
    const struct call *call = transfer->call;
    size_t nbytes = transfer->by_mpi ? 0 : (size_t)call_nbytes(call);
    uint64_t start = transfer->end->at;
    struct header *header = header_at(transfer, start);
    for (int moved = 0;; moved = 1, slow_check = 0) {
        size_t n = next_piece(transfer, nbytes), room = round_up(n);
        transfer->until = transfer->at + room + CACHE_LINE; /* and the next header */
        int ready = poll(transfer, has_room, slow_check, outcome);
        if (slow_check)
            show_stuck(transfer, !ready);
        if (ready <= 0)
            return moved ? moved : ready;
        if (!transfer->is_begun) {
            header->nbytes = call_nbytes(call), header->type = call->type, header->by_mpi = transfer->by_mpi;
            memcpy(header->payload, transfer->buf, nbytes <= IN_HEADER ? nbytes : 0);
        }
        copy_around(transfer, transfer->at, NULL, transfer->buf + transfer->done, n, COPY_FULL_LINES);
        transfer->done += n, transfer->at += room;
        publish(transfer, transfer->at, transfer->done == nbytes);
        if (!transfer->is_begun)
            atomic_store_explicit(&header->mark, start + 1, memory_order_release);
        transfer->is_begun = 1;
        if (transfer->done == nbytes) {
            transfer->end->at = transfer->at;
            return finish(transfer, transfer->by_mpi ? STATUS_NOT_SHARED : STATUS_OK);
        }
    }
}

static int copy_out(struct transfer *transfer, int slow_check, struct outcome *outcome) {
    size_t nbytes = transfer->by_mpi ? 0 : (size_t)transfer->nbytes;
    enum copy_way way = nbytes > copy_cache_nbytes() / 4 ? COPY_NON_TEMPORAL : COPY_PLAIN;
    for (int moved = 0; transfer->done < nbytes; moved = 1, slow_check = 0) {
        size_t n = next_piece(transfer, nbytes);
        transfer->until = transfer->at + round_up(n);
        int ready = poll(transfer, has_bytes, slow_check, outcome);
        if (ready <= 0)
            return moved ? moved : ready;
        if (transfer->is_expected)
            copy_around(transfer, transfer->at, transfer->buf + transfer->done, NULL, n, way);
        transfer->done += n, transfer->at = transfer->until;
        atomic_store_explicit(&transfer->channel->emptied, transfer->at, memory_order_release);
    }
    copy_fence();
    atomic_store_explicit(&transfer->channel->emptied, transfer->at, memory_order_release);
    transfer->end->at = transfer->at;
    return finish(transfer, transfer->by_mpi ? STATUS_NOT_SHARED : STATUS_OK);
}

static int await_message(struct transfer *transfer, int slow_check, struct outcome *outcome) {
    int ready = poll(transfer, has_message, slow_check, outcome);
    if (ready <= 0)
        return ready;
    if (state_of(transfer) == CHANNEL_REFUSED)
        return finish(transfer, STATUS_NOT_SHARED);
    const struct header *header = header_at(transfer, transfer->end->at);
    transfer->by_mpi = header->by_mpi, transfer->type = header->type, transfer->nbytes = header->nbytes;
    transfer->is_expected = call_expects(transfer->call, header->nbytes, header->type);
    transfer->is_begun = 1;
    if (header->nbytes <= IN_HEADER && !header->by_mpi) {
        memcpy(transfer->buf, header->payload, transfer->is_expected ? (size_t)header->nbytes : 0);
        transfer->done = (size_t)header->nbytes;
    }
    transfer->step = copy_out;
    copy_out(transfer, 0, outcome);
    return 1;
}

/* Other threads of this rank wait for their turn at this end of the channel. */
static int take_turn(struct transfer *transfer, int slow_check, struct outcome *outcome) {
    if (pthread_mutex_trylock(&transfer->end->turn))
        return 0;
    transfer->has_turn = 1;
    if (transfer->end->is_broken) {
        outcome->status = STATUS_GROUP_BROKEN;
        snprintf(outcome->text, sizeof outcome->text, "another thread gave up a message with rank %d after its start",
                 transfer->call->peer);
        return -1;
    }
    transfer->at = transfer->end->at + CACHE_LINE;
    if (!sends(transfer))
        return (transfer->step = await_message)(transfer, slow_check, outcome);
    if (state_of(transfer) == CHANNEL_CLOSED)
        open_channel(transfer);
    if (state_of(transfer) == CHANNEL_REFUSED)
        return finish(transfer, STATUS_NOT_SHARED);
    transfer->done =
        call_nbytes(transfer->call) <= IN_HEADER && !transfer->by_mpi ? (size_t)call_nbytes(transfer->call) : 0;
    return (transfer->step = copy_in)(transfer, slow_check, outcome);
}

void mailbox_begin(struct mailbox *mailbox, int local_rank, const struct call *call, void *buf, int by_mpi,
                   struct transfer *transfer) {
    int to_peer = call->operation == OPERATION_SEND, from = to_peer ? mailbox->local_rank : local_rank,
        to = to_peer ? local_rank : mailbox->local_rank;
    size_t pair = (size_t)from * (size_t)mailbox->local_size + (size_t)to;
    *transfer = (struct transfer){
        .mailbox = mailbox,
        .call = call,
        .buf = buf,
        .local_rank = local_rank,
        .by_mpi = by_mpi,
        .step = take_turn,
        .end = to_peer ? &mailbox->sending[local_rank] : &mailbox->receiving[local_rank],
        .channel = channel_of(mailbox, from, to),
        .ring = part_of(mailbox->local_size) * (size_t)mailbox->local_size + pair * RING_NBYTES,
    };
}

int mailbox_advance(struct transfer *transfer, int slow_check, struct outcome *outcome) {
    return transfer->step(transfer, slow_check, outcome);
}

/* What is_stuck says stays: the peer may be giving up, too, and looking for the reason. */
void mailbox_give_up(struct transfer *transfer) {
    if (!transfer->has_turn || transfer->is_done)
        return;
    transfer->end->is_broken |= transfer->is_begun;
    if (!transfer->is_begun)
        show_stuck(transfer, 0);
    pthread_mutex_unlock(&transfer->end->turn);
}

/* Whom the local rank is stuck sending to; -1: nobody. */
static int stuck_with(const struct mailbox *mailbox, int from) {
    for (int to = 0; to < mailbox->local_size; to++)
        if (atomic_load_explicit(&channel_of(mailbox, from, to)->is_stuck, memory_order_relaxed))
            return to;
    return -1;
}

void mailbox_describe(const struct transfer *transfer, char *text, size_t nbytes) {
    const struct mailbox *mailbox = transfer->mailbox;
    int n = 1, own = mailbox->local_rank;
    char others[400] = "";
    call_awaits_peer(transfer->call, NULL, text, nbytes);
    if (!transfer->has_turn)
        snprintf(text + strlen(text), nbytes - strlen(text), "; another thread of this rank is in a message with it");
    if (!sends(transfer) || transfer->call->name == CALL_SENDRECV)
        return;
    for (int at = transfer->local_rank, next; at != own; n++, at = next) {
        if ((next = stuck_with(mailbox, at)) < 0 || n > mailbox->local_size)
            return;
        snprintf(others + strlen(others), sizeof others - strlen(others), "%s%d", next == own ? " and " : ", ",
                 node_rank(mailbox->node, at));
    }
    snprintf(text + strlen(text), nbytes - strlen(text), "; ranks %d%s %s: use sendrecv()", transfer->call->rank,
             others, n == 2 ? "both send, and neither receives" : "all send, and none receives");
}
