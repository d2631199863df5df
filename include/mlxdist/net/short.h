/* Short collectives: each host's part comes with the opening of the call, and each computes the result from those. */
#ifndef MLXDIST_NET_SHORT_H
#define MLXDIST_NET_SHORT_H

#include "mlxdist/net/opening.h"

int short_fits(const struct hosts *hosts, const struct call *call);
/* Of what a rank brings. */
size_t short_nbytes(const struct crossing *crossing);
/* The leader: fill in the opening with what the ranks of the host have brought, and return its length. */
size_t short_fill(const struct crossing *crossing, struct opening *opening, const void *sendbuf);
/* The leader: what short_copy_out gets its result from. In a group of hosts of one rank each it is recvbuf. */
void short_compute(const struct crossing *crossing, struct opening *opening, void *result);
void short_copy_out(const struct crossing *crossing, const void *result, void *recvbuf);

#endif
