#include "mlxdist/group/p2p.h"

#include <stdio.h>
#include <stdlib.h>

/* A peer that has left or died may have sent before. What it sent has arrived after so many slow checks, one a
 * millisecond or less often on a busy machine, and so much time. */
enum { LAST_POLLS = 20 };
static const double last_s = 0.2;

struct request {
    struct members *members;
    const struct call *call;
    request_handle request; /* under way */
    struct message message; /* the one that has arrived */
    int polls_after_end;
    double end_s;
};

static int check_peer(struct request *request, struct outcome *outcome) {
    const struct shm *shm = request->members->shm;
    if (!shm || !shm_check(shm, request->call->peer, outcome))
        return 0;
    if (!request->polls_after_end++)
        request->end_s = wait_now_s();
    return request->polls_after_end < LAST_POLLS || wait_now_s() - request->end_s < last_s ? 0 : -1;
}

static int poll_moved(void *it, int slow_check, struct outcome *outcome) {
    struct request *request = it;
    int done = 0;
    if (TRANSPORT(test, &request->request, &done, outcome))
        return -1;
    return done || !slow_check ? done : check_peer(request, outcome);
}

static int poll_message(void *it, int slow_check, struct outcome *outcome) {
    struct request *request = it;
    int found = 0;
    if (TRANSPORT(probe, request->members->comm, request->call->peer, &found, &request->message, outcome))
        return -1;
    return found || !slow_check ? found : check_peer(request, outcome);
}

static void describe_request(void *it, int to_all, char *text, size_t nbytes) {
    (void)to_all;
    const struct request *request = it;
    call_awaits_peer(request->call, text, nbytes);
}

static int send_by_mpi(struct members *members, const struct call *call, const void *sendbuf, int *pending,
                       struct outcome *outcome) {
    struct request request = {members, call, 0, {0, 0, 0}, 0, 0};
    *pending = 0;
    if (TRANSPORT(send, members->comm, sendbuf, call_nbytes(call), call->peer, call->type, &request.request, outcome))
        return outcome->status;
    int result =
        wait_for(&(struct wait_condition){poll_moved, describe_request, &request, 1}, &members->policy, outcome);
    *pending = result != STATUS_OK;
    return result;
}

/* If this fails, MPI may still write to recvbuf. */
static int receive(struct request *request, void *recvbuf, int *pending, struct outcome *outcome) {
    if (TRANSPORT(recv, recvbuf, &request->message, &request->request, outcome))
        return outcome->status;
    int result = wait_for(&(struct wait_condition){poll_moved, describe_request, request, 1}, &request->members->policy,
                          outcome);
    *pending = result != STATUS_OK;
    return result;
}

static int out_of_memory(int64_t nbytes, struct outcome *outcome) {
    outcome->status = STATUS_OUT_OF_MEMORY;
    snprintf(outcome->text, sizeof outcome->text, "no memory for a message of %lld bytes", (long long)nbytes);
    return STATUS_OUT_OF_MEMORY;
}

static int throw_away(struct request *request, int *pending, struct outcome *outcome) {
    const struct call *call = request->call;
    const struct message *message = &request->message;
    void *unwanted = malloc((size_t)message->nbytes + 1);
    if (!unwanted)
        return out_of_memory(message->nbytes, outcome);
    int result = receive(request, unwanted, pending, outcome);
    if (!*pending)
        free(unwanted);
    if (result)
        return result;
    return call_gets_another(call, message->nbytes, message->tag, outcome);
}

static int recv_by_mpi(struct members *members, const struct call *call, void *recvbuf, int *pending,
                       struct outcome *outcome) {
    struct request request = {members, call, 0, {0, 0, 0}, 0, 0};
    *pending = 0;
    if (wait_for(&(struct wait_condition){poll_message, describe_request, &request, 1}, &members->policy, outcome))
        return outcome->status;
    int is_expected = request.message.nbytes == call_nbytes(call) && types_agree(request.message.tag, call->type);
    return is_expected ? receive(&request, recvbuf, pending, outcome) : throw_away(&request, pending, outcome);
}

int p2p_send(struct members *members, const struct call *call, const void *sendbuf, int *pending,
             struct outcome *outcome) {
    int result = STATUS_NOT_SHARED;
    if (members->shm)
        result = shm_send(members->shm, call, sendbuf, call->on_device, pending, &members->policy, outcome);
    return result == STATUS_NOT_SHARED ? send_by_mpi(members, call, sendbuf, pending, outcome) : result;
}

/* MPI can write to a device's memory, and we cannot: send it what came through the host's memory as a message from this
 * rank to itself. */
static int move_to_device(struct members *members, const struct call *call, const void *received, void *recvbuf,
                          int *pending, struct outcome *outcome) {
    static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
    struct call own = *call;
    struct request sent = {members, &own, 0, {0, 0, 0}, 0, 0};
    own.peer = members->comm->rank;
    *pending = 1; /* it is sent already, so if this fails it is lost */
    if (wait_for_turn(&turn, &members->policy, outcome))
        return outcome->status;
    int result =
        TRANSPORT(send, members->comm, received, call_nbytes(call), own.peer, call->type, &sent.request, outcome);
    if (!result)
        result = recv_by_mpi(members, &own, recvbuf, pending, outcome);
    if (!result)
        result = wait_for(&(struct wait_condition){poll_moved, describe_request, &sent, 1}, &members->policy, outcome);
    pthread_mutex_unlock(&turn);
    *pending = result != STATUS_OK;
    return result;
}

int p2p_recv(struct members *members, const struct call *call, void *recvbuf, int *pending, struct outcome *outcome) {
    int result = STATUS_NOT_SHARED;
    void *here = recvbuf;
    *pending = 0;
    if (call->on_device && members->shm && shm_reaches(members->shm, call->peer) &&
        !(here = malloc((size_t)call_nbytes(call) + 1)))
        return out_of_memory(call_nbytes(call), outcome);
    if (members->shm)
        result = shm_recv(members->shm, call, here, pending, &members->policy, outcome);
    if (result == STATUS_NOT_SHARED) {
        int is_announced = *pending;
        result = recv_by_mpi(members, call, recvbuf, pending, outcome);
        *pending |= is_announced && result && result != STATUS_MISMATCH;
    } else if (!result && here != recvbuf) {
        result = move_to_device(members, call, here, recvbuf, pending, outcome);
    }
    if (here != recvbuf && !*pending)
        free(here);
    return result;
}
