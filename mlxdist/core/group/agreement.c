#include "mlxdist/group/agreement.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A call of this rank. What others say changes it under the lock, on whichever thread looks. */
struct agreement {
    struct members *members;
    struct notices *notices;
    struct notice own;
    const int *ranks;
    char *has_called; /* of each of `ranks`, as far as this rank is told */
    int rank, leader, leads, n_called, n_begin;
    enum { UNDER_WAY, ASKED, AGREED, ENDED } state, awaited; /* ASKED: of a leader, all have called */
    int is_told;                                             /* ended by its leader */
    int differs;                                             /* from the call of another, which may be its leader */
    struct outcome why;
    struct agreement *next;
};

static atomic_uint last_tag;

static int position_of(const struct agreement *call, int rank) {
    for (int i = 0; i < call->own.n; i++)
        if (call->ranks[i] == rank)
            return i;
    return -1;
}

static void end_call(struct agreement *call, int status, const char *why) {
    if (call->state >= AGREED)
        return;
    call->state = ENDED;
    call->why.status = status;
    snprintf(call->why.text, sizeof call->why.text, "%s", why);
}

static void end_differently(struct agreement *call, const struct notice *other) {
    char own[200], its[200], text[600];
    notice_text(&call->own, own, sizeof own);
    notice_text(other, its, sizeof its);
    snprintf(text, sizeof text,
             "the ranks differ:\n  rank %d: %s\n  rank %d: %s\npass the same ranks, in the same order, on all of them",
             call->rank, own, (int)other->from, its);
    end_call(call, STATUS_MISMATCH, text);
}

static void give_up_for(struct agreement *call, const struct notice *notice) {
    char text[700];
    snprintf(text, sizeof text, "rank %d has given up: %.*s", (int)notice->from, (int)sizeof notice->why, notice->why);
    if (notice->status == STATUS_MISMATCH)
        end_call(call, STATUS_MISMATCH, notice->why);
    else
        end_call(call, STATUS_PEER_DIED, text);
}

static int say(struct agreement *call, int saying, int rank, struct outcome *outcome) {
    call->own.saying = saying;
    return notices_send(call->notices, call->members, &call->own, rank, outcome);
}

/* The leader to all others, another to the leader. */
static int say_to_others(struct agreement *call, int saying, struct outcome *outcome) {
    for (int i = 0; i < call->own.n; i++) {
        int rank = call->ranks[i], is_told = call->leads || call->differs || rank == call->leader;
        if (rank != call->rank && is_told && say(call, saying, rank, outcome))
            return outcome->status;
    }
    return STATUS_OK;
}

/* For those who will be told that it ends. */
static void explain(struct agreement *call, const struct outcome *why) {
    call->own.status = why->status;
    snprintf(call->own.why, sizeof call->own.why, "%.*s", (int)sizeof call->own.why - 1, why->text);
}

static struct agreement *call_of(const struct notices *notices, uint64_t set, uint32_t attempt) {
    struct agreement *call = notices->calls;
    while (call && (call->own.set != set || call->own.attempt != attempt))
        call = call->next;
    return call;
}

static void hear_of(struct agreement *call, const struct notice *notice) {
    if (call->state >= AGREED)
        return;
    switch ((enum saying)notice->saying) {
    case JOINS:
        call->has_called[position_of(call, notice->from)] = 1;
        if (call->leads && notice->order != call->own.order)
            end_differently(call, notice);
        else if (++call->n_called == call->own.n - 1)
            call->state = ASKED;
        break;
    case BEGIN:
        call->state = ASKED;
        break;
    case BEGINS:
        if (++call->n_begin == call->own.n - 1)
            call->state = AGREED;
        break;
    case GO:
        call->own.tag = notice->tag;
        call->state = AGREED;
        break;
    case GIVES_UP:
        call->is_told = notice->from == call->leader;
        give_up_for(call, notice);
        break;
    case DIFFERS:
        call->differs = 1;
        give_up_for(call, notice);
    }
}

static void hear(struct notices *notices, struct letter *letter);

/* What is kept for this attempt is heard, and that of earlier ones dropped. */
static void count(struct notices *notices, struct attempts *attempts, uint32_t attempt) {
    struct letter *letter = notices->early, *next;
    if (attempts->n < attempt)
        attempts->n = attempt;
    notices->early = NULL;
    for (; letter; letter = next) {
        next = letter->next;
        hear(notices, letter);
    }
}

