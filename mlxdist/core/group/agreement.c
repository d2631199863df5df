#include "mlxdist/group/agreement.h"

#include <stdarg.h>
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
    uint32_t *numbers; /* leader: those of the calls of `ranks`; 0: it has not called */
    int rank, leader, leads, n_called, n_begins, has_asked;
    uint32_t number_of_leader;
    enum { UNDER_WAY, ASKED, AGREED, ENDED } state, awaited; /* ASKED: of a leader, all have called */
    int is_told;                                             /* ended by its leader */
    struct outcome why;
    struct agreement *next;
};

static atomic_uint last_call;

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

static int say(struct agreement *call, int saying, int rank, uint32_t to, struct outcome *outcome) {
    struct notice notice = call->own;
    notice.saying = saying, notice.to = to;
    return notices_send(call->notices, call->members, &notice, rank, outcome);
}

/* 1: it is of this call: the leader takes what the others have said, and they take that it has given up. */
static int claim(struct agreement *call, const struct letter *letter) {
    const struct notice *notice = &letter->notice;
    struct outcome second;
    int position = position_of(call, notice->from);
    if (call->state > ASKED || notice->set != call->own.set || position < 0)
        return 0;
    if (!call->leads) {
        call->is_told = call->state == UNDER_WAY && letter->is_given_up && notice->from == call->leader;
        if (call->is_told)
            give_up_for(call, notice);
        return call->is_told;
    }
    if (call->numbers[position])
        return 0;
    call->numbers[position] = notice->call;
    if (letter->is_given_up)
        give_up_for(call, notice);
    else if (notice->order != call->own.order)
        end_differently(call, notice);
    else if (++call->n_called == call->own.n - 1)
        call->state = ASKED;
    if (call->has_asked && call->state == ASKED)
        say(call, BEGIN, notice->from, notice->call, &second);
    return 1;
}

static void claim_all(struct agreement *call) {
    for (struct letter **place = &call->notices->unclaimed, *letter; (letter = *place);) {
        if (claim(call, letter))
            notices_drop(place);
        else
            place = &letter->next;
    }
}

/* What was for a call that the receiver had not made ends the one that it makes next: so a failed call fails once on
 * each rank. */
static void hear_that_it_gives_up(struct notices *notices, const struct notice *notice) {
    struct letter **joined = notices_find(notices, notice, notice->call);
    struct agreement *call = notices->calls;
    if (notice->to)
        notices_drop(joined);
    else if (*joined) {
        (*joined)->is_given_up = 1;
        (*joined)->notice.status = notice->status;
        memcpy((*joined)->notice.why, notice->why, sizeof notice->why);
    }
    for (; call; call = call->next) {
        int position = position_of(call, notice->from);
        int is_claimed = call->leads && position >= 0 && call->numbers[position] == notice->call;
        int crosses = !call->leads && notice->from == call->leader && notice->set == call->own.set;
        if (is_claimed && notice->to && notice->to != call->own.call) {
            /* It had joined an earlier call of this rank, and heard too late that this rank had given that up. */
            call->numbers[position] = 0;
            call->n_called--;
            return;
        }
        if (notice->to ? call->own.call != notice->to : !is_claimed && !crosses)
            continue;
        give_up_for(call, notice);
        call->is_told = notice->to && notice->from == call->leader;
        if (!notice->to && crosses) {
            call->number_of_leader = notice->call;
            notices_drop(joined);
        }
        return;
    }
}

static void hear(struct notices *notices, struct letter *letter) {
    const struct notice *notice = &letter->notice;
    struct agreement *call = notices->calls;
    if (notice->saying == JOINS) {
        notices_drop(notices_find(notices, notice, 0));
        notices_keep(notices, letter);
        for (; call; call = call->next)
            claim_all(call);
        return;
    }
    while (call && call->own.call != notice->to)
        call = call->next;
    if (notice->saying == GIVES_UP) {
        hear_that_it_gives_up(notices, notice);
    } else if (call && notice->saying == BEGINS) {
        if (++call->n_begins == call->own.n - 1 && call->state == ASKED)
            call->state = AGREED;
    } else if (call && call->state < AGREED) {
        call->state = notice->saying == GO ? AGREED : ASKED;
        call->own.tag = notice->tag, call->number_of_leader = notice->call;
    }
    if (notice->saying == GO)
        notices_drop(notices_find(notices, notice, notice->call));
    free(letter);
}

