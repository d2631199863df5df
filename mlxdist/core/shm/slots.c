#include "mlxdist/shm/slots.h"

#include <string.h>

#include "mlxdist/kernels/kernels.h"

/* All ranks of the group share the memory, so a rank is its local rank. All payloads stay as they are until this rank
 * arrives again. */
static void compute(const struct node *node, const struct call *call, const void *sendbuf, void *recvbuf) {
    int size = node_local_size(node), rank = node_local_rank(node);
    int64_t count = call_is_parted(call) ? call->count / size : call->count;
    size_t nbytes = (size_t)count * element_size((enum element_type)call->type);
    size_t offset = call_is_parted(call) ? (size_t)rank * nbytes : 0;
    const void *payloads[NODE_MAX_RANKS];
    if (!nbytes || !call_writes(call, rank))
        return;
    for (int i = 0; i < size; i++)
        payloads[i] = (const char *)node_payload(node, i) + offset;
    if (call_reduces(call))
        reduce((enum element_type)call->type, (enum reduction)call->op, payloads, size, recvbuf, (size_t)count);
    else if (call_collects(call))
        for (int i = 0; i < size; i++)
            memcpy((char *)recvbuf + (size_t)i * nbytes, payloads[i], nbytes);
    else if (call->peer != rank || sendbuf != recvbuf)
        memcpy(recvbuf, payloads[call->peer], nbytes);
}

int slots_run(struct node *node, const struct call *call, const void *sendbuf, void *recvbuf,
              const struct wait_policy *policy, struct outcome *outcome) {
    size_t nbytes = call_reads(call, node_local_rank(node)) ? (size_t)call_nbytes(call) : 0;
    if (node_arrive(node, call, sendbuf, nbytes, 0, 0, policy, outcome))
        return outcome->status;
    compute(node, call, sendbuf, recvbuf);
    return STATUS_OK;
}
