#include "mlxdist/net/relay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mlxdist/kernels/kernels.h"
#include "mlxdist/net/rail.h"

struct relay {
    const struct hosts *hosts;
    struct chunks *chunks;
    int driven; /* rails */
    struct rail *rails[HOSTS_MAX_RAILS];
    /* Of the call under way. */
    const struct crossing *crossing;
    struct plan plan;
    const char *sendbuf;
    char *recvbuf;
    int64_t copied_in, copied_out;
};

static int open_rails(struct relay *relay, const struct crossing *crossing) {
    for (int index = 0; index < relay->hosts->rails; index++) {
        if (hosts_driver(relay->hosts, relay->hosts->mine, index) != crossing->comm->rank)
            continue;
        if (!(relay->rails[relay->driven] = rail_open(relay->hosts, index)))
            return 0;
        relay->driven++;
    }
    return 1;
}

static void close_rails(struct relay *relay) {
    while (relay->driven)
        rail_close(relay->rails[--relay->driven]);
    free(relay);
}

int relay_open(const struct crossing *crossing, struct relay **relay, struct outcome *outcome) {
    struct relay *opened = calloc(1, sizeof *opened);
    struct chunks *chunks;
    if (opened)
        opened->hosts = crossing->hosts;
    int is_wanted = opened && open_rails(opened, crossing);
    int result = chunks_open(crossing, is_wanted, &chunks, outcome);
    if (!result) {
        opened->chunks = chunks;
        *relay = opened;
    } else if (opened) {
        close_rails(opened);
    }
    return result;
}

void relay_close(struct relay *relay) {
    chunks_close(relay->chunks);
    close_rails(relay);
}

int relay_is_pending(const struct relay *relay) {
    for (int i = 0; i < relay->driven; i++)
        if (rail_is_pending(relay->rails[i]))
            return 1;
    return 0;
}

/* Piece k of a part of one of the user's buffers. */
static size_t offset_of(const struct relay *relay, int64_t part, int64_t k, int rail) {
    const struct plan *plan = &relay->plan;
    return (size_t)(part * plan->length + plan_piece(plan, k).at + plan_sub(plan, k, rail).at) * plan->item;
}

/* Where the part for or from the rank at a position is in a slot: in the block of its host. If each of this host's
 * ranks has one, that block has them in the order of those that send, and then of those that receive. */
static size_t slot_offset_of(const struct relay *relay, int64_t position, int64_t k, int rail, int is_out) {
    const struct plan *plan = &relay->plan;
    const struct host *host = relay->hosts->each;
    while (position >= host->first + host->size)
        host++;
    int64_t own = hosts_local_rank(relay->hosts) % plan->each, theirs = position - host->first,
            before = plan->each * host->first + (is_out ? theirs * plan->each + own : own * host->size + theirs);
    return (size_t)(plan_share(plan, k, rail).at + before * plan_sub(plan, k, rail).n) * plan->item;
}

/* Where the part for the rank at a position goes: what no other host needs, straight to the result. */
static char *slot_of(const struct relay *relay, int64_t position, int64_t k) {
    const struct host *own = hosts_own(relay->hosts);
    int is_here = position >= own->first && position < own->first + own->size;
    if (relay->plan.delivers && !relay->plan.reduces && !is_here)
        return chunks_partial(relay->chunks, k);
    return !relay->plan.reduces ? chunks_result(relay->chunks, k)
           : own->size == 1     ? chunks_partial(relay->chunks, k)
                                : chunks_input(relay->chunks, hosts_local_rank(relay->hosts), k);
}

/* Parts lie apart in the user's buffer, and side by side in the slot: those of all ranks go in or come out, or one. */
static void copy_parts(const struct relay *relay, int64_t k, int is_out) {
    const struct hosts *hosts = relay->hosts;
    int is_of_all = (is_out ? call_collects : call_is_parted)(relay->crossing->call);
    int first = is_of_all ? 0 : hosts->position, end = is_of_all ? hosts->size : first + 1;
    for (int rail = 0; rail < hosts->rails; rail++)
        for (int position = first; position < end; position++) {
            size_t nbytes = (size_t)plan_sub(&relay->plan, k, rail).n * relay->plan.item;
            size_t at = offset_of(relay, is_of_all ? hosts->ranks[position] : 0, k, rail);
            size_t in_slot = slot_offset_of(relay, position, k, rail, is_out);
            if (is_out)
                memcpy(relay->recvbuf + at, chunks_result(relay->chunks, k) + in_slot, nbytes);
            else
                memcpy(slot_of(relay, position, k) + in_slot, relay->sendbuf + at, nbytes);
        }
}

static void copy_in(const struct relay *relay, int64_t k) {
    const struct plan *plan = &relay->plan;
    const struct hosts *hosts = relay->hosts;
    struct range piece = plan_piece(plan, k);
    if (!call_reads(relay->crossing->call, relay->crossing->comm->rank))
        return;
    const char *from = relay->sendbuf + (size_t)piece.at * plan->item;
    char *slot = slot_of(relay, hosts->position, k);
    if (plan->parts > 1)
        copy_parts(relay, k, 0);
    else if (hosts_own(hosts)->size == 1 && plan->is_narrowed)
        narrow(plan->net_type, (const float *)from, slot, (size_t)piece.n);
    else
        memcpy(slot, from, (size_t)piece.n * plan->item);
}

