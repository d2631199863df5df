/* The memory of a host through which long arrays go to other hosts and come from them: slots for a few chunks, and how
 * far each of the host's ranks is. */
#ifndef MLXDIST_NET_CHUNKS_H
#define MLXDIST_NET_CHUNKS_H

#include "mlxdist/net/crossing.h"
#include "mlxdist/net/plan.h"

/* What has been done with a chunk: by a rank of the host; on a rail, by the rank that drives it. */
enum chunk_stage {
    CHUNK_COPIED_IN,  /* a rank's input is in its slot */
    CHUNK_COPIED_OUT, /* a rank has its result */
    CHUNK_ARRIVED,    /* on a rail: its share of the result is there */
    CHUNK_SENT,       /* on a rail: and nothing of it is being sent */
    CHUNK_STAGES
};

struct chunks;

/* All ranks of the host call it, and all get OUT_OF_MEMORY if there is too little. wanted: 0 if this rank has had no
 * memory for what it needs besides. */
int chunks_open(const struct crossing *crossing, int wanted, struct chunks **chunks, struct outcome *outcome);
void chunks_close(struct chunks *chunks);

/* The slots of chunk k, which are also those of chunk k + PLAN_SLOTS: what a rank of the host has copied in, the sum of
 * those, what came from other hosts, the result. */
char *chunks_input(const struct chunks *chunks, int local_rank, int64_t k);
char *chunks_partial(const struct chunks *chunks, int64_t k);
char *chunks_incoming(const struct chunks *chunks, int64_t k);
char *chunks_result(const struct chunks *chunks, int64_t k);

/* Begin a call of so many chunks: all ranks of the host have arrived at it. */
void chunks_begin(struct chunks *chunks, int64_t n);
/* `who`, a local rank or a rail, has done the stage for the first so many chunks. */
void chunks_announce(struct chunks *chunks, enum chunk_stage stage, int who, int64_t n);
int64_t chunks_done(const struct chunks *chunks, enum chunk_stage stage, int who);
/* The least of all local ranks or rails. */
int64_t chunks_done_by_all(const struct chunks *chunks, enum chunk_stage stage);
/* The slots of chunk k: what was there before has been sent, and copied out by all. */
int chunks_are_free(const struct chunks *chunks, int64_t k);

#endif
