#include "mlxdist/message.h"

#include <stdio.h>
#include <stdlib.h>

/* A peer that has left or died may have sent before: what it sent has come after so many looks, a millisecond each or
 * more where others need the processor, and after so much time. */
enum { LAST_LOOKS = 20 };
static const double last_s = 0.2;

struct passage {
    struct ranks *ranks;
    const struct call *call;
    request_handle request; /* under way */
    struct message message; /* that has come */
    int looks_after_end;
    double end_s;
};

static int look_at_peer(struct passage *passage, struct outcome *outcome) {
    const struct node *node = passage->ranks->node;
    int seat = node ? node_seat_of(node, passage->call->peer) : -1;
    if (seat < 0 || !node_look(node, seat, outcome))
        return 0;
    if (!passage->looks_after_end++)
        passage->end_s = wait_now_s();
    return passage->looks_after_end < LAST_LOOKS || wait_now_s() - passage->end_s < last_s ? 0 : -1;
}

static int look_for_moved(void *it, int thorough, struct outcome *outcome) {
    struct passage *passage = it;
    int done = 0;
    if (CALL(test, &passage->request, &done, outcome))
        return -1;
    return done || !thorough ? done : look_at_peer(passage, outcome);
}

static int look_for_message(void *it, int thorough, struct outcome *outcome) {
    struct passage *passage = it;
    int found = 0;
    if (CALL(probe, passage->ranks->comm, passage->call->peer, &found, &passage->message, outcome))
        return -1;
    return found || !thorough ? found : look_at_peer(passage, outcome);
}

static void describe_passage(void *it, int to_all, char *text, size_t nbytes) {
    (void)to_all;
    const struct passage *passage = it;
    call_awaits_peer(passage->call, text, nbytes);
}

static int send_by_mpi(struct ranks *ranks, const struct call *call, const void *sendbuf, int *pending,
                       struct outcome *outcome) {
    struct passage passage = {ranks, call, 0, {0, 0, 0}, 0, 0};
    *pending = 0;
    if (CALL(send, ranks->comm, sendbuf, call_nbytes(call), call->peer, call->type, &passage.request, outcome))
        return outcome->what;
    int result = wait_for(&(struct awaited){look_for_moved, describe_passage, &passage, 1}, &ranks->patience, outcome);
    *pending = result != OK;
    return result;
}

/* Into a buffer that is MPI's, where this fails. */
static int take(struct passage *passage, void *recvbuf, int *pending, struct outcome *outcome) {
    if (CALL(recv, recvbuf, &passage->message, &passage->request, outcome))
        return outcome->what;
    int result =
        wait_for(&(struct awaited){look_for_moved, describe_passage, passage, 1}, &passage->ranks->patience, outcome);
    *pending = result != OK;
    return result;
}

static int out_of_memory(int64_t nbytes, struct outcome *outcome) {
    outcome->what = OUT_OF_MEMORY;
    snprintf(outcome->text, sizeof outcome->text, "no memory for a message of %lld bytes", (long long)nbytes);
    return OUT_OF_MEMORY;
}

static int throw_away(struct passage *passage, int *pending, struct outcome *outcome) {
    const struct call *call = passage->call;
    const struct message *message = &passage->message;
    void *unwanted = malloc((size_t)message->nbytes + 1);
    if (!unwanted)
        return out_of_memory(message->nbytes, outcome);
    int result = take(passage, unwanted, pending, outcome);
    if (!*pending)
        free(unwanted);
    if (result)
        return result;
    return call_gets_another(call, message->nbytes, message->tag, outcome);
}

static int recv_by_mpi(struct ranks *ranks, const struct call *call, void *recvbuf, int *pending,
                       struct outcome *outcome) {
    struct passage passage = {ranks, call, 0, {0, 0, 0}, 0, 0};
    *pending = 0;
    if (wait_for(&(struct awaited){look_for_message, describe_passage, &passage, 1}, &ranks->patience, outcome))
        return outcome->what;
    int is_expected = passage.message.nbytes == call_nbytes(call) && types_agree(passage.message.tag, call->type);
    return is_expected ? take(&passage, recvbuf, pending, outcome) : throw_away(&passage, pending, outcome);
}

/* The peer's seat, where messages to and from it go through memory; else -1. */
static int seat_of_peer(const struct ranks *ranks, const struct call *call) {
    return ranks->post ? node_seat_of(ranks->node, call->peer) : -1;
}

int message_send(struct ranks *ranks, const struct call *call, const void *sendbuf, int *pending,
                 struct outcome *outcome) {
    int seat = seat_of_peer(ranks, call), result = NOT_SHARED;
    if (seat >= 0)
        result = post_send(ranks->post, seat, call, sendbuf, call->on_device, pending, &ranks->patience, outcome);
    return result == NOT_SHARED ? send_by_mpi(ranks, call, sendbuf, pending, outcome) : result;
}

/* What has come through the host's memory goes to a device by way of MPI, which can: as a message to oneself. */
static int move_to_device(struct ranks *ranks, const struct call *call, const void *received, void *recvbuf,
                          int *pending, struct outcome *outcome) {
    static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
    struct call own = *call;
    struct passage sent = {ranks, &own, 0, {0, 0, 0}, 0, 0};
    own.peer = ranks->comm->rank;
    *pending = 1; /* the sender has it no more, so whoever gives it up loses it */
    if (wait_for_turn(&turn, &ranks->patience, outcome))
        return outcome->what;
    int result = CALL(send, ranks->comm, received, call_nbytes(call), own.peer, call->type, &sent.request, outcome);
    if (!result)
        result = recv_by_mpi(ranks, &own, recvbuf, pending, outcome);
    if (!result)
        result = wait_for(&(struct awaited){look_for_moved, describe_passage, &sent, 1}, &ranks->patience, outcome);
    pthread_mutex_unlock(&turn);
    *pending = result != OK;
    return result;
}

int message_recv(struct ranks *ranks, const struct call *call, void *recvbuf, int *pending, struct outcome *outcome) {
    int seat = seat_of_peer(ranks, call), result = NOT_SHARED;
    void *here = recvbuf;
    *pending = 0;
    if (seat >= 0 && call->on_device && !(here = malloc((size_t)call_nbytes(call) + 1)))
        return out_of_memory(call_nbytes(call), outcome);
    if (seat >= 0)
        result = post_recv(ranks->post, seat, call, here, pending, &ranks->patience, outcome);
    if (result == NOT_SHARED) {
        int is_announced = *pending;
        result = recv_by_mpi(ranks, call, recvbuf, pending, outcome);
        *pending |= is_announced && result && result != MISMATCH;
    } else if (!result && here != recvbuf) {
        result = move_to_device(ranks, call, here, recvbuf, pending, outcome);
    }
    if (here != recvbuf && !*pending)
        free(here);
    return result;
}
