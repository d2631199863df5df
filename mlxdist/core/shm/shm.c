#include "mlxdist/shm/shm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "mlxdist/shm/handshake.h"
#include "mlxdist/shm/pipeline.h"
#include "mlxdist/shm/slots.h"
#include "mlxdist/shm/staging.h"
#include "mlxdist/shm/symmetric.h"

#ifndef MLXDIST_VERSION
#define MLXDIST_VERSION "unknown"
#endif

struct shm {
    struct node *node;
    struct mailbox *mailbox;     /* NULL: messages go by MPI */
    struct staging *staging;     /* opened by the first long collective */
    int has_no_staging;          /* that failed, on all ranks */
    struct symmetric *symmetric; /* a list */
    struct segment shared[2];    /* of shm_share */
    int n_shared;
};

const struct shm_build shm_own_build = {SHM_LAYOUT, MLXDIST_VERSION};

static struct shm *new_shm(struct outcome *outcome) {
    struct shm *shm = calloc(1, sizeof *shm);
    if (!shm)
        segment_fails(outcome, "calloc", ENOMEM);
    return shm;
}

static int opened(int result, struct shm *created, struct shm **shm) {
    if (result)
        free(created);
    else
        *shm = created;
    return result;
}

int shm_create(int local_size, int is_named, struct shm_handle *handle, struct shm **shm, struct outcome *outcome) {
    struct shm *created = new_shm(outcome);
    return created ? opened(node_create(local_size, is_named, handle, &created->node, outcome), created, shm)
                   : STATUS_NOT_SHARED;
}

int shm_attach(const struct shm_handle *handle, struct shm **shm, struct outcome *outcome) {
    struct shm *created = new_shm(outcome);
    return created ? opened(node_attach(handle, &created->node, outcome), created, shm) : STATUS_NOT_SHARED;
}

int shm_join(struct shm *shm, const struct shm_handle *handle, int local_rank, int rank, const struct shm *world,
             struct outcome *outcome) {
    struct node *watch = world ? world->node : shm->node;
    return node_join(shm->node, handle, local_rank, rank, watch, world ? node_local_rank(watch) : local_rank, outcome);
}

void shm_seal(struct shm *shm, const struct shm_handle *handle) {
    node_seal(shm->node, handle);
}

int shm_open_mailbox(struct shm *shm, const struct wait_policy *policy, struct outcome *outcome) {
    return mailbox_open(shm->node, &shm->mailbox, policy, outcome);
}

void shm_close(struct shm *shm) {
    symmetric_sweep(&shm->symmetric);
    if (shm->staging)
        staging_close(shm->staging);
    if (shm->mailbox)
        mailbox_close(shm->mailbox);
    while (shm->n_shared)
        segment_free(&shm->shared[--shm->n_shared]);
    node_close(shm->node);
    free(shm);
}

int shm_local_size(const struct shm *shm) {
    return node_local_size(shm->node);
}

int shm_local_rank(const struct shm *shm) {
    return node_local_rank(shm->node);
}

int shm_rank(const struct shm *shm, int local_rank) {
    return node_rank(shm->node, local_rank);
}

int shm_is_oversubscribed(const struct shm *shm) {
    return node_is_oversubscribed(shm->node);
}

int shm_arrive(struct shm *shm, const struct call *call, const struct wait_policy *policy, struct outcome *outcome) {
    return node_arrive(shm->node, call, NULL, 0, 1, 0, policy, outcome);
}

int shm_gather(struct shm *shm, const struct call *call, const void *payload, size_t nbytes,
               const struct wait_policy *policy, struct outcome *outcome) {
    return node_arrive(shm->node, call, payload, nbytes, 0, 1, policy, outcome);
}

const struct call *shm_call(const struct shm *shm, int local_rank) {
    return node_call(shm->node, local_rank);
}

const void *shm_payload(const struct shm *shm, int local_rank) {
    return node_payload(shm->node, local_rank);
}

int shm_share(struct shm *shm, size_t nbytes, int wanted, void **memory, const struct wait_policy *policy,
              struct outcome *outcome) {
    struct segment *segment = &shm->shared[shm->n_shared];
    size_t local_size = (size_t)node_local_size(shm->node);
    size_t part = (nbytes / local_size / SEGMENT_LINE + 1) * SEGMENT_LINE;
    int result = handshake_segment(shm->node, part, 0, 0, wanted ? segment : NULL, policy, outcome);
    if (result == STATUS_NOT_SHARED)
        result = outcome->status = STATUS_OUT_OF_MEMORY;
    if (result)
        return result;
    shm->n_shared++;
    *memory = segment->memory;
    return STATUS_OK;
}

/* The operations that shared memory carries out. Up to so many bytes of input the slots are faster than the staging
 * buffer, measured on Zen 4: with 2 ranks; and with 3 and 4 ranks on 2 processors, where each wait costs more than one
 * more copy. */
static const int64_t most_in_slots[OPERATIONS] = {
    [OPERATION_ALLREDUCE] = 12 << 10,  [OPERATION_ALLGATHER] = 6 << 10,  [OPERATION_REDUCE_SCATTER] = NODE_SLOT,
    [OPERATION_BROADCAST] = NODE_SLOT, [OPERATION_ALLTOALL] = NODE_SLOT, [OPERATION_GATHER] = NODE_SLOT,
    [OPERATION_SCATTER] = NODE_SLOT,   [OPERATION_REDUCE] = 12 << 10,    [OPERATION_BARRIER] = NODE_SLOT};

