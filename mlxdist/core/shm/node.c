#include "mlxdist/shm/node.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mlxdist/copy.h"

_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && sizeof(_Atomic int) == 4, "a lock would be private to a process");
_Static_assert(offsetof(struct flag, payload) + NODE_IN_FLAG == CACHE_LINE, "a short payload comes with its flag");
_Static_assert(sizeof(struct flag) == SEGMENT_LINE, "ranks watch one entry while its owner writes the other");
_Static_assert(offsetof(struct member, calls) % SEGMENT_LINE == 0 &&
                   offsetof(struct member, state) % SEGMENT_LINE == 0 &&
                   offsetof(struct member, slots) % SEGMENT_LINE == 0 && NODE_SLOT % SEGMENT_LINE == 0 &&
                   sizeof(struct member) % SEGMENT_LINE == 0,
               "what one rank writes and others watch shares no line with anything else");
_Static_assert(offsetof(struct node_memory, members) % SEGMENT_LINE == 0, "the first member, too");

static int open_node(const struct segment *segment, struct node **node, struct outcome *outcome) {
    *node = calloc(1, sizeof **node);
    if (!*node)
        return segment_fails(outcome, "calloc", ENOMEM);
    segment_touch(segment, segment->nbytes);
    **node = (struct node){.segment = *segment, .memory = (struct node_memory *)segment->memory, .local_rank = -1};
    return STATUS_OK;
}

