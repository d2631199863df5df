#include "mlxdist/group/p2p.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mlxdist/group/remote.h"

/* A message under way, first in shared memory, if that reaches the peer, and then perhaps by MPI. It is on the path of
 * the shortest messages, so nothing is set before it is needed. */
struct request {
    struct members *members;
    const struct call *call; /* a SEND or a RECV */
    char *buf;               /* memory of the host, but for a SEND of a device */
    char *device;            /* for a RECV: where it goes in the end; NULL: buf */
    enum { NOT_BEGUN, SHARED, BY_MPI } way;
    int is_done, is_announced; /* the receiver has been told in shared memory that it comes by MPI */
    union {
        struct transfer shared;
        struct remote remote;
    };
};

static int begin_by_mpi(struct request *request, struct outcome *outcome) {
    if (remote_begin(request->members, request->call, request->buf, request->device, &request->remote, outcome)) {
        request->way = NOT_BEGUN;
        return outcome->status;
    }
    request->way = BY_MPI;
    return STATUS_OK;
}

static int begin(struct request *request, struct outcome *outcome) {
    struct shm *shm = request->members->shm;
    const struct call *call = request->call;
    int by_mpi = call->operation == OPERATION_SEND && call->on_device;
    if (!shm || shm_begin(shm, call, request->buf, by_mpi, &request->shared))
        return begin_by_mpi(request, outcome);
    request->way = SHARED;
    return STATUS_OK;
}

static int advance(struct request *request, int slow_check, struct outcome *outcome) {
    if (request->way == BY_MPI) {
        int moved = remote_advance(&request->remote, slow_check, outcome);
        request->is_done = request->remote.is_done;
        return moved;
    }
    int moved = mailbox_advance(&request->shared, slow_check, outcome);
    if (!request->shared.is_done || request->shared.result == STATUS_OK) {
        request->is_done = request->shared.is_done;
        return moved;
    }
    request->is_announced = request->shared.by_mpi;
    return begin_by_mpi(request, outcome) ? -1 : 1;
}

/* Those of one call, which progress together. */
struct requests {
    int n;
    struct request each[2];
};

static int poll_requests(void *it, int slow_check, struct outcome *outcome) {
    struct requests *requests = it;
    int moved = 0;
    for (int i = 0; i < requests->n; i++) {
        int result = requests->each[i].is_done ? 0 : advance(&requests->each[i], slow_check, outcome);
        if (result < 0)
            return -1;
        moved |= result;
    }
    return moved;
}

static void describe_requests(void *it, int to_all, char *text, size_t nbytes) {
    (void)to_all;
    const struct requests *requests = it;
    const struct request *request = &requests->each[requests->each[0].is_done];
    if (request->way == BY_MPI)
        remote_describe(&request->remote, text, nbytes);
    else
        mailbox_describe(&request->shared, text, nbytes);
}

static int is_over(const struct requests *requests) {
    for (int i = 0; i < requests->n; i++)
        if (!requests->each[i].is_done)
            return 0;
    return 1;
}

/* Whether it fails in the middle: begun, or announced, which is not done again. */
static int is_pending(const struct request *request) {
    return !request->is_done && (request->is_announced || (request->way == SHARED && request->shared.is_begun) ||
                                 (request->way == BY_MPI && request->remote.is_begun));
}

/* The timeout is for each step, not for the whole of a long message. */
static int complete(struct requests *requests, int *pending, struct outcome *outcome) {
    int result = STATUS_OK;
    for (int i = 0; i < requests->n && !result; i++)
        result = begin(&requests->each[i], outcome);
    while (!result && !is_over(requests)) {
        int by_mpi = requests->each[0].way == BY_MPI || (requests->n > 1 && requests->each[1].way == BY_MPI);
        result = wait_for(&(struct wait_condition){poll_requests, describe_requests, requests, by_mpi, 0},
                          &requests->each[0].members->policy, outcome);
    }
    for (int i = 0; i < requests->n; i++) {
        struct request *request = &requests->each[i];
        *pending |= is_pending(request);
        if (request->way == BY_MPI)
            remote_end(&request->remote, result);
        else if (request->way == SHARED)
            mailbox_give_up(&request->shared);
    }
    return result;
}

