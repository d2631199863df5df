#include "mlxdist/shm/pipeline.h"

#include "mlxdist/kernels/kernels.h"

/* One call. nbytes of a buffer go through the slots piece by piece; byte b of it lies at (b + offset) % piece, so that
 * slots and results have the same alignment if those of all ranks have. */
struct pipeline {
    struct staging *staging;
    const struct call *call;
    const char *sendbuf;
    char *recvbuf;
    int rank, size;
    size_t nbytes, piece, offset, pieces;
    enum copy_way out;                     /* to recvbuf */
    const struct copy_policy *copy_policy; /* of the step under way */
};

static const size_t NO_PIECE = SIZE_MAX;

struct range {
    size_t at, nbytes; /* of the buffer */
    size_t in_slot;    /* where that begins there */
};

static struct range range_of(const struct pipeline *p, size_t k) {
    if (k >= p->pieces)
        return (struct range){0, 0, 0};
    size_t first = k ? k * p->piece - p->offset : 0, end = (k + 1) * p->piece - p->offset;
    return (struct range){first, (end < p->nbytes ? end : p->nbytes) - first, k ? 0 : p->offset};
}

/* Where a rank's share of a range begins in the slot: on a line. */
static size_t share_of(const struct pipeline *p, const struct range *range, int rank) {
    size_t cut = range->in_slot + range->nbytes * (size_t)rank / (size_t)p->size;
    if (rank < p->size)
        cut = cut / SEGMENT_LINE * SEGMENT_LINE;
    return cut > range->in_slot ? cut : range->in_slot;
}

static void step(struct pipeline *p, size_t k) {
    p->copy_policy = autotune_policy(staging_autotune(p->staging), k);
}

/* Reduce nbytes: this rank's own, and those that the others have copied in at `in_slot` of piece k. The result goes to
 * recvbuf and, for the others, to `published`: to those that are not NULL. */
static void reduce_part(const struct pipeline *p, size_t k, size_t in_slot, const char *own, char *published,
                        char *recvbuf, size_t nbytes) {
    enum { BLOCK = 8 << 10 }; /* stays in the first-level cache */
    _Alignas(CACHE_LINE) char block[BLOCK];
    enum element_type type = (enum element_type)p->call->type;
    const void *inputs[STAGING_MAX_RANKS];
    for (size_t at = 0; at < nbytes; at += BLOCK) {
        size_t n = nbytes - at < BLOCK ? nbytes - at : BLOCK;
        for (int i = 0; i < p->size; i++)
            inputs[i] = i == p->rank ? own + at : staging_slot(p->staging, i, k) + in_slot + at;
        char *output = recvbuf && p->out == COPY_PLAIN ? recvbuf + at : block;
        reduce(type, (enum reduction)p->call->op, inputs, p->size, output, n / element_size(type));
        if (published)
            copy(published + at, output, n, p->copy_policy->publish);
        if (recvbuf && output == block)
            copy(recvbuf + at, block, n, p->out);
    }
}

/* This rank reduces its share of a piece, for itself and for the others: for those that get a result. */
static void reduce_share(const struct pipeline *p, size_t k) {
    struct range range = range_of(p, k);
    size_t first = share_of(p, &range, p->rank), end = share_of(p, &range, p->rank + 1);
    size_t at = range.at + first - range.in_slot;
    int is_root = p->call->operation == OPERATION_REDUCE && p->call->peer == p->rank;
    reduce_part(p, k, first, p->sendbuf + at, is_root ? NULL : staging_slot(p->staging, p->rank, k) + first,
                call_writes(p->call, p->rank) ? p->recvbuf + at : NULL, end - first);
}

/* Copy in what the others reduce of one piece and copy out what they have reduced of another, in one loop, so that
 * memory is read and written at the same time. */
static void copy_in_and_out(const struct pipeline *p, size_t copied_in, size_t copied_out) {
    size_t block = p->copy_policy->block;
    struct range in = range_of(p, copied_in), out = range_of(p, call_writes(p->call, p->rank) ? copied_out : NO_PIECE);
    for (int j = 1; j < p->size; j++) {
        int peer = (p->rank + j) % p->size;
        size_t in_at = share_of(p, &in, peer), in_end = share_of(p, &in, peer + 1);
        size_t out_at = share_of(p, &out, peer), out_end = share_of(p, &out, peer + 1);
        char *slot = staging_slot(p->staging, p->rank, copied_in), *recvbuf = p->recvbuf + out.at - out.in_slot;
        const char *sendbuf = p->sendbuf + in.at - in.in_slot, *published = staging_slot(p->staging, peer, copied_out);
        for (; in_at < in_end || out_at < out_end; in_at += block, out_at += block) {
            if (in_at < in_end)
                copy(slot + in_at, sendbuf + in_at, in_end - in_at < block ? in_end - in_at : block,
                     p->copy_policy->copy_in);
            if (out_at < out_end)
                copy(recvbuf + out_at, published + out_at, out_end - out_at < block ? out_end - out_at : block, p->out);
        }
    }
}