static void hear(struct notices *notices, struct letter *letter) {
    const struct notice *notice = &letter->notice;
    struct attempts *attempts = notices_attempts(notices, notice->set);
    int differs = notice->saying == DIFFERS;
    struct agreement *call = differs ? call_of(notices, notice->other_set, notice->other_attempt)
                                     : call_of(notices, notice->set, notice->attempt);
    if (call)
        hear_of(call, notice);
    else if (!differs && (!attempts || notice->attempt > attempts->n)) {
        notices_keep(notices, letter);
        return;
    }
    if (differs && attempts)
        count(notices, attempts, notice->attempt);
    free(letter);
}

static int hear_all(struct agreement *call, struct outcome *outcome) {
    struct letter *letter;
    int result;
    while (!(result = notices_receive(call->notices, call->members, &letter, outcome)) && letter)
        hear(call->notices, letter);
    return result;
}

/* A rank that this call waits for is in another, which waits for this rank: neither has another thread. */
static void find_another_set(struct agreement *call) {
    struct outcome second;
    if (!call->own.is_only_thread || call->state != UNDER_WAY)
        return;
    for (struct letter *letter = call->notices->early; letter; letter = letter->next) {
        const struct notice *notice = &letter->notice;
        struct attempts *attempts;
        if (notice->saying != JOINS || !notice->is_only_thread || notice->set == call->own.set ||
            position_of(call, notice->from) < 0 || !(attempts = notices_attempts(call->notices, notice->set)))
            continue;
        end_differently(call, notice);
        explain(call, &call->why);
        call->differs = 1;
        call->own.other_set = notice->set, call->own.other_attempt = notice->attempt;
        say(call, DIFFERS, notice->from, &second);
        count(call->notices, attempts, notice->attempt);
        return;
    }
}

/* After BEGINS the leader alone decides: whoever has said it cannot give up. */
static int is_bound(const struct agreement *call) {
    return call->awaited == AGREED && !call->leads;
}

static int check_others(struct agreement *call, struct outcome *outcome) {
    for (int i = 0; call->members->shm && i < call->own.n; i++)
        if (call->ranks[i] != call->rank && (!is_bound(call) || call->ranks[i] == call->leader) &&
            shm_check(call->members->shm, call->ranks[i], outcome))
            return outcome->status;
    return STATUS_OK;
}

static int poll_call(void *it, int slow_check, struct outcome *outcome) {
    struct agreement *call = it;
    if (pthread_mutex_trylock(&call->notices->lock))
        return 0; /* another thread looks */
    int failed = hear_all(call, outcome);
    if (slow_check && !failed)
        find_another_set(call);
    if (call->state == ENDED && !failed)
        *outcome = call->why, failed = 1;
    int done = call->state >= call->awaited;
    pthread_mutex_unlock(&call->notices->lock);
    /* Last: who has left may have said before what this rank waits for. */
    if (slow_check && !failed && !done && check_others(call, outcome))
        failed = 1;
    return failed ? -1 : done;
}

/* Of the others only the leader knows who has called. */
static void describe_call(void *it, int to_all, char *text, size_t nbytes) {
    const struct agreement *call = it;
    char ranks[200];
    int n_missing = 0;
    pthread_mutex_lock(&call->notices->lock);
    notice_text(&call->own, ranks, sizeof ranks);
    snprintf(text, nbytes, "%s, rank %d: ", ranks, call->rank);
    for (int i = 0; i < call->own.n; i++) {
        int rank = call->ranks[i];
        if (!call->has_called[i] && (call->leads ? rank != call->rank : rank == call->leader))
            text_append(text, nbytes, "%s%d", n_missing++ ? ", " : "rank ", rank);
    }
    if (n_missing)
        text_append(text, nbytes, n_missing > 1 ? " have not called it" : " has not called it");
    else if (!call->leads)
        text_append(text, to_all ? 0 : nbytes, "rank %d waits for another", call->leader);
    for (const struct letter *letter = call->notices->early; letter; letter = letter->next) {
        notice_text(&letter->notice, ranks, sizeof ranks);
        if (letter->notice.set != call->own.set && letter->notice.saying == JOINS)
            text_append(text, nbytes, "; rank %d waits in %s", (int)letter->notice.from, ranks);
    }
    pthread_mutex_unlock(&call->notices->lock);
}

static int await(struct agreement *call, int state, struct outcome *outcome) {
    call->awaited = state;
    return wait_for(
        &(struct wait_condition){poll_call, is_bound(call) ? NULL : describe_call, call, POLL_DRIVES_PROGRESS, 0},
        is_bound(call) ? &wait_for_good : &call->members->policy, outcome);
}

