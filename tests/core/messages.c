/* Messages between seats: in order and whole whoever is late; thrown away, given up, or another way. */
#include "post.c"
#include "seats.h"

#include <sys/mount.h>

enum { MESSAGES = 150, LONGEST = 2 * RING + 100, LONG_ONE = 4 * RING };

static const struct patience for_ever = {SPINS_CROWDED, 0, 1, NULL}, a_while = {SPINS_CROWDED, 0.2, 1, NULL};
static struct post *first_post;

/* Threads of one process use one mapping: a tool that looks for races knows memory by its address. */
static struct post *open_post(struct node *node) {
    struct post *post;
    struct outcome outcome;
    CHECK(post_open(node, &post, &for_ever, &outcome) == OK && post);
    if (board->pids[0] != board->pids[n_seats - 1] || n_seats == 1)
        return post;
    if (node->seat == 0)
        first_post = post;
    meet();
    post->memory = first_post->memory;
    meet();
    return post;
}

static void close_post(struct post *post) {
    meet();
    post_close(post);
}

static struct call message_of(struct node *node, int operation, int type, int seat, int64_t count) {
    return call_of(node, flat_call((enum operation)operation, 0, type, rank_of(seat), count));
}

/* Around all lengths that are treated differently. */
static int64_t length_of(uint32_t k) {
    const int64_t around[] = {0, 1, IN_HEAD, IN_HEAD + 1, LINE, PIECE, RING - LINE, RING, LONGEST};
    uint32_t chance = scramble(k);
    int64_t n = chance % 3 ? around[chance / 3 % 9] + chance / 27 % 3 - 1 : chance % 5000;
    return n < 0 ? 0 : n < LONGEST ? n : LONGEST;
}

static uint8_t byte_of(int from, int to, uint32_t k, int64_t i) {
    return (uint8_t)(scramble(k) + (uint32_t)i * 7 + (uint32_t)(16 * from + to));
}

static void send_to(struct node *node, struct post *post, int to, uint32_t k, uint8_t *x) {
    struct outcome outcome;
    int64_t n = length_of(k);
    int begun;
    for (int64_t i = 0; i < n; i++)
        x[i] = byte_of(node->seat, to, k, i);
    struct call call = message_of(node, SEND, TYPE_UINT8, to, n);
    int other_way = k % 11 == 5;
    CHECK(post_send(post, to, &call, x, other_way, &begun, &for_ever, &outcome) == (other_way ? NOT_SHARED : OK));
    CHECK(!begun);
}

static void recv_from(struct node *node, struct post *post, int from, uint32_t k, uint8_t *x) {
    struct outcome outcome;
    int64_t n = length_of(k);
    int begun, is_other = k % 7 == 3, other_way = k % 11 == 5;
    struct call call = message_of(node, RECV, is_other ? TYPE_INT8 : TYPE_UINT8, from, n);
    int result = post_recv(post, from, &call, x, &begun, &for_ever, &outcome);
    CHECK(result == (other_way ? NOT_SHARED : is_other ? MISMATCH : OK));
    CHECK(begun == other_way);
    for (int64_t i = 0; !result && i < n; i++)
        CHECK(x[i] == byte_of(from, node->seat, k, i));
}

/* The pairs take turns: who waits for whom never goes in a circle. */
static void all_pairs(struct node *node, int seat) {
    struct post *post = open_post(node);
    uint8_t *x = malloc(LONGEST + 1);
    for (uint32_t k = 0; k < MESSAGES; k++)
        for (int from = 0; from < n_seats; from++)
            for (int to = 0; to < n_seats; to++) {
                if (scramble(k + (uint32_t)seat) % 50 == 0)
                    sleep_s(1e-4);
                if (from != to && seat == from)
                    send_to(node, post, to, k, x);
                else if (from != to && seat == to)
                    recv_from(node, post, from, k, x);
            }
    free(x);
    close_post(post);
}

static void pairs_of_processes(void) {
    for (int seats = 2; seats <= 4; seats++)
        run_seats(PROCESSES, seats, all_pairs, 0);
}

static void pairs_of_threads(void) {
    run_seats(THREADS, 3, all_pairs, 0);
}

struct sender {
    struct node *node;
    struct post *post;
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
        struct call call = message_of(sender->node, SEND, TYPE_INT32, 1, k % 2 ? 5000 : 3);
        CHECK(post_send(sender->post, 1, &call, x, 0, &begun, &for_ever, &outcome) == OK);
    }
    return NULL;
}