static int fits_slots(const struct call *call, const struct wait_policy *policy) {
    int is_oversubscribed = policy->spins == WAIT_SPINS_OVERSUBSCRIBED;
    return call_nbytes(call) <= (is_oversubscribed ? NODE_SLOT : most_in_slots[call->operation]);
}

/* With the first long collective the ranks find out whether they can have a staging buffer. */
static int run_long(struct shm *shm, const struct call *call, const void *sendbuf, void *recvbuf,
                    const struct wait_policy *policy, struct outcome *outcome) {
    struct node *node = shm->node;
    struct buffer_descriptor own = {pipeline_own_offset(call, recvbuf), {0, 0}, {0, 0}};
    size_t nbytes = (size_t)call_nbytes(call);
    if (call->operation == OPERATION_ALLREDUCE) {
        own.in = symmetric_offset(shm->symmetric, sendbuf, nbytes);
        own.out = symmetric_offset(shm->symmetric, recvbuf, nbytes);
    }
    int result = node_arrive(node, call, &own, sizeof own, 0, 0, policy, outcome),
        is_common = !result && symmetric_is_common(node);
    if (is_common)
        result = symmetric_reduce(node, shm->symmetric, call, policy, outcome);
    /* After a mismatch at the arrival no rank goes on: they differ, or one will never arrive. */
    if (result && (is_common || result != STATUS_MISMATCH))
        symmetric_detach(shm->symmetric, &own, nbytes, outcome);
    if (result || is_common)
        return result;
    size_t offset = pipeline_offset(node);
    if (!shm->staging && staging_open(node, &shm->staging, policy, outcome))
        return outcome->status;
    if (shm->staging)
        return pipeline_run(shm->staging, node, call, sendbuf, recvbuf, offset, policy, outcome);
    shm->has_no_staging = 1;
    /* Once more, with a commit: from now on they are in MPI. */
    struct call by_mpi = flat_call(OPERATION_SHARE, 0, 0, 0, 0);
    by_mpi.rank = call->rank;
    return shm_arrive(shm, &by_mpi, policy, outcome) ? outcome->status : STATUS_NOT_SHARED;
}

int shm_run(struct shm *shm, const struct call *call, const void *sendbuf, void *recvbuf,
            const struct wait_policy *policy, struct outcome *outcome) {
    int is_known = most_in_slots[call->operation] > 0;
    if (is_known && fits_slots(call, policy))
        return slots_run(shm->node, call, sendbuf, recvbuf, policy, outcome);
    if (is_known && !shm->has_no_staging)
        return run_long(shm, call, sendbuf, recvbuf, policy, outcome);
    return shm_arrive(shm, call, policy, outcome) ? outcome->status : STATUS_NOT_SHARED;
}

int shm_empty(struct shm *shm, const struct call *call, size_t nbytes, struct symmetric **symmetric, void **memory,
              const struct wait_policy *policy, struct outcome *outcome) {
    symmetric_sweep(&shm->symmetric);
    if (node_arrive(shm->node, call, NULL, 0, 0, 0, policy, outcome) ||
        symmetric_open(shm->node, nbytes, &shm->symmetric, policy, outcome))
        return outcome->status;
    *symmetric = shm->symmetric;
    *memory = symmetric_memory(*symmetric);
    return STATUS_OK;
}

void shm_free(struct symmetric *symmetric) {
    symmetric_drop(symmetric);
}

void shm_sweep(struct shm *shm) {
    symmetric_sweep(&shm->symmetric);
}

/* -1: messages to and from it go by MPI. */
static int mailbox_rank(const struct shm *shm, int rank) {
    return shm->mailbox ? node_local_rank_of(shm->node, rank) : -1;
}

int shm_begin(struct shm *shm, const struct call *call, void *buf, int by_mpi, struct transfer *transfer) {
    int local_rank = mailbox_rank(shm, call->peer);
    if (local_rank < 0)
        return STATUS_NOT_SHARED;
    mailbox_begin(shm->mailbox, local_rank, call, buf, by_mpi, transfer);
    return STATUS_OK;
}

int shm_check(const struct shm *shm, int rank, struct outcome *outcome) {
    int local_rank = node_local_rank_of(shm->node, rank);
    return local_rank < 0 ? STATUS_OK : node_check(shm->node, local_rank, outcome);
}

int shm_check_agreement(const struct shm *shm, struct outcome *outcome) {
    for (int local_rank = 0; local_rank < node_local_size(shm->node); local_rank++)
        if (node_check_agreement(shm->node, local_rank, outcome))
            return outcome->status;
    return STATUS_OK;
}

int shm_check_end(const struct shm *shm, int awaited, struct outcome *outcome) {
    for (int local_rank = 0; local_rank < node_local_size(shm->node); local_rank++)
        if (node_check_end(shm->node, local_rank, node_rank(shm->node, local_rank) == awaited, outcome))
            return outcome->status;
    return STATUS_OK;
}

void shm_leave(struct shm *shm, int ends_mpi) {
    node_leave(shm->node, ends_mpi);
}

void shm_give_up(struct shm *shm) {
    node_give_up(shm->node);
}

int shm_await_end(struct shm *shm, const struct wait_policy *policy, struct outcome *outcome) {
    return node_await_end(shm->node, policy, outcome);
}
