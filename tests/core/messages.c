/* Messages between local ranks: in order and complete whichever rank is late; thrown away, given up, or by MPI. */
#include "local_ranks.h"
#include "shm/mailbox.c"

#include <sys/mount.h>

enum { MESSAGES = 150, LONGEST = 2 * RING_NBYTES + 100, LONG_ONE = 4 * RING_NBYTES };

static const struct wait_policy for_ever = {WAIT_SPINS_OVERSUBSCRIBED, 0, 1, NULL, NULL, NULL},
                                a_while = {WAIT_SPINS_OVERSUBSCRIBED, 0.2, 1, NULL, NULL, NULL};
static struct mailbox *first_mailbox;

static int poll_transfer(void *it, int slow_check, struct outcome *outcome) {
    return mailbox_advance(it, slow_check, outcome);
}

static void describe_transfer(void *it, int to_all, char *text, size_t nbytes) {
    (void)to_all;
    mailbox_describe(it, text, nbytes);
}

/* Threads share one mapping, see local_ranks.h. */
static struct mailbox *open_mailbox(struct node *node) {
    struct mailbox *mailbox;
    struct outcome outcome;
    CHECK(mailbox_open(node, &mailbox, &for_ever, &outcome) == STATUS_OK && mailbox);
    if (board->pids[0] != board->pids[n_ranks - 1] || n_ranks == 1)
        return mailbox;
    if (node->local_rank == 0)
        first_mailbox = mailbox;
    meet();
    mailbox->memory = first_mailbox->memory;
    meet();
    return mailbox;
}

/* A message, as p2p.c carries it out. */
static int run(struct mailbox *mailbox, int local_rank, const struct call *call, void *x, int by_mpi, int *begun,
               const struct wait_policy *policy, struct outcome *outcome) {
    struct transfer transfer;
    int result = STATUS_OK;
    mailbox_begin(mailbox, local_rank, call, x, by_mpi, &transfer);
    while (!transfer.is_done && !result)
        result = wait_for(&(struct wait_condition){poll_transfer, describe_transfer, &transfer, 0, 0}, policy, outcome);
    mailbox_give_up(&transfer);
    *begun = transfer.is_begun || (transfer.is_done && transfer.by_mpi);
    if (!result && transfer.result)
        return transfer.result;
    if (!result && call->operation == OPERATION_RECV && !call_expects(call, transfer.nbytes, transfer.type))
        return call_gets_another(call, transfer.nbytes, transfer.type, outcome);
    return result;
}

static void close_mailbox(struct mailbox *mailbox) {
    meet();
    mailbox_close(mailbox);
}

static struct call message_of(struct node *node, int operation, int type, int local_rank, int64_t count) {
    return call_of(node, flat_call((enum operation)operation, 0, type, rank_of(local_rank), count));
}

/* Around all lengths that are handled differently. */
static int64_t length_of(uint32_t k) {
    const int64_t around[] = {
        0, 1, IN_HEADER, IN_HEADER + 1, CACHE_LINE, PIECE_NBYTES, RING_NBYTES - CACHE_LINE, RING_NBYTES, LONGEST};
    uint32_t chance = scramble(k);
    int64_t n = chance % 3 ? around[chance / 3 % 9] + chance / 27 % 3 - 1 : chance % 5000;
    return n < 0 ? 0 : n < LONGEST ? n : LONGEST;
}

static uint8_t byte_of(int from, int to, uint32_t k, int64_t i) {
    return (uint8_t)(scramble(k) + (uint32_t)i * 7 + (uint32_t)(16 * from + to));
}

static void send_to(struct node *node, struct mailbox *mailbox, int to, uint32_t k, uint8_t *x) {
    struct outcome outcome;
    int64_t n = length_of(k);
    int begun;
    for (int64_t i = 0; i < n; i++)
        x[i] = byte_of(node->local_rank, to, k, i);
    struct call call = message_of(node, OPERATION_SEND, TYPE_UINT8, to, n);
    int by_mpi = k % 11 == 5;
    CHECK(run(mailbox, to, &call, x, by_mpi, &begun, &for_ever, &outcome) == (by_mpi ? STATUS_NOT_SHARED : STATUS_OK));
    CHECK(begun == by_mpi);
}

