/* The vote after an arrival: do all ranks go on, or does none? The first to vote decides for all. */
#ifndef MLXDIST_SHM_CONSENSUS_H
#define MLXDIST_SHM_CONSENSUS_H

#include <stdatomic.h>

#include "mlxdist/shm/segment.h"

/* 2 k: all ranks go on after arrival k. 2 k + 1: one of them gave it up first.
 *
 * Memory order: any rank writes it, by compare-and-swap, and its value only grows, so all ranks read the same decision
 * on k whenever they ask. No other data is published by it. */
struct consensus {
    _Alignas(SEGMENT_LINE) _Atomic uint64_t decided;
};

/* Vote on arrival k, and return what was decided: 1 if it was given up. */
int consensus_decide(struct consensus *consensus, uint64_t k, int give_up);

#endif
