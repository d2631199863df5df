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
    char called[200];
    call_text(passage->call, called, sizeof called);
    snprintf(text, nbytes, "%s, rank %d of %d: rank %d has not %s", called, passage->ranks->comm->rank,
             passage->ranks->comm->size, passage->call->peer, passage->call->operation == SEND ? "received" : "sent");
}

int message_send(struct ranks *ranks, const struct call *call, const void *sendbuf, int *pending,
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

static int throw_away(struct passage *passage, int *pending, struct outcome *outcome) {
    const struct call *call = passage->call;
    const struct message *message = &passage->message;
    void *unwanted = malloc(message->nbytes ? (size_t)message->nbytes : 1);
    if (!unwanted) {
        outcome->what = OUT_OF_MEMORY;
        snprintf(outcome->text, sizeof outcome->text, "no memory for a message of %lld bytes",
                 (long long)message->nbytes);
        return OUT_OF_MEMORY;
    }
    int result = take(passage, unwanted, pending, outcome);
    if (!*pending)
        free(unwanted);
    if (result)
        return result;
    outcome->what = MISMATCH;
    snprintf(outcome->text, sizeof outcome->text,
             "rank %d sent %lld bytes of %s, rank %d expected %lld of %s: give recv the shape and dtype that were sent",
             call->peer, (long long)message->nbytes, type_name(message->tag), passage->ranks->comm->rank,
             (long long)call_nbytes(call), type_name(call->type));
    return MISMATCH;
}

int message_recv(struct ranks *ranks, const struct call *call, void *recvbuf, int *pending, struct outcome *outcome) {
    struct passage passage = {ranks, call, 0, {0, 0, 0}, 0, 0};
    *pending = 0;
    if (wait_for(&(struct awaited){look_for_message, describe_passage, &passage, 1}, &ranks->patience, outcome))
        return outcome->what;
    int is_expected = passage.message.nbytes == call_nbytes(call) && types_agree(passage.message.tag, call->type);
    return is_expected ? take(&passage, recvbuf, pending, outcome) : throw_away(&passage, pending, outcome);
}
