#include "mlxdist/group/collective.h"

#include <stdio.h>
#include <string.h>

int collective_by_mpi(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf,
                      struct outcome *outcome) {
    struct comm *comm = members->comm;
    enum element_type type = (enum element_type)call->type;
    enum reduction op = (enum reduction)call->op;
    switch (call->operation) {
    case OPERATION_ALLREDUCE:
        return TRANSPORT(allreduce, comm, sendbuf, recvbuf, call->count, type, op, outcome);
    case OPERATION_REDUCE_SCATTER:
        return TRANSPORT(reduce_scatter, comm, sendbuf, recvbuf, call->count / comm->size, type, op, outcome);
    case OPERATION_ALLGATHER:
        return TRANSPORT(allgather, comm, sendbuf, recvbuf, call_nbytes(call), outcome);
    case OPERATION_ALLTOALL:
        return TRANSPORT(alltoall, comm, sendbuf, recvbuf, call_nbytes(call) / comm->size, outcome);
    case OPERATION_GATHER:
        return TRANSPORT(gather, comm, sendbuf, recvbuf, call_nbytes(call), call->peer, outcome);
    case OPERATION_SCATTER:
        return TRANSPORT(scatter, comm, sendbuf, recvbuf, call_nbytes(call) / comm->size, call->peer, outcome);
    case OPERATION_REDUCE:
        return TRANSPORT(reduce, comm, sendbuf, recvbuf, call->count, type, op, call->peer, outcome);
    case OPERATION_BROADCAST:
        if (comm->rank == call->peer && sendbuf != recvbuf)
            memcpy(recvbuf, sendbuf, (size_t)call_nbytes(call));
        return TRANSPORT(broadcast, comm, recvbuf, call_nbytes(call), call->peer, outcome);
    case OPERATION_BARRIER:
        return TRANSPORT(barrier, comm, outcome);
    default: /* an operation that libmpi lacks: only rows of its own carry it out */
        outcome->status = STATUS_NOT_SHARED;
        snprintf(outcome->text, sizeof outcome->text, "libmpi cannot do this: pass an array in host memory");
        return STATUS_NOT_SHARED;
    }
}

static int by_shared_memory(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf,
                            struct outcome *outcome) {
    int result = shm_run(members->shm, call, sendbuf, recvbuf, &members->policy, outcome);
    return result == STATUS_NOT_SHARED ? collective_by_mpi(members, call, sendbuf, recvbuf, outcome) : result;
}

static int between_hosts(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf,
                         struct outcome *outcome) {
    return net_run(members->net, call, sendbuf, recvbuf, &members->policy, outcome);
}

static int arrive_then_mpi(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf,
                           struct outcome *outcome) {
    return members_arrive(members, call, outcome) ? outcome->status
                                                  : collective_by_mpi(members, call, sendbuf, recvbuf, outcome);
}

/* Where the ranks of the group are, and the buffers. */
enum place { PLACE_ONE_HOST, PLACE_SEVERAL_HOSTS, PLACE_DEVICE, PLACE_ALONE };

static enum place place_of(const struct members *members, const struct call *call) {
    return members->comm->size == 1 ? PLACE_ALONE
           : call->on_device        ? PLACE_DEVICE
           : members->net           ? PLACE_SEVERAL_HOSTS
                                    : PLACE_ONE_HOST;
}

/* The ways of all collectives: the first row that fits counts. */
static const struct row {
    enum place place;
    int operation;       /* or OPERATIONS: any */
    int64_t most_nbytes; /* of the input */
    int (*run)(struct members *, const struct call *, const void *, void *, struct outcome *);
} rows[] = {
    {PLACE_ONE_HOST, OPERATIONS, INT64_MAX, by_shared_memory},
    {PLACE_SEVERAL_HOSTS, OPERATIONS, INT64_MAX, between_hosts},
    {PLACE_DEVICE, OPERATIONS, INT64_MAX, arrive_then_mpi}, /* only libmpi reads a device's memory */
    {PLACE_ALONE, OPERATIONS, INT64_MAX, collective_by_mpi},
};

int collective_run(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf,
                   struct outcome *outcome) {
    enum place place = place_of(members, call);
    int64_t nbytes = call_nbytes(call);
    const struct row *row = rows;
    while (row->place != place || (row->operation != OPERATIONS && row->operation != call->operation) ||
           row->most_nbytes < nbytes)
        row++;
    return row->run(members, call, sendbuf, recvbuf, outcome);
}
