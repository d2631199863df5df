#include "mlxdist/net/rail.h"

#include <stdlib.h>

#include "mlxdist/kernels/kernels.h"

enum message_kind { RECV_PARTIAL, RECV_RESULT, SEND_PARTIAL, SEND_RESULT, MESSAGE_KINDS };

struct rail {
    int index;
    const struct hosts *hosts;
    struct crossing_message *messages; /* of each slot, kind and host */
    const void **inputs, **blocks;     /* of a reduction */
    /* Of the call under way. */
    const struct crossing *crossing;
    const struct plan *plan;
    struct chunks *chunks;
    /* So many chunks have got so far, in their order: */
    int64_t posted;        /* to be received */
    int64_t started;       /* this host's part is there, and sent to whom it concerns */
    int64_t reduced;       /* the first round is over */
    int64_t arrived, sent; /* as in chunks.h */
};

struct rail *rail_open(const struct hosts *hosts, int index) {
    size_t n_messages = (size_t)PLAN_SLOTS * MESSAGE_KINDS * (size_t)hosts->n;
    size_t most = (size_t)(hosts->n > hosts->largest ? hosts->n : hosts->largest);
    struct rail *rail = calloc(1, sizeof *rail);
    if (!rail)
        return NULL;
    *rail = (struct rail){.index = index, .hosts = hosts};
    rail->messages = calloc(n_messages, sizeof *rail->messages);
    rail->inputs = malloc(most * sizeof *rail->inputs);
    rail->blocks = malloc(most * sizeof *rail->blocks);
    if (rail->messages && rail->inputs && rail->blocks)
        return rail;
    rail_close(rail);
    return NULL;
}

void rail_close(struct rail *rail) {
    free(rail->messages);
    free(rail->inputs);
    free(rail->blocks);
    free(rail);
}

int rail_is_pending(const struct rail *rail) {
    int is_pending = 0;
    for (int i = 0; i < PLAN_SLOTS * MESSAGE_KINDS * rail->hosts->n; i++)
        is_pending |= rail->messages[i].is_under_way;
    return is_pending;
}

void rail_begin(struct rail *rail, const struct crossing *crossing, const struct plan *plan, struct chunks *chunks) {
    rail->crossing = crossing;
    rail->plan = plan;
    rail->chunks = chunks;
    rail->posted = rail->started = rail->reduced = rail->arrived = rail->sent = 0;
}

/* The i-th of the other hosts: not all begin with the same. */
static int other_host(const struct rail *rail, int i) {
    return (rail->hosts->mine + 1 + i) % rail->hosts->n;
}

static struct crossing_message *message_of(const struct rail *rail, int64_t k, enum message_kind kind, int host) {
    size_t flight = (size_t)(k % PLAN_SLOTS) * MESSAGE_KINDS + kind;
    return &rail->messages[flight * (size_t)rail->hosts->n + (size_t)host];
}

/* Send from a slot of chunk k, or receive to it. */
static int begin(struct rail *rail, int64_t k, enum message_kind kind, char *slot, struct range range, int host,
                 struct outcome *outcome) {
    int is_partial = kind == RECV_PARTIAL || kind == SEND_PARTIAL,
        is_sent = kind == SEND_PARTIAL || kind == SEND_RESULT;
    int tag = (is_partial ? NET_TAG_PARTIAL : NET_TAG_RESULT) + rail->index;
    int peer = hosts_driver(rail->hosts, host, rail->index);
    size_t size = rail->plan->net_item, nbytes = (size_t)range.n * size;
    char *at = slot + (size_t)range.at * size;
    struct crossing_message *message = message_of(rail, k, kind, host);
    return is_sent ? crossing_send(rail->crossing, at, nbytes, peer, tag, message, outcome)
                   : crossing_recv(rail->crossing, at, nbytes, peer, tag, message, outcome);
}

/* 1: all of a kind are through. */
static int test(const struct rail *rail, int64_t k, enum message_kind kind, struct outcome *outcome) {
    int all = 1;
    for (int i = 0; i < rail->hosts->n - 1; i++) {
        int done = crossing_test(message_of(rail, k, kind, other_host(rail, i)), outcome);
        if (done < 0)
            return done;
        all &= done;
    }
    return all;
}