static int hear_all(struct agreement *call, struct outcome *outcome) {
    struct letter *letter;
    int result;
    while (!(result = notices_receive(call->notices, call->members, &letter, outcome)) && letter)
        hear(call->notices, letter);
    return result;
}

/* The leader to all others, another to the leader. */
static int say_to_others(struct agreement *call, int saying, struct outcome *outcome) {
    if (!call->leads)
        return say(call, saying, call->leader, call->number_of_leader, outcome);
    for (int i = 0; i < call->own.n; i++)
        if (call->ranks[i] != call->rank && say(call, saying, call->ranks[i], call->numbers[i], outcome))
            return outcome->status;
    return STATUS_OK;
}

/* For those who will be told that it ends. */
static void explain(struct agreement *call, const struct outcome *why) {
    call->own.status = why->status;
    snprintf(call->own.why, sizeof call->own.why, "%.*s", (int)sizeof call->own.why - 1, why->text);
}

/* A rank that this call waits for is in another, which waits for this rank: neither has another thread. */
static void find_another_set(struct agreement *call) {
    struct letter **place = &call->notices->unclaimed, *letter;
    struct outcome second;
    for (; (letter = *place) && call->own.is_only_thread && call->state == UNDER_WAY; place = &letter->next) {
        const struct notice *notice = &letter->notice;
        if (!notice->is_only_thread || letter->is_given_up || notice->set == call->own.set ||
            position_of(call, notice->from) < 0)
            continue;
        end_differently(call, notice);
        explain(call, &call->why);
        say(call, GIVES_UP, notice->from, notice->call, &second);
        notices_drop(place);
        return;
    }
}

static int check_others(struct agreement *call, struct outcome *outcome) {
    for (int i = 0; call->members->shm && i < call->own.n; i++)
        if (call->ranks[i] != call->rank && shm_check(call->members->shm, call->ranks[i], outcome))
            return outcome->status;
    return STATUS_OK;
}

static int poll_call(void *it, int slow_check, struct outcome *outcome) {
    struct agreement *call = it;
    if (slow_check && check_others(call, outcome))
        return -1;
    if (pthread_mutex_trylock(&call->notices->lock))
        return 0; /* another thread looks */
    int failed = hear_all(call, outcome);
    if (slow_check && !failed)
        find_another_set(call);
    if (call->state == ENDED && !failed)
        *outcome = call->why, failed = 1;
    int done = call->state >= call->awaited;
    pthread_mutex_unlock(&call->notices->lock);
    return failed ? -1 : done;
}

__attribute__((format(printf, 3, 4))) static void add(char *text, size_t nbytes, const char *format, ...) {
    size_t used = strlen(text);
    va_list values;
    va_start(values, format);
    vsnprintf(text + used, nbytes - used, format, values);
    va_end(values);
}

static int has_called(const struct agreement *call, int rank) {
    int position = position_of(call, rank);
    if (call->leads)
        return rank == call->rank || call->numbers[position];
    for (const struct letter *letter = call->notices->unclaimed; letter; letter = letter->next)
        if (letter->notice.from == rank && letter->notice.set == call->own.set)
            return 1;
    return 0;
}

/* Of the others only the leader knows who has called. */
static void describe_call(void *it, int to_all, char *text, size_t nbytes) {
    const struct agreement *call = it;
    char ranks[200];
    int n_missing = 0;
    pthread_mutex_lock(&call->notices->lock);
    notice_text(&call->own, ranks, sizeof ranks);
    snprintf(text, nbytes, "%s, rank %d: ", ranks, call->rank);
    if (!call->leads && has_called(call, call->leader))
        add(text, to_all ? 0 : nbytes, "rank %d waits for another", call->leader);
    else
        for (int i = 0; i < call->own.n; i++)
            if (call->leads ? !has_called(call, call->ranks[i]) : call->ranks[i] == call->leader)
                add(text, nbytes, "%s%d", n_missing++ ? ", " : "rank ", call->ranks[i]);
    if (n_missing)
        add(text, nbytes, n_missing > 1 ? " have not called it" : " has not called it");
    for (const struct letter *letter = call->notices->unclaimed; letter; letter = letter->next) {
        notice_text(&letter->notice, ranks, sizeof ranks);
        if (letter->notice.set != call->own.set)
            add(text, nbytes, "; rank %d waits in %s", (int)letter->notice.from, ranks);
    }
    pthread_mutex_unlock(&call->notices->lock);
}

