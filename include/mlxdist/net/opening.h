/* How the hosts open a call: their leaders tell each other what their ranks call, with the data of a short call. It
 * takes one round to all other hosts, or, if they are many, a few to some of them without data. */
#ifndef MLXDIST_NET_OPENING_H
#define MLXDIST_NET_OPENING_H

#include "mlxdist/net/crossing.h"
#include "mlxdist/net/plan.h"

/* A leader's memory for it. */
struct opening;

int opening_open(const struct hosts *hosts, struct opening **opening, struct outcome *outcome);
/* Not while it is pending. */
void opening_close(struct opening *opening);
/* MPI uses its memory. */
int opening_is_pending(const struct opening *opening);

/* The data of a host: of this one, to be filled in before the call opens; of the others, afterwards. */
void *opening_data(const struct opening *opening, int host);

/* What a leader says of its host. */
struct opening_state {
    size_t nbytes; /* of data */
    int differs;   /* the calls of its ranks do, or may; no data if they do */
    int no_memory; /* for what follows */
    int is_listed; /* opening_list_calls has been called */
};

/* Keep what the ranks of the host call, which is forgotten when they arrive again. */
void opening_list_calls(const struct crossing *crossing, struct opening *opening);

/* OK: all ranks of all hosts make this call, and there are the data of all. MISMATCH; OUT_OF_MEMORY, if no_memory on
 * any host: both on all hosts, unless it is pending. */
int opening_run(const struct crossing *crossing, struct opening *opening, const struct opening_state *state,
                struct outcome *outcome);

/* All leaders say whether their host goes on with what cannot be given up: OK on all of them or on none. PEER_DIED: one
 * does not. The policy should let nothing interrupt it: others may have gone on. */
int opening_confirm(const struct crossing *crossing, struct opening *opening, int goes_on, struct outcome *outcome);

#endif
