/* One stream between a host and all others, on the side of the rank that drives it: what plan.h says, for a share of
 * each chunk. */
#ifndef MLXDIST_NET_RAIL_H
#define MLXDIST_NET_RAIL_H

#include "mlxdist/net/chunks.h"

struct rail;

/* NULL: there is no memory. */
struct rail *rail_open(const struct hosts *hosts, int index);
/* Not while it is pending. */
void rail_close(struct rail *rail);
/* MPI uses the memory of its chunks. */
int rail_is_pending(const struct rail *rail);

/* The plan and the chunks must outlive the call. */
void rail_begin(struct rail *rail, const struct crossing *crossing, const struct plan *plan, struct chunks *chunks);
/* Do what can be done without waiting. 1: some progress. 0: none. -1: see outcome. */
int rail_advance(struct rail *rail, struct outcome *outcome);
/* All chunks have arrived and been sent. */
int rail_is_done(const struct rail *rail);
/* The chunk and the host that it waits for; -1: none, but ranks of this host. */
int rail_awaits(const struct rail *rail, int64_t *k);

#endif
