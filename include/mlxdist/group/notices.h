/* What ranks of a group tell each other about groups that some of them make; what it means: agreement.h. */
#ifndef MLXDIST_GROUP_NOTICES_H
#define MLXDIST_GROUP_NOTICES_H

#include <pthread.h>

#include "mlxdist/group/members.h"

/* Of the tags on a group's communicator, this one of all notices; those of net/ are below. */
enum { NOTICE_TAG = 16900, NOTICE_RANKS = 16 };

enum saying { JOINS, BEGIN, BEGINS, GO, GIVES_UP };

struct notice {
    uint64_t group;      /* MPI may give the next group the context of one that was freed with notices under way */
    uint64_t set, order; /* of the ranks, whatever their order, and in it */
    int32_t saying, from;
    uint32_t call, to;              /* the sender's number of its call, and the receiver's of its own; 0: not known */
    int32_t n, ranks[NOTICE_RANKS]; /* n: of all; those beyond are not shown in errors */
    int32_t is_only_thread, tag, status;
    char why[392];
};

struct letter {
    struct notice notice;
    request_handle request;
    int is_given_up; /* JOINS; why is in the notice */
    struct letter *next;
};

/* Of a group, for all threads of this rank. */
struct notices {
    pthread_mutex_t lock; /* held around everything below and by nobody who waits */
    struct letter *unclaimed, *arriving, *sent;
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

/* Put a letter behind the other unclaimed ones. */
void notices_keep(struct notices *notices, struct letter *letter);
/* Where the unclaimed one is of a rank's call with this number; number = 0: of one of these ranks that it has given up.
 * NULL is there if there is none. */
struct letter **notices_find(struct notices *notices, const struct notice *by, uint32_t number);
void notices_drop(struct letter **place);

/* For digests, which differ but for one case in 2^64. */
uint64_t notices_mix(uint64_t digest, uint64_t with);
/* "group([0, 2, 3])" */
void notice_text(const struct notice *notice, char *text, size_t nbytes);
int notices_out_of_memory(struct outcome *outcome);

#endif