static void copy_out(const struct relay *relay, int64_t k) {
    const struct plan *plan = &relay->plan;
    struct range piece = plan_piece(plan, k);
    if (!call_writes(relay->crossing->call, relay->crossing->comm->rank))
        return;
    char *to = relay->recvbuf + (size_t)piece.at * plan->item;
    char *slot = chunks_result(relay->chunks, k);
    if (plan->parts > 1)
        copy_parts(relay, k, 1);
    else if (plan->is_narrowed)
        widen(plan->net_type, slot, (float *)to, (size_t)piece.n);
    else
        memcpy(to, slot, (size_t)piece.n * plan->item);
}

static int advance(struct relay *relay, struct outcome *outcome) {
    int moved = 0, local_rank = hosts_local_rank(relay->hosts);
    if (relay->copied_in < relay->plan.chunks && chunks_are_free(relay->chunks, relay->copied_in)) {
        copy_in(relay, relay->copied_in);
        chunks_announce(relay->chunks, CHUNK_COPIED_IN, local_rank, ++relay->copied_in);
        moved = 1;
    }
    for (int i = 0; i < relay->driven; i++) {
        int result = rail_advance(relay->rails[i], outcome);
        if (result < 0)
            return result;
        moved |= result;
    }
    if (relay->copied_out < chunks_done_by_all(relay->chunks, CHUNK_ARRIVED)) {
        copy_out(relay, relay->copied_out);
        chunks_announce(relay->chunks, CHUNK_COPIED_OUT, local_rank, ++relay->copied_out);
        moved = 1;
    }
    return moved;
}

/* A rank of this host that has the whole result may have left; the others may not. */
static int check(const struct relay *relay, struct outcome *outcome) {
    const struct crossing *crossing = relay->crossing;
    const struct host *own = hosts_own(relay->hosts);
    int result = STATUS_OK;
    for (int i = 0; !result && crossing->shm && i < own->size; i++) {
        result = shm_check(crossing->shm, relay->hosts->ranks[own->first + i], outcome);
        if (chunks_done(relay->chunks, CHUNK_COPIED_OUT, i) == relay->plan.chunks)
            result = STATUS_OK;
    }
    return result;
}

static int poll_relay(void *it, int slow_check, struct outcome *outcome) {
    struct relay *relay = it;
    struct outcome why;
    int is_gone = slow_check && check(relay, &why), moved = advance(relay, outcome);
    if (moved || !is_gone)
        return moved;
    *outcome = why;
    return -1;
}

/* The rank of this host that is behind: -1: none is. */
static int local_rank_behind(const struct relay *relay) {
    int64_t arrived = chunks_done_by_all(relay->chunks, CHUNK_ARRIVED);
    for (int i = 0; i < hosts_own(relay->hosts)->size; i++)
        if (chunks_done(relay->chunks, CHUNK_COPIED_IN, i) <= arrived)
            return i;
    for (int rail = 0; rail < relay->hosts->rails; rail++)
        if (chunks_done(relay->chunks, CHUNK_ARRIVED, rail) == arrived)
            return rail % hosts_own(relay->hosts)->size;
    return -1;
}

static void describe_relay(void *it, int to_all, char *text, size_t nbytes) {
    const struct relay *relay = it;
    const struct hosts *hosts = relay->hosts;
    int64_t k = relay->copied_out;
    int host = -1, behind = local_rank_behind(relay);
    for (int i = 0; i < relay->driven && host < 0; i++)
        host = rail_awaits(relay->rails[i], &k);
    if (to_all && (host < 0 || hosts->mine != (host == 0)))
        return; /* the first host prints it, or the second if that is awaited */
    crossing_describe(relay->crossing, text, nbytes);
    snprintf(text + strlen(text), nbytes - strlen(text), ": ");
    if (host >= 0)
        hosts_describe(hosts, host, text, nbytes);
    else if (behind >= 0)
        snprintf(text + strlen(text), nbytes - strlen(text), "rank %d", hosts->ranks[hosts_own(hosts)->first + behind]);
    snprintf(text + strlen(text), nbytes - strlen(text), " has stopped at chunk %lld of %lld", (long long)k + 1,
             (long long)relay->plan.chunks);
}

static int is_over(const struct relay *relay) {
    for (int i = 0; i < relay->driven; i++)
        if (!rail_is_done(relay->rails[i]))
            return 0;
    return relay->copied_out == relay->plan.chunks;
}

int relay_run(struct relay *relay, const struct crossing *crossing, const void *sendbuf, void *recvbuf,
              struct outcome *outcome) {
    const struct wait_condition progress = {poll_relay, describe_relay, relay, relay->driven > 0, 1};
    relay->crossing = crossing;
    relay->sendbuf = sendbuf;
    relay->recvbuf = recvbuf;
    relay->copied_in = relay->copied_out = 0;
    plan_make(relay->hosts, crossing->call, &relay->plan);
    chunks_begin(relay->chunks, relay->plan.chunks);
    for (int i = 0; i < relay->driven; i++)
        rail_begin(relay->rails[i], crossing, &relay->plan, relay->chunks);
    while (!is_over(relay))
        if (wait_for(&progress, crossing->policy, outcome))
            return outcome->status;
    return STATUS_OK;
}
