#include "mlxdist/group/p2p.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int begin_by_mpi(struct request *request, struct outcome *outcome) {
    if (remote_begin(request->members, request->call, request->buf, request->device, &request->remote, outcome)) {
        request->way = REQUEST_NOT_BEGUN;
        return outcome->status;
    }
    request->way = REQUEST_BY_MPI;
    return STATUS_OK;
}

static int begin(struct request *request, struct outcome *outcome) {
    struct shm *shm = request->members->shm;
    const struct call *call = request->call;
    int by_mpi = call->operation == OPERATION_SEND && call->on_device;
    if (!shm || shm_begin(shm, call, request->buf, by_mpi, &request->shared))
        return begin_by_mpi(request, outcome);
    request->way = REQUEST_SHARED;
    return STATUS_OK;
}

static int advance(struct request *request, int slow_check, struct outcome *outcome) {
    if (request->way == REQUEST_BY_MPI) {
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

int p2p_advance(struct p2p *p2p, int slow_check, struct outcome *outcome) {
    int moved = 0;
    for (int i = 0; i < p2p->n; i++) {
        int result = p2p->each[i].is_done ? 0 : advance(&p2p->each[i], slow_check, outcome);
        if (result < 0)
            return -1;
        moved |= result;
    }
    return moved;
}

void p2p_describe(void *it, int to_all, char *text, size_t nbytes) {
    (void)to_all;
    const struct p2p *p2p = it;
    const struct request *request = &p2p->each[p2p->each[0].is_done];
    if (request->way == REQUEST_BY_MPI)
        remote_describe(&request->remote, text, nbytes);
    else
        mailbox_describe(&request->shared, text, nbytes);
}

int p2p_is_done(const struct p2p *p2p) {
    for (int i = 0; i < p2p->n; i++)
        if (!p2p->each[i].is_done)
            return 0;
    return 1;
}

/* Whether it fails in the middle: begun, or announced, which is not done again. */
static int is_pending(const struct request *request) {
    return !request->is_done &&
           (request->is_announced || (request->way == REQUEST_SHARED && request->shared.is_begun) ||
            (request->way == REQUEST_BY_MPI && request->remote.is_begun));
}

/* What was received may not be what was expected. */
static int check_received(const struct request *request, struct outcome *outcome) {
    int by_mpi = request->way == REQUEST_BY_MPI;
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
        wait_for(&(struct wait_condition){poll_own, describe_own, &own, POLL_DRIVES_PROGRESS, 0},
                 &request->members->policy, outcome))
        return outcome->status;
    *pending = 0;
    return STATUS_OK;
}

int p2p_polling(const struct p2p *p2p) {
    for (int i = 0; i < p2p->n; i++)
        if (p2p->each[i].way == REQUEST_BY_MPI)
            return POLL_DRIVES_PROGRESS;
    return POLL_ONLY_LOOKS;
}

static void add(struct p2p *p2p, struct members *members, const struct call *call, char *buf, char *device) {
    struct request *request = &p2p->each[p2p->n++];
    request->members = members, request->call = call, request->buf = buf, request->device = device;
    request->way = REQUEST_NOT_BEGUN;
    request->is_done = request->is_announced = 0;
}

int p2p_begin(struct p2p *p2p, struct members *members, const struct call *call, const void *sendbuf, void *recvbuf,
              struct outcome *outcome) {
    const struct call *send = call, *recv = call;
    int sends = call->operation != OPERATION_RECV, receives = call->operation != OPERATION_SEND,
        in_place = sends && receives && sendbuf == recvbuf;
    p2p->call = call, p2p->own = NULL, p2p->n = 0;
    if (in_place && call->on_device) {
        outcome->status = STATUS_NOT_SHARED;
        snprintf(outcome->text, sizeof outcome->text,
                 "memory of a GPU cannot be sent and overwritten: pass another out");
        return STATUS_NOT_SHARED;
    }
    if ((in_place || (receives && call->on_device)) && !(p2p->own = malloc((size_t)call_nbytes(call) + 1)))
        return remote_out_of_memory(call_nbytes(call), outcome);
    if (in_place)
        sendbuf = memcpy(p2p->own, sendbuf, (size_t)call_nbytes(call));
    if (sends && receives) {
        p2p->halves[0] = p2p->halves[1] = *call;
        p2p->halves[0].operation = OPERATION_SEND;
        p2p->halves[1].operation = OPERATION_RECV, p2p->halves[1].peer = call->src;
        send = &p2p->halves[0], recv = &p2p->halves[1];
    }
    if (sends)
        add(p2p, members, send, (char *)sendbuf, NULL);
    if (receives)
        add(p2p, members, recv, call->on_device ? p2p->own : recvbuf, call->on_device ? recvbuf : NULL);
    int result = STATUS_OK;
    for (int i = 0; i < p2p->n && !result; i++)
        result = begin(&p2p->each[i], outcome);
    return result;
}

int p2p_end(struct p2p *p2p, int result, int *pending, struct outcome *outcome) {
    const struct call *call = p2p->call;
    const struct request *last = p2p->n ? &p2p->each[p2p->n - 1] : NULL;
    int receives = call->operation != OPERATION_SEND, is_left = 0;
    *pending = 0;
    for (int i = 0; i < p2p->n; i++) {
        struct request *request = &p2p->each[i];
        *pending |= is_pending(request);
        if (request->way == REQUEST_BY_MPI)
            remote_end(&request->remote, result);
        else if (request->way == REQUEST_SHARED)
            mailbox_give_up(&request->shared);
    }
    if (!result && receives)
        result = check_received(last, outcome);
    if (!result && receives && call->on_device && !(last->way == REQUEST_BY_MPI && last->remote.is_whole))
        result = move_to_device(last, p2p->own, &is_left, outcome);
    *pending |= is_left;
    if (!is_left)
        free(p2p->own);
    return result;
}

static int poll_p2p(void *it, int slow_check, struct outcome *outcome) {
    return p2p_advance(it, slow_check, outcome);
}

/* The timeout is for each step, not for the whole of a long message. */
int p2p_run(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf, int *pending,
            struct outcome *outcome) {
    struct p2p p2p;
    int result = p2p_begin(&p2p, members, call, sendbuf, recvbuf, outcome);
    while (!result && !p2p_is_done(&p2p)) {
        struct wait_condition progress = {poll_p2p, p2p_describe, &p2p, p2p_polling(&p2p), 0};
        result = wait_for(&progress, &members->policy, outcome);
    }
    return p2p_end(&p2p, result, pending, outcome);
}
