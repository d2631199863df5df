/* How a rank copies long arrays through shared memory, tuned automatically.
 *
 * What is fastest depends on whether the whole array fits in the cache and, if not, on whether the ranks' processors
 * have that cache in common. The system does not report this reliably, and it changes when ranks are moved. So each
 * policy is sampled: ranks go through a long array in step, and each sees by its own clock with which policy all are
 * faster. */
#ifndef MLXDIST_SHM_COPY_POLICY_H
#define MLXDIST_SHM_COPY_POLICY_H

#include "mlxdist/copy.h"

struct copy_policy {
    enum copy_way copy_in, publish; /* of a rank's own data; of what it has reduced for others */
    size_t block;                   /* bytes of one copy before the next peer's */
};

struct copy_autotune {
    int beyond_cache;           /* the array under way is larger than the cache */
    int chosen;                 /* the faster policy in the last samples */
    size_t known_for;           /* bytes until the next samples */
    int runs;                   /* samples are being taken */
    double began_s, least_s[2]; /* of the sample under way; the shortest of each policy */
};

/* Begin an array of so many bytes and pieces: the same on all ranks. */
void autotune_begin(struct copy_autotune *autotune, size_t nbytes, size_t pieces, int beyond_cache);
/* The policy of its k-th step; called at the beginning of each. */
const struct copy_policy *autotune_policy(struct copy_autotune *autotune, size_t k);

#endif
