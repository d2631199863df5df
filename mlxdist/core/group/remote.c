#include "mlxdist/group/remote.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mlxdist/copy.h"
#include "mlxdist/group/bounce.h"

/* A peer that has left, died or given up may have sent before. What it sent has arrived after so many slow checks, one
 * a millisecond or less often on a busy machine, and so much time. */
enum { LAST_POLLS = 20 };
static const double last_s = 0.2;

/* What a message begins with. Its data begin a cache line further on, as do those of the other pieces in memory. */
struct header {
    int64_t nbytes;
    int32_t type, tag, is_whole, unused;
};
enum { HEADER_NBYTES = CACHE_LINE, PIECE_NBYTES = BOUNCE_NBYTES - HEADER_NBYTES };
_Static_assert(sizeof(struct header) == 24, "ranks exchange it: when it changes, raise SHM_LAYOUT");

int remote_next_tag(void) {
    static atomic_uint last;
    return 1 + (int)(atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) % REMOTE_TAGS);
}

int remote_out_of_memory(int64_t nbytes, struct outcome *outcome) {
    outcome->status = STATUS_OUT_OF_MEMORY;
    snprintf(outcome->text, sizeof outcome->text, "no memory for a message of %lld bytes: free some, or send less",
             (long long)nbytes);
    return STATUS_OUT_OF_MEMORY;
}

/* Whether the peer will go on; else see outcome. */
static int goes_on(struct remote *remote, struct outcome *outcome) {
    const struct shm *shm = remote->members->shm;
    int peer = remote->call->peer, has_given_up = 0;
    if ((shm && shm_check(shm, peer, outcome)) ||
        TRANSPORT(look, remote->members->comm, peer, REMOTE_GIVEN_UP, &has_given_up, outcome))
        return 0;
    if (has_given_up) {
        outcome->status = STATUS_PEER_DIED;
        snprintf(outcome->text, sizeof outcome->text,
                 "rank %d has given up a message with this rank on this group: see its own error", peer);
    }
    return !has_given_up;
}

static int check_peer(struct remote *remote, struct outcome *outcome) {
    if (goes_on(remote, outcome))
        return 0;
    if (!remote->polls_after_end++)
        remote->end_s = wait_now_s();
    return remote->polls_after_end < LAST_POLLS || wait_now_s() - remote->end_s < last_s ? 0 : -1;
}

static int64_t offset_of(int64_t k) {
    return k * PIECE_NBYTES;
}

static int64_t nbytes_of(const struct remote *remote, int64_t k) {
    int64_t left = remote->nbytes - offset_of(k);
    return remote->is_whole ? k * remote->nbytes : left < PIECE_NBYTES ? left : PIECE_NBYTES;
}

/* The number of pieces, and memory for those that can be under way at a time: at least one. */
static void set_length(struct remote *remote) {
    int64_t pieces = (remote->nbytes + PIECE_NBYTES - 1) / PIECE_NBYTES;
    remote->n = remote->is_whole ? 2 : pieces > 1 ? pieces : 1;
    for (; !remote->is_whole && remote->depth < REMOTE_IN_FLIGHT && remote->depth < remote->n; remote->depth++)
        if (!(remote->pieces[remote->depth].memory = bounce_take()))
            break;
}

static struct remote_piece *piece_of(struct remote *remote, int64_t k) {
    return &remote->pieces[k % remote->depth];
}

/* 1: the oldest piece under way is through. */
static int poll_oldest(struct remote *remote, int slow_check, struct outcome *outcome) {
    int done = 0;
    if (TRANSPORT(test, &piece_of(remote, remote->finished)->request, &done, outcome))
        return -1;
    return done || !slow_check ? done : check_peer(remote, outcome);
}

static int can_begin(const struct remote *remote) {
    return remote->begun < remote->n && remote->begun - remote->finished < remote->depth;
}

static int begin_sending(struct remote *remote, struct outcome *outcome) {
    const struct call *call = remote->call;
    int64_t k = remote->begun, nbytes = nbytes_of(remote, k);
    struct remote_piece *piece = piece_of(remote, k);
    char *start = piece->memory + HEADER_NBYTES;
    if (remote->is_whole && k)
        start = remote->buf;
    else
        memcpy(start, remote->buf + offset_of(k), (size_t)nbytes);
    if (!k) {
        start = piece->memory, nbytes += HEADER_NBYTES;
        memset(start, 0, HEADER_NBYTES);
        *(struct header *)start = (struct header){remote->nbytes, call->type, remote->tag, remote->is_whole, 0};
    }
    return TRANSPORT(send, remote->members->comm, start, nbytes, call->peer, k ? remote->tag : REMOTE_HEADER,
                     &piece->request, outcome);
}

static int send_pieces(struct remote *remote, int slow_check, struct outcome *outcome) {
    int moved = 0;
    for (; can_begin(remote); remote->begun++, moved = 1) {
        if (begin_sending(remote, outcome))
            return -1;
        remote->is_begun = 1;
    }
    int through = poll_oldest(remote, slow_check && !moved, outcome);
    if (through <= 0)
        return moved && !through ? 1 : through;
    remote->is_done = ++remote->finished == remote->n;
    return 1;
}

