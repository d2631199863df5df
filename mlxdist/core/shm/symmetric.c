#include "mlxdist/shm/symmetric.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mlxdist/copy.h"
#include "mlxdist/kernels/kernels.h"
#include "mlxdist/shm/handshake.h"

_Static_assert(sizeof(struct buffer_descriptor) <= NODE_IN_FLAG, "it comes with the flag of an arrival");

struct symmetric {
    struct segment segment;
    struct symmetric *next;
    /* In this process's own memory. Any thread stores it, with release, after its last use of the block; the thread
     * that reads it with acquire unmaps the block. */
    atomic_int is_dropped;
    uint64_t id;     /* the same on all ranks, and not that of an earlier one of the node */
    size_t part;     /* bytes of each rank's */
    char *own, *all; /* this rank's part, and the first rank's */
};

int symmetric_open(struct node *node, size_t nbytes, struct symmetric **newest, const struct wait_policy *policy,
                   struct outcome *outcome) {
    /* Parts share no page: the memory of a segment begins a line after that of its first. */
    size_t page = (size_t)sysconf(_SC_PAGESIZE), part = ((SEGMENT_LINE + nbytes) / page + 1) * page;
    struct symmetric *symmetric = calloc(1, sizeof *symmetric);
    int result = handshake_segment(node, part, 0, 1, symmetric ? &symmetric->segment : NULL, policy, outcome);
    if (result) {
        free(symmetric);
        return result;
    }
    symmetric->id = node_sequence(node);
    symmetric->part = part;
    symmetric->all = symmetric->segment.memory;
    symmetric->own = symmetric->all + part * (size_t)node_local_rank(node);
    symmetric->next = *newest;
    *newest = symmetric;
    return STATUS_OK;
}

void *symmetric_memory(const struct symmetric *symmetric) {
    return symmetric->own;
}

void symmetric_drop(struct symmetric *symmetric) {
    atomic_store_explicit(&symmetric->is_dropped, 1, memory_order_release);
}

void symmetric_sweep(struct symmetric **newest) {
    while (*newest) {
        struct symmetric *symmetric = *newest;
        if (!atomic_load_explicit(&symmetric->is_dropped, memory_order_acquire)) {
            newest = &symmetric->next;
            continue;
        }
        *newest = symmetric->next;
        segment_free(&symmetric->segment);
        free(symmetric);
    }
}

struct symmetric_offset symmetric_offset(const struct symmetric *newest, const void *buffer, size_t nbytes) {
    for (const struct symmetric *symmetric = newest; symmetric; symmetric = symmetric->next) {
        size_t offset = (size_t)((const char *)buffer - symmetric->own);
        if (offset < symmetric->part && nbytes <= symmetric->part - offset)
            return (struct symmetric_offset){symmetric->id, offset};
    }
    return (struct symmetric_offset){0, 0};
}

int symmetric_is_common(const struct node *node) {
    const struct buffer_descriptor *first = node_payload(node, 0);
    for (int i = 1; i < node_local_size(node); i++) {
        const struct buffer_descriptor *other = node_payload(node, i);
        if (other->in.id != first->in.id || other->in.offset != first->in.offset || other->out.id != first->out.id ||
            other->out.offset != first->out.offset)
            return 0;
    }
    return first->in.id && first->out.id;
}

static struct symmetric *block_of(struct symmetric *newest, struct symmetric_offset at) {
    while (newest->id != at.id)
        newest = newest->next;
    return newest;
}

static char *address_of(struct symmetric *newest, int local_rank, struct symmetric_offset at) {
    const struct symmetric *block = block_of(newest, at);
    return block->all + block->part * (size_t)local_rank + at.offset;
}

int symmetric_reduce(struct node *node, struct symmetric *newest, const struct call *call,
                     const struct wait_policy *policy, struct outcome *outcome) {
    enum { MOST_SHARE = 256 << 10, BLOCK = 64 << 10 }; /* of a rank at a time; what its own cache keeps until copied */
    const struct buffer_descriptor own = *(const struct buffer_descriptor *)node_payload(node, node_local_rank(node));
    enum element_type type = (enum element_type)call->type;
    size_t nbytes = (size_t)call_nbytes(call), local_size = (size_t)node_local_size(node),
           local_rank = (size_t)node_local_rank(node);
    size_t even = (nbytes / local_size / SEGMENT_LINE + 1) * SEGMENT_LINE,
           share = even < MOST_SHARE ? even : MOST_SHARE;
    int is_in_place = own.in.id == own.out.id && own.in.offset == own.out.offset;
    enum copy_way way =
        !is_in_place && 2 * local_size * nbytes > copy_cache_nbytes() ? COPY_NON_TEMPORAL : COPY_FULL_LINES;
    char *in[NODE_MAX_RANKS], *out[NODE_MAX_RANKS];
    const void *inputs[NODE_MAX_RANKS];
    for (size_t i = 0; i < local_size; i++) {
        in[i] = address_of(newest, (int)i, own.in);
        out[i] = address_of(newest, (int)i, own.out);
    }
    for (size_t start = local_rank * share; start < nbytes; start += local_size * share)
        for (size_t at = start; at < start + share && at < nbytes; at += BLOCK) {
            size_t end = start + share < nbytes ? start + share : nbytes, n = end - at < BLOCK ? end - at : BLOCK;
            for (size_t i = 0; i < local_size; i++)
                inputs[i] = in[i] + at;
            reduce(type, (enum reduction)call->op, inputs, (int)local_size, out[local_rank] + at,
                   n / element_size(type));
            for (size_t i = 0; i < local_size; i++)
                if (i != local_rank)
                    copy(out[i] + at, out[local_rank] + at, n, way);
        }
    copy_fence();
    struct call end = flat_call(OPERATION_SHARE, 0, 0, 0, 0);
    end.name = call->name, end.rank = call->rank;
    return node_arrive(node, &end, NULL, 0, 0, 0, policy, outcome);
}

/* Other ranks may go on with this call, now or after a stop: they read this rank's input and write into its output, and
 * nothing can hold them up. So this rank leaves them the memory, and gets its own.
 *
 * Nothing that they do from then on reaches the caller's arrays. What they read is still this rank's input, since only
 * this rank and results of this call are written there, and the caller writes to its own memory. So their results lack
 * nothing of this rank's input; and if this rank has not computed its share of them, it does not arrive at the end of
 * symmetric_reduce, and they get an error. No later call reaches these blocks: the group is broken.
 *
 * Only into the output do others write, so only its pages are copied. */
void symmetric_detach(struct symmetric *newest, const struct buffer_descriptor *own, size_t nbytes,
                      struct outcome *outcome) {
    if (!own->in.id || !own->out.id)
        return;
    struct symmetric *in = block_of(newest, own->in), *out = block_of(newest, own->out);
    if (segment_detach(&in->segment, in->own, 0) || segment_detach(&out->segment, out->own + own->out.offset, nbytes))
        strncat(outcome->text, "; this process has too many mappings: do not use its arrays of this call any more",
                sizeof outcome->text - strlen(outcome->text) - 1);
}
