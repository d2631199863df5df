#include "mlxdist/net/net.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "mlxdist/net/answer.h"
#include "mlxdist/net/relay.h"
#include "mlxdist/net/short.h"

struct net {
    struct comm *comm;
    struct shm *shm;
    struct hosts *hosts;
    struct news *news;
    struct opening *opening; /* NULL: this rank is not the leader of its host */
    struct answer *answer;   /* NULL: it is alone there */
    struct relay *relay;     /* opened by the first long collective */
    int end_together;
    int is_lost;
    uint64_t calls, answers;
    _Atomic uint64_t first_missed; /* of the calls, if this rank gives up now; another thread may read it */
};

static int is_leader(const struct net *net) {
    return hosts_leader(net->hosts, net->hosts->mine) == net->comm->rank;
}

static int open_parts(struct net *net, const struct wait_policy *policy, struct outcome *outcome) {
    void *memory = NULL;
    if (net->shm && shm_share(net->shm, answer_nbytes(), 1, &memory, policy, outcome)) {
        if (outcome->status != STATUS_OUT_OF_MEMORY)
            return outcome->status;
        net->shm = NULL; /* each rank is a host of its own then */
    }
    net->answer = memory;
    if (hosts_open(net->comm, net->shm, &net->hosts, outcome) ||
        news_open(net->comm, net->hosts, &net->news, outcome) ||
        (is_leader(net) && opening_open(net->hosts, &net->opening, outcome)))
        return outcome->status;
    return STATUS_OK;
}

int net_open(struct comm *comm, struct shm *shm, int end_together, const struct wait_policy *policy, struct net **net,
             struct outcome *outcome) {
    struct net *opened = calloc(1, sizeof *opened);
    if (!opened) {
        outcome->status = STATUS_OUT_OF_MEMORY;
        snprintf(outcome->text, sizeof outcome->text, "no memory for a group: free some");
        return outcome->status;
    }
    opened->comm = comm;
    opened->shm = shm;
    opened->end_together = end_together;
    atomic_init(&opened->first_missed, 1);
    if (open_parts(opened, policy, outcome)) {
        net_close(opened);
        return outcome->status;
    }
    *net = opened;
    return STATUS_OK;
}

void net_close(struct net *net) {
    if (net_is_pending(net))
        return;
    if (net->relay)
        relay_close(net->relay);
    if (net->opening)
        opening_close(net->opening);
    if (net->news)
        news_close(net->news);
    if (net->hosts)
        hosts_close(net->hosts);
    free(net);
}

int net_is_pending(const struct net *net) {
    return net->is_lost || (net->news && news_is_pending(net->news)) ||
           (net->opening && opening_is_pending(net->opening)) || (net->relay && relay_is_pending(net->relay));
}

static struct crossing next_call(struct net *net, const struct call *call, const struct wait_policy *policy) {
    atomic_store(&net->first_missed, ++net->calls);
    return (struct crossing){net->comm, net->shm, net->hosts, net->news, call, policy, net->calls, net->end_together};
}

/* What MPI may have done of a call that it failed in, nobody knows. */
static int end_call(struct net *net, int result) {
    net->is_lost |= result == STATUS_MPI_FAILED;
    if (!result)
        atomic_store(&net->first_missed, net->calls + 1);
    return result;
}

/* How the calls of the ranks of this host, which have arrived, compare. COMPATIBLE: not the same, but they agree. */
enum likeness { ALIKE, COMPATIBLE, DIFFERENT };

static enum likeness compare(const struct crossing *crossing) {
    const struct call *calls[SHM_MAX_RANKS];
    struct outcome ignored;
    int size = crossing->shm ? hosts_own(crossing->hosts)->size : 0, alike = 1;
    for (int i = 0; i < size; i++) {
        calls[i] = shm_call(crossing->shm, i);
        alike = alike && call_fingerprint(calls[i]) == call_fingerprint(crossing->call);
    }
    return alike ? ALIKE : calls_differ(calls, size, 0, &ignored) ? DIFFERENT : COMPATIBLE;
}

/* A leader that has found out something tells the other ranks of its host. If it has only given up, they see that, or
 * give up themselves. */
static int answer(struct net *net, int result, const struct outcome *outcome) {
    int is_for_all = result != STATUS_TIMED_OUT && result != STATUS_INTERRUPTED && result != STATUS_GROUP_CLOSED;
    if (net->answer && is_for_all)
        answer_publish(net->answer, net->answers, result, outcome);
    return result;
}

/* The leader of each host does it, and computes the result if it is one of a short call; the others wait for its
 * answer. */
static int agree(struct net *net, const struct crossing *crossing, const struct opening_state *state, void *result,
                 struct outcome *outcome) {
    net->answers++;
    if (!net->opening)
        return answer_await(net->answer, net->answers, crossing, outcome);
    int failed = opening_run(crossing, net->opening, state, outcome);
    if (!failed && result)
        short_compute(crossing, net->opening, result);
    return answer(net, failed, outcome);
}

static int run_short(struct net *net, const struct crossing *crossing, const void *sendbuf, void *recvbuf,
                     struct outcome *outcome) {
    enum likeness likeness = compare(crossing);
    struct opening_state state = {.differs = likeness != ALIKE};
    void *result = net->answer ? answer_data(net->answer) : recvbuf;
    if (net->opening && likeness != DIFFERENT)
        state.nbytes = short_fill(crossing, net->opening, sendbuf);
    if (agree(net, crossing, &state, result, outcome))
        return outcome->status;
    if (net->answer)
        short_copy_out(crossing, result, recvbuf);
    return STATUS_OK;
}

