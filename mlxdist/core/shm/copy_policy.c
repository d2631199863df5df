#include "mlxdist/shm/copy_policy.h"

#include <math.h>

#include "mlxdist/wait.h"

/* Each policy has two samples of some steps, of which the better one counts, since a page fault or another process can
 * spoil one. The first step of a sample is not timed: it still has to do with what was written before. */
enum { POLICIES = 2, SAMPLES = 2 * POLICIES, SAMPLE_STEPS = 4, UNTIMED_STEPS = 1 };

static const struct copy_policy in_cache = {COPY_FULL_LINES, COPY_FULL_LINES, 64 << 10};
/* The ranks have a last-level cache in common; they do not, and read what another has written faster from memory. */
static const struct copy_policy of_memory[POLICIES] = {{COPY_FROM_MEMORY, COPY_FULL_LINES, 2 << 10},
                                                       {COPY_NON_TEMPORAL, COPY_NON_TEMPORAL, 64 << 10}};

void autotune_begin(struct copy_autotune *autotune, size_t nbytes, size_t pieces, int beyond_cache) {
    const size_t known_for = (size_t)1 << 29;
    autotune->beyond_cache = beyond_cache;
    autotune->runs = beyond_cache && !autotune->known_for && pieces > SAMPLES * SAMPLE_STEPS;
    if (autotune->runs) {
        autotune->known_for = known_for;
        autotune->least_s[0] = autotune->least_s[1] = HUGE_VAL;
    }
    if (beyond_cache)
        autotune->known_for -= nbytes < autotune->known_for ? nbytes : autotune->known_for;
}

static void sample(struct copy_autotune *autotune, size_t k) {
    if (k % SAMPLE_STEPS == 0 && k) {
        size_t policy = (k / SAMPLE_STEPS - 1) % POLICIES;
        double spent_s = wait_now_s() - autotune->began_s;
        if (spent_s < autotune->least_s[policy])
            autotune->least_s[policy] = spent_s;
    }
    if (k % SAMPLE_STEPS == UNTIMED_STEPS)
        autotune->began_s = wait_now_s();
    if (k == SAMPLES * SAMPLE_STEPS) {
        autotune->chosen = autotune->least_s[1] < autotune->least_s[0];
        autotune->runs = 0;
    }
}

const struct copy_policy *autotune_policy(struct copy_autotune *autotune, size_t k) {
    if (!autotune->beyond_cache)
        return &in_cache;
    if (autotune->runs)
        sample(autotune, k);
    return &of_memory[autotune->runs ? k / SAMPLE_STEPS % POLICIES : (size_t)autotune->chosen];
}
