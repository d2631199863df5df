/* The ranks of a group, and how they arrive at a call: those of a host in the memory that they share, those of
 * different hosts by agreeing on the lowest and the highest fingerprint, without blocking. */
#ifndef MLXDIST_ARRIVE_H
#define MLXDIST_ARRIVE_H

#include "mlxdist/call.h"
#include "mlxdist/mpi/runtime.h"
#include "mlxdist/shm/mailbox.h"

struct members {
    struct comm *comm;
    struct node *node;       /* NULL: no other rank shares this host's memory */
    struct mailbox *mailbox; /* NULL: no messages through it */
    int is_whole;            /* all of them do */
    int is_world;
    struct wait_policy policy;
    uint64_t sequence;          /* of collectives */
    uint64_t own[2], lowest[2]; /* fingerprints, while they agree */
    int is_pending;             /* MPI may still write to the above */
};

/* CALL(barrier, comm, outcome): one call of the transport, alone where MPI wants that. */
#define TRANSPORT(function, ...) (runtime_begin_call(), end_transport_call(runtime.transport->function(__VA_ARGS__)))
static inline int end_transport_call(int result) {
    runtime_end_call();
    return result;
}

/* Find out who shares this host's memory; every rank of comm calls it. world: those of the whole job, NULL if these
 * are they. not_sharing: where ranks of a host cannot, why. */
int members_open_shm(struct members *members, const struct members *world, char *why_not_shared, size_t nbytes,
                     struct outcome *outcome);

/* Return OK when all are known to make this call, with payload in the node's slots where is_whole. */
int members_arrive(struct members *members, const struct call *call, const void *payload, size_t nbytes, int commit,
                   struct outcome *outcome);

/* This rank has left the node and will call nothing more: say so to the other hosts, which may be waiting for it. */
int members_end(struct members *members, struct outcome *outcome);

#endif