static int begin(struct agreement *call, struct outcome *outcome) {
    struct notices *notices = call->notices;
    pthread_mutex_lock(&notices->lock);
    call->next = notices->calls;
    notices->calls = call;
    struct attempts *attempts = notices_attempts(notices, call->own.set);
    int result = attempts ? STATUS_OK : notices_out_of_memory(outcome);
    if (attempts) {
        call->own.attempt = attempts->n + 1;
        count(notices, attempts, call->own.attempt);
    }
    if (call->state != ENDED && !result)
        result = say_to_others(call, JOINS, outcome);
    pthread_mutex_unlock(&notices->lock);
    return result;
}

static int go_on(struct agreement *call, struct outcome *outcome) {
    pthread_mutex_lock(&call->notices->lock);
    int result = say_to_others(call, call->leads ? BEGIN : BEGINS, outcome);
    pthread_mutex_unlock(&call->notices->lock);
    return result;
}

/* What the others are waiting for has left, and what must be received before it. */
static int poll_sent(void *it, int slow_check, struct outcome *outcome) {
    struct agreement *call = it;
    int is_left = 0;
    if (slow_check && check_others(call, outcome))
        return -1;
    if (pthread_mutex_trylock(&call->notices->lock))
        return 0;
    int failed = notices_sweep(call->notices, outcome);
    for (const struct letter *letter = call->notices->sent; letter; letter = letter->next)
        is_left |= call->leads ? position_of(call, letter->to) >= 0 : letter->to == call->leader;
    pthread_mutex_unlock(&call->notices->lock);
    return failed ? -1 : !is_left;
}

static int finish(struct agreement *call, int result, struct outcome *outcome) {
    struct notices *notices = call->notices;
    struct outcome second;
    pthread_mutex_lock(&notices->lock);
    if (!result && call->leads)
        result = say_to_others(call, GO, outcome);
    pthread_mutex_unlock(&notices->lock);
    if (!result)
        result =
            wait_for(&(struct wait_condition){poll_sent, NULL, call, POLL_DRIVES_PROGRESS, 0}, &wait_for_good, outcome);
    pthread_mutex_lock(&notices->lock);
    if (result && !call->is_told) {
        explain(call, outcome);
        say_to_others(call, GIVES_UP, &second);
    }
    struct agreement **place = &notices->calls;
    while (*place != call)
        place = &(*place)->next;
    *place = call->next;
    notices_sweep(notices, &second);
    pthread_mutex_unlock(&notices->lock);
    return result;
}

static int compare(const void *one, const void *other) {
    return *(const int *)one - *(const int *)other;
}

static uint64_t digest_of(const int *ranks, int n) {
    uint64_t digest = 0;
    for (int i = 0; i < n; i++)
        digest = digest_mix(digest, (uint64_t)ranks[i]);
    return digest;
}

/* From then on no other call of this rank as the leader has this tag, for a long time. */
static int next_tag(const struct comm *comm) {
    uint64_t call = atomic_fetch_add_explicit(&last_tag, 1, memory_order_relaxed);
    uint32_t size = (uint32_t)comm->size, tags = size < AGREEMENT_TAGS ? AGREEMENT_TAGS - AGREEMENT_TAGS % size : size;
    return AGREEMENT_FIRST_TAG + (int)((call * size + (uint32_t)comm->rank) % tags % AGREEMENT_TAGS);
}

int agreement_reach(struct members *members, struct notices *notices, const int *ranks, int n, int is_only_thread,
                    struct agreed *agreed, struct outcome *outcome) {
    int *sorted = malloc((size_t)n * sizeof *sorted), rank = members->comm->rank;
    struct agreement call = {.members = members, .notices = notices, .ranks = ranks, .rank = rank};
    call.has_called = calloc((size_t)n, 1);
    if (!sorted || !call.has_called) {
        free(sorted), free(call.has_called);
        return notices_out_of_memory(outcome);
    }
    memcpy(sorted, ranks, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    call.leader = sorted[0], call.leads = call.leader == rank;
    call.own = (struct notice){.group = notices->group,
                               .set = digest_of(sorted, n),
                               .order = digest_of(ranks, n),
                               .from = rank,
                               .n = n,
                               .is_only_thread = is_only_thread,
                               .tag = next_tag(members->comm)};
    memcpy(call.own.ranks, ranks, (size_t)(n < NOTICE_RANKS ? n : NOTICE_RANKS) * sizeof *ranks);
    int result = begin(&call, outcome);
    if (n > 1) {
        if (!result)
            result = await(&call, ASKED, outcome);
        if (!result && !(result = go_on(&call, outcome)))
            result = await(&call, AGREED, outcome);
    }
    result = finish(&call, result, outcome);
    agreed->tag = call.own.tag;
    agreed->group = digest_mix(digest_mix(notices->group, call.own.set), call.own.attempt);
    free(sorted), free(call.has_called);
    return result;
}
