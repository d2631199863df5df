/* The transport of a single process: everything is there already, at most it is copied. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mlxdist/transport.h"

static struct comm only = {0, 1};

static int load(void *library, enum abi_family family, int64_t max_count, struct outcome *outcome) {
    (void)library, (void)family, (void)max_count, (void)outcome;
    return OK;
}

static void version(char *text, size_t nbytes) {
    snprintf(text, nbytes, "no MPI");
}

static int start(int *ours, enum thread_level *threads, struct comm **world, struct outcome *outcome) {
    (void)outcome;
    *ours = 0;
    *threads = THREADS_MULTIPLE;
    *world = &only;
    return OK;
}

static int finish(int ours, struct outcome *outcome) {
    (void)ours, (void)outcome;
    return OK;
}

static int split(struct comm *comm, int color, int key, struct comm **part, struct outcome *outcome) {
    (void)key, (void)outcome;
    *part = color < 0 ? NULL : comm;
    return OK;
}

static int release(struct comm *comm, struct outcome *outcome) {
    (void)comm, (void)outcome;
    return OK;
}

static int copy(const void *sendbuf, void *recvbuf, size_t nbytes) {
    if (sendbuf != recvbuf && nbytes)
        memcpy(recvbuf, sendbuf, nbytes);
    return OK;
}

static int allreduce(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t count, enum element_type type,
                     enum reduction op, struct outcome *outcome) {
    (void)comm, (void)op, (void)outcome;
    return copy(sendbuf, recvbuf, (size_t)count * element_size(type));
}

static int allgather(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t nbytes, struct outcome *outcome) {
    (void)comm, (void)outcome;
    return copy(sendbuf, recvbuf, (size_t)nbytes);
}

static int broadcast(struct comm *comm, void *buf, int64_t nbytes, int root, struct outcome *outcome) {
    (void)comm, (void)buf, (void)nbytes, (void)root, (void)outcome;
    return OK;
}

static int barrier(struct comm *comm, struct outcome *outcome) {
    (void)comm, (void)outcome;
    return OK;
}

static int no_peer(struct comm *comm, const void *buf, int64_t nbytes, int peer, struct outcome *outcome) {
    (void)comm, (void)buf, (void)nbytes, (void)peer;
    outcome->what = LIBRARY_UNFIT;
    snprintf(outcome->text, sizeof outcome->text, "a group of one has no peer");
    return LIBRARY_UNFIT;
}

static int recv(struct comm *comm, void *recvbuf, int64_t nbytes, int src, struct outcome *outcome) {
    return no_peer(comm, recvbuf, nbytes, src, outcome);
}

const struct transport alone = {load,      version,   start,     finish,    exit,    split,   release,
                                allreduce, allreduce, allgather, broadcast, barrier, no_peer, recv};