/* In the middle of a call a rank of this host has left it, by finalize() on another thread: PEER_DIED, of which the
 * other hosts are told. Nobody else would. */
static int end_amid(int result, struct outcome *outcome) {
    return result == STATUS_MISMATCH ? (outcome->status = STATUS_PEER_DIED) : result;
}

static int run_long(struct net *net, const struct crossing *crossing, const void *sendbuf, void *recvbuf,
                    struct outcome *outcome) {
    enum likeness likeness = compare(crossing);
    struct opening_state state = {.differs = likeness != ALIKE};
    int result = STATUS_OK;
    if (!net->relay && likeness != DIFFERENT && call_nbytes(crossing->call)) {
        if (net->opening)
            opening_list_calls(crossing, net->opening);
        state.is_listed = 1;
        result = end_amid(relay_open(crossing, &net->relay, outcome), outcome);
    }
    state.no_memory = result == STATUS_OUT_OF_MEMORY;
    if ((result && !state.no_memory) || agree(net, crossing, &state, NULL, outcome))
        return outcome->status;
    return call_nbytes(crossing->call) ? end_amid(relay_run(net->relay, crossing, sendbuf, recvbuf, outcome), outcome)
                                       : STATUS_OK;
}

/* The ranks of this host arrive. One that has left makes no call: the leader tells the other hosts, which may wait for
 * them. */
static int arrive(struct net *net, const struct crossing *crossing, const void *payload, size_t nbytes,
                  struct outcome *outcome) {
    struct opening_state state = {.differs = 1};
    struct outcome second;
    int result =
        net->shm ? shm_gather(net->shm, crossing->call, payload, nbytes, crossing->policy, outcome) : STATUS_OK;
    if (result != STATUS_MISMATCH || !agree(net, crossing, &state, NULL, &second))
        return result;
    *outcome = second;
    return second.status;
}

int net_run(struct net *net, const struct call *call, const void *sendbuf, void *recvbuf,
            const struct wait_policy *policy, struct outcome *outcome) {
    struct crossing crossing = next_call(net, call, policy);
    int is_short = short_fits(net->hosts, call);
    int result = arrive(net, &crossing, sendbuf, is_short ? short_nbytes(&crossing) : 0, outcome);
    return end_call(net,
                    result ? result : (is_short ? run_short : run_long)(net, &crossing, sendbuf, recvbuf, outcome));
}

/* The leaders ask each other whether all go on with what MPI does; the others wait for the answer. */
static int confirm(struct net *net, const struct crossing *crossing, int goes_on, struct outcome *outcome) {
    net->answers++;
    return net->opening ? answer(net, opening_confirm(crossing, net->opening, goes_on, outcome), outcome)
                        : answer_await(net->answer, net->answers, crossing, outcome);
}

/* A rank that has committed cannot be interrupted: the others may go on without asking again. */
static int commit(struct net *net, struct crossing *crossing, struct outcome *outcome) {
    struct wait_policy policy = *crossing->policy;
    struct call committed = flat_call(OPERATION_SHARE, 0, 0, 0, 0);
    committed.rank = crossing->call->rank;
    if (net->shm && shm_arrive(net->shm, &committed, crossing->policy, outcome))
        return end_amid(outcome->status, outcome);
    policy.interrupt = NULL;
    crossing->policy = &policy;
    return confirm(net, crossing, 1, outcome);
}

int net_arrive(struct net *net, const struct call *call, const struct wait_policy *policy, struct outcome *outcome) {
    struct crossing crossing = next_call(net, call, policy);
    int result = arrive(net, &crossing, NULL, 0, outcome);
    if (!result) {
        struct opening_state state = {.differs = compare(&crossing) != ALIKE};
        result = agree(net, &crossing, &state, NULL, outcome);
    }
    return end_call(net, result ? result : commit(net, &crossing, outcome));
}

int net_end(struct net *net, const struct wait_policy *policy, struct outcome *outcome) {
    struct call call = flat_call(OPERATION_FINALIZE, 0, 0, 0, 0);
    struct opening_state state = {0};
    call.rank = net->comm->rank;
    struct crossing crossing = next_call(net, &call, policy);
    return agree(net, &crossing, &state, NULL, outcome);
}

int net_end_mpi(struct net *net, int ends_mpi, const struct wait_policy *policy, struct outcome *outcome) {
    struct call call = flat_call(OPERATION_FINALIZE, 0, 0, 0, 0);
    call.rank = net->comm->rank;
    struct crossing crossing = next_call(net, &call, policy);
    if (net->opening)
        crossing.shm = NULL; /* whatever becomes of this host's ranks, the other hosts wait to be told */
    return confirm(net, &crossing, ends_mpi, outcome);
}

int net_check(void *net, struct outcome *outcome) {
    struct net *checked = net;
    return news_check(checked->news, atomic_load(&checked->first_missed), outcome);
}

void net_give_up(struct net *net, const struct outcome *why) {
    news_send(net->news, atomic_load(&net->first_missed), why);
}

const char *net_host_of(const struct net *net, int rank) {
    return net->hosts->each[hosts_of_rank(net->hosts, rank)].name;
}
