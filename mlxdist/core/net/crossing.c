#include "mlxdist/net/crossing.h"

#include <stdio.h>

int crossing_send(const struct crossing *crossing, const void *sent, size_t nbytes, int dst, int tag,
                  struct crossing_message *message, struct outcome *outcome) {
    message->is_under_way = nbytes > 0;
    return nbytes ? TRANSPORT(send, crossing->comm, sent, (int64_t)nbytes, dst, tag, &message->request, outcome)
                  : STATUS_OK;
}

int crossing_recv(const struct crossing *crossing, void *received, size_t nbytes, int src, int tag,
                  struct crossing_message *message, struct outcome *outcome) {
    message->is_under_way = nbytes > 0;
    return nbytes ? TRANSPORT(recv, crossing->comm, received, (int64_t)nbytes, src, tag, &message->request, outcome)
                  : STATUS_OK;
}

int crossing_test(struct crossing_message *message, struct outcome *outcome) {
    int done = 1;
    if (message->is_under_way && TRANSPORT(test, &message->request, &done, outcome))
        return -1;
    message->is_under_way = !done;
    return done;
}

int crossing_check(const struct crossing *crossing, struct outcome *outcome) {
    if (!crossing->shm)
        return STATUS_OK;
    return crossing->call->operation == OPERATION_FINALIZE
               ? shm_check_end(crossing->shm, hosts_leader(crossing->hosts, crossing->hosts->mine), outcome)
               : shm_check_agreement(crossing->shm, outcome);
}

void crossing_describe(const struct crossing *crossing, char *text, size_t nbytes) {
    char called[200];
    call_text(crossing->call, called, sizeof called);
    snprintf(text, nbytes, "%s, call %llu of rank %d on this group of %d", called, (unsigned long long)crossing->number,
             crossing->comm->rank, crossing->comm->size);
}
