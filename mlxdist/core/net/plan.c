#include "mlxdist/net/plan.h"

#include "mlxdist/copy.h"

/* For all ranks of a host together. */
static const size_t most_nbytes = 32 << 20;

int64_t plan_opening_nbytes(const struct hosts *hosts, int operation) {
    enum { FOR_ALL = 24 << 10 }; /* that a host sends, when it sends to more than one */
    if (hosts->n > PLAN_FLAT_HOSTS)
        return 0;
    int64_t most = hosts->n == 2 ? PLAN_OPENING : FOR_ALL / (hosts->n - 1);
    if (hosts->largest > 1 && most > SHM_PAYLOAD)
        most = SHM_PAYLOAD;
    int is_of_each =
        operation == OPERATION_ALLGATHER || operation == OPERATION_GATHER || operation == OPERATION_ALLTOALL;
    return is_of_each ? most / hosts->size : most;
}

size_t plan_chunk_nbytes(const struct hosts *hosts) {
    size_t most = most_nbytes / PLAN_SLOTS / (size_t)(hosts->largest + 3),
           wanted = (size_t)PLAN_MESSAGE * (size_t)hosts->rails *
                    (size_t)(hosts->n < PLAN_MESSAGES ? hosts->n : PLAN_MESSAGES),
           least = (size_t)CACHE_LINE * (size_t)(hosts->size + hosts->n * hosts->largest);
    size_t nbytes = wanted < most ? wanted : most, parts = (size_t)hosts->largest * (size_t)hosts->size;
    nbytes = nbytes > least ? nbytes : least;
    nbytes = nbytes > parts ? nbytes : parts + CACHE_LINE;
    return nbytes / CACHE_LINE * CACHE_LINE;
}

size_t plan_incoming_nbytes(const struct hosts *hosts) {
    /* Blocks are cut at cache lines: one host's may be longer than an equal part of each rail. */
    return plan_chunk_nbytes(hosts) +
           (size_t)CACHE_LINE * sizeof(struct complex128) * (size_t)hosts->rails * (size_t)hosts->n;
}

/* As much of a part as fits into the slots, in messages that are not too long. */
static int64_t piece_of(const struct plan *plan, int operation) {
    const struct hosts *hosts = plan->hosts;
    int is_of_each = operation == OPERATION_ALLTOALL; /* the same piece on all hosts, however many ranks they have */
    int64_t most = (int64_t)(plan_chunk_nbytes(hosts) / plan->item), slot = most / plan->parts,
            incoming = most / (hosts->n - 1) / (plan->is_rooted ? 1 : hosts->largest);
    int64_t message = (int64_t)PLAN_MESSAGE / (int64_t)plan->net_item * hosts->rails;
    if (is_of_each)
        slot = most / hosts->largest / hosts->size;
    if (plan->parts > 1)
        message /= is_of_each ? hosts->largest * hosts->largest : hosts->largest;
    else if (plan->reduces && !plan->is_exchange && !plan->is_rooted)
        message *= hosts->n;
    if (is_of_each && message < CACHE_LINE * hosts->rails) /* it goes by one rail then, see cut() */
        message = message > hosts->rails ? message / hosts->rails : 1;
    int64_t piece = message < slot ? message : slot;
    return (operation == OPERATION_REDUCE_SCATTER || plan->is_rooted) && incoming < piece ? incoming : piece;
}

