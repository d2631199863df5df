#include "mlxdist/net/answer.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "mlxdist/copy.h"

/* Memory order: only the leader writes it. It stores `k` last, with release; a rank that reads k with acquire sees the
 * rest. The leader writes the next when all ranks of the host have arrived at their next call, so all have read. */
struct answer {
    _Alignas(CACHE_LINE) _Atomic uint64_t k;
    int32_t status;
    char text[1024];
    _Alignas(CACHE_LINE) char data[PLAN_OPENING];
};
_Static_assert(sizeof(((struct answer *)0)->text) == sizeof(((struct outcome *)0)->text), "it holds all of it");

size_t answer_nbytes(void) {
    return sizeof(struct answer);
}

void *answer_data(struct answer *answer) {
    return answer->data;
}

void answer_publish(struct answer *answer, uint64_t k, int status, const struct outcome *outcome) {
    answer->status = status;
    if (status)
        memcpy(answer->text, outcome->text, sizeof answer->text);
    atomic_store_explicit(&answer->k, k, memory_order_release);
}

struct answer_wait {
    const struct crossing *crossing;
    const struct answer *answer;
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
    return atomic_load_explicit(&wait->answer->k, memory_order_acquire) >= wait->k ? 1 : is_gone ? -1 : 0;
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
    struct answer_wait wait = {crossing, answer, k};
    if (wait_for(&(struct wait_condition){poll_answer, describe_answer, &wait, 0}, crossing->policy, outcome))
        return outcome->status;
    outcome->status = answer->status;
    if (answer->status)
        memcpy(outcome->text, answer->text, sizeof answer->text);
    return answer->status;
}
