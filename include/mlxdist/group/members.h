/* The ranks of a group, and how they arrive at a call that MPI carries out: those of a host in the memory that they
 * share, those of different hosts by finding the lowest and the highest fingerprint with a non-blocking all-reduce. */
#ifndef MLXDIST_GROUP_MEMBERS_H
#define MLXDIST_GROUP_MEMBERS_H

#include "mlxdist/call.h"
#include "mlxdist/mpi/runtime.h"
#include "mlxdist/shm/shm.h"

struct members {
    struct comm *comm;
    struct shm *shm; /* NULL: no other rank shares this host's memory */
    int is_whole;    /* all ranks share it, or this rank is alone */
    int is_world;
    struct wait_policy policy;
    uint64_t sequence;          /* of calls that MPI carries out, for error texts */
    uint64_t own[2], lowest[2]; /* fingerprints, while they agree */
    int is_pending;             /* MPI may still write to the above */
};

/* TRANSPORT(barrier, comm, outcome): one call of the transport, alone where MPI wants that. */
#define TRANSPORT(function, ...) (runtime_begin_call(), end_transport_call(runtime.transport->function(__VA_ARGS__)))
static inline int end_transport_call(int result) {
    runtime_end_call();
    return result;
}

/* Every rank of the world calls it first: MISMATCH on all of them if they run different builds of this library. */
int members_compare_builds(struct comm *comm, struct outcome *outcome);

/* Find out who shares this host's memory; every rank of members->comm calls it. world: those of the whole job, NULL if
 * these are all of them. why_not_shared: why ranks of this host cannot, nbytes of text. After a failure members->shm is
 * NULL.
 */
int members_open_shm(struct members *members, const struct members *world, char *why_not_shared, size_t nbytes,
                     struct outcome *outcome);

/* Return OK when all are known to make this call, which MPI carries out. */
int members_arrive(struct members *members, const struct call *call, struct outcome *outcome);

/* This rank will call nothing more: tell the other hosts, which may be waiting for it. */
int members_end(struct members *members, struct outcome *outcome);

#endif
