#include "mlxdist/shm/consensus.h"

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && sizeof(_Atomic uint64_t) == 8, "a lock would be private to a process");
_Static_assert(sizeof(struct consensus) == SEGMENT_LINE, "nothing else may lie on its line");

int consensus_decide(struct consensus *consensus, uint64_t k, int give_up) {
    uint64_t present = atomic_load_explicit(&consensus->decided, memory_order_acquire);
    while (present / 2 < k)
        if (atomic_compare_exchange_weak_explicit(&consensus->decided, &present, 2 * k + (uint64_t)give_up,
                                                  memory_order_acq_rel, memory_order_acquire))
            return give_up;
    /* A decision beyond k: a rank has got further, so all went on after k. */
    return present / 2 == k && present % 2;
}
