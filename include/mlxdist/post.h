/* Messages between two ranks of a host, through memory that they share.
 *
 * For each sender and each receiver there is a box: a ring of bytes that the sender fills and the receiver empties, so
 * that a short message is gone as soon as it is written, and a long one needs both at once. No buffer is ever in
 * anybody else's hands. */
#ifndef MLXDIST_POST_H
#define MLXDIST_POST_H

#include "mlxdist/node.h"

struct post;

/* Every seat of the node calls it. post is NULL afterwards where the memory is not to be had or there are more than
 * POST_SEATS. */
enum { POST_SEATS = 64 };
int post_open(struct node *node, struct post **post, const struct patience *patience, struct outcome *outcome);
void post_close(struct post *post);

/* NOT_SHARED: this message has to go another way, and the receiver learns it from post_recv. by_other_way: let it.
 * begun = 1: it failed in the middle, and nothing more can be sent to this seat. */
int post_send(struct post *post, int seat, const struct call *call, const void *sendbuf, int by_other_way, int *begun,
              const struct patience *patience, struct outcome *outcome);
/* NOT_SHARED: it comes another way; begun = 1: the sender has said so of this message, and will not again. MISMATCH: a
 * message of another type or length, which is thrown away. */
int post_recv(struct post *post, int seat, const struct call *call, void *recvbuf, int *begun,
              const struct patience *patience, struct outcome *outcome);

#endif