/* Where the block of this host comes to from another host: those of a rail lie side by side. */
static struct range incoming_of(const struct rail *rail, int64_t k, int host) {
    const struct hosts *hosts = rail->hosts;
    int64_t at = 0, n = plan_block(rail->plan, k, rail->index, hosts->mine).n;
    for (int before = 0; before < rail->index; before++)
        at += (hosts->n - 1) * plan_block(rail->plan, k, before, hosts->mine).n;
    return (struct range){at + (host < hosts->mine ? host : host - 1) * n, n};
}

static int post(struct rail *rail, int64_t k, struct outcome *outcome) {
    const struct plan *plan = rail->plan;
    const struct hosts *hosts = rail->hosts;
    char *incoming = chunks_incoming(rail->chunks, k), *result = chunks_result(rail->chunks, k);
    if (!chunks_are_free(rail->chunks, k))
        return 0;
    for (int i = 0; i < hosts->n - 1; i++) {
        int host = other_host(rail, i), is_before = (host + 1) % hosts->n == hosts->mine;
        struct range block = plan_block(plan, k, rail->index, host);
        if (plan_delivers(plan, host, hosts->mine) &&
            begin(rail, k, RECV_PARTIAL, plan->reduces ? incoming : result,
                  plan->reduces ? incoming_of(rail, k, host) : plan_delivered(plan, k, rail->index, host), host,
                  outcome))
            return -1;
        if (plan_spreads(plan, host, hosts->mine) && begin(rail, k, RECV_RESULT, result, block, host, outcome))
            return -1;
        if (plan->chains && is_before && hosts->mine != plan->root_host &&
            begin(rail, k, RECV_PARTIAL, result, block, host, outcome))
            return -1;
    }
    return 1;
}

/* As many floats at a time as stay in the first-level cache. */
enum { BLOCK = 2048 };

/* Floats that cross as 16 bits. */
static void reduce_and_narrow(const struct rail *rail, int n_inputs, char *output, int64_t n) {
    _Alignas(64) float block[BLOCK];
    const struct plan *plan = rail->plan;
    for (int64_t at = 0; at < n; at += BLOCK) {
        size_t length = (size_t)(n - at < BLOCK ? n - at : BLOCK);
        for (int i = 0; i < n_inputs; i++)
            rail->blocks[i] = (const float *)rail->inputs[i] + at;
        reduce(TYPE_FLOAT32, plan->op, rail->blocks, n_inputs, block, length);
        narrow(plan->net_type, block, output + (size_t)at * plan->net_item, length);
    }
}

/* The share of what the ranks of this host have copied in. A rank that is alone has copied it in as that. */
static void reduce_inputs(const struct rail *rail, int64_t k) {
    const struct plan *plan = rail->plan;
    struct range share = plan_share(plan, k, rail->index);
    int n_inputs = hosts_own(rail->hosts)->size;
    char *partial = chunks_partial(rail->chunks, k) + (size_t)share.at * plan->net_item;
    for (int i = 0; i < n_inputs; i++)
        rail->inputs[i] = chunks_input(rail->chunks, i, k) + (size_t)share.at * plan->item;
    if (n_inputs > 1 && plan->is_narrowed)
        reduce_and_narrow(rail, n_inputs, partial, share.n);
    else if (n_inputs > 1)
        reduce(plan->net_type, plan->op, rail->inputs, n_inputs, partial, (size_t)share.n);
}

static int is_copied_in(const struct rail *rail, int64_t k) {
    const struct plan *plan = rail->plan;
    if (!plan->chains)
        return chunks_done_by_all(rail->chunks, CHUNK_COPIED_IN) > k;
    return rail->hosts->mine != plan->root_host || chunks_done(rail->chunks, CHUNK_COPIED_IN, plan->root) > k;
}

static int start(struct rail *rail, int64_t k, struct outcome *outcome) {
    const struct plan *plan = rail->plan;
    if (!is_copied_in(rail, k))
        return 0;
    if (!plan->delivers)
        return 1;
    if (news_check(rail->crossing->news, rail->crossing->number, outcome))
        return -1;
    if (plan->reduces)
        reduce_inputs(rail, k);
    for (int i = 0; i < rail->hosts->n - 1; i++) {
        int host = other_host(rail, i);
        if (plan_delivers(plan, rail->hosts->mine, host) &&
            begin(rail, k, SEND_PARTIAL, chunks_partial(rail->chunks, k), plan_block(plan, k, rail->index, host), host,
                  outcome))
            return -1;
    }
    return 1;
}

