/* Messages between two ranks of a host, through memory that they share.
 *
 * For each sender and each receiver there is a box: a ring of bytes that the sender fills and the receiver empties, so
 * that a short message is gone as soon as it is written, and a long one needs both at once. No buffer is ever in
 * anybody else's hands. */
#ifndef MLXDIST_SHM_MAILBOX_H
#define MLXDIST_SHM_MAILBOX_H

#include "mlxdist/shm/arrival.h"

struct mailbox;

/* Every local rank of the node calls it. post is NULL afterwards where the memory is not to be had or there are more
 * than POST_SEATS. */
enum { MAILBOX_MAX_RANKS = 64 };
int mailbox_open(struct node *node, struct mailbox **mailbox, const struct wait_policy *policy,
                 struct outcome *outcome);
void mailbox_close(struct mailbox *mailbox);

/* NOT_SHARED: this message has to go another way, and the receiver learns it from post_recv. by_other_way: let it.
 * begun = 1: it failed in the middle, and nothing more can be sent to this local rank. */
int mailbox_send(struct mailbox *mailbox, int local_rank, const struct call *call, const void *sendbuf, int by_mpi,
                 int *begun, const struct wait_policy *policy, struct outcome *outcome);
/* NOT_SHARED: it comes another way; begun = 1: the sender has said so of this message, and will not again. MISMATCH: a
 * message of another type or length, which is thrown away. */
int mailbox_recv(struct mailbox *mailbox, int local_rank, const struct call *call, void *recvbuf, int *begun,
                 const struct wait_policy *policy, struct outcome *outcome);

#endif
