#include "mlxdist/arrive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the ranks of a host tell each other before they can share anything. */
struct invitation {
    struct ticket ticket;
    int32_t created;
    char why_not[120];
};

/* As the node's seats are numbered: local is the part of ranks->comm on this host. */
static int invite(struct comm *local, struct node **node, struct invitation *invitation, struct outcome *outcome) {
    struct outcome why;
    memset(invitation, 0, sizeof *invitation);
    if (local->rank == 0) {
        invitation->created = node_create(local->size, &invitation->ticket, node, &why) == OK;
        if (!invitation->created)
            snprintf(invitation->why_not, sizeof invitation->why_not, "%.*s", (int)sizeof invitation->why_not - 1,
                     why.text);
    }
    if (CALL(broadcast, local, invitation, sizeof *invitation, 0, outcome))
        return outcome->what;
    if (local->rank && invitation->created && node_attach(&invitation->ticket, node, &why))
        snprintf(invitation->why_not, sizeof invitation->why_not, "%.*s", (int)sizeof invitation->why_not - 1,
                 why.text);
    return OK;
}

static int share(struct ranks *ranks, const struct ranks *world, struct comm *local, char *not_sharing, size_t nbytes,
                 struct outcome *outcome) {
    struct invitation invitation;
    if (invite(local, &ranks->node, &invitation, outcome))
        return outcome->what;
    int watch_seat = world ? node_seat(world->node) : local->rank;
    if (ranks->node)
        node_sit(ranks->node, local->rank, ranks->comm->rank, world ? world->node : ranks->node, watch_seat);
    int32_t mine = ranks->node != NULL, all = 0;
    int result = CALL(allreduce, local, &mine, &all, 1, TYPE_INT32, REDUCE_MIN, outcome);
    if (local->rank == 0 && invitation.created)
        segment_unlink(&invitation.ticket);
    if (!all && ranks->node) {
        node_close(ranks->node);
        ranks->node = NULL;
    }
    if (!all)
        snprintf(not_sharing, nbytes, "%s", mine ? "another rank of the host could not" : invitation.why_not);
    return result;
}

int ranks_share(struct ranks *ranks, const struct ranks *world, char *not_sharing, size_t nbytes,
                struct outcome *outcome) {
    struct comm *local;
    ranks->node = NULL;
    ranks->is_world = !world;
    ranks->is_whole = ranks->comm->size == 1;
    if (ranks->is_whole || !job.settings.share)
        return OK;
    if (CALL(split_host, ranks->comm, &local, outcome))
        return outcome->what;
    /* Without the job's node nobody knows who lives. */
    int result = OK;
    if (local->size > 1 && (!world || world->node))
        result = share(ranks, world, local, not_sharing, nbytes, outcome);
    int32_t whole = ranks->node && local->size == ranks->comm->size;
    if (!result)
        result = CALL(allreduce, ranks->comm, &whole, &whole, 1, TYPE_INT32, REDUCE_MIN, outcome);
    ranks->is_whole = whole;
    if (!result && ranks->node)
        result = post_open(ranks->node, &ranks->post, &ranks->patience, outcome);
    struct outcome second;
    int released = CALL(release, local, result ? &second : outcome);
    return result ? result : released;
}

struct agreement {
    struct ranks *ranks;
    const struct call *call;
    request_handle request;
};

static int look_for_agreement(void *it, int thorough, struct outcome *outcome) {
    struct agreement *agreement = it;
    const struct node *node = agreement->ranks->node;
    int done = 0;
    if (CALL(test, &agreement->request, &done, outcome))
        return -1;
    for (int seat = 0; thorough && !done && node && seat < node_seats(node); seat++)
        if (node_look_at_agreement(node, seat, outcome))
            return -1;
    return done;
}

static void describe_agreement(void *it, int to_all, char *text, size_t nbytes) {
    const struct agreement *agreement = it;
    const struct ranks *ranks = agreement->ranks;
    char called[200];
    if (to_all && ranks->comm->rank)
        return;
    call_text(agreement->call, called, sizeof called);
    snprintf(text, nbytes, "%s, call %llu of rank %d on this group of %d: ranks %s have not come", called,
             (unsigned long long)ranks->sequence, ranks->comm->rank, ranks->comm->size,
             ranks->node ? "of other hosts" : "elsewhere");
}

static int who_differs(struct ranks *ranks, const struct call *call, struct outcome *outcome) {
    int size = ranks->comm->size;
    struct call *calls = malloc((size_t)size * sizeof *calls);
    const struct call **places = malloc((size_t)size * sizeof *places);
    int result = OUT_OF_MEMORY;
    outcome->what = OUT_OF_MEMORY;
    snprintf(outcome->text, sizeof outcome->text, "no memory to compare the calls of %d ranks", size);
    if (calls && places)
        result = CALL(allgather, ranks->comm, call, calls, sizeof *call, outcome);
    for (int i = 0; !result && i < size; i++)
        places[i] = &calls[i];
    if (!result)
        result = calls_differ(places, size, ranks->sequence, outcome);
    free(places);
    free(calls);
    return result;
}

static int agree(struct ranks *ranks, const struct call *call, struct outcome *outcome) {
    struct agreement agreement = {ranks, call, 0};
    ranks->own[0] = call_fingerprint(call);
    ranks->own[1] = ~ranks->own[0];
    if (CALL(agree, ranks->comm, ranks->own, ranks->lowest, &agreement.request, outcome))
        return outcome->what;
    if (wait_for(&(struct awaited){look_for_agreement, describe_agreement, &agreement, 1}, &ranks->patience, outcome)) {
        ranks->is_pending = 1;
        return outcome->what;
    }
    return ranks->lowest[0] == ~ranks->lowest[1] ? OK : who_differs(ranks, call, outcome);
}

int ranks_arrive(struct ranks *ranks, const struct call *call, const void *payload, size_t nbytes, int binding,
                 struct outcome *outcome) {
    int is_settled_here = ranks->is_whole || !job.settings.check;
    ranks->sequence++;
    int result = ranks->node ? node_arrive(ranks->node, call, payload, nbytes, binding, !is_settled_here,
                                           &ranks->patience, outcome)
                             : OK;
    /* A rank that has left the world tells all hosts by ranks_end, and so does whoever has seen it leave. */
    if (is_settled_here || (result && !(result == MISMATCH && ranks->is_world)))
        return result;
    return agree(ranks, call, outcome);
}

int ranks_end(struct ranks *ranks, struct outcome *outcome) {
    struct call call = flat_call(FINALIZE, 0, 0, 0, 0);
    call.rank = ranks->comm->rank;
    ranks->sequence++;
    return ranks->is_whole || !job.settings.check ? OK : agree(ranks, &call, outcome);
}