static int run_reduce(struct pipeline *p, struct outcome *outcome) {
    struct staging *staging = p->staging;
    step(p, 0);
    copy_in_and_out(p, 0, NO_PIECE);
    staging_announce(staging, STAGE_COPIED_IN, 1);
    for (size_t k = 0; k < p->pieces; k++) {
        if (k && staging_await(staging, STAGE_REDUCED, k, outcome))
            return outcome->status;
        step(p, k);
        copy_in_and_out(p, k + 1, k ? k - 1 : NO_PIECE);
        staging_announce(staging, STAGE_COPIED_IN, k + 2);
        if (staging_await(staging, STAGE_COPIED_IN, k + 1, outcome))
            return outcome->status;
        reduce_share(p, k);
        staging_announce(staging, STAGE_REDUCED, k + 1);
    }
    if (staging_await(staging, STAGE_REDUCED, p->pieces, outcome))
        return outcome->status;
    copy_in_and_out(p, NO_PIECE, p->pieces - 1);
    return STATUS_OK;
}

/* Copy in a piece and reduce this rank's part of another. */
static void copy_in_and_reduce(const struct pipeline *p, size_t copied_in, size_t reduced) {
    struct range in = range_of(p, copied_in), out = range_of(p, reduced);
    char *slot = staging_slot(p->staging, p->rank, copied_in);
    for (size_t i = 0; i < (size_t)p->size; i++)
        if (i != (size_t)p->rank)
            copy(slot + i * p->piece, p->sendbuf + i * p->nbytes + in.at, in.nbytes, p->copy_policy->copy_in);
    size_t part = (size_t)p->rank;
    reduce_part(p, reduced, part * p->piece, p->sendbuf + part * p->nbytes + out.at, NULL, p->recvbuf + out.at,
                out.nbytes);
}

/* Copy in a piece, also to this rank's own result, and copy the others' of another out. */
static void copy_in_and_gather(const struct pipeline *p, size_t copied_in, size_t copied_out) {
    struct range in = range_of(p, copied_in), out = range_of(p, copied_out);
    size_t block = p->copy_policy->block, apart = call_collects(p->call) ? p->nbytes : 0;
    const char *sendbuf = p->sendbuf + in.at;
    char *slot = staging_slot(p->staging, p->rank, copied_in), *own = p->recvbuf + (size_t)p->rank * apart + in.at;
    int writes = call_writes(p->call, p->rank);
    if (!call_reads(p->call, p->rank))
        in.nbytes = 0;
    if (!writes)
        out.nbytes = 0;
    for (size_t at = 0; at < in.nbytes || at < out.nbytes; at += block) {
        if (at < in.nbytes) {
            size_t n = in.nbytes - at < block ? in.nbytes - at : block;
            copy(slot + at, sendbuf + at, n, p->copy_policy->copy_in);
            if (writes && own != sendbuf)
                copy(own + at, sendbuf + at, n, p->out);
        }
        for (int i = 0; at < out.nbytes && i < p->size; i++)
            if (i != p->rank && call_reads(p->call, i))
                copy(p->recvbuf + (size_t)i * apart + out.at + at, staging_slot(p->staging, i, copied_out) + at,
                     out.nbytes - at < block ? out.nbytes - at : block, p->out);
    }
}

/* Where in its slot a rank has what it exchanges with another: it has nothing for itself there. */
static size_t part_of(const struct pipeline *p, int rank, int peer) {
    return (size_t)((peer - rank - 1 + p->size) % p->size) * p->piece;
}

/* Copy in the others' parts of a piece, and their parts for this rank of another out; its own part goes straight to its
 * result. */
