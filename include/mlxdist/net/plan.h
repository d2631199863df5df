/* What goes where in a collective between hosts: arithmetic only.
 *
 * A long array goes in chunks. Each chunk is in shares, one for each rail, and a share in blocks, one for each host:
 *
 * | way    | operation              | in each chunk                                                               |
 * | direct | all_reduce             | block i of the host's partial result goes to host i, which reduces the      |
 * |        |                        | blocks of all hosts, in their order, and sends the result to all            |
 * | direct | all_reduce, two hosts  | the whole share goes to the other host; both reduce it                      |
 * | direct | sum_scatter            | as the first, but block i is what the ranks of host i get, and stays there  |
 * | direct | reduce                 | as the first, but root's host alone gets the results                        |
 * | direct | reduce, two hosts      | the whole share goes to root's host, which reduces it                       |
 * | direct | all_to_all             | block i is what the host's ranks have for those of host i, and goes there   |
 * | direct | scatter                | the same, from root's host alone                                            |
 * | direct | all_gather             | the input of the host's ranks goes to all hosts                             |
 * | direct | gather                 | the same, to root's host alone                                              |
 * | chain  | broadcast              | from the root's host to the next, and so on, each passing it on             |
 *
 * So each host sends the least bytes that it can, a number is rounded once for each host that has several ranks and
 * once in the end, and all ranks get the same bits in every run. */
#ifndef MLXDIST_NET_PLAN_H
#define MLXDIST_NET_PLAN_H

#include "mlxdist/net/hosts.h"

enum {
    PLAN_SLOTS = 8,          /* chunks under way */
    PLAN_MESSAGE = 60 << 10, /* the most bytes of a message: Open MPI sends more than 64 KiB only when asked for it */
    PLAN_MESSAGES = 4,       /* so many to different hosts a chunk may consist of, on one rail */
    PLAN_OPENING = 64 << 10, /* the most bytes of input that come with an opening: with two hosts */
    PLAN_FLAT_HOSTS = 16,    /* up to so many hosts each opens a call with each */
};

/* In items: elements if they are reduced, otherwise bytes. */
struct range {
    int64_t at, n;
};

struct plan {
    const struct hosts *hosts;
    int delivers, reduces;  /* the first round: blocks go to their hosts, which reduce */
    int spreads;            /* the second: results to all hosts */
    int chains;             /* instead of both, along the hosts from the root's on */
    int root_host, root;    /* and its local rank there; -1: there is none */
    int only_from, only_to; /* hosts that alone deliver, and to which alone results spread; -1: all */
    int is_exchange;        /* each host has all of a share for its block */
    int is_rooted;          /* the root's has, and the others nothing */
    int is_narrowed;        /* floats in the ranks' buffers, 16 bits between hosts */
    enum reduction op;
    enum element_type net_type; /* between hosts, as it is reduced there */
    size_t item, net_item;      /* bytes of an item in the ranks' buffers, and between hosts */
    int64_t parts;  /* pieces that lie side by side in a chunk: one, or one for each rank, in the order of hosts; or
                       as many for each of the host's ranks: */
    int64_t each;   /* so many for each rank */
    int64_t length; /* of a rank's buffer for one part */
    int64_t piece;  /* of a part that a chunk has; the last has what is left */
    int64_t chunks;
};

/* The most bytes of a call's input that come with its opening, see opening.h. */
int64_t plan_opening_nbytes(const struct hosts *hosts, int operation);

/* Bytes of a chunk, for the most ranks that a host has: the same on all hosts. */
size_t plan_chunk_nbytes(const struct hosts *hosts);
/* Bytes for what comes from the other hosts to be reduced, of one chunk. */
size_t plan_incoming_nbytes(const struct hosts *hosts);

void plan_make(const struct hosts *hosts, const struct call *call, struct plan *plan);
/* Of the part of each rank: what chunk k has. */
struct range plan_piece(const struct plan *plan, int64_t k);
/* Of that piece: what goes by the rail. */
struct range plan_sub(const struct plan *plan, int64_t k, int rail);
/* Of the chunk: all parts of what goes by the rail; of that, the block of a host. */
struct range plan_share(const struct plan *plan, int64_t k, int rail);
struct range plan_block(const struct plan *plan, int64_t k, int rail, int host);
/* The block of this host that another one delivers without a reduction: where it goes in the chunk. */
struct range plan_delivered(const struct plan *plan, int64_t k, int rail, int from);
/* Whether one host sends another something in the first, in the second round. */
int plan_delivers(const struct plan *plan, int from, int to);
int plan_spreads(const struct plan *plan, int from, int to);

#endif
