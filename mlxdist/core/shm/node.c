#include "mlxdist/shm/node.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mlxdist/copy.h"

/* LEFT_ALONE: and will not end MPI with the others. ENDING: has seen that all have left. */
enum state { JOINED, GAVE_UP, LEFT, LEFT_ALONE, ENDING };

/* What the others watch: one cache line, so that a short payload comes with the flag. */
struct flag {
    _Alignas(SEGMENT_LINE) _Atomic uint64_t arrived;
    uint64_t fingerprint, nbytes;
    char payload[40];
};

struct member {
    /* Of arrival k in k % 2. */
    struct flag flags[2];
    _Alignas(SEGMENT_LINE) struct call calls[2];
    _Alignas(SEGMENT_LINE) _Atomic int state;
    /* Written before anybody else looks. */
    int rank, watch_rank;
    pid_t pid;
#ifdef __linux__
    cpu_set_t processors;
#endif
    _Alignas(SEGMENT_LINE) char slots[2][NODE_SLOT];
};

struct memory {
    int local_size;
    /* 2 k: all go on after arrival k. 2 k + 1: somebody gave it up first. */
    _Alignas(SEGMENT_LINE) _Atomic uint64_t consensus;
    struct member local_rank[];
};

struct node {
    struct segment segment; /* its file is locked at the place of one's own local rank while the process lives */
    struct memory *memory;
    struct node *watch;
    int local_rank;
    uint64_t sequence; /* of arrivals */
    uint64_t calls;    /* of the user's, for words */
};

static int hold(const struct segment *segment, struct node **node, struct outcome *outcome) {
    *node = calloc(1, sizeof **node);
    if (!*node)
        return segment_fails(outcome, "calloc", ENOMEM);
    segment_touch(segment, segment->nbytes);
    **node = (struct node){.segment = *segment, .memory = (struct memory *)segment->memory, .local_rank = -1};
    return STATUS_OK;
}

int node_create(int local_size, struct shm_handle *handle, struct node **node, struct outcome *outcome) {
    struct segment segment;
    if (local_size > NODE_MAX_RANKS)
        return segment_fails(outcome, "more ranks on one host than seats", EINVAL);
    size_t nbytes = sizeof(struct memory) + (size_t)local_size * sizeof(struct member);
    if (segment_create(nbytes, handle, &segment, outcome))
        return STATUS_NOT_SHARED;
    if (segment_reserve(&segment, 0, nbytes, outcome) || hold(&segment, node, outcome)) {
        segment_unlink(handle);
        segment_free(&segment);
        return STATUS_NOT_SHARED;
    }
    (*node)->memory->local_size = local_size;
    return STATUS_OK;
}

int node_attach(const struct shm_handle *handle, struct node **node, struct outcome *outcome) {
    struct segment segment;
    if (segment_attach(handle, &segment, outcome))
        return STATUS_NOT_SHARED;
    if (hold(&segment, node, outcome)) {
        segment_free(&segment);
        return STATUS_NOT_SHARED;
    }
    return STATUS_OK;
}

void node_join(struct node *node, int local_rank, int rank, struct node *watch, int watch_rank) {
    struct member *mine = &node->memory->local_rank[local_rank];
    node->local_rank = local_rank;
    node->watch = watch;
    mine->rank = rank;
    mine->watch_rank = watch_rank;
    mine->pid = getpid();
#ifdef __linux__
    sched_getaffinity(0, sizeof mine->processors, &mine->processors);
#endif
    if (watch == node) {
        /* The system takes the lock back when this process ends, however it ends, and a fork does not have it. */
        struct flock alive = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = local_rank, .l_len = 1};
        fcntl(node->segment.file, F_SETLK, &alive);
    } else {
        segment_close_file(&node->segment);
    }
}

static void set_state(struct node *node, enum state state) {
    atomic_store_explicit(&node->memory->local_rank[node->local_rank].state, state, memory_order_release);
}

void node_leave(struct node *node, int ends_mpi) {
    set_state(node, ends_mpi ? LEFT : LEFT_ALONE);
}

void node_close(struct node *node) {
    segment_free(&node->segment);
    free(node);
}

void node_give_up(struct node *node) {
    int sitting = JOINED;
    atomic_compare_exchange_strong(&node->memory->local_rank[node->local_rank].state, &sitting, GAVE_UP);
}

int node_local_size(const struct node *node) {
    return node->memory->local_size;
}

int node_local_rank(const struct node *node) {
    return node->local_rank;
}

int node_rank(const struct node *node, int local_rank) {
    return node->memory->local_rank[local_rank].rank;
}

int node_local_rank_of(const struct node *node, int rank) {
    for (int i = 0; i < node->memory->local_size; i++)
        if (node->memory->local_rank[i].rank == rank)
            return i;
    return -1;
}

