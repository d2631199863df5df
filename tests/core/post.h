/* Messages between the processes of a test, as MPI carries them.
 *
 * - Of messages with the same communicator, sender, receiver and tag the first sent is the first received; of receives
 *   that a message fits the first begun gets it. Nothing else is certain: a message is seen only after some of its
 *   receiver's calls, a number drawn at random.
 * - A short message is sent at once (eager), if few of its sender are on their way to that receiver; for any other the
 *   sender's data are read when it has been received (rendezvous).
 * - Whatever is tested or looked for, all requests of the process move. So the buffers of a request that is never
 *   tested are read or written at any time. */
#ifndef POST_H
#define POST_H

#include "local_ranks.h"
#include "mlxdist/mpi/transport.h"

enum { MOST_LETTERS = 4096, MOST_EAGER = 4, LETTER_NBYTES = 1 << 16 };

/* Longer messages go by rendezvous; less than 0: all. Not more than LETTER_NBYTES. */
static int64_t eager_nbytes = 1 << 14;
/* Of calls until a message is seen. */
static uint32_t most_delay = 8;
/* Which of the messages to this process never come; NULL: none. */
static int (*is_lost)(int from, int tag);
/* Which of the next sends and receives of this process fails. */
static int messages_fail_in;

/* A message; index 0 is none. */
struct letter {
    struct inboxes *inboxes;
    int next, from, to, tag;
    int is_eager, is_wanted, is_given; /* is_wanted: a receive has it; is_given: its sender needs it no more */
    int64_t nbytes, given, taken;      /* bytes holds those between given and taken */
    uint64_t due;                      /* by the clock of its receiver, once that has noticed it */
    char bytes[LETTER_NBYTES];
};

/* Of a communicator. */
struct inboxes {
    int first[MOST];       /* of the letters that no receive has, in the order sent */
    int eager[MOST][MOST]; /* how many are under way: from, to */
};

/* Each change of a list is one store, so a process may be killed at any time. */
struct post {
    pthread_mutex_t lock; /* of all that is here, and of each process's requests */
    int spare, used;
    struct letter letters[MOST_LETTERS];
};
static struct post *post;

struct endpoint {
    struct comm comm;
    struct inboxes *inboxes;
};

/* A request. It may outlive its communicator. */
struct pending {
    int (*advance)(struct pending *); /* 1: done */
    struct pending *next;
    int is_done;
    struct inboxes *inboxes;
    int rank, peer, tag;
    const char *sent;
    char *recvbuf;
    int64_t nbytes;
    struct letter *letter;
};
static struct pending *all_pending; /* in the order begun; one that is never tested stays, and is no leak */
static uint64_t post_clock;         /* so often the requests have moved */
static uint32_t drawn;              /* the last random number; set, it is the seed */

/* In memory that the processes share, before they are forked. */
static inline void post_open(struct post *memory) {
    pthread_mutexattr_t shared;
    post = memory;
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&post->lock, &shared);
    post->used = 1;
}

static inline void lock_post(void) {
    int result = pthread_mutex_lock(&post->lock);
    CHECK(!result || (result == EOWNERDEAD && !pthread_mutex_consistent(&post->lock)));
}

static inline void unlock_post(void) {
    pthread_mutex_unlock(&post->lock);
}

static inline struct letter *new_letter(void) {
    int number = post->spare ? post->spare : post->used++;
    CHECK(number < MOST_LETTERS);
    post->spare = post->letters[number].next;
    return &post->letters[number];
}

/* The sender's next bytes; 1: those were the last. */
static inline int give(struct letter *letter, const char *sent) {
    int64_t left = letter->nbytes - letter->given, nbytes = left < LETTER_NBYTES ? left : LETTER_NBYTES;
    memcpy(letter->bytes, sent + letter->given, (size_t)nbytes);
    letter->given += nbytes;
    return letter->is_given = nbytes == left;
}

static inline int advance_send(struct pending *pending) {
    struct letter *letter = pending->letter;
    if (!letter) {
        int *place = &pending->inboxes->first[pending->peer];
        int *eager = &pending->inboxes->eager[pending->rank][pending->peer];
        int is_eager = pending->nbytes <= eager_nbytes && *eager < MOST_EAGER;
        pending->letter = letter = new_letter();
        memset(letter, 0, offsetof(struct letter, bytes));
        letter->inboxes = pending->inboxes, letter->nbytes = pending->nbytes;
        letter->from = pending->rank, letter->to = pending->peer, letter->tag = pending->tag;
        letter->is_eager = is_eager;
        *eager += is_eager;
        if (is_eager)
            give(letter, pending->sent);
        while (*place)
            place = &post->letters[*place].next;
        *place = (int)(letter - post->letters);
        return is_eager;
    }
    return letter->is_wanted && letter->given == letter->taken && give(letter, pending->sent);
}

static inline int is_seen(struct letter *letter) {
    if (!letter->due) {
        drawn = scramble(drawn + 1);
        letter->due = post_clock + (drawn % 2 && most_delay ? drawn / 2 % most_delay : 0);
    }
    return letter->due <= post_clock && !(is_lost && is_lost(letter->from, letter->tag));
}

