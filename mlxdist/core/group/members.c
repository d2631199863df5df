#include "mlxdist/group/members.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the ranks of a host tell each other before they can share anything. */
struct handshake {
    struct shm_handle handle;
    int32_t created;
    char why_not[120];
};

/* As the node's local ranks are numbered: local is the part of ranks->comm on this host. */
static int handshake_node(struct comm *local, struct node **node, struct handshake *handshake,
                          struct outcome *outcome) {
    struct outcome why;
    memset(handshake, 0, sizeof *handshake);
    if (local->rank == 0) {
        handshake->created = node_create(local->size, &handshake->handle, node, &why) == STATUS_OK;
        if (!handshake->created)
            snprintf(handshake->why_not, sizeof handshake->why_not, "%.*s", (int)sizeof handshake->why_not - 1,
                     why.text);
    }
    if (TRANSPORT(broadcast, local, handshake, sizeof *handshake, 0, outcome))
        return outcome->status;
    if (local->rank && handshake->created && node_attach(&handshake->handle, node, &why))
        snprintf(handshake->why_not, sizeof handshake->why_not, "%.*s", (int)sizeof handshake->why_not - 1, why.text);
    return STATUS_OK;
}

static int share_node(struct members *members, const struct members *world, struct comm *local, char *why_not_shared,
                      size_t nbytes, struct outcome *outcome) {
    struct handshake handshake;
    if (handshake_node(local, &members->node, &handshake, outcome))
        return outcome->status;
    int watch_rank = world ? node_local_rank(world->node) : local->rank;
    if (members->node)
        node_join(members->node, local->rank, members->comm->rank, world ? world->node : members->node, watch_rank);
    int32_t mine = members->node != NULL, all = 0;
    int result = TRANSPORT(allreduce, local, &mine, &all, 1, TYPE_INT32, REDUCE_MIN, outcome);
    if (local->rank == 0 && handshake.created)
        segment_unlink(&handshake.handle);
    if (!all && members->node) {
        node_close(members->node);
        members->node = NULL;
    }
    if (!all)
        snprintf(why_not_shared, nbytes, "%s", mine ? "another rank of the host could not" : handshake.why_not);
    return result;
}

int members_open_shm(struct members *members, const struct members *world, char *why_not_shared, size_t nbytes,
                     struct outcome *outcome) {
    struct comm *local;
    members->node = NULL;
    members->is_world = !world;
    members->is_whole = members->comm->size == 1;
    if (members->is_whole || !runtime.settings.share)
        return STATUS_OK;
    if (TRANSPORT(split_host, members->comm, &local, outcome))
        return outcome->status;
    /* Without the job's node nobody knows who lives. */
    int result = STATUS_OK;
    if (local->size > 1 && (!world || world->node))
        result = share_node(members, world, local, why_not_shared, nbytes, outcome);
    int32_t whole = members->node && local->size == members->comm->size;
    if (!result)
        result = TRANSPORT(allreduce, members->comm, &whole, &whole, 1, TYPE_INT32, REDUCE_MIN, outcome);
    members->is_whole = whole;
    if (!result && members->node)
        result = mailbox_open(members->node, &members->mailbox, &members->policy, outcome);
    struct outcome second;
    int released = TRANSPORT(release, local, result ? &second : outcome);
    return result ? result : released;
}

struct agreement {
    struct members *members;
    const struct call *call;
    request_handle request;
};

static int poll_agreement(void *it, int slow_check, struct outcome *outcome) {
    struct agreement *agreement = it;
    const struct node *node = agreement->members->node;
    int done = 0;
    if (TRANSPORT(test, &agreement->request, &done, outcome))
        return -1;
    for (int local_rank = 0; slow_check && !done && node && local_rank < node_local_size(node); local_rank++)
        if (node_check_agreement(node, local_rank, outcome))
            return -1;
    return done;
}

static void describe_agreement(void *it, int to_all, char *text, size_t nbytes) {
    const struct agreement *agreement = it;
    const struct members *members = agreement->members;
    char called[200];
    if (to_all && members->comm->rank)
        return;
    call_text(agreement->call, called, sizeof called);
    snprintf(text, nbytes, "%s, call %llu of rank %d on this group of %d: ranks %s have not come", called,
             (unsigned long long)members->sequence, members->comm->rank, members->comm->size,
             members->node ? "of other hosts" : "elsewhere");
}

static int who_differs(struct members *members, const struct call *call, struct outcome *outcome) {
    int size = members->comm->size;
    struct call *calls = malloc((size_t)size * sizeof *calls);
    const struct call **places = malloc((size_t)size * sizeof *places);
    int result = STATUS_OUT_OF_MEMORY;
    outcome->status = STATUS_OUT_OF_MEMORY;
    snprintf(outcome->text, sizeof outcome->text, "no memory to compare the calls of %d ranks", size);
    if (calls && places)
        result = TRANSPORT(allgather, members->comm, call, calls, sizeof *call, outcome);
    for (int i = 0; !result && i < size; i++)
        places[i] = &calls[i];
    if (!result)
        result = calls_differ(places, size, members->sequence, outcome);
    free(places);
    free(calls);
    return result;
}

static int agree_on_call(struct members *members, const struct call *call, struct outcome *outcome) {
    struct agreement agreement = {members, call, 0};
    members->own[0] = call_fingerprint(call);
    members->own[1] = ~members->own[0];
    if (TRANSPORT(agree, members->comm, members->own, members->lowest, &agreement.request, outcome))
        return outcome->status;
    if (wait_for(&(struct wait_condition){poll_agreement, describe_agreement, &agreement, 1}, &members->policy,
                 outcome)) {
        members->is_pending = 1;
        return outcome->status;
    }
    return members->lowest[0] == ~members->lowest[1] ? STATUS_OK : who_differs(members, call, outcome);
}

int members_arrive(struct members *members, const struct call *call, const void *payload, size_t nbytes, int commit,
                   struct outcome *outcome) {
    int is_settled_here = members->is_whole || !runtime.settings.check;
    members->sequence++;
    int result = members->node ? node_arrive(members->node, call, payload, nbytes, commit, !is_settled_here,
                                             &members->policy, outcome)
                               : STATUS_OK;
    /* A rank that has left the world tells all hosts by ranks_end, and so does whoever has seen it leave. */
    if (is_settled_here || (result && !(result == STATUS_MISMATCH && members->is_world)))
        return result;
    return agree_on_call(members, call, outcome);
}

int members_end(struct members *members, struct outcome *outcome) {
    struct call call = flat_call(OPERATION_FINALIZE, 0, 0, 0, 0);
    call.rank = members->comm->rank;
    members->sequence++;
    return members->is_whole || !runtime.settings.check ? STATUS_OK : agree_on_call(members, &call, outcome);
}