int node_create(int local_size, int is_named, struct shm_handle *handle, struct node **node, struct outcome *outcome) {
    struct segment segment;
    if (local_size > NODE_MAX_RANKS)
        return segment_fails(outcome, "too many ranks on one host", EINVAL);
    size_t nbytes = sizeof(struct node_memory) + (size_t)local_size * sizeof(struct member);
    if (segment_create(nbytes, is_named, handle, &segment, outcome))
        return STATUS_NOT_SHARED;
    if (segment_reserve(&segment, 0, nbytes, outcome) || open_node(&segment, node, outcome)) {
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
    if (open_node(&segment, node, outcome)) {
        segment_free(&segment);
        return STATUS_NOT_SHARED;
    }
    return STATUS_OK;
}

int node_join(struct node *node, const struct shm_handle *handle, int local_rank, int rank, struct node *watch,
              int watch_rank, struct outcome *outcome) {
    struct member *mine = &node->memory->members[local_rank];
    node->local_rank = local_rank;
    node->watch = watch;
    mine->rank = rank;
    mine->watch_rank = watch_rank;
    mine->pid = getpid();
#ifdef __linux__
    /* It fails if the kernel may have more processors than CPU_SETSIZE, 1,024: there are enough of them. */
    if (sched_getaffinity(0, sizeof mine->processors, &mine->processors))
        memset(&mine->processors, 0xff, sizeof mine->processors);
#endif
    return watch == node ? segment_lock(handle, (size_t)local_rank, &node->segment, outcome) : STATUS_OK;
}

void node_seal(struct node *node, const struct shm_handle *handle) {
    segment_unlink(handle);
    if (node->watch != node)
        segment_close_file(&node->segment);
}

static void set_state(struct node *node, enum node_state state) {
    atomic_store_explicit(&node->memory->members[node->local_rank].state, state, memory_order_release);
}

static enum node_state node_state_of(const struct node *node, int local_rank) {
    return (enum node_state)atomic_load_explicit(&node->memory->members[local_rank].state, memory_order_acquire);
}

void node_leave(struct node *node, int ends_mpi) {
    /* After a call that was given up, ranks of this host may still wait for other hosts, and this one takes no part. */
    int has_given_up = node_state_of(node, node->local_rank) == NODE_GAVE_UP;
    set_state(node, ends_mpi && !has_given_up ? NODE_LEFT : NODE_LEFT_ALONE);
}

void node_close(struct node *node) {
    segment_free(&node->segment);
    free(node);
}

void node_give_up(struct node *node) {
    int joined = NODE_JOINED, left = NODE_LEFT;
    if (node->local_rank < 0)
        return;
    atomic_int *state = &node->memory->members[node->local_rank].state;
    if (!atomic_compare_exchange_strong(state, &joined, NODE_GAVE_UP))
        atomic_compare_exchange_strong(state, &left, NODE_LEFT_ALONE);
}

int node_local_size(const struct node *node) {
    return node->memory->local_size;
}

int node_local_rank(const struct node *node) {
    return node->local_rank;
}

int node_rank(const struct node *node, int local_rank) {
    return node->memory->members[local_rank].rank;
}

int node_local_rank_of(const struct node *node, int rank) {
    for (int i = 0; i < node->memory->local_size; i++)
        if (node->memory->members[i].rank == rank)
            return i;
    return -1;
}

int node_is_oversubscribed(const struct node *node) {
#ifdef __linux__
    cpu_set_t all;
    CPU_ZERO(&all);
    for (int i = 0; i < node->memory->local_size; i++)
        CPU_OR(&all, &all, &node->memory->members[i].processors);
    return CPU_COUNT(&all) < node->memory->local_size;
#else
    return sysconf(_SC_NPROCESSORS_ONLN) < node->memory->local_size;
#endif
}

int node_is_alive(const struct node *node, int local_rank) {
    const struct member *members = node->memory->members, *peer = &members[local_rank];
    const struct segment *locks = &node->watch->segment;
    if (segment_is_locked(locks, (size_t)peer->watch_rank))
        return 1;
    if (segment_is_locked(locks, (size_t)members[node->local_rank].watch_rank))
        return 0;
    /* Not even its own lock is there: the program has closed the file, and its number may stand for another. */
    return segment_hides_pids(locks) || !kill(peer->pid, 0) || errno != ESRCH;
}

static int report(const struct node *node, int local_rank, int status, const char *why, struct outcome *outcome) {
    const struct member *peer = &node->memory->members[local_rank];
    char host[256] = "this host";
    gethostname(host, sizeof host - 1);
    outcome->status = status;
    snprintf(outcome->text, sizeof outcome->text, "rank %d (pid %d on %s) %s", peer->rank, (int)peer->pid, host, why);
    return status;
}

static const char has_died[] = "has died: see what the launcher or the system log says about it";
static const char has_given_up[] = "has given up a call on this group: see its own error";

int node_check(const struct node *node, int local_rank, struct outcome *outcome) {
    if (node_state_of(node, local_rank) == NODE_JOINED && node_is_alive(node, local_rank))
        return STATUS_OK;
    /* Read it again: a rank that leaves changes its state before its lock is released. */
    enum node_state state = node_state_of(node, local_rank);
    if (state == NODE_LEFT || state == NODE_ENDED)
        return report(node, local_rank, STATUS_MISMATCH,
                      "has ended or freed this group: make the same calls on all ranks", outcome);
    return report(node, local_rank, STATUS_PEER_DIED, state == NODE_JOINED ? has_died : has_given_up, outcome);
}

int node_check_agreement(const struct node *node, int local_rank, struct outcome *outcome) {
    int result = node_check(node, local_rank, outcome);
    return result == STATUS_MISMATCH ? STATUS_OK : result;
}

int node_check_end(const struct node *node, int local_rank, int is_awaited, struct outcome *outcome) {
    if (node_is_alive(node, local_rank))
        return STATUS_OK;
    enum node_state state = node_state_of(node, local_rank); /* the last that it had */
    if (state == NODE_ENDED || (state >= NODE_LEFT && !is_awaited))
        return STATUS_OK;
    return report(node, local_rank, STATUS_PEER_DIED, state == NODE_LEFT_ALONE ? has_given_up : has_died, outcome);
}

/* 1: all have left. 0: not yet. -1: one of them will not end MPI; the outcome names one that has died, if any, not one
 * that gave up because of that. */
static int poll_end(void *it, int slow_check, struct outcome *outcome) {
    const struct node *node = it;
    int local_size = node->memory->local_size, left = 0, alone = -1, missing = -1;
    for (int i = 0; i < local_size; i++) {
        enum node_state state = node_state_of(node, i);
        left += state >= NODE_LEFT;
        alone = state == NODE_LEFT_ALONE ? i : alone;
    }
    for (int i = 0; (slow_check || left == local_size) && i < local_size; i++)
        if (!node_is_alive(node, i) && node_state_of(node, i) != NODE_ENDED &&
            (missing < 0 || node_state_of(node, missing) == NODE_LEFT_ALONE))
            missing = i;
    if (missing < 0 && left == local_size)
        missing = alone;
    if (missing < 0)
        return left == local_size;
    report(node, missing, STATUS_PEER_DIED, node_state_of(node, missing) == NODE_LEFT_ALONE ? has_given_up : has_died,
           outcome);
    return -1;
}

static void describe_end(void *it, int to_all, char *text, size_t nbytes) {
    (void)it;
    snprintf(text, nbytes, "%s", to_all ? "" : "finalize: other ranks of this host have not called it");
}

int node_await_end(struct node *node, const struct wait_policy *policy, struct outcome *outcome) {
    int result = wait_for(&(struct wait_condition){poll_end, describe_end, node, 0, 0}, policy, outcome);
    set_state(node, result ? NODE_LEFT_ALONE : NODE_ENDED);
    return result;
}
