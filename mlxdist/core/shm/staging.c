#include "mlxdist/shm/staging.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "mlxdist/shm/handshake.h"

/* How many chunks a rank has done since the staging buffer was opened; each stage on a line of its own.
 *
 * Memory order: only its own rank writes it, with release, after the stores to the chunks themselves (copy_fence orders
 * those that go past the cache); a rank that reads k with acquire sees those k chunks. Of a rank's slots three are in
 * use at any time: chunk k + 1 is being copied in, k reduced, k - 1 copied out. A rank copies chunk k + 1 in after it
 * has seen STAGE_REDUCED at k everywhere, and each rank announces that only when it has copied chunk k - 2 out, so the
 * slot of k - 2 would do; a fourth makes the remainder cheap. Without a reduction two are in use. */
struct progress {
    struct {
        _Alignas(SEGMENT_LINE) _Atomic uint64_t chunks;
    } line[STAGES];
};

_Static_assert(offsetof(struct progress, line) == 0 && sizeof(struct progress) == STAGES * SEGMENT_LINE,
               "ranks watch one stage while the owner writes the other");
_Static_assert(STAGING_SLOTS >= 3, "see struct progress");
_Static_assert(STAGING_CHUNK % SEGMENT_LINE == 0, "chunks share no line");
_Static_assert(STAGING_NBYTES / STAGING_SLOTS / STAGING_MAX_RANKS / STAGING_MAX_RANKS >= CACHE_LINE,
               "of a chunk, each rank's share is a line at least");

struct staging {
    struct segment segment;
    struct node *node;
    int local_rank, local_size;
    size_t chunk, part;
    struct copy_autotune autotune;
    char *memory; /* a part for each local rank: its progress, then its STAGING_SLOTS chunks */
    /* Of the call under way. */
    const struct call *call;
    const struct wait_policy *policy;
    size_t chunks;
    uint64_t base; /* chunks of the calls before */
};

static size_t chunk_nbytes(int local_size) {
    size_t most = (size_t)STAGING_NBYTES / STAGING_SLOTS / (size_t)local_size / SEGMENT_LINE * SEGMENT_LINE;
    return most < STAGING_CHUNK ? most : STAGING_CHUNK;
}

int staging_open(struct node *node, struct staging **staging, const struct wait_policy *policy,
                 struct outcome *outcome) {
    int local_size = node_local_size(node), result = STATUS_NOT_SHARED;
    size_t chunk = chunk_nbytes(local_size), part = sizeof(struct progress) + STAGING_SLOTS * chunk;
    struct staging *opened = calloc(1, sizeof *opened);
    *staging = NULL;
    if (local_size <= STAGING_MAX_RANKS)
        result = handshake_segment(node, part, 0, 0, opened ? &opened->segment : NULL, policy, outcome);
    if (result) {
        free(opened);
        return result == STATUS_NOT_SHARED ? STATUS_OK : result;
    }
    opened->node = node;
    opened->local_rank = node_local_rank(node);
    opened->local_size = local_size;
    opened->chunk = chunk;
    opened->part = part;
    opened->memory = opened->segment.memory;
    *staging = opened;
    return STATUS_OK;
}

void staging_close(struct staging *staging) {
    segment_free(&staging->segment);
    free(staging);
}

static _Atomic uint64_t *progress_of(const struct staging *staging, int local_rank, enum stage stage) {
    return &((struct progress *)(staging->memory + (size_t)local_rank * staging->part))->line[stage].chunks;
}

char *staging_slot(const struct staging *staging, int local_rank, size_t k) {
    return staging->memory + (size_t)local_rank * staging->part + sizeof(struct progress) +
           k % STAGING_SLOTS * staging->chunk;
}

struct copy_autotune *staging_autotune(struct staging *staging) {
    return &staging->autotune;
}

size_t staging_chunk(const struct staging *staging) {
    return staging->chunk;
}

void staging_begin(struct staging *staging, const struct call *call, size_t chunks, const struct wait_policy *policy) {
    staging->call = call;
    staging->base += staging->chunks;
    staging->chunks = chunks;
    staging->policy = policy;
}

void staging_announce(struct staging *staging, enum stage stage, size_t chunks) {
    copy_fence();
    atomic_store_explicit(progress_of(staging, staging->local_rank, stage), staging->base + chunks,
                          memory_order_release);
}

/* A wait until all local ranks have done so many chunks. */
struct progress_wait {
    struct staging *staging;
    enum stage stage;
    uint64_t until;
    int next; /* local ranks before it have done it */
};

static uint64_t chunks_of(const struct progress_wait *wait, int local_rank) {
    return atomic_load_explicit(progress_of(wait->staging, local_rank, wait->stage), memory_order_acquire);
}

static int poll_progress(void *it, int slow_check, struct outcome *outcome) {
    struct progress_wait *wait = it;
    const struct staging *staging = wait->staging;
    int is_gone = 0;
    /* First: a rank may have finished this call before it left the group or gave up the next call. */
    for (int local_rank = 0; slow_check && !is_gone && local_rank < staging->local_size; local_rank++)
        is_gone = node_check(staging->node, local_rank, outcome) != STATUS_OK;
    while (wait->next < staging->local_size && chunks_of(wait, wait->next) >= wait->until)
        wait->next++;
    return wait->next == staging->local_size ? 1 : is_gone ? -1 : 0;
}

static void describe_progress(void *it, int to_all, char *text, size_t nbytes) {
    const struct progress_wait *wait = it;
    const struct staging *staging = wait->staging;
    char called[200];
    if (to_all && staging->local_rank != (wait->next == 0))
        return; /* the first local rank prints it, or the second if the first is awaited */
    call_text(staging->call, called, sizeof called);
    snprintf(text, nbytes, "%s: rank %d has stopped at chunk %llu of %zu", called, node_rank(staging->node, wait->next),
             (unsigned long long)(chunks_of(wait, wait->next) - staging->base), staging->chunks);
}

int staging_await(struct staging *staging, enum stage stage, size_t chunks, struct outcome *outcome) {
    struct progress_wait wait = {staging, stage, staging->base + chunks, 0};
    int result =
        wait_for(&(struct wait_condition){poll_progress, describe_progress, &wait, 0, 0}, staging->policy, outcome);
    if (result && result != STATUS_GROUP_CLOSED) /* which leaves the node next */
        node_give_up(staging->node);
    return result;
}
