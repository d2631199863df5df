#include "mlxdist/exchange.h"

#include <string.h>

#include "mlxdist/copy.h"
#include "mlxdist/kernels.h"

enum { LINE = 64 };

/* One call. nbytes of a buffer go through the slots piece by piece; byte b of it lies at (b + offset) % piece, so that
 * slots and results are aligned alike where all ranks' results are. */
struct passage {
    struct window *window;
    const struct call *call;
    const char *sendbuf;
    char *recvbuf;
    int rank, size;
    size_t nbytes, piece, offset, pieces;
    int past_cache;
};

struct stretch {
    size_t at, nbytes; /* of the buffer */
    size_t in_slot;    /* where that begins there */
};

static struct stretch stretch_of(const struct passage *p, size_t k) {
    size_t first = k ? k * p->piece - p->offset : 0, end = (k + 1) * p->piece - p->offset;
    return (struct stretch){first, (end < p->nbytes ? end : p->nbytes) - first, k ? 0 : p->offset};
}

/* Where a rank's share of a stretch begins in the slot: on a line. */
static size_t share_of(const struct passage *p, const struct stretch *stretch, int rank) {
    size_t cut = stretch->in_slot + stretch->nbytes * (size_t)rank / (size_t)p->size;
    if (rank < p->size)
        cut = cut / SEGMENT_LINE * SEGMENT_LINE;
    return cut > stretch->in_slot ? cut : stretch->in_slot;
}

/* Bring piece k: into this rank's slot, what the others will read. */
static void bring(const struct passage *p, size_t k) {
    struct stretch stretch = stretch_of(p, k);
    char *slot = window_slot(p->window, p->rank, k) + stretch.in_slot;
    if (p->call->operation == REDUCE_SCATTER)
        for (int i = 0; i < p->size; i++)
            memcpy(slot + (size_t)i * p->piece, p->sendbuf + (size_t)i * p->nbytes + stretch.at, stretch.nbytes);
    else if (p->call->operation != BROADCAST || p->call->peer == p->rank)
        memcpy(slot, p->sendbuf + stretch.at, stretch.nbytes);
}

/* output = the reduction of what all have brought at this place of piece k. */
static void reduce_here(const struct passage *p, size_t k, size_t in_slot, void *output, size_t nbytes) {
    enum element_type type = (enum element_type)p->call->type;
    const void *inputs[NODE_SEATS];
    for (int i = 0; i < p->size; i++)
        inputs[i] = window_slot(p->window, i, k) + in_slot;
    reduce(type, (enum reduction)p->call->op, inputs, p->size, output, nbytes / element_size(type));
}

/* Every rank reduces its share of piece k, in its own slot. */
static void reduce_share(const struct passage *p, size_t k) {
    struct stretch stretch = stretch_of(p, k);
    size_t first = share_of(p, &stretch, p->rank), end = share_of(p, &stretch, p->rank + 1);
    reduce_here(p, k, first, window_slot(p->window, p->rank, k) + first, end - first);
}

/* The result of piece k, of what all have brought. */
static void fetch(const struct passage *p, size_t k) {
    struct stretch stretch = stretch_of(p, k);
    if (p->call->operation == REDUCE_SCATTER)
        reduce_here(p, k, (size_t)p->rank * p->piece, p->recvbuf + stretch.at, stretch.nbytes);
    else if (p->call->operation == ALLGATHER)
        for (int i = 0; i < p->size; i++)
            copy(p->recvbuf + (size_t)i * p->nbytes + stretch.at, window_slot(p->window, i, k), stretch.nbytes,
                 p->past_cache);
    else if (p->call->peer != p->rank)
        copy(p->recvbuf + stretch.at, window_slot(p->window, p->call->peer, k), stretch.nbytes, p->past_cache);
}