int node_is_oversubscribed(const struct node *node) {
#ifdef __linux__
    cpu_set_t all;
    CPU_ZERO(&all);
    for (int i = 0; i < node->memory->local_size; i++)
        CPU_OR(&all, &all, &node->memory->local_rank[i].processors);
    return CPU_COUNT(&all) < node->memory->local_size;
#else
    return sysconf(_SC_NPROCESSORS_ONLN) < node->memory->local_size;
#endif
}

const void *node_payload(const struct node *node, int local_rank) {
    const struct member *peer = &node->memory->local_rank[local_rank];
    const struct flag *flag = &peer->flags[node->sequence % 2];
    return flag->nbytes <= sizeof flag->payload ? flag->payload : peer->slots[node->sequence % 2];
}

uint64_t node_sequence(const struct node *node) {
    return node->sequence;
}

static int lives(const struct node *node, int local_rank) {
    const struct node *watch = node->watch;
    int watched = node->memory->local_rank[local_rank].watch_rank;
    if (node->memory->local_rank[local_rank].pid == getpid())
        return 1; /* a thread, or this rank itself: one's own lock is not seen */
    struct flock alive = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = watched, .l_len = 1};
    return fcntl(watch->segment.file, F_GETLK, &alive) || alive.l_type != F_UNLCK;
}

static enum state state_of(const struct node *node, int local_rank) {
    return (enum state)atomic_load_explicit(&node->memory->local_rank[local_rank].state, memory_order_acquire);
}

static int tell(const struct node *node, int local_rank, int status, const char *why, struct outcome *outcome) {
    const struct member *peer = &node->memory->local_rank[local_rank];
    char host[256] = "this host";
    gethostname(host, sizeof host - 1);
    outcome->status = status;
    snprintf(outcome->text, sizeof outcome->text, "rank %d (pid %d on %s) %s", peer->rank, (int)peer->pid, host, why);
    return status;
}

static const char has_died[] = "has died: see status the launcher or the system's log says of it";
static const char has_given_up[] = "has given up a call on this group: see its own error";

int node_check(const struct node *node, int local_rank, struct outcome *outcome) {
    if (state_of(node, local_rank) == JOINED && lives(node, local_rank))
        return STATUS_OK;
    /* A rank that ends says so before its lock goes. */
    enum state state = state_of(node, local_rank);
    if (state >= LEFT)
        return tell(node, local_rank, STATUS_MISMATCH,
                    "has ended or let go of this group: let all ranks make the same calls", outcome);
    return tell(node, local_rank, STATUS_PEER_DIED, state == GAVE_UP ? has_given_up : has_died, outcome);
}

int node_check_agreement(const struct node *node, int local_rank, struct outcome *outcome) {
    if (state_of(node, local_rank) == LEFT_ALONE)
        return tell(node, local_rank, STATUS_PEER_DIED, has_given_up, outcome);
    int looked = node_check(node, local_rank, outcome);
    return looked == STATUS_MISMATCH ? STATUS_OK : looked;
}

/* Those that have not arrived k times. */
struct arrival {
    struct node *node;
    const struct call *call;
    uint64_t k;
    int commit;
    int next; /* local ranks before it have arrived */
};

static int has_arrived(const struct member *local_rank, uint64_t k) {
    return atomic_load_explicit(&local_rank->flags[k % 2].arrived, memory_order_acquire) >= k;
}

/* Who has arrived and left, or given up, has done its part, unless there is more to do together. */
static int did_its_part(const struct member *local_rank, const struct arrival *arrival) {
    return has_arrived(local_rank, arrival->k) && !arrival->commit &&
           atomic_load_explicit(&local_rank->state, memory_order_acquire) != JOINED;
}

