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
    return members->shm ? shm_open_mailbox(members->shm, &members->policy, outcome) : STATUS_OK;
}

/* The ranks with which this one may share memory: at most settings.share of a host, if that is more than one. */
static int split_local(struct comm *comm, const struct members *world, struct comm **local, struct outcome *outcome) {
    struct comm *host;
    struct outcome second;
    int most = runtime.settings.share;
    if (world)
        return TRANSPORT(split, comm, world->host, comm->rank, local, outcome);
    if (most == 1)
        return TRANSPORT(split_host, comm, local, outcome);
    if (TRANSPORT(split_host, comm, &host, outcome))
        return outcome->status;
    int result = TRANSPORT(split, host, host->rank / most, host->rank, local, outcome);
    int released = TRANSPORT(release, host, result ? &second : outcome);
    return result ? result : released;
}

static int open_shm(struct members *members, const struct members *world, char *why_not_shared, size_t nbytes,
                    struct outcome *outcome) {
    struct comm *local;
    struct outcome second;
    if (!runtime.settings.share)
        return STATUS_OK;
    if (split_local(members->comm, world, &local, outcome))
        return outcome->status;
    int result = open_with(members, world, local, why_not_shared, nbytes, outcome);
    int released = TRANSPORT(release, local, result ? &second : outcome);
    return result ? result : released;
}

static int open_net(struct members *members, int end_together, struct outcome *outcome) {
    int32_t is_whole = members->shm && shm_local_size(members->shm) == members->comm->size;
    if (TRANSPORT(allreduce, members->comm, &is_whole, &is_whole, 1, TYPE_INT32, REDUCE_MIN, outcome))
        return outcome->status;
    if (is_whole)
        return STATUS_OK;
    if (net_open(members->comm, members->shm, end_together, &members->policy, &members->net, outcome))
        return outcome->status;
    members->policy.check = net_check;
    members->policy.checked = members->net;
    return STATUS_OK;
}

int members_open(struct members *members, const struct members *world, char *why_not_shared, size_t nbytes,
                 struct outcome *outcome) {
    members->shm = NULL;
    members->net = NULL;
    if (members->comm->size > 1 &&
        (open_shm(members, world, why_not_shared, nbytes, outcome) || open_net(members, !world, outcome))) {
        close_shm(members);
        return outcome->status;
    }
    members->host = world ? world->host : members->shm ? shm_rank(members->shm, 0) : members->comm->rank;
    return STATUS_OK;
}

int members_are_pending(const struct members *members) {
    return members->net && net_is_pending(members->net);
}

void members_close(struct members *members) {
    if (members_are_pending(members))
        return;
    if (members->net)
        net_close(members->net);
    if (members->shm)
        shm_close(members->shm);
}

int members_arrive(struct members *members, const struct call *call, struct outcome *outcome) {
    return members->net ? net_arrive(members->net, call, &members->policy, outcome)
                        : shm_arrive(members->shm, call, &members->policy, outcome);
}

void members_give_up(struct members *members, const struct outcome *why) {
    if (members->shm)
        shm_give_up(members->shm);
    if (members->net)
        net_give_up(members->net, why);
}

int members_end(struct members *members, struct outcome *outcome) {
    return members->net ? net_end(members->net, &members->policy, outcome) : STATUS_OK;
}

int members_end_mpi(struct members *members, int ends_mpi, const struct wait_policy *policy, struct outcome *outcome) {
    return members->net ? net_end_mpi(members->net, ends_mpi, policy, outcome) : STATUS_OK;
}
