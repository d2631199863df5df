#include "mlxdist/node.h"

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
enum state { SITTING, GAVE_UP, LEFT, LEFT_ALONE, ENDING };

/* What the others watch: one cache line, so that a short payload comes with the flag. */
struct flag {
    _Alignas(SEGMENT_LINE) _Atomic uint64_t arrived;
    uint64_t fingerprint, nbytes;
    char payload[40];
};

struct seat {
    /* Of arrival k in k % 2. */
    struct flag flags[2];
    _Alignas(SEGMENT_LINE) struct call calls[2];
    _Alignas(SEGMENT_LINE) _Atomic int state;
    /* Written before anybody else looks. */
    int rank, watch_seat;
    pid_t pid;
#ifdef __linux__
    cpu_set_t processors;
#endif
    _Alignas(SEGMENT_LINE) char slots[2][NODE_SLOT];
};

struct memory {
    int seats;
    /* 2 k: all go on after arrival k. 2 k + 1: somebody gave it up first. */
    _Alignas(SEGMENT_LINE) _Atomic uint64_t verdict;
    struct seat seat[];
};

struct node {
    struct segment segment; /* its file is locked at the place of one's own seat while the process lives */
    struct memory *memory;
    struct node *watch;
    int seat;
    uint64_t sequence; /* of arrivals */
    uint64_t calls;    /* of the user's, for words */
};

static int hold(const struct segment *segment, struct node **node, struct outcome *outcome) {
    *node = calloc(1, sizeof **node);
    if (!*node)
        return segment_fails(outcome, "calloc", ENOMEM);
    segment_touch(segment, segment->nbytes);
    **node = (struct node){.segment = *segment, .memory = (struct memory *)segment->memory, .seat = -1};
    return OK;
}

int node_create(int seats, struct ticket *ticket, struct node **node, struct outcome *outcome) {
    struct segment segment;
    if (seats > NODE_SEATS)
        return segment_fails(outcome, "more ranks on one host than seats", EINVAL);
    size_t nbytes = sizeof(struct memory) + (size_t)seats * sizeof(struct seat);
    if (segment_create(nbytes, ticket, &segment, outcome))
        return NOT_SHARED;
    if (segment_reserve(&segment, 0, nbytes, outcome) || hold(&segment, node, outcome)) {
        segment_unlink(ticket);
        segment_free(&segment);
        return NOT_SHARED;
    }
    (*node)->memory->seats = seats;
    return OK;
}

int node_attach(const struct ticket *ticket, struct node **node, struct outcome *outcome) {
    struct segment segment;
    if (segment_attach(ticket, &segment, outcome))
        return NOT_SHARED;
    if (hold(&segment, node, outcome)) {
        segment_free(&segment);
        return NOT_SHARED;
    }
    return OK;
}

void node_sit(struct node *node, int seat, int rank, struct node *watch, int watch_seat) {
    struct seat *mine = &node->memory->seat[seat];
    node->seat = seat;
    node->watch = watch;
    mine->rank = rank;
    mine->watch_seat = watch_seat;
    mine->pid = getpid();
#ifdef __linux__
    sched_getaffinity(0, sizeof mine->processors, &mine->processors);
#endif
    if (watch == node) {
        /* The system takes the lock back when this process ends, however it ends, and a fork does not have it. */
        struct flock alive = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = seat, .l_len = 1};
        fcntl(node->segment.file, F_SETLK, &alive);
    } else {
        segment_close_file(&node->segment);
    }
}

static void set_state(struct node *node, enum state state) {
    atomic_store_explicit(&node->memory->seat[node->seat].state, state, memory_order_release);
}

void node_leave(struct node *node, int ends_mpi) {
    set_state(node, ends_mpi ? LEFT : LEFT_ALONE);
}

void node_close(struct node *node) {
    segment_free(&node->segment);
    free(node);
}

void node_give_up(struct node *node) {
    int sitting = SITTING;
    atomic_compare_exchange_strong(&node->memory->seat[node->seat].state, &sitting, GAVE_UP);
}

int node_seats(const struct node *node) {
    return node->memory->seats;
}

int node_seat(const struct node *node) {
    return node->seat;
}

int node_rank(const struct node *node, int seat) {
    return node->memory->seat[seat].rank;
}

int node_seat_of(const struct node *node, int rank) {
    for (int i = 0; i < node->memory->seats; i++)
        if (node->memory->seat[i].rank == rank)
            return i;
    return -1;
}

int node_is_crowded(const struct node *node) {
#ifdef __linux__
    cpu_set_t all;
    CPU_ZERO(&all);
    for (int i = 0; i < node->memory->seats; i++)
        CPU_OR(&all, &all, &node->memory->seat[i].processors);
    return CPU_COUNT(&all) < node->memory->seats;
#else
    return sysconf(_SC_NPROCESSORS_ONLN) < node->memory->seats;
#endif
}

const void *node_payload(const struct node *node, int seat) {
    const struct seat *peer = &node->memory->seat[seat];
    const struct flag *flag = &peer->flags[node->sequence % 2];
    return flag->nbytes <= sizeof flag->payload ? flag->payload : peer->slots[node->sequence % 2];
}