/* The block of this host, from all hosts. */
static void reduce_block(const struct rail *rail, int64_t k) {
    const struct plan *plan = rail->plan;
    const struct hosts *hosts = rail->hosts;
    struct range block = plan_block(plan, k, rail->index, hosts->mine);
    size_t at = (size_t)block.at * plan->net_item;
    for (int host = 0; host < hosts->n; host++)
        rail->inputs[host] = host == hosts->mine ? chunks_partial(rail->chunks, k) + at
                                                 : chunks_incoming(rail->chunks, k) +
                                                       (size_t)incoming_of(rail, k, host).at * plan->net_item;
    reduce(plan->net_type, plan->op, rail->inputs, hosts->n, chunks_result(rail->chunks, k) + at, (size_t)block.n);
}

static int end_first_round(struct rail *rail, int64_t k, struct outcome *outcome) {
    const struct plan *plan = rail->plan;
    const struct hosts *hosts = rail->hosts;
    int done = test(rail, k, RECV_PARTIAL, outcome);
    if (done <= 0)
        return done;
    if (plan->reduces)
        reduce_block(rail, k);
    struct range block = plan_block(plan, k, rail->index, hosts->mine);
    for (int i = 0; i < hosts->n - 1; i++) {
        int host = other_host(rail, i), is_next = i == 0 && host != plan->root_host;
        if ((plan_spreads(plan, hosts->mine, host) || (plan->chains && is_next)) &&
            begin(rail, k, plan->chains ? SEND_PARTIAL : SEND_RESULT, chunks_result(rail->chunks, k), block, host,
                  outcome))
            return -1;
    }
    return 1;
}

static int end_second_round(struct rail *rail, int64_t k, struct outcome *outcome) {
    int done = test(rail, k, RECV_RESULT, outcome);
    if (done > 0)
        chunks_announce(rail->chunks, CHUNK_ARRIVED, rail->index, k + 1);
    return done;
}

static int end_sending(struct rail *rail, int64_t k, struct outcome *outcome) {
    int done = test(rail, k, SEND_PARTIAL, outcome);
    if (done > 0)
        done = test(rail, k, SEND_RESULT, outcome);
    if (done > 0)
        chunks_announce(rail->chunks, CHUNK_SENT, rail->index, k + 1);
    return done;
}

/* Take as many chunks through a step as have gone through the one before it. */
static int advance(struct rail *rail, int64_t *through, int64_t before,
                   int (*step)(struct rail *, int64_t, struct outcome *), struct outcome *outcome) {
    int moved = 0;
    for (; *through < before; ++*through, moved = 1) {
        int done = step(rail, *through, outcome);
        if (done <= 0)
            return done ? done : moved;
    }
    return moved;
}

int rail_advance(struct rail *rail, struct outcome *outcome) {
    const struct {
        int64_t *through;
        const int64_t *before;
        int (*step)(struct rail *, int64_t, struct outcome *);
    } steps[] = {
        {&rail->sent, &rail->arrived, end_sending},        {&rail->arrived, &rail->reduced, end_second_round},
        {&rail->reduced, &rail->started, end_first_round}, {&rail->started, &rail->posted, start},
        {&rail->posted, &rail->plan->chunks, post},
    };
    int moved = 0;
    for (size_t i = 0; moved >= 0 && i < sizeof steps / sizeof *steps; i++) {
        int result = advance(rail, steps[i].through, *steps[i].before, steps[i].step, outcome);
        moved = result < 0 ? result : moved | result;
    }
    return moved;
}

int rail_is_done(const struct rail *rail) {
    return rail->sent == rail->plan->chunks;
}

int rail_awaits(const struct rail *rail, int64_t *k) {
    *k = rail->sent;
    for (int64_t chunk = rail->sent; chunk < rail->posted; chunk++)
        for (int kind = 0; kind < MESSAGE_KINDS; kind++)
            for (int i = 0; i < rail->hosts->n - 1; i++) {
                int host = other_host(rail, i), is_started = chunk < rail->started;
                *k = chunk;
                if (is_started && message_of(rail, chunk, kind, host)->is_under_way)
                    return host;
                if (!is_started && !is_copied_in(rail, chunk))
                    return -1;
            }
    return -1;
}
