/* Messages between two ranks of a host, through memory that they share.
 *
 * For each sender and each receiver there is a channel: a ring of bytes that the sender fills and the receiver empties,
 * so that a short message is sent as soon as it is written, and a long one needs both ranks at the same time. No user
 * buffer is ever in use by a peer. */
#ifndef MLXDIST_SHM_MAILBOX_H
#define MLXDIST_SHM_MAILBOX_H

#include "mlxdist/shm/arrival.h"

struct mailbox;

enum { MAILBOX_MAX_RANKS = 64 };

/* Every local rank of the node calls it. *mailbox is NULL afterwards, on all of them, if there is no memory for it or
 * they are more than MAILBOX_MAX_RANKS. */
int mailbox_open(struct node *node, struct mailbox **mailbox, const struct wait_policy *policy,
                 struct outcome *outcome);
void mailbox_close(struct mailbox *mailbox);

/* NOT_SHARED: send this message by MPI; the receiver is told so by mailbox_recv. by_mpi: tell it so in any case.
 * begun = 1: it failed in the middle, and nothing more can be sent to this local rank. */
int mailbox_send(struct mailbox *mailbox, int local_rank, const struct call *call, const void *sendbuf, int by_mpi,
                 int *begun, const struct wait_policy *policy, struct outcome *outcome);
/* NOT_SHARED: receive it by MPI; begun = 1: the sender has announced this very message, and will not do so again.
 * MISMATCH: it had another type or length, and was thrown away. */
int mailbox_recv(struct mailbox *mailbox, int local_rank, const struct call *call, void *recvbuf, int *begun,
                 const struct wait_policy *policy, struct outcome *outcome);

#endif