/* Whoever can do its part no more: one that has died, rather than one that has given up because of that. */
static int check_all(const struct node *node, const struct arrival *arrival, struct outcome *outcome) {
    int found = STATUS_OK;
    for (int i = 0; i < node->memory->local_size; i++) {
        const struct member *peer = &node->memory->local_rank[i];
        struct outcome seen;
        if (!node_check(node, i, &seen) || did_its_part(peer, arrival))
            continue;
        int has_died = atomic_load_explicit(&peer->state, memory_order_acquire) == JOINED;
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
    const struct memory *memory = arrival->node->memory;
    while (arrival->next < memory->local_size && has_arrived(&memory->local_rank[arrival->next], arrival->k))
        arrival->next++;
    if (arrival->next == memory->local_size)
        return 1;
    return slow_check && check_all(arrival->node, arrival, outcome) ? -1 : 0;
}

static void describe_arrival(void *it, int to_all, char *text, size_t nbytes) {
    const struct arrival *arrival = it;
    const struct node *node = arrival->node;
    const struct memory *memory = node->memory;
    char called[200], missing[400] = "";
    int n_missing = 0;
    for (int i = 0; i < memory->local_size; i++) {
        if (has_arrived(&memory->local_rank[i], arrival->k)) {
            if (to_all && i < node->local_rank)
                return; /* an earlier local rank says it */
            continue;
        }
        size_t used = strlen(missing);
        snprintf(missing + used, sizeof missing - used, "%s%d (pid %d)", n_missing++ ? ", " : "",
                 memory->local_rank[i].rank, (int)memory->local_rank[i].pid);
    }
    call_text(arrival->call, called, sizeof called);
    snprintf(text, nbytes, "%s, call %llu of rank %d on this group: rank%s %s %s not come", called,
             (unsigned long long)node->calls, memory->local_rank[node->local_rank].rank, n_missing == 1 ? "" : "s",
             missing, n_missing == 1 ? "has" : "have");
}

static int compare(const struct node *node, uint64_t k, struct outcome *outcome) {
    const struct memory *memory = node->memory;
    uint64_t mine = memory->local_rank[node->local_rank].flags[k % 2].fingerprint;
    int alike = 1;
    for (int i = 0; i < memory->local_size; i++)
        alike = alike && memory->local_rank[i].flags[k % 2].fingerprint == mine;
    if (alike)
        return STATUS_OK;
    const struct call *calls[NODE_MAX_RANKS];
    for (int i = 0; i < memory->local_size; i++)
        calls[i] = &memory->local_rank[i].calls[k % 2];
    return calls_differ(calls, memory->local_size, node->calls, outcome);
}

/* The first to have an opinion on what follows arrival k decides for all. */
static int decide(struct memory *memory, uint64_t k, int give_up) {
    uint64_t present = atomic_load_explicit(&memory->consensus, memory_order_acquire);
    while (present / 2 < k)
        if (atomic_compare_exchange_weak_explicit(&memory->consensus, &present, 2 * k + (uint64_t)give_up,
                                                  memory_order_acq_rel, memory_order_acquire))
            return give_up;
    /* Beyond k: whoever is there went on after k. */
    return present / 2 == k && present % 2;
}

static int peer_died(const struct node *node, struct outcome *outcome) {
    for (int i = 0; i < node->memory->local_size; i++)
        if (!lives(node, i) && node_check(node, i, outcome) == STATUS_PEER_DIED)
            return STATUS_PEER_DIED;
    return STATUS_OK;
}

/* How a binding arrival ends that has come to result so far. */
static int reach_consensus(const struct arrival *arrival, int result, struct outcome *outcome) {
    const struct node *node = arrival->node;
    if (!result)
        result = check_all(node, arrival, outcome);
    if (!decide(node->memory, arrival->k, result != STATUS_OK))
        /* The others go on: so does this rank, also past one that has gone on, and given up or left since. */
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
    struct memory *memory = node->memory;
    struct member *mine = &memory->local_rank[node->local_rank];
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
    int result = wait_for(&(struct wait_condition){poll_arrivals, describe_arrival, &arrival, 0}, policy, outcome);
    if (!result && !allow_mismatch && compare(node, k, outcome))
        return STATUS_MISMATCH; /* so do all: they see the same calls */
    if (commit)
        result = reach_consensus(&arrival, result, outcome);
    if (result && result != STATUS_MISMATCH)
        node_give_up(node);
    /* The next arrival's memory is in the caches of those that read it last. */
    copy_prefetch_for_write(&mine->flags[(k + 1) % 2], 1);
    copy_prefetch_for_write(mine->slots[(k + 1) % 2], nbytes < MOST_PREFETCHED ? nbytes : MOST_PREFETCHED);
    return result;
}

/* 1: all have left. 0: not yet. -1: one of them will not end MPI, one that has died rather than one that therefore has
 * given up. */
static int poll_end(void *it, int slow_check, struct outcome *outcome) {
    const struct node *node = it;
    int local_size = node->memory->local_size, left = 0, alone = -1, missing = -1;
    for (int i = 0; i < local_size; i++) {
        enum state state = state_of(node, i);
        left += state >= LEFT;
        alone = state == LEFT_ALONE ? i : alone;
    }
    for (int i = 0; (slow_check || left == local_size) && i < local_size; i++)
        if (!lives(node, i) && state_of(node, i) != ENDING && (missing < 0 || state_of(node, missing) == LEFT_ALONE))
            missing = i;
    if (missing < 0 && left == local_size)
        missing = alone;
    if (missing < 0)
        return left == local_size;
    tell(node, missing, STATUS_PEER_DIED, state_of(node, missing) == LEFT_ALONE ? has_given_up : has_died, outcome);
    return -1;
}

static void describe_end(void *it, int to_all, char *text, size_t nbytes) {
    (void)it;
    snprintf(text, nbytes, "%s", to_all ? "" : "finalize: other ranks of this host have not called it");
}

int node_await_end(struct node *node, const struct wait_policy *policy, struct outcome *outcome) {
    int result = wait_for(&(struct wait_condition){poll_end, describe_end, node, 0}, policy, outcome);
    set_state(node, result ? LEFT_ALONE : ENDING);
    return result;
}
