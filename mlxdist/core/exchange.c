#include "mlxdist/exchange.h"

#include <string.h>

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
    enum copy_way out;           /* to recvbuf */
    const struct method *method; /* of the step under way */
};

static const size_t NONE = SIZE_MAX; /* no piece */

struct stretch {
    size_t at, nbytes; /* of the buffer */
    size_t in_slot;    /* where that begins there */
};

static struct stretch stretch_of(const struct passage *p, size_t k) {
    if (k >= p->pieces)
        return (struct stretch){0, 0, 0};
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

static void step(struct passage *p, size_t k) {
    p->method = trial_method(window_trial(p->window), k);
}

/* The reduction of nbytes: this rank's own part of them, and what the others have brought at `in_slot` of piece k.
 * It goes to recvbuf and, for the others, to `shown` if that is not NULL. */
static void reduce_part(const struct passage *p, size_t k, size_t in_slot, const char *own, char *shown, char *recvbuf,
                        size_t nbytes) {
    enum { STEP = 8 << 10 }; /* stays in the first-level cache */
    _Alignas(LINE) char block[STEP];
    enum element_type type = (enum element_type)p->call->type;
    const void *inputs[WINDOW_SEATS];
    for (size_t at = 0; at < nbytes; at += STEP) {
        size_t n = nbytes - at < STEP ? nbytes - at : STEP;
        for (int i = 0; i < p->size; i++)
            inputs[i] = i == p->rank ? own + at : window_slot(p->window, i, k) + in_slot + at;
        char *output = p->out == PLAIN ? recvbuf + at : block;
        reduce(type, (enum reduction)p->call->op, inputs, p->size, output, n / element_size(type));
        if (shown)
            copy(shown + at, output, n, p->method->show);
        if (output == block)
            copy(recvbuf + at, block, n, p->out);
    }
}

/* Every rank reduces its share of a piece, for itself and for the others. */
static void reduce_share(const struct passage *p, size_t k) {
    struct stretch stretch = stretch_of(p, k);
    size_t first = share_of(p, &stretch, p->rank), end = share_of(p, &stretch, p->rank + 1);
    size_t at = stretch.at + first - stretch.in_slot;
    reduce_part(p, k, first, p->sendbuf + at, window_slot(p->window, p->rank, k) + first, p->recvbuf + at, end - first);
}

/* Bring what the others reduce of one piece and take out what they have reduced of another, in one loop, so that memory
 * is read and written at once. */
static void bring_and_take(const struct passage *p, size_t brought, size_t taken) {
    size_t turn = p->method->turn;
    struct stretch in = stretch_of(p, brought), out = stretch_of(p, taken);
    for (int j = 1; j < p->size; j++) {
        int peer = (p->rank + j) % p->size;
        size_t in_at = share_of(p, &in, peer), in_end = share_of(p, &in, peer + 1);
        size_t out_at = share_of(p, &out, peer), out_end = share_of(p, &out, peer + 1);
        char *slot = window_slot(p->window, p->rank, brought), *recvbuf = p->recvbuf + out.at - out.in_slot;
        const char *sendbuf = p->sendbuf + in.at - in.in_slot, *shown = window_slot(p->window, peer, taken);
        for (; in_at < in_end || out_at < out_end; in_at += turn, out_at += turn) {
            if (in_at < in_end)
                copy(slot + in_at, sendbuf + in_at, in_end - in_at < turn ? in_end - in_at : turn, p->method->bring);
            if (out_at < out_end)
                copy(recvbuf + out_at, shown + out_at, out_end - out_at < turn ? out_end - out_at : turn, p->out);
        }
    }
}

static int run_allreduce(struct passage *p, struct outcome *outcome) {
    struct window *window = p->window;
    step(p, 0);
    bring_and_take(p, 0, NONE);
    window_announce(window, BROUGHT, 1);
    for (size_t k = 0; k < p->pieces; k++) {
        if (k && window_await(window, REDUCED, k, outcome))
            return outcome->what;
        step(p, k);
        bring_and_take(p, k + 1, k ? k - 1 : NONE);
        window_announce(window, BROUGHT, k + 2);
        if (window_await(window, BROUGHT, k + 1, outcome))
            return outcome->what;
        reduce_share(p, k);
        window_announce(window, REDUCED, k + 1);
    }
    if (window_await(window, REDUCED, p->pieces, outcome))
        return outcome->what;
    bring_and_take(p, NONE, p->pieces - 1);
    return OK;
}

/* Bring a piece and reduce this rank's part of another. */
static void bring_and_reduce(const struct passage *p, size_t brought, size_t reduced) {
    struct stretch in = stretch_of(p, brought), out = stretch_of(p, reduced);
    char *slot = window_slot(p->window, p->rank, brought);
    for (size_t i = 0; i < (size_t)p->size; i++)
        if (i != (size_t)p->rank)
            copy(slot + i * p->piece, p->sendbuf + i * p->nbytes + in.at, in.nbytes, p->method->bring);
    size_t part = (size_t)p->rank;
    reduce_part(p, reduced, part * p->piece, p->sendbuf + part * p->nbytes + out.at, NULL, p->recvbuf + out.at,
                out.nbytes);
}

/* Whether a rank has something for the others. */
static int gives(const struct passage *p, int rank) {
    return p->call->operation == ALLGATHER || p->call->peer == rank;
}

/* Bring a piece, also to this rank's own result, and take the others' of another out. */
static void bring_and_gather(const struct passage *p, size_t brought, size_t taken) {
    struct stretch in = stretch_of(p, brought), out = stretch_of(p, taken);
    size_t turn = p->method->turn, apart = p->call->operation == ALLGATHER ? p->nbytes : 0;
    const char *sendbuf = p->sendbuf + in.at;
    char *slot = window_slot(p->window, p->rank, brought), *own = p->recvbuf + (size_t)p->rank * apart + in.at;
    if (!gives(p, p->rank))
        in.nbytes = 0;
    for (size_t at = 0; at < in.nbytes || at < out.nbytes; at += turn) {
        if (at < in.nbytes) {
            size_t n = in.nbytes - at < turn ? in.nbytes - at : turn;
            copy(slot + at, sendbuf + at, n, p->method->bring);
            if (own != sendbuf)
                copy(own + at, sendbuf + at, n, p->out);
        }
        for (int i = 0; at < out.nbytes && i < p->size; i++)
            if (i != p->rank && gives(p, i))
                copy(p->recvbuf + (size_t)i * apart + out.at + at, window_slot(p->window, i, taken) + at,
                     out.nbytes - at < turn ? out.nbytes - at : turn, p->out);
    }
}

static int run_others(struct passage *p, struct outcome *outcome) {
    void (*pass)(const struct passage *, size_t, size_t) =
        p->call->operation == REDUCE_SCATTER ? bring_and_reduce : bring_and_gather;
    for (size_t k = 0; k <= p->pieces; k++) {
        if (k && window_await(p->window, BROUGHT, k, outcome))
            return outcome->what;
        step(p, k);
        pass(p, k, k ? k - 1 : NONE);
        window_announce(p->window, BROUGHT, k + 1);
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
    struct passage p = {window, call, sendbuf, recvbuf, node_seat(node), node_seats(node), 0, 0, 0, 0, PLAIN, NULL};
    size_t chunk = window_chunk(window), size = (size_t)p.size, nbytes = (size_t)call_nbytes(call);
    p.nbytes = call->operation == REDUCE_SCATTER ? nbytes / size : nbytes;
    p.piece = call->operation == REDUCE_SCATTER ? chunk / size / LINE * LINE : chunk;
    p.offset = call->operation == ALLREDUCE ? offset : 0;
    p.pieces = (p.nbytes + p.offset + p.piece - 1) / p.piece;
    window_begin(window, call, p.pieces + 1, patience);
    size_t result = call->operation == ALLGATHER ? nbytes * size : p.nbytes;
    int beyond_cache = size * (nbytes + result) > copy_cache_nbytes();
    if (beyond_cache)
        copy_use_huge_pages(recvbuf, result);
    if (beyond_cache && (sendbuf != recvbuf || call->operation == BROADCAST))
        p.out = PAST_CACHE;
    trial_begin(window_trial(window), nbytes, p.pieces, beyond_cache);
    int failed = (call->operation == ALLREDUCE ? run_allreduce : run_others)(&p, outcome);
    copy_fence();
    return failed;
}
