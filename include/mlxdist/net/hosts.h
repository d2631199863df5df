/* The hosts of a group: the ranks that share memory, and each rank that shares none as a host of its own; in the order
 * of their lowest ranks, the same on all ranks. */
#ifndef MLXDIST_NET_HOSTS_H
#define MLXDIST_NET_HOSTS_H

#include "mlxdist/mpi/runtime.h"
#include "mlxdist/shm/shm.h"

/* The most streams between two hosts: more do not carry more. */
enum { HOSTS_MAX_RAILS = 4, HOST_NAME = 60 };

struct host {
    int first, size; /* its ranks are ranks[first] and those that follow; the first is its leader */
    char name[HOST_NAME];
};

struct hosts {
    int n, mine;  /* hosts, and which of them is this one */
    int size;     /* ranks */
    int largest;  /* the most ranks of a host */
    int rails;    /* streams between two hosts */
    int position; /* of this rank in ranks */
    int *ranks;   /* host by host, on each in their order */
    struct host each[];
};

/* Every rank calls it. shm: of the ranks that share memory with this one; NULL: none do. */
int hosts_open(struct comm *comm, const struct shm *shm, struct hosts **hosts, struct outcome *outcome);
void hosts_close(struct hosts *hosts);

static inline const struct host *hosts_own(const struct hosts *hosts) {
    return &hosts->each[hosts->mine];
}
static inline int hosts_local_rank(const struct hosts *hosts) {
    return hosts->position - hosts_own(hosts)->first;
}
/* The rank that sends and receives for all ranks of its host: what is short. */
static inline int hosts_leader(const struct hosts *hosts, int host) {
    return hosts->ranks[hosts->each[host].first];
}
/* The rank of a host that sends and receives on a rail: what is long. */
static inline int hosts_driver(const struct hosts *hosts, int host, int rail) {
    return hosts->ranks[hosts->each[host].first + rail % hosts->each[host].size];
}
int hosts_of_rank(const struct hosts *hosts, int rank);

/* Append "host node2 (ranks 4, 5)". */
void hosts_describe(const struct hosts *hosts, int host, char *text, size_t nbytes);

#endif
