#include "mlxdist/pool.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "mlxdist/copy.h"
#include "mlxdist/kernels.h"
#include "mlxdist/share.h"

struct pool {
    struct segment segment;
    struct pool *next;
    atomic_int is_dropped;
    uint64_t id;     /* the same on all ranks, and not that of an earlier one of the node */
    size_t part;     /* bytes of each rank's */
    char *own, *all; /* this rank's part, and the first rank's */
};

int pool_open(struct node *node, size_t nbytes, struct pool **newest, const struct patience *patience,
              struct outcome *outcome) {
    const size_t page = 4096; /* a rank's part is its own, down to the pages */
    struct pool *pool = calloc(1, sizeof *pool);
    size_t part = (nbytes / page + 1) * page;
    if (!pool)
        return segment_fails(outcome, "calloc", ENOMEM);
    int result = share(node, part, 0, &pool->segment, patience, outcome);
    if (result) {
        free(pool);
        return result;
    }
    pool->id = node_sequence(node);
    pool->part = part;
    pool->all = pool->segment.memory;
    pool->own = pool->all + part * (size_t)node_seat(node);
    pool->next = *newest;
    *newest = pool;
    return OK;
}

void *pool_memory(const struct pool *pool) {
    return pool->own;
}

void pool_drop(struct pool *pool) {
    atomic_store_explicit(&pool->is_dropped, 1, memory_order_release);
}

void pool_sweep(struct pool **newest) {
    while (*newest) {
        struct pool *pool = *newest;
        if (!atomic_load_explicit(&pool->is_dropped, memory_order_acquire)) {
            newest = &pool->next;
            continue;
        }
        *newest = pool->next;
        segment_free(&pool->segment);
        free(pool);
    }
}

struct place pool_place(const struct pool *newest, const void *buffer, size_t nbytes) {
    for (const struct pool *pool = newest; pool; pool = pool->next) {
        size_t offset = (size_t)((const char *)buffer - pool->own);
        if (offset < pool->part && nbytes <= pool->part - offset)
            return (struct place){pool->id, offset};
    }
    return (struct place){0, 0};
}

int pool_is_common(const struct node *node) {
    const struct approach *first = node_payload(node, 0);
    for (int i = 1; i < node_seats(node); i++) {
        const struct approach *other = node_payload(node, i);
        if (other->in.id != first->in.id || other->in.offset != first->in.offset || other->out.id != first->out.id ||
            other->out.offset != first->out.offset)
            return 0;
    }
    return first->in.id && first->out.id;
}

static char *part_of(const struct pool *newest, int seat, struct place place) {
    while (newest->id != place.id)
        newest = newest->next;
    return newest->all + newest->part * (size_t)seat + place.offset;
}

int pool_reduce(struct node *node, const struct pool *newest, const struct call *call, const struct patience *patience,
                struct outcome *outcome) {
    enum { TURN = 256 << 10, STEP = 64 << 10 }; /* of one rank; that its own cache keeps until it is copied */
    const struct approach approach = *(const struct approach *)node_payload(node, node_seat(node));
    enum element_type type = (enum element_type)call->type;
    size_t nbytes = (size_t)call_nbytes(call), seats = (size_t)node_seats(node), seat = (size_t)node_seat(node);
    size_t even = (nbytes / seats / SEGMENT_LINE + 1) * SEGMENT_LINE, turn = even < TURN ? even : TURN;
    int is_in_place = approach.in.id == approach.out.id && approach.in.offset == approach.out.offset;
    enum copy_way way = !is_in_place && 2 * seats * nbytes > copy_cache_nbytes() ? PAST_CACHE : WHOLE_LINES;
    char *in[NODE_SEATS], *out[NODE_SEATS];
    const void *inputs[NODE_SEATS];
    for (size_t i = 0; i < seats; i++) {
        in[i] = part_of(newest, (int)i, approach.in);
        out[i] = part_of(newest, (int)i, approach.out);
    }
    for (size_t start = seat * turn; start < nbytes; start += seats * turn)
        for (size_t at = start; at < start + turn && at < nbytes; at += STEP) {
            size_t end = start + turn < nbytes ? start + turn : nbytes, n = end - at < STEP ? end - at : STEP;
            for (size_t i = 0; i < seats; i++)
                inputs[i] = in[i] + at;
            reduce(type, (enum reduction)call->op, inputs, (int)seats, out[seat] + at, n / element_size(type));
            for (size_t i = 0; i < seats; i++)
                if (i != seat)
                    copy(out[i] + at, out[seat] + at, n, way);
        }
    copy_fence();
    struct call end = flat_call(SHARE, 0, 0, 0, 0);
    end.rank = call->rank;
    return node_arrive(node, &end, NULL, 0, 0, 0, patience, outcome);
}