static int begin_receiving(struct remote *remote, struct outcome *outcome) {
    int64_t nbytes = nbytes_of(remote, remote->begun);
    struct remote_piece *piece = piece_of(remote, remote->begun);
    char *start = piece->memory + HEADER_NBYTES;
    if (remote->is_whole && remote->is_expected && remote->device)
        start = remote->device;
    else if (remote->is_whole && !(start = remote->whole = malloc((size_t)nbytes + 1)))
        return remote_out_of_memory(nbytes, outcome);
    return TRANSPORT(recv, remote->members->comm, start, nbytes, remote->call->peer, remote->tag, &piece->request,
                     outcome);
}

static void read_header(struct remote *remote) {
    const struct header *header = (const struct header *)remote->pieces[0].memory;
    remote->nbytes = header->nbytes, remote->type = header->type, remote->tag = header->tag;
    remote->is_whole = header->is_whole;
    remote->is_expected = call_expects(remote->call, header->nbytes, header->type);
    remote->way = remote->nbytes > (int64_t)copy_cache_nbytes() / 4 ? COPY_NON_TEMPORAL : COPY_PLAIN;
}

static void take_out(struct remote *remote) {
    int64_t k = remote->finished;
    const char *start = remote->whole ? remote->whole : piece_of(remote, k)->memory + HEADER_NBYTES;
    if (!k)
        read_header(remote);
    if (remote->is_expected && !(remote->is_whole && (!k || remote->device)))
        copy(remote->buf + (remote->is_whole ? 0 : offset_of(k)), start, (size_t)nbytes_of(remote, k), remote->way);
    if (!k)
        set_length(remote);
}

static int receive_pieces(struct remote *remote, int slow_check, struct outcome *outcome) {
    int moved = 0;
    for (; can_begin(remote); remote->begun++, moved = 1)
        if (begin_receiving(remote, outcome))
            return -1;
    int through = poll_oldest(remote, slow_check && !moved, outcome);
    if (through <= 0)
        return moved && !through ? 1 : through;
    take_out(remote);
    if (++remote->finished == remote->n) {
        copy_fence();
        remote->is_done = 1;
    }
    return 1;
}

static int await_header(struct remote *remote, int slow_check, struct outcome *outcome) {
    struct message message;
    int found = 0;
    if (TRANSPORT(probe, remote->members->comm, remote->call->peer, REMOTE_HEADER, &found, &message, outcome))
        return -1;
    if (!found)
        return slow_check ? check_peer(remote, outcome) : 0;
    remote->is_begun = 1;
    if (TRANSPORT(recv_found, remote->pieces[0].memory, &message, &remote->pieces[0].request, outcome))
        return -1;
    remote->n = remote->begun = 1;
    remote->step = receive_pieces;
    return 1;
}

int remote_begin(struct members *members, const struct call *call, void *buf, void *device, struct remote *remote,
                 struct outcome *outcome) {
    int to_peer = call->operation == OPERATION_SEND;
    *remote = (struct remote){.members = members,
                              .call = call,
                              .buf = buf,
                              .device = device,
                              .step = to_peer ? send_pieces : await_header,
                              .depth = 1};
    if (!(remote->pieces[0].memory = bounce_take()))
        return remote_out_of_memory(call_nbytes(call), outcome);
    if (to_peer) {
        remote->nbytes = call_nbytes(call);
        remote->is_whole = call->on_device;
        remote->tag = remote_next_tag();
        set_length(remote);
    }
    return STATUS_OK;
}

int remote_advance(struct remote *remote, int slow_check, struct outcome *outcome) {
    return remote->step(remote, slow_check, outcome);
}

/* The memory of pieces that are still under way stays MPI's for good. */
void remote_end(struct remote *remote, int status) {
    for (int64_t k = remote->finished; k < remote->begun; k++)
        piece_of(remote, k)->memory = NULL;
    for (int i = 0; i < remote->depth; i++)
        if (remote->pieces[i].memory)
            bounce_put(remote->pieces[i].memory);
    if (remote->finished == remote->begun)
        free(remote->whole);
    if (!remote->is_begun || remote->is_done || status == STATUS_PEER_DIED)
        return;
    struct outcome second;
    request_handle forgotten;
    TRANSPORT(send, remote->members->comm, "", 0, remote->call->peer, REMOTE_GIVEN_UP, &forgotten, &second);
}

void remote_describe(const struct remote *remote, char *text, size_t nbytes) {
    const struct net *net = remote->members->net;
    call_awaits_peer(remote->call, net ? net_host_of(net, remote->call->peer) : NULL, text, nbytes);
    if (remote->call->operation == OPERATION_SEND && remote->call->name != CALL_SENDRECV)
        snprintf(text + strlen(text), nbytes - strlen(text), "; if that rank sends to this one, too, use sendrecv()");
}
