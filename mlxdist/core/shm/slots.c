#include "mlxdist/shm/slots.h"

#include <string.h>

#include "mlxdist/kernels/kernels.h"

/* Of what this rank publishes: a broadcast has one input. All ranks of the group share the memory, so a rank is its
 * local rank. */
static int64_t payload_nbytes(const struct node *node, const struct call *call) {
    return call->operation == OPERATION_BROADCAST && call->peer != node_local_rank(node) ? 0 : call_nbytes(call);
}

/* All payloads stay as they are until this rank arrives again. */
static void compute(const struct node *node, const struct call *call, const void *sendbuf, void *recvbuf) {
    int size = node_local_size(node), rank = node_local_rank(node);
    int64_t nbytes = call_nbytes(call), part = call->count / size;
    const void *payloads[NODE_MAX_RANKS];
    int64_t offset = call->operation == OPERATION_REDUCE_SCATTER ? rank * (nbytes / size) : 0;
    for (int i = 0; i < size; i++)
        payloads[i] = (const char *)node_payload(node, i) + offset;
    if (call->operation == OPERATION_ALLREDUCE || call->operation == OPERATION_REDUCE_SCATTER)
        reduce((enum element_type)call->type, (enum reduction)call->op, payloads, size, recvbuf,
               (size_t)(call->operation == OPERATION_ALLREDUCE ? call->count : part));
    else if (call->operation == OPERATION_ALLGATHER)
        for (int i = 0; i < size; i++)
            memcpy((char *)recvbuf + i * nbytes, payloads[i], (size_t)nbytes);
    else if (call->operation == OPERATION_BROADCAST && (call->peer != rank || sendbuf != recvbuf))
        memcpy(recvbuf, payloads[call->peer], (size_t)nbytes);
}

int slots_run(struct node *node, const struct call *call, const void *sendbuf, void *recvbuf,
              const struct wait_policy *policy, struct outcome *outcome) {
    if (node_arrive(node, call, sendbuf, (size_t)payload_nbytes(node, call), 0, 0, policy, outcome))
        return outcome->status;
    compute(node, call, sendbuf, recvbuf);
    return STATUS_OK;
}