/* What was received may not be what was expected. */
static int check_received(const struct request *request, struct outcome *outcome) {
    int by_mpi = request->way == BY_MPI;
    int64_t nbytes = by_mpi ? request->remote.nbytes : request->shared.nbytes;
    int type = by_mpi ? request->remote.type : request->shared.type;
    return call_expects(request->call, nbytes, type) ? STATUS_OK
                                                     : call_gets_another(request->call, nbytes, type, outcome);
}

/* To oneself, of memory that MPI knows how to reach. */
struct own_message {
    struct members *members;
    const struct call *call;
    request_handle requests[2];
    int is_through[2];
};

static int poll_own(void *it, int slow_check, struct outcome *outcome) {
    struct own_message *own = it;
    (void)slow_check;
    for (int i = 0; i < 2; i++)
        if (!own->is_through[i] && TRANSPORT(test, &own->requests[i], &own->is_through[i], outcome))
            return -1;
    return own->is_through[0] && own->is_through[1];
}

static void describe_own(void *it, int to_all, char *text, size_t nbytes) {
    (void)to_all;
    const struct own_message *own = it;
    char called[200];
    call_text(own->call, called, sizeof called);
    snprintf(text, nbytes, "%s, rank %d: libmpi has not moved it to the GPU", called, own->call->rank);
}

/* MPI can write to a device's memory, and we cannot: send it what came through the host's memory as a message from this
 * rank to itself. pending = 1: MPI may still read `received`, and the message is lost. */
static int move_to_device(const struct request *request, const void *received, int *pending, struct outcome *outcome) {
    const struct call *call = request->call;
    struct comm *comm = request->members->comm;
    struct own_message own = {request->members, call, {0, 0}, {0, 0}};
    int tag = remote_next_tag();
    *pending = 1;
    if (TRANSPORT(send, comm, received, call_nbytes(call), comm->rank, tag, &own.requests[0], outcome) ||
        TRANSPORT(recv, comm, request->device, call_nbytes(call), comm->rank, tag, &own.requests[1], outcome) ||
        wait_for(&(struct wait_condition){poll_own, describe_own, &own, 1, 0}, &request->members->policy, outcome))
        return outcome->status;
    *pending = 0;
    return STATUS_OK;
}

static void add(struct requests *requests, struct members *members, const struct call *call, char *buf, char *device) {
    struct request *request = &requests->each[requests->n++];
    request->members = members, request->call = call, request->buf = buf, request->device = device;
    request->way = NOT_BEGUN;
    request->is_done = request->is_announced = 0;
}

int p2p_run(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf, int *pending,
            struct outcome *outcome) {
    struct requests requests;
    struct call halves[2];
    const struct call *send = call, *recv = call;
    int sends = call->operation != OPERATION_RECV, receives = call->operation != OPERATION_SEND,
        in_place = sends && receives && sendbuf == recvbuf;
    /* In place: what is sent. On a device: what is received. Never both. */
    char *own = NULL;
    *pending = 0;
    if (in_place && call->on_device) {
        outcome->status = STATUS_NOT_SHARED;
        snprintf(outcome->text, sizeof outcome->text,
                 "memory of a GPU cannot be sent and overwritten: pass another out");
        return STATUS_NOT_SHARED;
    }
    if ((in_place || (receives && call->on_device)) && !(own = malloc((size_t)call_nbytes(call) + 1)))
        return remote_out_of_memory(call_nbytes(call), outcome);
    if (in_place)
        sendbuf = memcpy(own, sendbuf, (size_t)call_nbytes(call));
    if (sends && receives) {
        halves[0] = halves[1] = *call;
        halves[0].operation = OPERATION_SEND;
        halves[1].operation = OPERATION_RECV, halves[1].peer = call->src;
        send = &halves[0], recv = &halves[1];
    }
    requests.n = 0;
    if (sends)
        add(&requests, members, send, (char *)sendbuf, NULL);
    if (receives)
        add(&requests, members, recv, call->on_device ? own : recvbuf, call->on_device ? recvbuf : NULL);
    const struct request *last = &requests.each[requests.n - 1];
    int is_left = 0, result = complete(&requests, pending, outcome);
    if (!result && receives)
        result = check_received(last, outcome);
    if (!result && receives && call->on_device && !(last->way == BY_MPI && last->remote.is_whole))
        result = move_to_device(last, own, &is_left, outcome);
    *pending |= is_left;
    if (!is_left)
        free(own);
    return result;
}
