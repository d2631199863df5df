#include "mlxdist/net/short.h"

#include <string.h>

#include "mlxdist/kernels/kernels.h"

int short_fits(const struct hosts *hosts, const struct call *call) {
    /* What crosses as 16 bits is rounded as a long array, whatever its length. */
    return !call->wire && hosts->n <= PLAN_FLAT_HOSTS &&
           call_nbytes(call) <= plan_opening_nbytes(hosts, call->operation);
}

size_t short_nbytes(const struct crossing *crossing) {
    const struct call *call = crossing->call;
    return call_reads(call, crossing->comm->rank) ? (size_t)call_nbytes(call) : 0;
}

size_t short_fill(const struct crossing *crossing, struct opening *opening, const void *sendbuf) {
    const struct call *call = crossing->call;
    const struct host *own = hosts_own(crossing->hosts);
    char *data = opening_data(opening, crossing->hosts->mine);
    size_t nbytes = (size_t)call_nbytes(call);
    const void *inputs[SHM_MAX_RANKS];
    for (int i = 0; i < own->size; i++)
        inputs[i] = crossing->shm ? shm_payload(crossing->shm, i) : sendbuf;
    if (call_reduces(call) && own->size > 1) {
        reduce((enum element_type)call->type, (enum reduction)call->op, inputs, own->size, data, (size_t)call->count);
        return nbytes;
    }
    size_t filled = 0;
    for (int i = 0; nbytes && i < own->size; i++) {
        if (!call_reads(call, crossing->hosts->ranks[own->first + i]))
            continue;
        memcpy(data + filled, inputs[i], nbytes);
        filled += nbytes;
    }
    return filled;
}

/* The part of sum_scatter or scatter that this rank gets, if it needs no more: how many elements, from which on. */
static size_t part_of(const struct crossing *crossing, size_t *count) {
    const struct call *call = crossing->call;
    *count = (size_t)call->count;
    if (!call_is_parted(call) || call_collects(call))
        return 0;
    *count /= (size_t)crossing->hosts->size;
    return (size_t)crossing->comm->rank * *count * element_size((enum element_type)call->type);
}

/* What each rank of this host gets, one after the other. */
static void exchange(const struct crossing *crossing, const struct opening *opening, char *result) {
    const struct hosts *hosts = crossing->hosts;
    const struct host *own = hosts_own(hosts);
    size_t nbytes = (size_t)call_nbytes(crossing->call), part = nbytes / (size_t)hosts->size;
    for (int local_rank = 0; local_rank < own->size; local_rank++)
        for (int host = 0; host < hosts->n; host++)
            for (int i = 0; i < hosts->each[host].size; i++)
                memcpy(result + (size_t)local_rank * nbytes + (size_t)hosts->ranks[hosts->each[host].first + i] * part,
                       (const char *)opening_data(opening, host) + (size_t)i * nbytes +
                           (size_t)hosts->ranks[own->first + local_rank] * part,
                       part);
}

void short_compute(const struct crossing *crossing, struct opening *opening, void *result) {
    const struct hosts *hosts = crossing->hosts;
    const struct call *call = crossing->call;
    size_t nbytes = (size_t)call_nbytes(call), count, part = part_of(crossing, &count);
    const void *inputs[PLAN_FLAT_HOSTS];
    int is_alone = hosts_own(hosts)->size == 1;
    if (is_alone && !call_writes(call, crossing->comm->rank))
        return; /* result is the caller's */
    if (!is_alone)
        part = 0, count = (size_t)call->count;
    if (call_reduces(call)) {
        for (int host = 0; host < hosts->n; host++)
            inputs[host] = (const char *)opening_data(opening, host) + part;
        reduce((enum element_type)call->type, (enum reduction)call->op, inputs, hosts->n, result, count);
    } else if (call->operation == OPERATION_ALLTOALL) {
        exchange(crossing, opening, result);
    } else if (call_collects(call)) {
        for (int host = 0; host < hosts->n; host++)
            for (int i = 0; i < hosts->each[host].size; i++)
                memcpy((char *)result + (size_t)hosts->ranks[hosts->each[host].first + i] * nbytes,
                       (const char *)opening_data(opening, host) + (size_t)i * nbytes, nbytes);
    } else if (nbytes) {
        const char *data = opening_data(opening, hosts_of_rank(hosts, call->peer));
        memcpy(result, data + part, count * element_size((enum element_type)call->type));
    }
}

void short_copy_out(const struct crossing *crossing, const void *result, void *recvbuf) {
    const struct call *call = crossing->call;
    size_t count, part = part_of(crossing, &count), nbytes = count * element_size((enum element_type)call->type);
    if (call->operation == OPERATION_ALLTOALL)
        part = (size_t)hosts_local_rank(crossing->hosts) * nbytes;
    else if (call_collects(call))
        nbytes *= (size_t)crossing->hosts->size;
    if (nbytes && call_writes(call, crossing->comm->rank))
        memcpy(recvbuf, (const char *)result + part, nbytes);
}
