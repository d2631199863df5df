/* How some ranks of a group agree to make a group of their own, which the others know nothing of.
 *
 * They call it on any threads and in any order, while the group is used for other things: so each call is known by its
 * set of ranks, and by how often this rank has called it with them. These attempts are numbered on each rank alike: the
 * nth of one rank is the nth of the others, and either all begin, or it fails once on each, on a rank that has not
 * called yet when it does. What is said of an attempt is kept by a rank that has not begun it, and has no effect on one
 * that has ended it. The lowest of the ranks leads. What they say:
 *
 * |          | from   | to        |                                                               |
 * | JOINS    | each   | leader    | this rank is in such a call; the leader tells each that it is |
 * | BEGIN    | leader | each      | all are                                                       |
 * | BEGINS   | each   | leader    | and this rank cannot be interrupted any more                  |
 * | GO       | leader | each      | all begin                                                     |
 * | GIVES_UP | either | the other | none begins                                                   |
 *
 * Two ranks may wait for each other in calls with different sets, which can never end. One of them says DIFFERS to the
 * other: both calls fail on both. So each counts the other's as an attempt of its own, and tells all ranks of its call
 * that it gives up, since their leader may be the one that is not in it. */
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
