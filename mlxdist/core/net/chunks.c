#include "mlxdist/net/chunks.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "mlxdist/copy.h"

/* Memory order: only the rank that does the stage writes its line, with release, after what it stored in the slots; a
 * rank that reads k with acquire sees the first k chunks. A slot is written for chunk k + PLAN_SLOTS when all ranks of
 * the host have copied chunk k out and all rails have sent it. */
struct line {
    _Alignas(SHM_LINE) _Atomic int64_t n;
};
_Static_assert(sizeof(struct line) == SHM_LINE, "ranks watch one line while others write others");

struct chunks {
    int size, rails; /* ranks of the host */
    size_t chunk, incoming;
    int64_t base, n; /* chunks of the calls before, and of this one */
    struct line *lines;
    char *inputs, *partials, *incomings, *results;
    int is_own; /* memory of this process */
};

static size_t lines_nbytes(const struct hosts *hosts) {
    return (size_t)CHUNK_STAGES * (size_t)hosts->largest * sizeof(struct line);
}

/* A rank that is alone on its host needs no slot apart from that of the partial result. */
static size_t inputs_of(const struct hosts *hosts) {
    return hosts_own(hosts)->size > 1 ? (size_t)hosts_own(hosts)->size : 0;
}

static size_t nbytes_of(const struct hosts *hosts) {
    return lines_nbytes(hosts) +
           PLAN_SLOTS * ((inputs_of(hosts) + 2) * plan_chunk_nbytes(hosts) + plan_incoming_nbytes(hosts));
}

int chunks_open(const struct crossing *crossing, int wanted, struct chunks **chunks, struct outcome *outcome) {
    const struct hosts *hosts = crossing->hosts;
    struct chunks *opened = calloc(1, sizeof *opened);
    size_t nbytes = (nbytes_of(hosts) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    void *memory = NULL;
    int result = STATUS_OK;
    *chunks = NULL;
    if (crossing->shm)
        result = shm_share(crossing->shm, nbytes, wanted && opened, &memory, crossing->policy, outcome);
    else if (wanted && opened && (memory = aligned_alloc(CACHE_LINE, nbytes)))
        for (size_t i = 0; i < lines_nbytes(hosts) / sizeof(struct line); i++)
            atomic_init(&((struct line *)memory)[i].n, 0);
    if (result || !memory) {
        free(opened);
        return result ? result : STATUS_OUT_OF_MEMORY;
    }
    opened->size = hosts_own(hosts)->size;
    opened->rails = hosts->rails;
    opened->chunk = plan_chunk_nbytes(hosts);
    opened->incoming = plan_incoming_nbytes(hosts);
    opened->lines = memory;
    opened->inputs = (char *)memory + lines_nbytes(hosts);
    opened->partials = opened->inputs + PLAN_SLOTS * inputs_of(hosts) * opened->chunk;
    opened->results = opened->partials + PLAN_SLOTS * opened->chunk;
    opened->incomings = opened->results + PLAN_SLOTS * opened->chunk;
    opened->is_own = !crossing->shm;
    *chunks = opened;
    return STATUS_OK;
}

void chunks_close(struct chunks *chunks) {
    if (chunks->is_own)
        free(chunks->lines);
    free(chunks);
}

char *chunks_input(const struct chunks *chunks, int local_rank, int64_t k) {
    return chunks->inputs + ((size_t)local_rank * PLAN_SLOTS + (size_t)(k % PLAN_SLOTS)) * chunks->chunk;
}

char *chunks_partial(const struct chunks *chunks, int64_t k) {
    return chunks->partials + (size_t)(k % PLAN_SLOTS) * chunks->chunk;
}

char *chunks_incoming(const struct chunks *chunks, int64_t k) {
    return chunks->incomings + (size_t)(k % PLAN_SLOTS) * chunks->incoming;
}

char *chunks_result(const struct chunks *chunks, int64_t k) {
    return chunks->results + (size_t)(k % PLAN_SLOTS) * chunks->chunk;
}

void chunks_begin(struct chunks *chunks, int64_t n) {
    chunks->base += chunks->n;
    chunks->n = n;
}

static _Atomic int64_t *line_of(const struct chunks *chunks, enum chunk_stage stage, int who) {
    int most = chunks->size > chunks->rails ? chunks->size : chunks->rails;
    return &chunks->lines[(int)stage * most + who].n;
}

void chunks_announce(struct chunks *chunks, enum chunk_stage stage, int who, int64_t n) {
    copy_fence();
    atomic_store_explicit(line_of(chunks, stage, who), chunks->base + n, memory_order_release);
}

int64_t chunks_done(const struct chunks *chunks, enum chunk_stage stage, int who) {
    int64_t n = atomic_load_explicit(line_of(chunks, stage, who), memory_order_acquire) - chunks->base;
    return n > 0 ? n : 0;
}

int64_t chunks_done_by_all(const struct chunks *chunks, enum chunk_stage stage) {
    int n_who = stage < CHUNK_ARRIVED ? chunks->size : chunks->rails;
    int64_t least = INT64_MAX;
    for (int who = 0; who < n_who; who++) {
        int64_t n = chunks_done(chunks, stage, who);
        least = n < least ? n : least;
    }
    return least;
}

/* Sent on all rails, and not only on that which asks: parts of the last chunk lie elsewhere in a slot. */
int chunks_are_free(const struct chunks *chunks, int64_t k) {
    return k < chunks_done_by_all(chunks, CHUNK_SENT) + PLAN_SLOTS &&
           k < chunks_done_by_all(chunks, CHUNK_COPIED_OUT) + PLAN_SLOTS;
}
