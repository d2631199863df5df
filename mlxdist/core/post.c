#include "mlxdist/post.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mlxdist/copy.h"
#include "mlxdist/share.h"

enum { LINE = 64, RING = 128 << 10, PIECE = 32 << 10, IN_HEAD = 40 };

enum box_state { CLOSED, OPEN, REFUSED };

/* What the two tell each other of a ring: bytes since the beginning. */
struct box {
    _Alignas(SEGMENT_LINE) _Atomic uint64_t filled; /* the sender's line */
    _Atomic int state;
    _Alignas(SEGMENT_LINE) _Atomic uint64_t emptied; /* the receiver's */
};

/* A line of the ring; what does not fit in it follows, up to the end of a line. */
struct head {
    _Atomic uint64_t mark; /* where it lies in the stream, and 1: by this the receiver knows that it has come */
    int64_t nbytes;
    int32_t type, by_other_way;
    char payload[IN_HEAD];
};

/* This rank's end of a ring: how far it is. */
struct end {
    pthread_mutex_t turn;
    uint64_t at;
    int is_broken; /* a message was given up in its middle, so what follows would be taken for its rest */
};

struct post {
    struct segment segment;
    char *memory; /* for each seat its boxes, one for each receiver; then all rings */
    struct node *node;
    int seat, seats;
    struct end *sending, *receiving; /* by the other's seat */
};

static size_t round_up(size_t nbytes) {
    return (nbytes + LINE - 1) / LINE * LINE;
}

static size_t part_of(int seats) {
    return (size_t)seats * sizeof(struct box);
}

static struct end *new_ends(int seats) {
    struct end *ends = calloc((size_t)seats, sizeof *ends);
    for (int i = 0; ends && i < seats; i++)
        pthread_mutex_init(&ends[i].turn, NULL);
    return ends;
}

static void free_ends(struct end *ends, int seats) {
    for (int i = 0; ends && i < seats; i++)
        pthread_mutex_destroy(&ends[i].turn);
    free(ends);
}

static void free_post(struct post *post) {
    free_ends(post->sending, post->seats);
    free_ends(post->receiving, post->seats);
    free(post);
}

int post_open(struct node *node, struct post **post, const struct patience *patience, struct outcome *outcome) {
    int seats = node_seats(node), result = NOT_SHARED;
    struct post *opened = calloc(1, sizeof *opened);
    *post = NULL;
    if (opened) {
        *opened = (struct post){.node = node, .seat = node_seat(node), .seats = seats};
        opened->sending = new_ends(seats);
        opened->receiving = new_ends(seats);
    }
    if (!opened || !opened->sending || !opened->receiving) {
        outcome->what = OUT_OF_MEMORY;
        snprintf(outcome->text, sizeof outcome->text, "no memory for messages");
        if (opened)
            free_post(opened);
        return OUT_OF_MEMORY;
    }
    if (seats <= POST_SEATS)
        result = share(node, part_of(seats), (size_t)seats * (size_t)seats * RING, &opened->segment, patience, outcome);
    if (result) {
        free_post(opened);
        return result == NOT_SHARED ? OK : result;
    }
    opened->memory = opened->segment.memory;
    *post = opened;
    return OK;
}

void post_close(struct post *post) {
    segment_free(&post->segment);
    free_post(post);
}

/* A message under way. */
struct transfer {
    struct post *post;
    const struct call *call;
    int seat; /* the other's */
    struct end *end;
    struct box *box;
    size_t ring; /* its place in the segment */
    uint64_t until;
};

static struct transfer transfer_of(struct post *post, const struct call *call, int seat) {
    int sends = call->operation == SEND, from = sends ? post->seat : seat, to = sends ? seat : post->seat;
    struct end *end = sends ? &post->sending[seat] : &post->receiving[seat];
    struct box *box = (struct box *)(post->memory + part_of(post->seats) * (size_t)from) + to;
    size_t place = (size_t)from * (size_t)post->seats + (size_t)to;
    return (struct transfer){post, call, seat, end, box, part_of(post->seats) * (size_t)post->seats + place * RING, 0};
}

static char *place_of(const struct transfer *transfer, uint64_t at) {
    return transfer->post->memory + transfer->ring + at % RING;
}

static struct head *head_at(const struct transfer *transfer, uint64_t at) {
    return (struct head *)place_of(transfer, at);
}

