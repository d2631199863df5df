/* A call that crosses between hosts, for all that carries it out. */
#ifndef MLXDIST_NET_CROSSING_H
#define MLXDIST_NET_CROSSING_H

#include "mlxdist/net/news.h"

struct crossing {
    struct comm *comm;
    struct shm *shm; /* of the host; NULL: this rank is all of it */
    const struct hosts *hosts;
    struct news *news;
    const struct call *call;
    const struct wait_policy *policy;
    uint64_t number;  /* of the call on the group */
    int end_together; /* a leader that has left still opens the end of the group */
};

/* A message under way. It ends in crossing_test(). */
struct crossing_message {
    request_handle request;
    int is_under_way;
};

/* Both only begin. Messages of no bytes are not sent: one that is under way has some. */
int crossing_send(const struct crossing *crossing, const void *sent, size_t nbytes, int dst, int tag,
                  struct crossing_message *message, struct outcome *outcome);
int crossing_recv(const struct crossing *crossing, void *received, size_t nbytes, int src, int tag,
                  struct crossing_message *message, struct outcome *outcome);
/* 1: it is through, or there is none. 0: not yet. -1: see outcome. */
int crossing_test(struct crossing_message *message, struct outcome *outcome);

/* Whether all ranks of this host may still take part. */
int crossing_check(const struct crossing *crossing, struct outcome *outcome);

/* "all_sum float32 (4,), call 3 of rank 0 on this group of 4". */
void crossing_describe(const struct crossing *crossing, char *text, size_t nbytes);

#endif