/* Where the first is listed; src < 0: of any sender. One that is not seen hides those behind it of the same sender. */
static inline int *find(struct inboxes *inboxes, int rank, int src, int tag) {
    uint32_t hidden = 0;
    for (int *place = &inboxes->first[rank]; *place; place = &post->letters[*place].next) {
        struct letter *letter = &post->letters[*place];
        if (letter->tag != tag || (src >= 0 && letter->from != src) || (hidden >> letter->from & 1))
            continue;
        if (is_seen(letter))
            return place;
        hidden |= UINT32_C(1) << letter->from;
    }
    return NULL;
}

static inline struct letter *take_out(int *place) {
    struct letter *letter = &post->letters[*place];
    *place = letter->next;
    return letter;
}

static inline int advance_receive(struct pending *pending) {
    int *place;
    if (!pending->letter) {
        if (!(place = find(pending->inboxes, pending->rank, pending->peer, pending->tag)))
            return 0;
        pending->letter = take_out(place);
    }
    struct letter *letter = pending->letter;
    CHECK(letter->nbytes <= pending->nbytes);
    letter->is_wanted = 1;
    memcpy(pending->recvbuf + letter->taken, letter->bytes, (size_t)(letter->given - letter->taken));
    letter->taken = letter->given;
    if (!letter->is_given)
        return 0;
    letter->inboxes->eager[letter->from][letter->to] -= letter->is_eager;
    letter->next = post->spare;
    post->spare = (int)(letter - post->letters);
    return 1;
}

/* 1: all are done. */
static inline int advance_all(void) {
    int all_done = 1;
    post_clock++;
    for (struct pending *pending = all_pending; pending; pending = pending->next) {
        if (!pending->is_done)
            pending->is_done = pending->advance(pending);
        all_done &= pending->is_done;
    }
    return all_done;
}

static inline int fails(int *fails_in, struct outcome *outcome) {
    if (!*fails_in || --*fails_in)
        return STATUS_OK;
    *outcome = (struct outcome){STATUS_MPI_FAILED, 1, "MPI_ERR_OTHER", "MPI_Wire", "the wire is cut"};
    return outcome->status;
}

static inline request_handle begin_request(struct pending what) {
    struct pending *pending = malloc(sizeof *pending), **place = &all_pending;
    CHECK(pending);
    *pending = what;
    lock_post();
    while (*place)
        place = &(*place)->next;
    *place = pending;
    advance_all();
    unlock_post();
    return (request_handle)pending;
}

static inline int begin_message(struct comm *comm, struct pending what, request_handle *request,
                                struct outcome *outcome) {
    CHECK(what.peer < comm->size && what.tag >= 0);
    if (fails(&messages_fail_in, outcome))
        return outcome->status;
    what.inboxes = ((struct endpoint *)comm)->inboxes;
    what.rank = comm->rank;
    *request = begin_request(what);
    return STATUS_OK;
}

static inline int post_send(struct comm *comm, const void *sent, int64_t nbytes, int dst, int tag,
                            request_handle *request, struct outcome *outcome) {
    CHECK(dst >= 0);
    struct pending what = {.advance = advance_send, .sent = sent, .nbytes = nbytes, .peer = dst, .tag = tag};
    return begin_message(comm, what, request, outcome);
}

static inline int post_recv(struct comm *comm, void *recvbuf, int64_t nbytes, int src, int tag, request_handle *request,
                            struct outcome *outcome) {
    struct pending what = {.advance = advance_receive, .recvbuf = recvbuf, .nbytes = nbytes, .peer = src, .tag = tag};
    return begin_message(comm, what, request, outcome);
}

static inline int post_test(request_handle *request, int *done, struct outcome *outcome) {
    struct pending *pending = (struct pending *)*request, **place = &all_pending;
    (void)outcome;
    *done = 1;
    if (!pending)
        return STATUS_OK;
    lock_post();
    if (!pending->is_done)
        advance_all();
    if ((*done = pending->is_done)) {
        while (*place != pending)
            place = &(*place)->next;
        *place = pending->next;
        *request = 0;
        free(pending);
    }
    unlock_post();
    return STATUS_OK;
}

static inline int post_look(struct comm *comm, int src, int tag, int *found, struct outcome *outcome) {
    (void)outcome;
    lock_post();
    advance_all();
    *found = find(((struct endpoint *)comm)->inboxes, comm->rank, src, tag) != NULL;
    unlock_post();
    return STATUS_OK;
}

static inline int post_probe(struct comm *comm, int src, int tag, int *found, struct message *message,
                             struct outcome *outcome) {
    (void)outcome;
    lock_post();
    advance_all();
    int *place = find(((struct endpoint *)comm)->inboxes, comm->rank, src, tag);
    if ((*found = place != NULL)) {
        struct letter *letter = take_out(place);
        *message = (struct message){(message_handle)letter, letter->nbytes};
    }
    unlock_post();
    return STATUS_OK;
}

static inline int post_recv_found(void *recvbuf, struct message *message, request_handle *request,
                                  struct outcome *outcome) {
    struct letter *letter = (struct letter *)message->handle;
    if (fails(&messages_fail_in, outcome))
        return outcome->status;
    *request = begin_request(
        (struct pending){.advance = advance_receive, .letter = letter, .recvbuf = recvbuf, .nbytes = message->nbytes});
    return STATUS_OK;
}

/* As MPI_Finalize: wait until all that was begun is done. */
static inline void post_finish(void) {
    for (int all_done = 0; !all_done; sched_yield()) {
        lock_post();
        all_done = advance_all();
        unlock_post();
    }
}

#endif