uint64_t node_sequence(const struct node *node) {
    return node->sequence;
}

static int lives(const struct node *node, int seat) {
    const struct node *watch = node->watch;
    int watched = node->memory->seat[seat].watch_seat;
    if (node->memory->seat[seat].pid == getpid())
        return 1; /* a thread, or this rank itself: one's own lock is not seen */
    struct flock alive = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = watched, .l_len = 1};
    return fcntl(watch->segment.file, F_GETLK, &alive) || alive.l_type != F_UNLCK;
}

static enum state state_of(const struct node *node, int seat) {
    return (enum state)atomic_load_explicit(&node->memory->seat[seat].state, memory_order_acquire);
}

static int tell(const struct node *node, int seat, int what, const char *why, struct outcome *outcome) {
    const struct seat *peer = &node->memory->seat[seat];
    char host[256] = "this host";
    gethostname(host, sizeof host - 1);
    outcome->what = what;
    snprintf(outcome->text, sizeof outcome->text, "rank %d (pid %d on %s) %s", peer->rank, (int)peer->pid, host, why);
    return what;
}

static const char has_died[] = "has died: see what the launcher or the system's log says of it";
static const char has_given_up[] = "has given up a call on this group: see its own error";

int node_look(const struct node *node, int seat, struct outcome *outcome) {
    if (state_of(node, seat) == SITTING && lives(node, seat))
        return OK;
    /* A rank that ends says so before its lock goes. */
    enum state state = state_of(node, seat);
    if (state >= LEFT)
        return tell(node, seat, MISMATCH, "has ended or let go of this group: let all ranks make the same calls",
                    outcome);
    return tell(node, seat, PEER_DIED, state == GAVE_UP ? has_given_up : has_died, outcome);
}

int node_look_at_agreement(const struct node *node, int seat, struct outcome *outcome) {
    if (state_of(node, seat) == LEFT_ALONE)
        return tell(node, seat, PEER_DIED, has_given_up, outcome);
    int looked = node_look(node, seat, outcome);
    return looked == MISMATCH ? OK : looked;
}

/* Those that have not arrived k times. */
struct arrival {
    struct node *node;
    const struct call *call;
    uint64_t k;
    int binding;
    int next; /* seats before it have arrived */
};

static int has_arrived(const struct seat *seat, uint64_t k) {
    return atomic_load_explicit(&seat->flags[k % 2].arrived, memory_order_acquire) >= k;
}

/* Who has arrived and left, or given up, has done its part, unless there is more to do together. */
static int did_its_part(const struct seat *seat, const struct arrival *arrival) {
    return has_arrived(seat, arrival->k) && !arrival->binding &&
           atomic_load_explicit(&seat->state, memory_order_acquire) != SITTING;
}

/* Whoever can do its part no more: one that has died, rather than one that has given up because of that. */
static int look_at_all(const struct node *node, const struct arrival *arrival, struct outcome *outcome) {
    int found = OK;
    for (int i = 0; i < node->memory->seats; i++) {
        const struct seat *peer = &node->memory->seat[i];
        struct outcome seen;
        if (!node_look(node, i, &seen) || did_its_part(peer, arrival))
            continue;
        int has_died = atomic_load_explicit(&peer->state, memory_order_acquire) == SITTING;
        if (!found || has_died)
            *outcome = seen;
        found = outcome->what;
        if (has_died)
            break;
    }
    return found;
}

static int look_for_arrivals(void *it, int thorough, struct outcome *outcome) {
    struct arrival *arrival = it;
    const struct memory *memory = arrival->node->memory;
    while (arrival->next < memory->seats && has_arrived(&memory->seat[arrival->next], arrival->k))
        arrival->next++;
    if (arrival->next == memory->seats)
        return 1;
    return thorough && look_at_all(arrival->node, arrival, outcome) ? -1 : 0;
}

static void describe_arrival(void *it, int to_all, char *text, size_t nbytes) {
    const struct arrival *arrival = it;
    const struct node *node = arrival->node;
    const struct memory *memory = node->memory;
    char called[200], missing[400] = "";
    int n_missing = 0;
    for (int i = 0; i < memory->seats; i++) {
        if (has_arrived(&memory->seat[i], arrival->k)) {
            if (to_all && i < node->seat)
                return; /* an earlier seat says it */
            continue;
        }
        size_t used = strlen(missing);
        snprintf(missing + used, sizeof missing - used, "%s%d (pid %d)", n_missing++ ? ", " : "", memory->seat[i].rank,
                 (int)memory->seat[i].pid);
    }
    call_text(arrival->call, called, sizeof called);
    snprintf(text, nbytes, "%s, call %llu of rank %d on this group: rank%s %s %s not come", called,
             (unsigned long long)node->calls, memory->seat[node->seat].rank, n_missing == 1 ? "" : "s", missing,
             n_missing == 1 ? "has" : "have");
}