/* What the other has not done it will not do, once it has gone: so look whether it is there first. */
static int look(struct transfer *transfer, int (*has_come)(const struct transfer *), int thorough,
                struct outcome *outcome) {
    int is_gone = thorough && node_look(transfer->post->node, transfer->seat, outcome);
    return has_come(transfer) ? 1 : is_gone ? -1 : 0;
}

static int has_room(const struct transfer *transfer) {
    return transfer->until - atomic_load_explicit(&transfer->box->emptied, memory_order_acquire) <= RING;
}

static int has_bytes(const struct transfer *transfer) {
    return atomic_load_explicit(&transfer->box->filled, memory_order_acquire) >= transfer->until;
}

static int has_message(const struct transfer *transfer) {
    int state = atomic_load_explicit(&transfer->box->state, memory_order_acquire);
    uint64_t at = transfer->end->at;
    return state == REFUSED ||
           (state == OPEN && atomic_load_explicit(&head_at(transfer, at)->mark, memory_order_acquire) == at + 1);
}

static int look_for_room(void *it, int thorough, struct outcome *outcome) {
    return look(it, has_room, thorough, outcome);
}

static int look_for_bytes(void *it, int thorough, struct outcome *outcome) {
    return look(it, has_bytes, thorough, outcome);
}

static int look_for_message(void *it, int thorough, struct outcome *outcome) {
    return look(it, has_message, thorough, outcome);
}

static void describe(void *it, int to_all, char *text, size_t nbytes) {
    (void)to_all;
    const struct transfer *transfer = it;
    call_awaits_peer(transfer->call, text, nbytes);
}

static int await(struct transfer *transfer, int (*look_for)(void *, int, struct outcome *),
                 const struct patience *patience, struct outcome *outcome) {
    return wait_for(&(struct awaited){look_for, describe, transfer, 0}, patience, outcome);
}

/* Between a buffer and the ring, which may end in its middle. */
static void copy_around(const struct transfer *transfer, uint64_t at, char *in, const char *from, size_t nbytes,
                        enum copy_way way) {
    size_t first = RING - at % RING < nbytes ? RING - (size_t)(at % RING) : nbytes;
    if (from) {
        copy(place_of(transfer, at), from, first, way);
        copy(place_of(transfer, 0), from + first, nbytes - first, way);
    } else {
        copy(in, place_of(transfer, at), first, way);
        copy(in + first, place_of(transfer, 0), nbytes - first, way);
    }
}

/* The end is this thread's until it unlocks the turn. */
static int enter(const struct transfer *transfer, const struct patience *patience, struct outcome *outcome) {
    if (wait_for_turn(&transfer->end->turn, patience, outcome))
        return outcome->what;
    if (!transfer->end->is_broken)
        return OK;
    pthread_mutex_unlock(&transfer->end->turn);
    outcome->what = GROUP_SPENT;
    snprintf(outcome->text, sizeof outcome->text, "another thread has given up a message with rank %d in its middle",
             transfer->call->peer);
    return GROUP_SPENT;
}

static int leave(const struct transfer *transfer, int begun, int result) {
    transfer->end->is_broken = begun;
    pthread_mutex_unlock(&transfer->end->turn);
    return result;
}

static void open_box(const struct transfer *transfer) {
    struct outcome why;
    int refused = segment_reserve(&transfer->post->segment, transfer->ring, RING, &why);
    atomic_store_explicit(&transfer->box->state, refused ? REFUSED : OPEN, memory_order_release);
}

/* Let the receiver see the ring up to `at`, and that no message begins there yet. */
static void show(const struct transfer *transfer, uint64_t at, int is_all) {
    if (is_all)
        atomic_store_explicit(&head_at(transfer, at)->mark, 0, memory_order_relaxed);
    atomic_store_explicit(&transfer->box->filled, at, memory_order_release);
}

