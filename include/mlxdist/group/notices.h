/* What ranks of a group tell each other about groups that some of them make; what it means: agreement.h. */
#ifndef MLXDIST_GROUP_NOTICES_H
#define MLXDIST_GROUP_NOTICES_H

#include <pthread.h>

#include "mlxdist/group/members.h"

/* Of the tags on a group's communicator, this one of all notices; those of net/ are below. */
enum { NOTICE_TAG = 16900, NOTICE_RANKS = 16 };

enum saying { JOINS, BEGIN, BEGINS, GO, GIVES_UP, DIFFERS };

struct notice {
    uint64_t group;      /* MPI may give the next group the context of one that was freed with notices under way */
    uint64_t set, order; /* of the ranks, whatever their order, and in it */
    uint64_t other_set;  /* DIFFERS: of the receiver's call */
    uint32_t attempt, other_attempt;
    int32_t saying, from;
    int32_t n, ranks[NOTICE_RANKS]; /* n: of all; those beyond are not shown in errors */
    int32_t is_only_thread, tag, status;
    char why[380];
};

struct letter {
    struct notice notice;
    request_handle request;
    int to; /* of one that is sent */
    struct letter *next;
};

/* How many this rank has begun with the ranks of a set. */
struct attempts {
    uint64_t set;
    uint32_t n;
    struct attempts *next;
};

/* Of a group, for all threads of this rank. */
struct notices {
    pthread_mutex_t lock;                   /* held around everything below and by nobody who waits */
    struct letter *early, *arriving, *sent; /* early: for attempts that this rank has not begun */
    struct attempts *attempts;
    struct agreement *calls; /* under way */
    uint64_t group;          /* the same on all ranks, and of no other group */
};

void notices_open(struct notices *notices);
void notices_close(struct notices *notices);
/* MPI uses their memory. */
int notices_are_pending(const struct notices *notices);

/* None of these waits. Nothing is sent to a rank that has ended. */
int notices_send(struct notices *notices, struct members *members, const struct notice *notice, int rank,
                 struct outcome *outcome);
/* The next that has arrived, for the caller to keep or free; NULL: none has. */
int notices_receive(struct notices *notices, struct members *members, struct letter **letter, struct outcome *outcome);
/* Free those that have been sent. */
int notices_sweep(struct notices *notices, struct outcome *outcome);

/* Put a letter behind the other early ones, in place of what its sender has said of the same attempt before. */
void notices_keep(struct notices *notices, struct letter *letter);
/* Of the ranks of this set; NULL: no memory. */
struct attempts *notices_attempts(struct notices *notices, uint64_t set);

/* "group([0, 2, 3])" */
void notice_text(const struct notice *notice, char *text, size_t nbytes);
int notices_out_of_memory(struct outcome *outcome);

#endif