/* Bring piece k + 1 and copy the reduced piece k - 1 out in one loop, so that memory is read and written at once. */
static void bring_and_fetch(const struct passage *p, size_t k) {
    enum { TURN = 4096 };
    struct stretch in = k + 1 < p->pieces ? stretch_of(p, k + 1) : (struct stretch){0, 0, 0};
    struct stretch out = k ? stretch_of(p, k - 1) : (struct stretch){0, 0, 0};
    char *slot = window_slot(p->window, p->rank, k + 1);
    const char *sendbuf = p->sendbuf + in.at;
    size_t brought = 0;
    for (int i = 0; i < p->size && out.nbytes; i++) {
        size_t first = share_of(p, &out, i), end = share_of(p, &out, i + 1);
        const char *from = window_slot(p->window, i, k - 1);
        char *to = p->recvbuf + out.at - out.in_slot;
        for (size_t at = first; at < end; at += TURN) {
            size_t n = end - at < TURN ? end - at : TURN, n_in = in.nbytes - brought < n ? in.nbytes - brought : n;
            memcpy(slot + in.in_slot + brought, sendbuf + brought, n_in);
            brought += n_in;
            copy(to + at, from + at, n, p->past_cache);
        }
    }
    memcpy(slot + in.in_slot + brought, sendbuf + brought, in.nbytes - brought);
}

static int run_allreduce(struct passage *p, struct outcome *outcome) {
    struct window *window = p->window;
    bring(p, 0);
    window_announce(window, BROUGHT, 1);
    for (size_t k = 0; k <= p->pieces; k++) {
        if (k && window_await(window, REDUCED, k, outcome))
            return outcome->what;
        bring_and_fetch(p, k);
        if (k == p->pieces)
            break;
        window_announce(window, BROUGHT, k + 2);
        if (window_await(window, BROUGHT, k + 1, outcome))
            return outcome->what;
        reduce_share(p, k);
        window_announce(window, REDUCED, k + 1);
    }
    return OK;
}

static int run_others(struct passage *p, struct outcome *outcome) {
    struct window *window = p->window;
    bring(p, 0);
    window_announce(window, BROUGHT, 1);
    for (size_t k = 0; k < p->pieces; k++) {
        if (k + 1 < p->pieces)
            bring(p, k + 1);
        window_announce(window, BROUGHT, k + 2);
        if (window_await(window, BROUGHT, k + 1, outcome))
            return outcome->what;
        fetch(p, k);
    }
    return OK;
}

size_t exchange_own_offset(const struct call *call, const void *recvbuf) {
    size_t offset = (uintptr_t)recvbuf % LINE;
    return call->operation == ALLREDUCE && offset % element_size((enum element_type)call->type) == 0 ? offset : 0;
}

size_t exchange_offset(const struct node *node) {
    uint64_t first = ((const struct approach *)node_payload(node, 0))->offset;
    for (int i = 1; i < node_seats(node); i++)
        if (((const struct approach *)node_payload(node, i))->offset != first)
            return 0;
    return first;
}

int exchange_run(struct window *window, const struct node *node, const struct call *call, const void *sendbuf,
                 void *recvbuf, size_t offset, const struct patience *patience, struct outcome *outcome) {
    struct passage p = {window, call, sendbuf, recvbuf, node_seat(node), node_seats(node), 0, 0, 0, 0, 0};
    size_t chunk = window_chunk(window), size = (size_t)p.size, nbytes = (size_t)call_nbytes(call);
    p.nbytes = call->operation == REDUCE_SCATTER ? nbytes / size : nbytes;
    p.piece = call->operation == REDUCE_SCATTER ? chunk / size / LINE * LINE : chunk;
    p.offset = call->operation == ALLREDUCE ? offset : 0;
    p.pieces = (p.nbytes + p.offset + p.piece - 1) / p.piece;
    p.past_cache = sendbuf != recvbuf && 2 * size * nbytes > copy_cache_nbytes();
    window_begin(window, call, p.pieces + 1, patience);
    int result = (call->operation == ALLREDUCE ? run_allreduce : run_others)(&p, outcome);
    copy_fence();
    return result;
}
