/* The ranks of a group, and how they arrive at a call: those of a host in the memory that they share, those of
 * different hosts by agreeing on the lowest and the highest fingerprint, without blocking. */
#ifndef MLXDIST_ARRIVE_H
#define MLXDIST_ARRIVE_H

#include "mlxdist/call.h"
#include "mlxdist/job.h"
#include "mlxdist/post.h"

struct ranks {
    struct comm *comm;
    struct node *node; /* NULL: no other rank shares this host's memory */
    struct post *post; /* NULL: no messages through it */
    int is_whole;      /* all of them do */
    int is_world;
    struct patience patience;
    uint64_t sequence;          /* of collectives */
    uint64_t own[2], lowest[2]; /* fingerprints, while they agree */
    int is_pending;             /* MPI may still write to the above */
};

/* CALL(barrier, comm, outcome): one call of the transport, alone where MPI wants that. */
#define CALL(function, ...) (job_begin_call(), ranks_end_call(job.transport->function(__VA_ARGS__)))
static inline int ranks_end_call(int result) {
    job_end_call();
    return result;
}

/* Find out who shares this host's memory; every rank of comm calls it. world: those of the whole job, NULL if these
 * are they. not_sharing: where ranks of a host cannot, why. */
int ranks_share(struct ranks *ranks, const struct ranks *world, char *not_sharing, size_t nbytes,
                struct outcome *outcome);

/* Return OK when all are known to make this call, with payload in the node's slots where is_whole. */
int ranks_arrive(struct ranks *ranks, const struct call *call, const void *payload, size_t nbytes, int binding,
                 struct outcome *outcome);

/* This rank has left the node and will call nothing more: say so to the other hosts, which may be waiting for it. */
int ranks_end(struct ranks *ranks, struct outcome *outcome);

#endif