static void recv_from(struct node *node, struct mailbox *mailbox, int from, uint32_t k, uint8_t *x) {
    struct outcome outcome;
    int64_t n = length_of(k);
    int begun, is_other = k % 7 == 3, by_mpi = k % 11 == 5;
    struct call call = message_of(node, OPERATION_RECV, is_other ? TYPE_INT8 : TYPE_UINT8, from, n);
    int result = run(mailbox, from, &call, x, 0, &begun, &for_ever, &outcome);
    CHECK(result == (by_mpi ? STATUS_NOT_SHARED : is_other ? STATUS_MISMATCH : STATUS_OK));
    CHECK(begun == by_mpi);
    for (int64_t i = 0; !result && i < n; i++)
        CHECK(x[i] == byte_of(from, node->local_rank, k, i));
}

/* The pairs take turns, so ranks never wait for each other in a circle. */
static void all_pairs(struct node *node, int local_rank) {
    struct mailbox *mailbox = open_mailbox(node);
    uint8_t *x = malloc(LONGEST + 1);
    for (uint32_t k = 0; k < MESSAGES; k++)
        for (int from = 0; from < n_ranks; from++)
            for (int to = 0; to < n_ranks; to++) {
                if (scramble(k + (uint32_t)local_rank) % 50 == 0)
                    sleep_s(1e-4);
                if (from != to && local_rank == from)
                    send_to(node, mailbox, to, k, x);
                else if (from != to && local_rank == to)
                    recv_from(node, mailbox, from, k, x);
            }
    free(x);
    close_mailbox(mailbox);
}

static void pairs_of_processes(void) {
    for (int local_size = 2; local_size <= 4; local_size++)
        run_ranks(PROCESSES, local_size, all_pairs, 0);
}

static void pairs_of_threads(void) {
    run_ranks(THREADS, 3, all_pairs, 0);
}

struct sender {
    struct node *node;
    struct mailbox *mailbox;
    int number;
};

static void *send_numbers(void *it) {
    struct sender *sender = it;
    struct outcome outcome;
    int32_t x[5000];
    int begun;
    for (int i = 0; i < 5000; i++)
        x[i] = sender->number;
    for (int k = 0; k < MESSAGES; k++) {
        struct call call = message_of(sender->node, OPERATION_SEND, TYPE_INT32, 1, k % 2 ? 5000 : 3);
        CHECK(run(sender->mailbox, 1, &call, x, 0, &begun, &for_ever, &outcome) == STATUS_OK);
    }
    return NULL;
}

/* Each message is complete, though two threads send at the same time. */
static void two_threads_send(struct node *node, int local_rank) {
    struct mailbox *mailbox = open_mailbox(node);
    struct sender senders[] = {{node, mailbox, 1}, {node, mailbox, 2}};
    pthread_t threads[2];
    for (int i = 0; local_rank == 0 && i < 2; i++)
        CHECK(!pthread_create(&threads[i], NULL, send_numbers, &senders[i]));
    for (int i = 0; local_rank == 0 && i < 2; i++)
        CHECK(!pthread_join(threads[i], NULL));
    int counts[3] = {0, 0, 0}, begun;
    for (int k = 0; local_rank && k < 2 * MESSAGES; k++) {
        int32_t x[5000];
        struct outcome outcome;
        struct call call = message_of(node, OPERATION_RECV, TYPE_INT32, 0, 3);
        int result = run(mailbox, 0, &call, x, 0, &begun, &for_ever, &outcome);
        CHECK(result == STATUS_OK || result == STATUS_MISMATCH);
        for (int i = 0; !result && i < 3; i++)
            CHECK(x[i] == x[0]);
        counts[result ? 0 : x[0]]++;
    }
    CHECK(!local_rank || (counts[0] == MESSAGES && counts[1] == MESSAGES / 2 && counts[2] == MESSAGES / 2));
    close_mailbox(mailbox);
}

static void threads_send(void) {
    run_ranks(PROCESSES, 2, two_threads_send, 0);
}

