#include "mlxdist/group/members.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One line for the ranks of each build. */
static void describe_builds(const struct shm_build *builds, int size, char *text, size_t nbytes) {
    size_t used = (size_t)snprintf(text, nbytes, "the ranks run different builds of mlxdist:");
    for (int i = 0; i < size; i++) {
        int first = 0;
        while (memcmp(&builds[first], &builds[i], sizeof *builds))
            first++;
        if (first < i)
            continue;
        char ranks[200] = "";
        for (int other = i; other < size; other++)
            if (!memcmp(&builds[i], &builds[other], sizeof *builds))
                snprintf(ranks + strlen(ranks), sizeof ranks - strlen(ranks), "%s%d", other > i ? ", " : "", other);
        if (used < nbytes)
            used += (size_t)snprintf(text + used, nbytes - used, "\n  rank %s: version %.*s, memory layout %d", ranks,
                                     (int)sizeof builds->version, builds[i].version, (int)builds[i].layout);
    }
    if (used < nbytes)
        snprintf(text + used, nbytes - used, "\ninstall the same mlxdist for all ranks");
}

static int list_builds(struct comm *comm, struct outcome *outcome) {
    struct shm_build *builds = malloc((size_t)comm->size * sizeof *builds);
    int result = STATUS_MISMATCH;
    outcome->status = STATUS_MISMATCH;
    snprintf(outcome->text, sizeof outcome->text,
             "the ranks run different builds of mlxdist: install the same for all");
    if (builds && !(result = TRANSPORT(allgather, comm, &shm_own_build, builds, sizeof *builds, outcome))) {
        result = STATUS_MISMATCH;
        describe_builds(builds, comm->size, outcome->text, sizeof outcome->text);
    }
    free(builds);
    return result;
}

int members_compare_builds(struct comm *comm, struct outcome *outcome) {
    const unsigned char *own = (const unsigned char *)&shm_own_build;
    uint64_t digest = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < sizeof shm_own_build; i++)
        digest = (digest ^ own[i]) * 1099511628211u;
    uint64_t lowest[2] = {digest, ~digest};
    if (TRANSPORT(allreduce, comm, lowest, lowest, 2, TYPE_UINT64, REDUCE_MIN, outcome))
        return outcome->status;
    return lowest[0] == ~lowest[1] ? STATUS_OK : list_builds(comm, outcome);
}

/* What the first rank of a host tells the others before they share anything. */
struct host_handshake {
    struct shm_handle handle;
    int32_t created;
    char why_not[120];
};

static void close_shm(struct members *members) {
    if (!members->shm)
        return;
    shm_give_up(members->shm); /* the others may be waiting for this rank */
    shm_close(members->shm);
    members->shm = NULL;
}

/* local: the ranks of members->comm on this host, in the same order. */
static int share(struct members *members, const struct members *world, struct comm *local, int is_named,
                 char *why_not_shared, size_t nbytes, struct outcome *outcome) {
    struct host_handshake handshake = {0};
    struct outcome why = {0};
    if (local->rank == 0) {
        handshake.created = shm_create(local->size, is_named, &handshake.handle, &members->shm, &why) == STATUS_OK;
        snprintf(handshake.why_not, sizeof handshake.why_not, "%.*s", (int)sizeof handshake.why_not - 1, why.text);
    }
    int result = TRANSPORT(broadcast, local, &handshake, sizeof handshake, 0, outcome);
    int32_t mine = !result && handshake.created, all = 0;
    if (mine && ((local->rank && shm_attach(&handshake.handle, &members->shm, &why)) ||
                 shm_join(members->shm, &handshake.handle, local->rank, members->comm->rank, world ? world->shm : NULL,
                          &why))) {
        mine = 0;
        snprintf(handshake.why_not, sizeof handshake.why_not, "%.*s", (int)sizeof handshake.why_not - 1, why.text);
    }
    if (!result)
        result = TRANSPORT(allreduce, local, &mine, &all, 1, TYPE_INT32, REDUCE_MIN, outcome);
    if (members->shm)
        shm_seal(members->shm, &handshake.handle);
    if (result || !all)
        close_shm(members);
    if (!result)
        snprintf(why_not_shared, nbytes, "%s",
                 all    ? ""
                 : mine ? "another rank of this host could not"
                        : handshake.why_not);
    return result;
}

