/* Point-to-point messages: through shared memory if it reaches the peer, otherwise by MPI. */
#ifndef MLXDIST_GROUP_P2P_H
#define MLXDIST_GROUP_P2P_H

#include "mlxdist/group/remote.h"

/* One direction: first in shared memory, if that reaches the peer, and then perhaps by MPI. */
struct request {
    struct members *members;
    const struct call *call; /* a SEND or a RECV */
    char *buf;               /* memory of the host, but for a SEND of a device */
    char *device;            /* for a RECV: where it goes in the end; NULL: buf */
    enum { REQUEST_NOT_BEGUN, REQUEST_SHARED, REQUEST_BY_MPI } way;
    int is_done, is_announced; /* the receiver has been told in shared memory that it comes by MPI */
    union {
        struct transfer shared;
        struct remote remote;
    };
};

/* A SEND, a RECV, or both at a time: SENDRECV, where sendbuf may be recvbuf. It is on the path of the shortest
 * messages, so nothing is set before it is needed. */
struct p2p {
    const struct call *call;
    struct call halves[2]; /* of a SENDRECV */
    char *own;             /* in place: what is sent; on a device: what is received; never both */
    int n;
    struct request each[2];
};

/* From beginning to end. Both buffers are the caller's again afterwards, whatever happened, unless they are a device's.
 * A message of another type or length is received, thrown away and reported: MISMATCH. pending = 1: it failed in the
 * middle of a message. */
int p2p_run(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf, int *pending,
            struct outcome *outcome);

/* The same in steps, for several that progress together. Those of one direction and peer are begun one after the other,
 * each after the end of the one before. p2p_end follows p2p_begin in any case, with what became of it so far, and
 * returns what becomes of it: it waits for nothing but a device of this rank. */
int p2p_begin(struct p2p *p2p, struct members *members, const struct call *call, const void *sendbuf, void *recvbuf,
              struct outcome *outcome);
/* Do what can be done without waiting. 1: some progress. 0: none. -1: it will never be done, see outcome. */
int p2p_advance(struct p2p *p2p, int slow_check, struct outcome *outcome);
int p2p_is_done(const struct p2p *p2p);
/* One of POLL_..., for a wait for it. */
int p2p_polling(const struct p2p *p2p);
int p2p_end(struct p2p *p2p, int result, int *pending, struct outcome *outcome);
/* What it waits for; of a wait_condition. */
void p2p_describe(void *p2p, int to_all, char *text, size_t nbytes);

#endif
