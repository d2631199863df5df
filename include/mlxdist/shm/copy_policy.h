/* How a rank copies what goes through memory that it shares with others.
 *
 * What is quickest depends on whether all of a message fits the cache and, beyond that, on whether the ranks'
 * processors have that cache in common. The system does not say so reliably, and it changes when ranks are moved.
 * So it is tried: ranks go through a long message in step, and each sees by its own clock which way all are quicker. */
#ifndef MLXDIST_SHM_COPY_POLICY_H
#define MLXDIST_SHM_COPY_POLICY_H

#include "mlxdist/copy.h"

struct copy_policy {
    enum copy_way copy_in, publish; /* a rank's own data; what it has reduced for others */
    size_t block;                   /* bytes of one copy before another has its turn */
};

struct copy_autotune {
    int beyond_cache; /* the message under way is more than the cache holds */
    int chosen;       /* by the last trial */
    size_t known_for; /* bytes until the next */
    int runs;
    double began_s, least_s[2]; /* of the turn under way; that a turn of each way took */
};

/* A message of so many bytes and pieces begins: the same on all ranks. */
void autotune_begin(struct copy_autotune *autotune, size_t nbytes, size_t pieces, int beyond_cache);
/* The method of its k-th step; called at the beginning of each. */
const struct copy_policy *autotune_policy(struct copy_autotune *autotune, size_t k);

#endif