/* The last rank stops or dies in the middle of a long message that it sends or receives. */
static void last_stops(struct node *node, int local_rank, enum operation operation) {
    struct mailbox *mailbox = open_mailbox(node);
    struct outcome outcome;
    int begun, dies = board->dies[n_ranks - 1], peer = 1 - local_rank;
    uint8_t *x = calloc(1, LONG_ONE);
    struct call call = message_of(node, operation, TYPE_UINT8, peer, LONG_ONE);
    if (local_rank && operation == OPERATION_RECV) { /* this one sends, and then pretends that the message is longer */
        struct call sent = message_of(node, OPERATION_SEND, TYPE_UINT8, peer, RING_NBYTES / 2);
        struct transfer transfer;
        CHECK(run(mailbox, peer, &sent, x, 0, &begun, &for_ever, &outcome) == STATUS_OK);
        mailbox_begin(mailbox, peer, &sent, x, 0, &transfer);
        header_at(&transfer, 0)->nbytes = LONG_ONE;
    }
    meet();
    if (local_rank == 0) {
        int result = operation == OPERATION_SEND ? run(mailbox, peer, &call, x, 0, &begun, &a_while, &outcome)
                                                 : run(mailbox, peer, &call, x, 0, &begun, &a_while, &outcome);
        CHECK(result == (dies ? STATUS_PEER_DIED : STATUS_TIMED_OUT));
        CHECK(dies || begun);
        if (begun) {
            struct outcome second;
            int again = operation == OPERATION_SEND ? run(mailbox, peer, &call, x, 0, &begun, &a_while, &second)
                                                    : run(mailbox, peer, &call, x, 0, &begun, &a_while, &second);
            CHECK(again == STATUS_GROUP_BROKEN && !begun);
        }
        if (!dies)
            CHECK_TEXT(outcome, ", rank 3: rank 13 has not ");
    }
    if (local_rank && dies)
        raise(dies);
    if (local_rank)
        sleep_s(0.4);
    free(x);
    mailbox_close(mailbox);
}

static void last_stops_receiving(struct node *node, int local_rank) {
    last_stops(node, local_rank, OPERATION_SEND);
}

static void last_stops_sending(struct node *node, int local_rank) {
    last_stops(node, local_rank, OPERATION_RECV);
}

static void stopped(void) {
    for (int dies = 0; dies <= SIGKILL; dies += SIGKILL) {
        run_ranks(PROCESSES, 2, last_stops_receiving, dies);
        run_ranks(PROCESSES, 2, last_stops_sending, dies);
    }
}

/* What a sender wrote before it died is received. */
static void last_sends_and_dies(struct node *node, int local_rank) {
    struct mailbox *mailbox = open_mailbox(node);
    struct outcome outcome;
    int begun;
    uint8_t x[1000] = {7};
    struct call call =
        message_of(node, local_rank ? OPERATION_SEND : OPERATION_RECV, TYPE_UINT8, 1 - local_rank, sizeof x);
    if (local_rank) {
        CHECK(run(mailbox, 0, &call, x, 0, &begun, &for_ever, &outcome) == STATUS_OK);
        raise(SIGKILL);
    }
    sleep_s(0.1);
    CHECK(run(mailbox, 1, &call, x, 0, &begun, &for_ever, &outcome) == STATUS_OK && x[0] == 7);
    CHECK(run(mailbox, 1, &call, x, 0, &begun, &for_ever, &outcome) == STATUS_PEER_DIED && !begun);
    CHECK_TEXT(outcome, "has died");
    mailbox_close(mailbox);
}

static void last_words(void) {
    run_ranks(PROCESSES, 2, last_sends_and_dies, SIGKILL);
}

/* Rings are reserved one by one; without memory for one, messages go by MPI. */
static void send_without_room(struct node *node, int local_rank) {
    struct mailbox *mailbox = open_mailbox(node);
    struct outcome outcome;
    int begun;
    uint8_t x[10] = {0};
    struct call call =
        message_of(node, local_rank ? OPERATION_RECV : OPERATION_SEND, TYPE_UINT8, 1 - local_rank, sizeof x);
    for (int k = 0; k < 3; k++)
        CHECK((local_rank ? run(mailbox, 0, &call, x, 0, &begun, &for_ever, &outcome)
                          : run(mailbox, 1, &call, x, 0, &begun, &for_ever, &outcome)) == STATUS_NOT_SHARED);
    close_mailbox(mailbox);
}

static void no_room(void) {
    void *no_access = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!madvise(no_access, 4096, 23))
        skip("an emulator that does not do what madvise asks");
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=200k"))
        skip("a tmpfs cannot be mounted here");
    run_ranks(PROCESSES, 2, send_without_room, 0);
}

PROGRAM({"pairs-of-processes", pairs_of_processes}, {"pairs-of-threads", pairs_of_threads},
        {"threads-send", threads_send}, {"stopped", stopped}, {"last-words", last_words}, {"no-room", no_room})
