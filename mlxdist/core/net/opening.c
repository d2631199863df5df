#include "mlxdist/net/opening.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mlxdist/copy.h"

/* What a message begins with. Its data begin a cache line further on. */
struct header {
    uint64_t lowest, highest; /* fingerprints */
    int32_t differs, no_memory;
};
_Static_assert(sizeof(struct header) == 24, "ranks exchange it: when it changes, raise SHM_LAYOUT");
enum { HEADER_NBYTES = CACHE_LINE };

struct opening {
    const struct hosts *hosts;
    size_t stride;          /* of the messages below, one for each host; this one's is what it sends */
    char *messages, *calls; /* the latter with that of the calls: */
    size_t calls_stride;
    const struct call **compared;           /* those, in the order of ranks */
    struct crossing_message *sends, *recvs; /* by how far the host is from this one */
};

int opening_open(const struct hosts *hosts, struct opening **opening, struct outcome *outcome) {
    size_t n = (size_t)hosts->n, data = (size_t)plan_opening_nbytes(hosts, OPERATION_ALLREDUCE);
    struct opening *opened = calloc(1, sizeof *opened);
    if (opened) {
        opened->hosts = hosts;
        opened->stride = (HEADER_NBYTES + data + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
        opened->calls_stride = (size_t)hosts->largest * sizeof(struct call);
        opened->messages = aligned_alloc(CACHE_LINE, n * opened->stride);
        opened->calls = malloc(n * opened->calls_stride);
        opened->compared = malloc((size_t)hosts->size * sizeof *opened->compared);
        opened->sends = calloc(n, sizeof *opened->sends);
        opened->recvs = calloc(n, sizeof *opened->recvs);
    }
    if (opened && opened->messages && opened->calls && opened->compared && opened->sends && opened->recvs) {
        *opening = opened;
        return STATUS_OK;
    }
    if (opened)
        opening_close(opened);
    outcome->status = STATUS_OUT_OF_MEMORY;
    snprintf(outcome->text, sizeof outcome->text, "no memory for a group of %d hosts: free some", hosts->n);
    return STATUS_OUT_OF_MEMORY;
}

void opening_close(struct opening *opening) {
    free(opening->messages);
    free(opening->calls);
    free(opening->compared);
    free(opening->sends);
    free(opening->recvs);
    free(opening);
}

int opening_is_pending(const struct opening *opening) {
    int is_pending = 0;
    for (int distance = 1; distance < opening->hosts->n; distance++)
        is_pending |= opening->sends[distance].is_under_way | opening->recvs[distance].is_under_way;
    return is_pending;
}

static struct header *header_of(const struct opening *opening, int host) {
    return (struct header *)(opening->messages + (size_t)host * opening->stride);
}

void *opening_data(const struct opening *opening, int host) {
    return opening->messages + (size_t)host * opening->stride + HEADER_NBYTES;
}

/* Of a message to each host from `first` to `last` places further on, and from each as far before this one. */
struct exchange {
    const struct crossing *crossing;
    struct opening *opening;
    int first, last, received, sent;
};

static int host_before(const struct hosts *hosts, int distance) {
    return (hosts->mine + hosts->n - distance) % hosts->n;
}

static int poll_exchange(void *it, int slow_check, struct outcome *outcome) {
    struct exchange *exchange = it;
    struct opening *opening = exchange->opening;
    struct outcome why;
    int done = 1;
    /* First: what is awaited may have arrived before. */
    int is_gone = slow_check && crossing_check(exchange->crossing, &why);
    while (exchange->received <= exchange->last &&
           (done = crossing_test(&opening->recvs[exchange->received], outcome)) > 0)
        exchange->received++;
    while (done > 0 && exchange->sent <= exchange->last &&
           (done = crossing_test(&opening->sends[exchange->sent], outcome)) > 0)
        exchange->sent++;
    if (done || !is_gone)
        return done;
    *outcome = why;
    return -1;
}

static void describe_exchange(void *it, int to_all, char *text, size_t nbytes) {
    const struct exchange *exchange = it;
    const struct hosts *hosts = exchange->opening->hosts;
    int n_missing = 0;
    crossing_describe(exchange->crossing, text, nbytes);
    for (int distance = exchange->first; distance <= exchange->last; distance++) {
        int host = host_before(hosts, distance);
        if (!exchange->opening->recvs[distance].is_under_way) {
            if (to_all && host < hosts->mine)
                *text = 0, nbytes = 0; /* an earlier host prints it */
            continue;
        }
        if (nbytes)
            snprintf(text + strlen(text), nbytes - strlen(text), "%s", n_missing++ ? ", " : ": ");
        if (nbytes)
            hosts_describe(hosts, host, text, nbytes);
    }
    if (nbytes)
        snprintf(text + strlen(text), nbytes - strlen(text), "%s",
                 n_missing == 1  ? " has not reached this call"
                 : n_missing > 1 ? " have not reached this call"
                                 : ": the other hosts have not received that this one has");
}

static int run_exchange(struct exchange *exchange, int tag, const void *sent, size_t nbytes, char *received,
                        size_t stride, const struct wait_policy *policy, struct outcome *outcome) {
    const struct crossing *crossing = exchange->crossing;
    const struct opening *opening = exchange->opening;
    const struct hosts *hosts = opening->hosts;
    exchange->received = exchange->sent = exchange->first;
    if (news_check(crossing->news, crossing->number, outcome))
        return outcome->status;
    for (int distance = exchange->first; distance <= exchange->last; distance++) {
        int from = host_before(hosts, distance);
        if (crossing_recv(crossing, received + (size_t)from * stride, stride, hosts_leader(hosts, from), tag,
                          &opening->recvs[distance], outcome))
            return outcome->status;
    }
    for (int distance = exchange->first; distance <= exchange->last; distance++)
        if (crossing_send(crossing, sent, nbytes, hosts_leader(hosts, (hosts->mine + distance) % hosts->n), tag,
                          &opening->sends[distance], outcome))
            return outcome->status;
    return wait_for(&(struct wait_condition){poll_exchange, describe_exchange, exchange, 1, 1}, policy, outcome);
}

static void merge(struct header *own, const struct header *other) {
    own->lowest = other->lowest < own->lowest ? other->lowest : own->lowest;
    own->highest = other->highest > own->highest ? other->highest : own->highest;
    own->differs |= other->differs;
    own->no_memory = other->no_memory > own->no_memory ? other->no_memory : own->no_memory;
}

/* In one round, or such that after round i each knows of 2^i hosts. */
static int exchange_headers(const struct crossing *crossing, struct opening *opening, size_t nbytes,
                            struct outcome *outcome) {
    const struct hosts *hosts = opening->hosts;
    struct header *own = header_of(opening, hosts->mine);
    int is_flat = hosts->n <= PLAN_FLAT_HOSTS;
    for (int first = 1; first < hosts->n; first = is_flat ? hosts->n : 2 * first) {
        struct exchange exchange = {crossing, opening, first, is_flat ? hosts->n - 1 : first, 0, 0};
        if (run_exchange(&exchange, NET_TAG_OPENING, own, HEADER_NBYTES + nbytes, opening->messages, opening->stride,
                         crossing->policy, outcome))
            return outcome->status;
        for (int distance = exchange.first; distance <= exchange.last; distance++)
            merge(own, header_of(opening, host_before(hosts, distance)));
    }
    return STATUS_OK;
}

static struct call *calls_of(const struct opening *opening, int host) {
    return (struct call *)(opening->calls + (size_t)host * opening->calls_stride);
}

/* A rank that has left ends; one that is still to arrive is taken to make this call. */
void opening_list_calls(const struct crossing *crossing, struct opening *opening) {
    const struct host *own = hosts_own(crossing->hosts);
    struct call *calls = calls_of(opening, crossing->hosts->mine);
    struct outcome ignored;
    for (int local_rank = 0; local_rank < own->size; local_rank++) {
        int rank = crossing->hosts->ranks[own->first + local_rank];
        int has_arrived = crossing->shm && crossing->call->operation != OPERATION_FINALIZE;
        const struct call *call = has_arrived ? shm_call(crossing->shm, local_rank) : NULL;
        calls[local_rank] = call ? *call : *crossing->call;
        if (!call && crossing->shm && shm_check(crossing->shm, rank, &ignored) == STATUS_MISMATCH)
            calls[local_rank] = flat_call(OPERATION_FINALIZE, 0, 0, 0, 0);
        calls[local_rank].rank = rank;
    }
}

static int compare_calls(const struct crossing *crossing, struct opening *opening, struct outcome *outcome) {
    const struct hosts *hosts = opening->hosts;
    const struct host *own = hosts_own(hosts);
    struct exchange exchange = {crossing, opening, 1, hosts->n - 1, 0, 0};
    if (run_exchange(&exchange, NET_TAG_CALLS, calls_of(opening, hosts->mine), (size_t)own->size * sizeof(struct call),
                     opening->calls, opening->calls_stride, crossing->policy, outcome))
        return outcome->status;
    for (int host = 0; host < hosts->n; host++)
        for (int i = 0; i < hosts->each[host].size; i++)
            opening->compared[hosts->ranks[hosts->each[host].first + i]] = calls_of(opening, host) + i;
    return calls_differ(opening->compared, hosts->size, crossing->number, outcome);
}

int opening_run(const struct crossing *crossing, struct opening *opening, const struct opening_state *state,
                struct outcome *outcome) {
    const struct hosts *hosts = opening->hosts;
    struct header *own = header_of(opening, hosts->mine);
    uint64_t fingerprint = call_fingerprint(crossing->call);
    memset(own, 0, HEADER_NBYTES);
    *own = (struct header){fingerprint, fingerprint, state->differs, state->no_memory ? hosts->mine + 1 : 0};
    if (exchange_headers(crossing, opening, state->nbytes, outcome))
        return outcome->status;
    if (own->differs || own->lowest != own->highest) {
        if (!state->is_listed)
            opening_list_calls(crossing, opening);
        if (compare_calls(crossing, opening, outcome))
            return outcome->status;
    }
    if (!own->no_memory)
        return STATUS_OK;
    outcome->status = STATUS_OUT_OF_MEMORY;
    snprintf(outcome->text, sizeof outcome->text,
             "host %s has no memory for what its ranks send to other hosts: enlarge its /dev/shm, or start fewer ranks "
             "on it",
             hosts->each[own->no_memory - 1].name);
    return STATUS_OUT_OF_MEMORY;
}

int opening_confirm(const struct crossing *crossing, struct opening *opening, int goes_on, struct outcome *outcome) {
    const struct hosts *hosts = opening->hosts;
    struct exchange exchange = {crossing, opening, 1, hosts->n - 1, 0, 0};
    char *own = opening->messages + (size_t)hosts->mine * opening->stride;
    *own = (char)goes_on;
    if (run_exchange(&exchange, NET_TAG_READY, own, 1, opening->messages, opening->stride, crossing->policy, outcome) ||
        news_check(crossing->news, crossing->number, outcome))
        return outcome->status;
    for (int host = 0; host < hosts->n; host++) {
        if (opening->messages[(size_t)host * opening->stride])
            continue;
        outcome->status = STATUS_PEER_DIED;
        snprintf(outcome->text, sizeof outcome->text, "a rank of host %s has given up a call: see its own error",
                 hosts->each[host].name);
        return STATUS_PEER_DIED;
    }
    return STATUS_OK;
}
