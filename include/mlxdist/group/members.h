/* The ranks of a group: those of this host, with which this rank shares memory, and those of other hosts. */
#ifndef MLXDIST_GROUP_MEMBERS_H
#define MLXDIST_GROUP_MEMBERS_H

#include "mlxdist/call.h"
#include "mlxdist/mpi/runtime.h"
#include "mlxdist/net/net.h"
#include "mlxdist/shm/shm.h"

struct members {
    struct comm *comm;
    struct shm *shm; /* NULL: no other rank shares this host's memory */
    struct net *net; /* NULL: all ranks share it, or this rank is alone */
    int host;        /* the lowest rank of the job with which this one shares memory */
    struct wait_policy policy;
};

/* Every rank of the world calls it first: MISMATCH on all of them if they run different builds of this library. */
int members_compare_builds(struct comm *comm, struct outcome *outcome);

/* Find out who shares this host's memory; every rank of members->comm calls it. world: those of the whole job, NULL if
 * these are all of them. why_not_shared: why ranks of this host cannot, nbytes of text. After a failure members->shm
 * and members->net are NULL. */
int members_open(struct members *members, const struct members *world, char *why_not_shared, size_t nbytes,
                 struct outcome *outcome);
/* Nothing if MPI uses its memory. */
void members_close(struct members *members);
/* MPI has something of a call that was given up. */
int members_are_pending(const struct members *members);

/* Return OK when all are known to make this call, which MPI carries out. */
int members_arrive(struct members *members, const struct call *call, struct outcome *outcome);

/* This rank makes no more calls because of this failure: tell the others, who may be waiting for it. */
void members_give_up(struct members *members, const struct outcome *why);
/* This rank will call nothing more: tell the other hosts, which may be waiting for it, and wait until they do. */
int members_end(struct members *members, struct outcome *outcome);
/* Then, when all ranks of this host have ended: whether those of all hosts will finalize MPI, which waits for all of
 * them; PEER_DIED if not. */
int members_end_mpi(struct members *members, int ends_mpi, const struct wait_policy *policy, struct outcome *outcome);

#endif