/* Each message is whole, though two threads send at once. */
static void two_threads_send(struct node *node, int seat) {
    struct post *post = open_post(node);
    struct sender senders[] = {{node, post, 1}, {node, post, 2}};
    pthread_t threads[2];
    for (int i = 0; seat == 0 && i < 2; i++)
        CHECK(!pthread_create(&threads[i], NULL, send_numbers, &senders[i]));
    for (int i = 0; seat == 0 && i < 2; i++)
        CHECK(!pthread_join(threads[i], NULL));
    int counts[3] = {0, 0, 0}, begun;
    for (int k = 0; seat && k < 2 * MESSAGES; k++) {
        int32_t x[5000];
        struct outcome outcome;
        struct call call = message_of(node, RECV, TYPE_INT32, 0, 3);
        int result = post_recv(post, 0, &call, x, &begun, &for_ever, &outcome);
        CHECK(result == OK || result == MISMATCH);
        for (int i = 0; !result && i < 3; i++)
            CHECK(x[i] == x[0]);
        counts[result ? 0 : x[0]]++;
    }
    CHECK(!seat || (counts[0] == MESSAGES && counts[1] == MESSAGES / 2 && counts[2] == MESSAGES / 2));
    close_post(post);
}

static void threads_send(void) {
    run_seats(PROCESSES, 2, two_threads_send, 0);
}

/* The last begins a long message, or to receive one, and stops or dies in its middle. */
static void last_stops(struct node *node, int seat, enum operation operation) {
    struct post *post = open_post(node);
    struct outcome outcome;
    int begun, dies = board->dies[n_seats - 1], peer = 1 - seat;
    uint8_t *x = calloc(1, LONG_ONE);
    struct call call = message_of(node, operation, TYPE_UINT8, peer, LONG_ONE);
    if (seat && operation == RECV) { /* so this one sends, and takes back the end of it */
        struct call sent = message_of(node, SEND, TYPE_UINT8, peer, RING / 2);
        struct transfer transfer = transfer_of(post, &sent, peer);
        CHECK(post_send(post, peer, &sent, x, 0, &begun, &for_ever, &outcome) == OK);
        head_at(&transfer, 0)->nbytes = LONG_ONE;
    }
    meet();
    if (seat == 0) {
        int result = operation == SEND ? post_send(post, peer, &call, x, 0, &begun, &a_while, &outcome)
                                       : post_recv(post, peer, &call, x, &begun, &a_while, &outcome);
        CHECK(result == (dies ? PEER_DIED : TIMED_OUT));
        CHECK(dies || begun);
        if (begun) {
            struct outcome second;
            int again = operation == SEND ? post_send(post, peer, &call, x, 0, &begun, &a_while, &second)
                                          : post_recv(post, peer, &call, x, &begun, &a_while, &second);
            CHECK(again == GROUP_SPENT && !begun);
        }
        if (!dies)
            CHECK_TEXT(outcome, ", rank 3: rank 13 has not ");
    }
    if (seat && dies)
        raise(dies);
    if (seat)
        sleep_s(0.4);
    free(x);
    post_close(post);
}

static void last_stops_receiving(struct node *node, int seat) {
    last_stops(node, seat, SEND);
}

static void last_stops_sending(struct node *node, int seat) {
    last_stops(node, seat, RECV);
}

static void stopped(void) {
    for (int dies = 0; dies <= SIGKILL; dies += SIGKILL) {
        run_seats(PROCESSES, 2, last_stops_receiving, dies);
        run_seats(PROCESSES, 2, last_stops_sending, dies);
    }
}

/* What a sender wrote before it died has come. */
static void last_sends_and_dies(struct node *node, int seat) {
    struct post *post = open_post(node);
    struct outcome outcome;
    int begun;
    uint8_t x[1000] = {7};
    struct call call = message_of(node, seat ? SEND : RECV, TYPE_UINT8, 1 - seat, sizeof x);
    if (seat) {
        CHECK(post_send(post, 0, &call, x, 0, &begun, &for_ever, &outcome) == OK);
        raise(SIGKILL);
    }
    sleep_s(0.1);
    CHECK(post_recv(post, 1, &call, x, &begun, &for_ever, &outcome) == OK && x[0] == 7);
    CHECK(post_recv(post, 1, &call, x, &begun, &for_ever, &outcome) == PEER_DIED && !begun);
    CHECK_TEXT(outcome, "has died");
    post_close(post);
}

static void last_words(void) {
    run_seats(PROCESSES, 2, last_sends_and_dies, SIGKILL);
}

/* The rings are had one by one: where there is no more room, messages go another way. */
static void send_without_room(struct node *node, int seat) {
    struct post *post = open_post(node);
    struct outcome outcome;
    int begun;
    uint8_t x[10] = {0};
    struct call call = message_of(node, seat ? RECV : SEND, TYPE_UINT8, 1 - seat, sizeof x);
    for (int k = 0; k < 3; k++)
        CHECK((seat ? post_recv(post, 0, &call, x, &begun, &for_ever, &outcome)
                    : post_send(post, 1, &call, x, 0, &begun, &for_ever, &outcome)) == NOT_SHARED);
    close_post(post);
}

static void no_room(void) {
    void *nobodys = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!madvise(nobodys, 4096, 23))
        skip("an emulator that does not do what madvise asks");
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=200k"))
        skip("a tmpfs cannot be mounted here");
    run_seats(PROCESSES, 2, send_without_room, 0);
}

PROGRAM({"pairs-of-processes", pairs_of_processes}, {"pairs-of-threads", pairs_of_threads},
        {"threads-send", threads_send}, {"stopped", stopped}, {"last-words", last_words}, {"no-room", no_room})
