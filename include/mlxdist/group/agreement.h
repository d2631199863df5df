/* How some ranks of a group agree to make a group of their own, which the others know nothing of.
 *
 * They call it on any threads and in any order, while the group is used for other things: so each call is known by its
 * set of ranks. The lowest of them leads. What they say:
 *
 * |          | from   | to        |                                                                    |
 * | JOINS    | each   | leader    | this rank is in such a call; the leader tells each that it is      |
 * | BEGIN    | leader | each      | all are                                                            |
 * | BEGINS   | each   | leader    | and this rank cannot be interrupted any more                       |
 * | GO       | leader | each      | all begin                                                          |
 * | GIVES_UP | either | the other | none begins; also to a rank that is in a call which can never end. |
 * |          |        |           | A rank that is not in the call yet keeps it, and its call fails.   |
 */
#ifndef MLXDIST_GROUP_AGREEMENT_H
#define MLXDIST_GROUP_AGREEMENT_H

#include "mlxdist/group/notices.h"

/* The tags that MPI gets for what they begin. */
enum { AGREEMENT_FIRST_TAG = 20000, AGREEMENT_TAGS = 12000 };

struct agreed {
    int tag;        /* for MPI: no other call under way on the group has it */
    uint64_t group; /* of the new one's notices */
};

/* OK, on all n ranks: all of them, this one among them, make this call, and begin what MPI carries out. Otherwise none
 * begins, and the group can still be used. is_only_thread: no other thread of this process makes groups; only between
 * such ranks can it be known that another set was passed, MISMATCH, and that the same one is not still to come. */
int agreement_reach(struct members *members, struct notices *notices, const int *ranks, int n, int is_only_thread,
                    struct agreed *agreed, struct outcome *outcome);

#endif
