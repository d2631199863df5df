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

/* A message under way, on the side of its sender or its receiver. Only what has a comment is for others to read. */
struct transfer {
    struct mailbox *mailbox;
    const struct call *call;
    char *buf;
    int local_rank;
    int (*step)(struct transfer *, int slow_check, struct outcome *);
    struct end *end;
    struct channel *channel;
    size_t ring, done;
    uint64_t at, until;
    int has_turn, is_expected;
    int is_done, result; /* when it is done: OK or NOT_SHARED, which means by MPI */
    int is_begun;        /* a failure now is one in the middle: no other message can follow in this direction */
    int by_mpi;          /* of a message to receive: the sender has announced that very message, and will not again */
    int64_t nbytes;      /* of what was received; thrown away if call_expects() another */
    int type;
};

/* call: a SEND or a RECV. by_mpi: only tell the receiver that the message goes by MPI. */
void mailbox_begin(struct mailbox *mailbox, int local_rank, const struct call *call, void *buf, int by_mpi,
                   struct transfer *transfer);
/* Do what can be done without waiting. 1: some progress. 0: none. -1: it will never be done, see outcome. */
int mailbox_advance(struct transfer *transfer, int slow_check, struct outcome *outcome);
/* After a failure, its own or another's; does nothing when it is done. */
void mailbox_give_up(struct transfer *transfer);
/* What it waits for, and the circle of local ranks that all send, if they do. */
void mailbox_describe(const struct transfer *transfer, char *text, size_t nbytes);

#endif
