#include "mlxdist/group/group.h"

#include <stdio.h>
#include <stdlib.h>

#include "mlxdist/group/background.h"
#include "mlxdist/mpi/runtime.h"

struct groups groups = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct group *group_new(const struct wait_policy *policy, struct outcome *outcome) {
    struct group *group = calloc(1, sizeof *group);
    if (!group) {
        outcome->status = STATUS_OUT_OF_MEMORY;
        snprintf(outcome->text, sizeof outcome->text,
                 "no memory for a group: free some, or start fewer ranks on a host");
        return NULL;
    }
    group->members.policy =
        (struct wait_policy){policy->spins, policy->timeout_s, policy->quiet, policy->interrupt, NULL, NULL};
    pthread_mutex_init(&group->turn, NULL);
    work_queue_open(&group->collectives, group, &group_owner, carry_out_collectives, &group->members);
    work_queue_open(&group->messages, group, &group_owner, carry_out_messages, &group->members);
    notices_open(&group->notices);
    atomic_init(&group->references, 1);
    return group;
}

void group_dispose(struct group *group) {
    work_queue_close(&group->collectives);
    work_queue_close(&group->messages);
    pthread_mutex_destroy(&group->turn);
    notices_close(&group->notices);
    free(group);
}

void groups_add(struct group **list, struct group *group) {
    pthread_mutex_lock(&groups.lock);
    group->next = *list;
    *list = group;
    pthread_mutex_unlock(&groups.lock);
}

int group_open(struct group *group, struct outcome *outcome) {
    char ignored[sizeof groups.why_not_shared];
    struct members *members = &group->members;
    struct wait_policy *policy = &members->policy;
    double timeout_s = policy->timeout_s;
    int (*interrupt)(int) = policy->interrupt;
    /* All ranks are in it: if one alone left, the others would wait in MPI. */
    if (groups.world) {
        policy->timeout_s = 0;
        policy->interrupt = NULL;
    }
    int result = members_open(members, groups.world ? &groups.world->members : NULL,
                              groups.world ? ignored : groups.why_not_shared, sizeof groups.why_not_shared, outcome);
    policy->timeout_s = timeout_s;
    policy->interrupt = interrupt;
    if (result)
        return result;
    /* What comes from another host takes longer than a yield; and other ranks of the job may need this processor. */
    const struct shm *job = groups.world ? groups.world->members.shm : members->shm;
    int is_close = members->shm && !members->net && !shm_is_oversubscribed(job);
    policy->spins = is_close ? WAIT_SPINS : WAIT_SPINS_OVERSUBSCRIBED;
    groups_add(&groups.live, group);
    return STATUS_OK;
}

int group_is_broken_by(int status) {
    return status == STATUS_MISMATCH || status == STATUS_PEER_DIED || status == STATUS_TIMED_OUT ||
           status == STATUS_INTERRUPTED || status == STATUS_GROUP_CLOSED;
}

int groups_free_retired(struct outcome *outcome) {
    pthread_mutex_lock(&groups.lock);
    struct group *group = groups.retired;
    groups.retired = NULL;
    pthread_mutex_unlock(&groups.lock);
    int result = STATUS_OK;
    while (group) {
        struct group *next = group->next;
        int released = TRANSPORT(release, group->members.comm, outcome);
        result = result ? result : released;
        group_dispose(group);
        group = next;
    }
    return result;
}

int group_break_by(struct group *group, int is_with_mpi, const struct outcome *outcome) {
    is_with_mpi |= members_are_pending(&group->members);
    if (!is_with_mpi && !group_is_broken_by(outcome->status))
        return outcome->status;
    if (outcome->status != STATUS_MISMATCH && (outcome->status != STATUS_GROUP_CLOSED || is_with_mpi)) {
        atomic_store(&groups.skip_finalize, 1);
        members_give_up(&group->members, outcome);
    }
    pthread_mutex_lock(&groups.lock);
    if (!atomic_load_explicit(&group->is_broken, memory_order_relaxed)) {
        group->why_broken = *outcome;
        if (outcome->status == STATUS_INTERRUPTED || !group_is_broken_by(outcome->status))
            group->why_broken.status = STATUS_GROUP_BROKEN;
        snprintf(group->why_broken.text, sizeof group->why_broken.text,
                 "this group was broken by an earlier error: %.900s", outcome->text);
        atomic_store_explicit(&group->is_broken, 1, memory_order_release);
    }
    pthread_mutex_unlock(&groups.lock);
    return outcome->status;
}