void plan_make(const struct hosts *hosts, const struct call *call, struct plan *plan) {
    int operation = call->operation, reduces = call_reduces(call);
    int is_apart = call_is_parted(call) || call_collects(call);
    int has_root = operation == OPERATION_BROADCAST || operation == OPERATION_GATHER ||
                   operation == OPERATION_SCATTER || operation == OPERATION_REDUCE;
    size_t size = element_size((enum element_type)call->type);
    int net_type = reduces && call->wire ? call->wire : call->type;
    *plan = (struct plan){.hosts = hosts,
                          .delivers = reduces || operation == OPERATION_ALLTOALL || operation == OPERATION_SCATTER,
                          .reduces = reduces,
                          .spreads = operation == OPERATION_ALLGATHER || operation == OPERATION_GATHER ||
                                     (reduces && !is_apart && hosts->n > 2),
                          .chains = operation == OPERATION_BROADCAST,
                          .is_exchange = operation == OPERATION_ALLREDUCE && hosts->n == 2,
                          .is_rooted = operation == OPERATION_REDUCE && hosts->n == 2,
                          .is_narrowed = net_type != call->type,
                          .op = (enum reduction)call->op,
                          .net_type = (enum element_type)net_type,
                          .item = reduces ? size : 1,
                          .net_item = reduces ? element_size((enum element_type)net_type) : 1,
                          .each = operation == OPERATION_ALLTOALL ? hosts_own(hosts)->size : 1,
                          .root_host = -1,
                          .only_from = -1,
                          .only_to = -1};
    plan->parts = is_apart ? plan->each * hosts->size : 1;
    if (has_root) {
        plan->root_host = hosts_of_rank(hosts, call->peer);
        while (hosts->ranks[hosts->each[plan->root_host].first + plan->root] != call->peer)
            plan->root++;
    }
    if (operation == OPERATION_SCATTER)
        plan->only_from = plan->root_host;
    if (operation == OPERATION_GATHER || operation == OPERATION_REDUCE)
        plan->only_to = plan->root_host;
    plan->length = reduces ? call->count : call_nbytes(call);
    if (call_is_parted(call))
        plan->length /= hosts->size;
    plan->piece = piece_of(plan, operation);
    plan->chunks = (plan->length + plan->piece - 1) / plan->piece;
}

/* Where the i-th of n equal parts begins: at a cache line, if that is where the first does. */
static int64_t cut(int64_t length, int i, int n) {
    return i == n ? length : length * i / n / CACHE_LINE * CACHE_LINE;
}

struct range plan_piece(const struct plan *plan, int64_t k) {
    int64_t at = k * plan->piece, left = plan->length - at;
    return (struct range){at, left < plan->piece ? left : plan->piece};
}

struct range plan_sub(const struct plan *plan, int64_t k, int rail) {
    int64_t length = plan_piece(plan, k).n, at = cut(length, rail, plan->hosts->rails);
    return (struct range){at, cut(length, rail + 1, plan->hosts->rails) - at};
}

struct range plan_share(const struct plan *plan, int64_t k, int rail) {
    struct range sub = plan_sub(plan, k, rail);
    return (struct range){plan->parts * sub.at, plan->parts * sub.n};
}

struct range plan_block(const struct plan *plan, int64_t k, int rail, int host) {
    struct range sub = plan_sub(plan, k, rail), share = plan_share(plan, k, rail);
    const struct host *owner = &plan->hosts->each[host];
    if (plan->parts > 1)
        return (struct range){share.at + plan->each * owner->first * sub.n, plan->each * owner->size * sub.n};
    if (plan->is_exchange || plan->chains)
        return share;
    if (plan->is_rooted)
        return (struct range){share.at + (host > plan->root_host ? share.n : 0), host == plan->root_host ? share.n : 0};
    int64_t at = cut(share.n, host, plan->hosts->n);
    return (struct range){share.at + at, cut(share.n, host + 1, plan->hosts->n) - at};
}

struct range plan_delivered(const struct plan *plan, int64_t k, int rail, int from) {
    /* Of all_to_all two hosts have as much for each other. */
    return plan_block(plan, k, rail, plan->only_from < 0 ? from : plan->hosts->mine);
}

int plan_delivers(const struct plan *plan, int from, int to) {
    return plan->delivers && from != to && (plan->only_from < 0 || plan->only_from == from);
}

int plan_spreads(const struct plan *plan, int from, int to) {
    return plan->spreads && from != to && (plan->only_to < 0 || plan->only_to == to);
}