static const struct wait_policy for_ever = {WAIT_SPINS_OVERSUBSCRIBED, 0, 1, NULL, NULL, NULL};

/* After BEGINS the leader alone decides: whoever has said it cannot give up. */
static int await(struct agreement *call, int state, struct outcome *outcome) {
    int is_bound = state == AGREED && !call->leads;
    call->awaited = state;
    return wait_for(&(struct wait_condition){poll_call, is_bound ? NULL : describe_call, call, 1, 0},
                    is_bound ? &for_ever : &call->members->policy, outcome);
}

static int begin(struct agreement *call, struct outcome *outcome) {
    struct notices *notices = call->notices;
    pthread_mutex_lock(&notices->lock);
    call->next = notices->calls;
    notices->calls = call;
    claim_all(call);
    int result = call->is_told ? STATUS_OK : say_to_others(call, JOINS, outcome);
    pthread_mutex_unlock(&notices->lock);
    return result;
}

static int go_on(struct agreement *call, struct outcome *outcome) {
    pthread_mutex_lock(&call->notices->lock);
    int result = say_to_others(call, call->leads ? BEGIN : BEGINS, outcome);
    call->has_asked = 1;
    pthread_mutex_unlock(&call->notices->lock);
    return result;
}

/* What the others are waiting for has left. */
static int poll_sent(void *it, int slow_check, struct outcome *outcome) {
    struct agreement *call = it;
    int is_left = 0;
    if (slow_check && check_others(call, outcome))
        return -1;
    if (pthread_mutex_trylock(&call->notices->lock))
        return 0;
    int failed = notices_sweep(call->notices, outcome);
    for (const struct letter *letter = call->notices->sent; letter; letter = letter->next)
        is_left |= letter->notice.call == call->own.call;
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
        result = wait_for(&(struct wait_condition){poll_sent, NULL, call, 1, 0}, &for_ever, outcome);
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
        digest = notices_mix(digest, (uint64_t)ranks[i]);
    return digest;
}

/* From then on no other call of this rank as the leader has this tag, for a long time. */
static int next_tag(const struct comm *comm, uint32_t call) {
    uint32_t size = (uint32_t)comm->size, tags = size < AGREEMENT_TAGS ? AGREEMENT_TAGS - AGREEMENT_TAGS % size : size;
    return AGREEMENT_FIRST_TAG + (int)((call * (uint64_t)size + (uint32_t)comm->rank) % tags % AGREEMENT_TAGS);
}

int agreement_reach(struct members *members, struct notices *notices, const int *ranks, int n, int is_only_thread,
                    struct agreed *agreed, struct outcome *outcome) {
    uint32_t number = 1 + atomic_fetch_add_explicit(&last_call, 1, memory_order_relaxed) % UINT32_MAX;
    int *sorted = malloc((size_t)n * sizeof *sorted), rank = members->comm->rank;
    struct agreement call = {.members = members, .notices = notices, .ranks = ranks, .rank = rank};
    call.numbers = calloc((size_t)n, sizeof *call.numbers);
    if (!sorted || !call.numbers) {
        free(sorted), free(call.numbers);
        return notices_out_of_memory(outcome);
    }
    memcpy(sorted, ranks, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    call.leader = sorted[0], call.leads = call.leader == rank;
    call.own = (struct notice){.group = notices->group,
                               .set = digest_of(sorted, n),
                               .order = digest_of(ranks, n),
                               .from = rank,
                               .call = number,
                               .n = n,
                               .is_only_thread = is_only_thread,
                               .tag = next_tag(members->comm, number)};
    memcpy(call.own.ranks, ranks, (size_t)(n < NOTICE_RANKS ? n : NOTICE_RANKS) * sizeof *ranks);
    int result = n == 1 ? STATUS_OK : begin(&call, outcome);
    if (n > 1) {
        if (!result)
            result = await(&call, ASKED, outcome);
        if (!result && !(result = go_on(&call, outcome)))
            result = await(&call, AGREED, outcome);
        result = finish(&call, result, outcome);
    }
    agreed->tag = call.own.tag;
    agreed->group = notices_mix(notices_mix(notices->group, call.own.set), call.leads ? number : call.number_of_leader);
    free(sorted), free(call.numbers);
    return result;
}