static int compare(const struct node *node, uint64_t k, struct outcome *outcome) {
    const struct memory *memory = node->memory;
    uint64_t mine = memory->seat[node->seat].flags[k % 2].fingerprint;
    int alike = 1;
    for (int i = 0; i < memory->seats; i++)
        alike = alike && memory->seat[i].flags[k % 2].fingerprint == mine;
    if (alike)
        return OK;
    const struct call *calls[NODE_SEATS];
    for (int i = 0; i < memory->seats; i++)
        calls[i] = &memory->seat[i].calls[k % 2];
    return calls_differ(calls, memory->seats, node->calls, outcome);
}

/* The first to have an opinion on what follows arrival k decides for all. */
static int decide(struct memory *memory, uint64_t k, int give_up) {
    uint64_t present = atomic_load_explicit(&memory->verdict, memory_order_acquire);
    while (present / 2 < k)
        if (atomic_compare_exchange_weak_explicit(&memory->verdict, &present, 2 * k + (uint64_t)give_up,
                                                  memory_order_acq_rel, memory_order_acquire))
            return give_up;
    /* Beyond k: whoever is there went on after k. */
    return present / 2 == k && present % 2;
}

static int peer_died(const struct node *node, struct outcome *outcome) {
    for (int i = 0; i < node->memory->seats; i++)
        if (!lives(node, i) && node_look(node, i, outcome) == PEER_DIED)
            return PEER_DIED;
    return OK;
}

/* How a binding arrival ends that has come to result so far. */
static int settle(const struct arrival *arrival, int result, struct outcome *outcome) {
    const struct node *node = arrival->node;
    if (!result)
        result = look_at_all(node, arrival, outcome);
    if (!decide(node->memory, arrival->k, result != OK))
        /* The others go on: so does this rank, also past one that has gone on, and given up or left since. */
        return result ? peer_died(node, outcome) : OK;
    if (result || (result = look_at_all(node, arrival, outcome)))
        return result;
    outcome->what = PEER_DIED;
    snprintf(outcome->text, sizeof outcome->text, "another rank has given up this call: see its own error");
    return PEER_DIED;
}

int node_arrive(struct node *node, const struct call *call, const void *payload, size_t nbytes, int binding, int differ,
                const struct patience *patience, struct outcome *outcome) {
    enum { MOST_CLAIMED = 2048 };
    struct memory *memory = node->memory;
    struct seat *mine = &memory->seat[node->seat];
    uint64_t k = ++node->sequence;
    node->calls += call->operation != SHARE;
    struct flag *flag = &mine->flags[k % 2];
    if (nbytes)
        memcpy(nbytes <= sizeof flag->payload ? flag->payload : mine->slots[k % 2], payload, nbytes);
    mine->calls[k % 2] = *call;
    flag->nbytes = nbytes;
    flag->fingerprint = call_fingerprint(call);
    atomic_store_explicit(&flag->arrived, k, memory_order_release);

    struct arrival arrival = {node, call, k, binding, 0};
    int result = wait_for(&(struct awaited){look_for_arrivals, describe_arrival, &arrival, 0}, patience, outcome);
    if (!result && !differ && compare(node, k, outcome))
        return MISMATCH; /* so do all: they see the same calls */
    if (binding)
        result = settle(&arrival, result, outcome);
    if (result && result != MISMATCH)
        node_give_up(node);
    /* The next arrival's memory is in the caches of those that read it last. */
    copy_claim(&mine->flags[(k + 1) % 2], 1);
    copy_claim(mine->slots[(k + 1) % 2], nbytes < MOST_CLAIMED ? nbytes : MOST_CLAIMED);
    return result;
}

/* 1: all have left. 0: not yet. -1: one of them will not end MPI, one that has died rather than one that therefore has
 * given up. */
static int look_for_end(void *it, int thorough, struct outcome *outcome) {
    const struct node *node = it;
    int seats = node->memory->seats, left = 0, alone = -1, missing = -1;
    for (int i = 0; i < seats; i++) {
        enum state state = state_of(node, i);
        left += state >= LEFT;
        alone = state == LEFT_ALONE ? i : alone;
    }
    for (int i = 0; (thorough || left == seats) && i < seats; i++)
        if (!lives(node, i) && state_of(node, i) != ENDING && (missing < 0 || state_of(node, missing) == LEFT_ALONE))
            missing = i;
    if (missing < 0 && left == seats)
        missing = alone;
    if (missing < 0)
        return left == seats;
    tell(node, missing, PEER_DIED, state_of(node, missing) == LEFT_ALONE ? has_given_up : has_died, outcome);
    return -1;
}

static void describe_end(void *it, int to_all, char *text, size_t nbytes) {
    (void)it;
    snprintf(text, nbytes, "%s", to_all ? "" : "finalize: other ranks of this host have not called it");
}

int node_await_end(struct node *node, const struct patience *patience, struct outcome *outcome) {
    int result = wait_for(&(struct awaited){look_for_end, describe_end, node, 0}, patience, outcome);
    set_state(node, result ? LEFT_ALONE : ENDING);
    return result;
}
