/* Long collectives between hosts, chunk by chunk, as plan.h says: the ranks of a host bring and take, and some of them
 * send and receive. Nothing of the user's is in MPI's hands, so it can be given up anywhere. */
#ifndef MLXDIST_NET_RELAY_H
#define MLXDIST_NET_RELAY_H

#include "mlxdist/net/chunks.h"

struct relay;

/* All ranks of the host call it; OUT_OF_MEMORY on all of them if one has too little. */
int relay_open(const struct crossing *crossing, struct relay **relay, struct outcome *outcome);
/* Not while it is pending. */
void relay_close(struct relay *relay);
/* MPI uses its memory. */
int relay_is_pending(const struct relay *relay);

/* After the call has opened. The buffers are those of group_run. The timeout is for a time without progress. */
int relay_run(struct relay *relay, const struct crossing *crossing, const void *sendbuf, void *recvbuf,
              struct outcome *outcome);

#endif