static int put(struct transfer *transfer, const char *sendbuf, int by_other_way, int *begun,
               const struct patience *patience, struct outcome *outcome) {
    const struct call *call = transfer->call;
    size_t nbytes = by_other_way ? 0 : (size_t)call_nbytes(call), done = nbytes <= IN_HEAD ? nbytes : 0;
    uint64_t start = transfer->end->at, at = start + LINE;
    struct head *head = head_at(transfer, start);
    do {
        size_t n = nbytes - done < PIECE ? nbytes - done : PIECE, room = round_up(n);
        transfer->until = at + room + LINE; /* and the next head */
        if (await(transfer, look_for_room, patience, outcome))
            return outcome->what;
        if (done == 0 || nbytes <= IN_HEAD) {
            head->nbytes = call_nbytes(call), head->type = call->type, head->by_other_way = by_other_way;
            memcpy(head->payload, sendbuf, nbytes <= IN_HEAD ? nbytes : 0);
        }
        copy_around(transfer, at, NULL, sendbuf + done, n, WHOLE_LINES);
        done += n, at += room;
        show(transfer, at, done == nbytes);
        if (!*begun)
            atomic_store_explicit(&head->mark, start + 1, memory_order_release);
        *begun = 1;
    } while (done < nbytes);
    transfer->end->at = at;
    *begun = 0;
    return OK;
}

int post_send(struct post *post, int seat, const struct call *call, const void *sendbuf, int by_other_way, int *begun,
              const struct patience *patience, struct outcome *outcome) {
    struct transfer transfer = transfer_of(post, call, seat);
    *begun = 0;
    if (enter(&transfer, patience, outcome))
        return outcome->what;
    if (atomic_load_explicit(&transfer.box->state, memory_order_relaxed) == CLOSED)
        open_box(&transfer);
    int result = NOT_SHARED;
    if (atomic_load_explicit(&transfer.box->state, memory_order_relaxed) == OPEN)
        result = put(&transfer, sendbuf, by_other_way, begun, patience, outcome);
    return leave(&transfer, *begun, !result && by_other_way ? NOT_SHARED : result);
}

/* recvbuf: NULL to throw away. */
static int take(struct transfer *transfer, const struct head *head, char *recvbuf, int *begun,
                const struct patience *patience, struct outcome *outcome) {
    size_t nbytes = head->by_other_way ? 0 : (size_t)head->nbytes, done = nbytes <= IN_HEAD ? nbytes : 0;
    enum copy_way way = nbytes > copy_cache_nbytes() / 4 ? PAST_CACHE : PLAIN;
    uint64_t at = transfer->end->at + LINE;
    if (recvbuf && nbytes <= IN_HEAD)
        memcpy(recvbuf, head->payload, nbytes);
    *begun = 1;
    while (done < nbytes) {
        size_t n = nbytes - done < PIECE ? nbytes - done : PIECE;
        transfer->until = at + round_up(n);
        if (await(transfer, look_for_bytes, patience, outcome))
            return outcome->what;
        if (recvbuf)
            copy_around(transfer, at, recvbuf + done, NULL, n, way);
        done += n, at = transfer->until;
        atomic_store_explicit(&transfer->box->emptied, at, memory_order_release);
    }
    copy_fence();
    atomic_store_explicit(&transfer->box->emptied, at, memory_order_release);
    transfer->end->at = at;
    *begun = 0;
    return OK;
}

static int receive(struct transfer *transfer, void *recvbuf, int *begun, const struct patience *patience,
                   struct outcome *outcome) {
    const struct call *call = transfer->call;
    if (await(transfer, look_for_message, patience, outcome))
        return outcome->what;
    if (atomic_load_explicit(&transfer->box->state, memory_order_relaxed) == REFUSED)
        return NOT_SHARED;
    const struct head *head = head_at(transfer, transfer->end->at);
    int by_other_way = head->by_other_way, type = head->type;
    int64_t nbytes = head->nbytes;
    int is_expected = nbytes == call_nbytes(call) && types_agree(type, call->type);
    if (take(transfer, head, is_expected ? recvbuf : NULL, begun, patience, outcome))
        return outcome->what;
    *begun = by_other_way;
    if (by_other_way)
        return NOT_SHARED;
    return is_expected ? OK : call_gets_another(call, nbytes, type, outcome);
}

int post_recv(struct post *post, int seat, const struct call *call, void *recvbuf, int *begun,
              const struct patience *patience, struct outcome *outcome) {
    struct transfer transfer = transfer_of(post, call, seat);
    *begun = 0;
    if (enter(&transfer, patience, outcome))
        return outcome->what;
    int result = receive(&transfer, recvbuf, begun, patience, outcome);
    return leave(&transfer, *begun && result != NOT_SHARED, result);
}
