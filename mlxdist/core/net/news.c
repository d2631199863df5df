#include "mlxdist/net/news.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct notice {
    uint64_t call; /* the first that its sender takes no part in */
    int32_t rank;
    char host[HOST_NAME], why[456];
};
_Static_assert(sizeof(struct notice) == 528, "ranks exchange it: when it changes, raise SHM_LAYOUT");

struct news {
    struct comm *comm;
    const struct hosts *hosts;
    struct notice own, received, first; /* of the lowest call */
    request_handle request;
    int is_arriving; /* MPI may write to `received` */
    /* Read by other threads of this rank, too. */
    _Atomic uint64_t given_up; /* the call of `first`; UINT64_MAX: none has arrived */
    atomic_int is_sent;
};

int news_open(struct comm *comm, const struct hosts *hosts, struct news **news, struct outcome *outcome) {
    if (!(*news = calloc(1, sizeof **news))) {
        outcome->status = STATUS_OUT_OF_MEMORY;
        snprintf(outcome->text, sizeof outcome->text, "no memory for a group: free some");
        return outcome->status;
    }
    (*news)->comm = comm;
    (*news)->hosts = hosts;
    atomic_init(&(*news)->given_up, UINT64_MAX);
    return STATUS_OK;
}

void news_close(struct news *news) {
    free(news);
}

int news_is_pending(const struct news *news) {
    return atomic_load(&news->is_sent) || news->is_arriving;
}

void news_send(struct news *news, uint64_t call, const struct outcome *why) {
    const struct hosts *hosts = news->hosts;
    const struct host *own = hosts_own(hosts);
    struct outcome second;
    request_handle forgotten;
    if (atomic_load(&news->given_up) <= call || atomic_exchange(&news->is_sent, 1))
        return; /* whoever sent what has arrived has told all hosts */
    news->own = (struct notice){call, news->comm->rank, "", ""};
    memcpy(news->own.host, own->name, sizeof own->name);
    snprintf(news->own.why, sizeof news->own.why, "%.*s", (int)sizeof news->own.why - 1, why->text);
    for (int position = 0; position < hosts->size; position++)
        if (position < own->first || position >= own->first + own->size)
            TRANSPORT(send, news->comm, &news->own, sizeof news->own, hosts->ranks[position], NET_TAG_NEWS, &forgotten,
                      &second);
}

/* A host that is a call ahead may give up the next, before another gives up this one. */
static void advance(struct news *news) {
    struct message message;
    struct outcome second;
    int done = 0;
    if (!news->is_arriving &&
        TRANSPORT(probe, news->comm, ANY_RANK, NET_TAG_NEWS, &done, &message, &second) == STATUS_OK && done)
        news->is_arriving = TRANSPORT(recv_found, &news->received, &message, &news->request, &second) == STATUS_OK;
    if (news->is_arriving && TRANSPORT(test, &news->request, &done, &second) == STATUS_OK && done) {
        news->is_arriving = 0;
        if (news->received.call < atomic_load(&news->given_up)) {
            news->first = news->received;
            atomic_store(&news->given_up, news->first.call);
        }
    }
}

int news_check(struct news *news, uint64_t call, struct outcome *outcome) {
    const struct notice *notice = &news->first;
    if (atomic_load(&news->given_up) > call)
        advance(news);
    if (atomic_load(&news->given_up) > call)
        return STATUS_OK;
    outcome->status = STATUS_PEER_DIED;
    snprintf(outcome->text, sizeof outcome->text, "rank %d on host %.*s has given up a call on this group: %.*s",
             (int)notice->rank, (int)sizeof notice->host, notice->host, (int)sizeof notice->why, notice->why);
    return outcome->status;
}