static void copy_in_and_exchange(const struct pipeline *p, size_t copied_in, size_t copied_out) {
    struct range in = range_of(p, copied_in), out = range_of(p, copied_out);
    size_t block = p->copy_policy->block, apart = call_collects(p->call) ? p->nbytes : 0, rank = (size_t)p->rank;
    char *slot = staging_slot(p->staging, p->rank, copied_in), *own = p->recvbuf + rank * apart + in.at;
    const char *sendbuf = p->sendbuf + rank * p->nbytes + in.at;
    if (!call_reads(p->call, p->rank))
        in.nbytes = 0;
    for (int j = 1; j < p->size; j++) {
        size_t peer = (rank + (size_t)j) % (size_t)p->size;
        size_t out_nbytes = call_reads(p->call, (int)peer) ? out.nbytes : 0;
        const char *theirs = p->sendbuf + peer * p->nbytes + in.at,
                   *published = staging_slot(p->staging, (int)peer, copied_out) + part_of(p, (int)peer, p->rank);
        char *part = slot + part_of(p, p->rank, (int)peer);
        for (size_t at = 0; at < in.nbytes || at < out_nbytes; at += block) {
            if (at < in.nbytes)
                copy(part + at, theirs + at, in.nbytes - at < block ? in.nbytes - at : block, p->copy_policy->copy_in);
            if (at < out_nbytes)
                copy(p->recvbuf + peer * apart + out.at + at, published + at,
                     out_nbytes - at < block ? out_nbytes - at : block, p->out);
        }
    }
    if (own != sendbuf)
        copy(own, sendbuf, in.nbytes, p->out);
}

static int run_others(struct pipeline *p, struct outcome *outcome) {
    void (*pass)(const struct pipeline *, size_t, size_t) = p->call->operation == OPERATION_REDUCE_SCATTER
                                                                ? copy_in_and_reduce
                                                            : call_is_parted(p->call) ? copy_in_and_exchange
                                                                                      : copy_in_and_gather;
    for (size_t k = 0; k <= p->pieces; k++) {
        if (k && staging_await(p->staging, STAGE_COPIED_IN, k, outcome))
            return outcome->status;
        step(p, k);
        pass(p, k, k ? k - 1 : NO_PIECE);
        staging_announce(p->staging, STAGE_COPIED_IN, k + 1);
    }
    return STATUS_OK;
}

size_t pipeline_own_offset(const struct call *call, const void *recvbuf) {
    size_t offset = (uintptr_t)recvbuf % CACHE_LINE;
    return call->operation == OPERATION_ALLREDUCE && offset % element_size((enum element_type)call->type) == 0 ? offset
                                                                                                               : 0;
}

size_t pipeline_offset(const struct node *node) {
    uint64_t first = ((const struct buffer_descriptor *)node_payload(node, 0))->offset;
    for (int i = 1; i < node_local_size(node); i++)
        if (((const struct buffer_descriptor *)node_payload(node, i))->offset != first)
            return 0;
    return first;
}

int pipeline_run(struct staging *staging, const struct node *node, const struct call *call, const void *sendbuf,
                 void *recvbuf, size_t offset, const struct wait_policy *policy, struct outcome *outcome) {
    struct pipeline p = {staging, call, sendbuf,    recvbuf, node_local_rank(node), node_local_size(node), 0, 0,
                         0,       0,    COPY_PLAIN, NULL};
    size_t chunk = staging_chunk(staging), size = (size_t)p.size, nbytes = (size_t)call_nbytes(call);
    p.nbytes = call_is_parted(call) ? nbytes / size : nbytes;
    size_t parts = call->operation == OPERATION_REDUCE_SCATTER ? size : call_is_parted(call) && size > 1 ? size - 1 : 1;
    p.piece = chunk / parts / CACHE_LINE * CACHE_LINE;
    p.offset = call->operation == OPERATION_ALLREDUCE ? offset : 0;
    p.pieces = (p.nbytes + p.offset + p.piece - 1) / p.piece;
    staging_begin(staging, call, p.pieces + 1, policy);
    size_t result = call_collects(call) ? p.nbytes * size : p.nbytes;
    size_t inputs = call->operation == OPERATION_SCATTER ? 1 : size,
           results = call->operation == OPERATION_GATHER || call->operation == OPERATION_REDUCE ? 1 : size;
    int beyond_cache = inputs * nbytes + results * result > copy_cache_nbytes();
    if (beyond_cache && call_writes(call, p.rank))
        copy_use_huge_pages(recvbuf, result);
    if (beyond_cache && (sendbuf != recvbuf || call->operation == OPERATION_BROADCAST))
        p.out = COPY_NON_TEMPORAL;
    autotune_begin(staging_autotune(staging), nbytes, p.pieces, beyond_cache);
    int is_whole = call_reduces(call) && !call_is_parted(call);
    int failed = (is_whole ? run_reduce : run_others)(&p, outcome);
    copy_fence();
    return failed;
}
