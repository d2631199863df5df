#include "mlxdist/net/answer.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "mlxdist/copy.h"

/* The k-th is in entry k % 2.
 *
 * Memory order: only the leader writes it. It stores `k` last, with release; a rank that reads k with acquire sees the
 * rest. Two entries are enough: a leader that ends may answer once more before the others have read what it answered
 * last, see net_end(); it answers again only when all ranks of the host have arrived or left. The data are of short
 * calls, between which all arrive. */
struct entry {
    _Alignas(SHM_LINE) _Atomic uint64_t k;
    int32_t status;
    char text[1024];
};
struct answer {
    struct entry entries[2];
    _Alignas(CACHE_LINE) char data[PLAN_OPENING];
};
_Static_assert(sizeof(((struct entry *)0)->text) == sizeof(((struct outcome *)0)->text), "it holds all of it");

size_t answer_nbytes(void) {
    return sizeof(struct answer);
}

void *answer_data(struct answer *answer) {
    return answer->data;
}

void answer_publish(struct answer *answer, uint64_t k, int status, const struct outcome *outcome) {
    struct entry *entry = &answer->entries[k % 2];
    entry->status = status;
    if (status)
        memcpy(entry->text, outcome->text, sizeof entry->text);
    atomic_store_explicit(&entry->k, k, memory_order_release);
}

struct answer_wait {
    const struct crossing *crossing;
    const struct entry *entry;
    uint64_t k;
};

/* Other hosts may wait for this one: PEER_DIED, of which they are told. */
static int check(const struct crossing *crossing, struct outcome *outcome) {
    int leader = hosts_leader(crossing->hosts, crossing->hosts->mine), result = crossing_check(crossing, outcome);
    if (!result && !crossing->end_together && shm_check(crossing->shm, leader, outcome))
        result = outcome->status = STATUS_PEER_DIED;
    return result;
}

static int poll_answer(void *it, int slow_check, struct outcome *outcome) {
    const struct answer_wait *wait = it;
    /* First: the leader may have left after it had answered. */
    int is_gone = slow_check && check(wait->crossing, outcome);
    return atomic_load_explicit(&wait->entry->k, memory_order_acquire) >= wait->k ? 1 : is_gone ? -1 : 0;
}

static void describe_answer(void *it, int to_all, char *text, size_t nbytes) {
    const struct answer_wait *wait = it;
    if (to_all)
        return; /* the leader prints it */
    crossing_describe(wait->crossing, text, nbytes);
    snprintf(text + strlen(text), nbytes - strlen(text), ": other hosts have not reached this call, see rank %d",
             hosts_leader(wait->crossing->hosts, wait->crossing->hosts->mine));
}

int answer_await(struct answer *answer, uint64_t k, const struct crossing *crossing, struct outcome *outcome) {
    const struct entry *entry = &answer->entries[k % 2];
    struct answer_wait wait = {crossing, entry, k};
    if (wait_for(&(struct wait_condition){poll_answer, describe_answer, &wait, 0, 1}, crossing->policy, outcome))
        return outcome->status;
    outcome->status = entry->status;
    if (entry->status)
        memcpy(outcome->text, entry->text, sizeof entry->text);
    return entry->status;
}