static int open_with(struct members *members, const struct members *world, struct comm *local, char *why_not_shared,
                     size_t nbytes, struct outcome *outcome) {
    /* Only the memory of the whole job tells who is alive. With a name, if it cannot be shared without. */
    for (int is_named = 0; is_named < 2 && !members->shm && local->size > 1 && (!world || world->shm); is_named++)
        if (share(members, world, local, is_named, why_not_shared, nbytes, outcome))
            return outcome->status;
    int32_t whole = members->shm && local->size == members->comm->size;
    if (TRANSPORT(allreduce, members->comm, &whole, &whole, 1, TYPE_INT32, REDUCE_MIN, outcome))
        return outcome->status;
    members->is_whole = whole;
    return members->shm ? shm_open_mailbox(members->shm, &members->policy, outcome) : STATUS_OK;
}

int members_open_shm(struct members *members, const struct members *world, char *why_not_shared, size_t nbytes,
                     struct outcome *outcome) {
    struct comm *local;
    members->shm = NULL;
    members->is_world = !world;
    members->is_whole = members->comm->size == 1;
    if (members->is_whole || !runtime.settings.share)
        return STATUS_OK;
    if (TRANSPORT(split_host, members->comm, &local, outcome))
        return outcome->status;
    int result = open_with(members, world, local, why_not_shared, nbytes, outcome);
    struct outcome second;
    int released = TRANSPORT(release, local, result ? &second : outcome);
    result = result ? result : released;
    if (result)
        close_shm(members);
    return result;
}

struct agreement {
    struct members *members;
    const struct call *call;
    request_handle request;
};

static int poll_agreement(void *it, int slow_check, struct outcome *outcome) {
    struct agreement *agreement = it;
    const struct shm *shm = agreement->members->shm;
    struct outcome why;
    int done = 0;
    /* First: a rank may have agreed before it left or gave up the next call. */
    int is_gone = slow_check && shm && shm_check_agreement(shm, &why);
    if (TRANSPORT(test, &agreement->request, &done, outcome))
        return -1;
    if (done || !is_gone)
        return done;
    *outcome = why;
    return -1;
}

static void describe_agreement(void *it, int to_all, char *text, size_t nbytes) {
    const struct agreement *agreement = it;
    const struct members *members = agreement->members;
    char called[200];
    if (to_all && members->comm->rank)
        return;
    call_text(agreement->call, called, sizeof called);
    snprintf(text, nbytes, "%s, call %llu of rank %d on this group of %d: ranks %s have not reached this call", called,
             (unsigned long long)members->sequence, members->comm->rank, members->comm->size,
             members->shm ? "of other hosts" : "elsewhere");
}

static int who_differs(struct members *members, const struct call *call, struct outcome *outcome) {
    int size = members->comm->size;
    struct call *calls = malloc((size_t)size * sizeof *calls);
    const struct call **pointers = malloc((size_t)size * sizeof *pointers);
    int result = STATUS_OUT_OF_MEMORY;
    outcome->status = STATUS_OUT_OF_MEMORY;
    snprintf(outcome->text, sizeof outcome->text,
             "no memory to compare the calls of %d ranks: free some, or start fewer on a host", size);
    if (calls && pointers)
        result = TRANSPORT(allgather, members->comm, call, calls, sizeof *call, outcome);
    for (int i = 0; !result && i < size; i++)
        pointers[i] = &calls[i];
    if (!result)
        result = calls_differ(pointers, size, members->sequence, outcome);
    free(pointers);
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

int members_arrive(struct members *members, const struct call *call, struct outcome *outcome) {
    int result = STATUS_OK, ends_here = members->is_whole || !runtime.settings.check;
    members->sequence++;
    if (members->shm)
        result = shm_arrive(members->shm, call, !ends_here, &members->policy, outcome);
    /* A rank that has left the world tells all hosts by members_end; a rank that has seen it leave goes on to tell them
     * too. */
    if (ends_here || (result && !(result == STATUS_MISMATCH && members->is_world)))
        return result;
    return agree_on_call(members, call, outcome);
}

int members_end(struct members *members, struct outcome *outcome) {
    struct call call = flat_call(OPERATION_FINALIZE, 0, 0, 0, 0);
    call.rank = members->comm->rank;
    members->sequence++;
    return members->is_whole || !runtime.settings.check ? STATUS_OK : agree_on_call(members, &call, outcome);
}
