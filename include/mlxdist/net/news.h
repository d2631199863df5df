/* That a rank has given up: it tells the ranks of all other hosts, which may be waiting for it. */
#ifndef MLXDIST_NET_NEWS_H
#define MLXDIST_NET_NEWS_H

#include "mlxdist/net/hosts.h"

/* The tags on a group's communicator from here on; those below are of its messages, see group/remote.h. */
enum {
    NET_TAG_OPENING = 16384, /* the first message of a call */
    NET_TAG_CALLS,           /* what the ranks of a host call, if that differs */
    NET_TAG_READY,           /* what follows cannot be given up */
    NET_TAG_NEWS,
    NET_TAG_PARTIAL = 16400,                            /* + rail: blocks that are not reduced yet, or are passed on */
    NET_TAG_RESULT = NET_TAG_PARTIAL + HOSTS_MAX_RAILS, /* + rail */
};

struct news;

/* OUT_OF_MEMORY: there is none for it. */
int news_open(struct comm *comm, const struct hosts *hosts, struct news **news, struct outcome *outcome);
/* Not while is_pending. */
void news_close(struct news *news);

/* This rank takes no part in the call of this number and those after it: tell the others why, unless they know. Never
 * waits; MPI may keep memory of it for good. */
void news_send(struct news *news, uint64_t call, const struct outcome *why);
/* Whether a rank of another host takes no part in this call: OK, or see outcome. Ask before sending, too: MPICH 5.0.2
 * crashes in MPI_Isend to a process that has ended. */
int news_check(struct news *news, uint64_t call, struct outcome *outcome);
/* MPI uses its memory. */
int news_is_pending(const struct news *news);

#endif
