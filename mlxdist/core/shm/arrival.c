#include "mlxdist/shm/arrival.h"

#include <stdio.h>
#include <string.h>

#include "mlxdist/copy.h"

/* One arrival, as seen by the rank that waits in it. */
struct arrival {
    struct node *node;
    const struct call *call;
    uint64_t k;
    int commit;
    int next; /* local ranks before it have arrived */
};

static int has_arrived(const struct member *peer, uint64_t k) {
    return atomic_load_explicit(&peer->flags[k % 2].arrived, memory_order_acquire) >= k;
}

/* A rank that has arrived and then left, or given up, has done its part, unless there is more to do together. */
static int did_its_part(const struct member *peer, const struct arrival *arrival) {
    return has_arrived(peer, arrival->k) && !arrival->commit &&
           atomic_load_explicit(&peer->state, memory_order_acquire) != NODE_JOINED;
}

/* A rank that can no longer do its part: preferably one that has died, not one that gave up because of that. */
static int check_all(const struct node *node, const struct arrival *arrival, struct outcome *outcome) {
    int found = STATUS_OK;
    for (int i = 0; i < node->memory->local_size; i++) {
        const struct member *peer = &node->memory->members[i];
        struct outcome seen;
        if (!node_check(node, i, &seen) || did_its_part(peer, arrival))
            continue;
        int has_died = atomic_load_explicit(&peer->state, memory_order_acquire) == NODE_JOINED;
        if (!found || has_died)
            *outcome = seen;
        found = outcome->status;
        if (has_died)
            break;
    }
    return found;
}

static int poll_arrivals(void *it, int slow_check, struct outcome *outcome) {
    struct arrival *arrival = it;
    const struct node_memory *memory = arrival->node->memory;
    /* First: a rank may have arrived before it was gone. */
    int is_gone = slow_check && check_all(arrival->node, arrival, outcome);
    while (arrival->next < memory->local_size && has_arrived(&memory->members[arrival->next], arrival->k))
        arrival->next++;
    return arrival->next == memory->local_size ? 1 : is_gone ? -1 : 0;
}

static void describe_arrival(void *it, int to_all, char *text, size_t nbytes) {
    const struct arrival *arrival = it;
    const struct node *node = arrival->node;
    const struct node_memory *memory = node->memory;
    char called[200], missing[400] = "";
    int n_missing = 0;
    for (int i = 0; i < memory->local_size; i++) {
        if (has_arrived(&memory->members[i], arrival->k)) {
            if (to_all && i < node->local_rank)
                return; /* an earlier local rank prints it */
            continue;
        }
        size_t used = strlen(missing);
        snprintf(missing + used, sizeof missing - used, "%s%d (pid %d)", n_missing++ ? ", " : "",
                 memory->members[i].rank, (int)memory->members[i].pid);
    }
    call_text(arrival->call, called, sizeof called);
    snprintf(text, nbytes, "%s, call %llu of rank %d on this group: rank%s %s %s not reached this call", called,
             (unsigned long long)node->calls, memory->members[node->local_rank].rank, n_missing == 1 ? "" : "s",
             missing, n_missing == 1 ? "has" : "have");
}

static int compare(const struct node *node, uint64_t k, struct outcome *outcome) {
    const struct node_memory *memory = node->memory;
    uint64_t mine = memory->members[node->local_rank].flags[k % 2].fingerprint;
    int alike = 1;
    for (int i = 0; i < memory->local_size; i++)
        alike = alike && memory->members[i].flags[k % 2].fingerprint == mine;
    if (alike)
        return STATUS_OK;
    const struct call *calls[NODE_MAX_RANKS];
    for (int i = 0; i < memory->local_size; i++)
        calls[i] = &memory->members[i].calls[k % 2];
    return calls_differ(calls, memory->local_size, node->calls, outcome);
}

static int peer_died(const struct node *node, struct outcome *outcome) {
    for (int i = 0; i < node->memory->local_size; i++)
        if (!node_is_alive(node, i) && node_check(node, i, outcome) == STATUS_PEER_DIED)
            return STATUS_PEER_DIED;
    return STATUS_OK;
}

/* Turn what this rank has found at an arrival with commit into what all ranks do. */
static int reach_consensus(const struct arrival *arrival, int result, struct outcome *outcome) {
    const struct node *node = arrival->node;
    if (!result)
        result = check_all(node, arrival, outcome);
    if (!consensus_decide(&node->memory->consensus, arrival->k, result != STATUS_OK))
        /* The others go on, and so does this rank, even if one of them has given up or left since. */
        return result ? peer_died(node, outcome) : STATUS_OK;
    if (result || (result = check_all(node, arrival, outcome)))
        return result;
    outcome->status = STATUS_PEER_DIED;
    snprintf(outcome->text, sizeof outcome->text, "another rank has given up this call: see its own error");
    return STATUS_PEER_DIED;
}

int node_arrive(struct node *node, const struct call *call, const void *payload, size_t nbytes, int commit,
                int allow_mismatch, const struct wait_policy *policy, struct outcome *outcome) {
    enum { MOST_PREFETCHED = 2048 };
    struct node_memory *memory = node->memory;
    struct member *mine = &memory->members[node->local_rank];
    uint64_t k = ++node->sequence;
    node->calls += call->operation != OPERATION_SHARE;
    struct flag *flag = &mine->flags[k % 2];
    if (nbytes)
        memcpy(nbytes <= sizeof flag->payload ? flag->payload : mine->slots[k % 2], payload, nbytes);
    mine->calls[k % 2] = *call;
    flag->nbytes = nbytes;
    flag->fingerprint = call_fingerprint(call);
    atomic_store_explicit(&flag->arrived, k, memory_order_release);

    struct arrival arrival = {node, call, k, commit, 0};
    int result = wait_for(&(struct wait_condition){poll_arrivals, describe_arrival, &arrival, 0, 1}, policy, outcome);
    if (!result && !allow_mismatch && compare(node, k, outcome))
        return STATUS_MISMATCH; /* on every rank: they see the same calls */
    if (commit)
        result = reach_consensus(&arrival, result, outcome);
    if (result && result != STATUS_MISMATCH && result != STATUS_GROUP_CLOSED) /* which leaves the node next */
        node_give_up(node);
    /* The next arrival's memory is in the caches of those that read it last. */
    copy_prefetch_for_write(&mine->flags[(k + 1) % 2], 1);
    copy_prefetch_for_write(mine->slots[(k + 1) % 2], nbytes < MOST_PREFETCHED ? nbytes : MOST_PREFETCHED);
    return result;
}

const void *node_payload(const struct node *node, int local_rank) {
    const struct member *peer = &node->memory->members[local_rank];
    const struct flag *flag = &peer->flags[node->sequence % 2];
    return flag->nbytes <= sizeof flag->payload ? flag->payload : peer->slots[node->sequence % 2];
}

const struct call *node_call(const struct node *node, int local_rank) {
    const struct member *peer = &node->memory->members[local_rank];
    return has_arrived(peer, node->sequence) ? &peer->calls[node->sequence % 2] : NULL;
}

uint64_t node_sequence(const struct node *node) {
    return node->sequence;
}
