#include "mlxdist/group/notices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct notice) == 512, "ranks exchange it: when it changes, raise SHM_LAYOUT");

void notices_open(struct notices *notices) {
    *notices = (struct notices){0};
    pthread_mutex_init(&notices->lock, NULL);
}

static void drop(struct letter **place) {
    struct letter *letter = *place;
    *place = letter->next;
    free(letter);
}

void notices_close(struct notices *notices) {
    pthread_mutex_destroy(&notices->lock);
    while (notices->early)
        drop(&notices->early);
    for (struct attempts *attempts; (attempts = notices->attempts);) {
        notices->attempts = attempts->next;
        free(attempts);
    }
}

int notices_are_pending(const struct notices *notices) {
    return notices->arriving || notices->sent;
}

int notices_out_of_memory(struct outcome *outcome) {
    outcome->status = STATUS_OUT_OF_MEMORY;
    snprintf(outcome->text, sizeof outcome->text, "no memory for a group: free some");
    return STATUS_OUT_OF_MEMORY;
}

/* MPICH 5.0.2 crashes in MPI_Isend to a process that has ended. */
int notices_send(struct notices *notices, struct members *members, const struct notice *notice, int rank,
                 struct outcome *outcome) {
    struct outcome gone;
    if (members->shm && shm_check(members->shm, rank, &gone))
        return STATUS_OK;
    struct letter *letter = calloc(1, sizeof *letter);
    if (!letter)
        return notices_out_of_memory(outcome);
    letter->notice = *notice;
    letter->to = rank;
    if (TRANSPORT(send, members->comm, &letter->notice, sizeof letter->notice, rank, NOTICE_TAG, &letter->request,
                  outcome)) {
        free(letter);
        return outcome->status;
    }
    letter->next = notices->sent;
    notices->sent = letter;
    return STATUS_OK;
}

static int begin_receiving(struct notices *notices, struct members *members, struct outcome *outcome) {
    struct message message;
    struct letter *letter = calloc(1, sizeof *letter);
    int found = 0;
    if (!letter)
        return notices_out_of_memory(outcome);
    int result = TRANSPORT(probe, members->comm, ANY_RANK, NOTICE_TAG, &found, &message, outcome);
    if (found && !result)
        result = TRANSPORT(recv_found, &letter->notice, &message, &letter->request, outcome);
    if (found && !result)
        notices->arriving = letter;
    else
        free(letter);
    return result;
}

int notices_receive(struct notices *notices, struct members *members, struct letter **letter, struct outcome *outcome) {
    int done = 0;
    *letter = NULL;
    if (!notices->arriving && begin_receiving(notices, members, outcome))
        return outcome->status;
    if (!notices->arriving)
        return STATUS_OK;
    if (TRANSPORT(test, &notices->arriving->request, &done, outcome))
        return outcome->status;
    if (!done)
        return STATUS_OK;
    *letter = notices->arriving;
    notices->arriving = NULL;
    if ((*letter)->notice.group == notices->group)
        return STATUS_OK;
    free(*letter);
    return notices_receive(notices, members, letter, outcome);
}

int notices_sweep(struct notices *notices, struct outcome *outcome) {
    for (struct letter **place = &notices->sent; *place;) {
        int done = 0;
        if (TRANSPORT(test, &(*place)->request, &done, outcome))
            return outcome->status;
        if (done)
            drop(place);
        else
            place = &(*place)->next;
    }
    return STATUS_OK;
}

void notices_keep(struct notices *notices, struct letter *letter) {
    const struct notice *notice = &letter->notice;
    struct letter **place = &notices->early;
    while (*place) {
        const struct notice *other = &(*place)->notice;
        if (other->from == notice->from && other->set == notice->set && other->attempt == notice->attempt)
            drop(place);
        else
            place = &(*place)->next;
    }
    letter->next = NULL;
    *place = letter;
}

struct attempts *notices_attempts(struct notices *notices, uint64_t set) {
    struct attempts *attempts = notices->attempts;
    while (attempts && attempts->set != set)
        attempts = attempts->next;
    if (!attempts && (attempts = malloc(sizeof *attempts))) {
        *attempts = (struct attempts){set, 0, notices->attempts};
        notices->attempts = attempts;
    }
    return attempts;
}

void notice_text(const struct notice *notice, char *text, size_t nbytes) {
    snprintf(text, nbytes, "group([");
    for (int i = 0; i < notice->n && i < NOTICE_RANKS; i++)
        snprintf(text + strlen(text), nbytes - strlen(text), "%s%d", i ? ", " : "", notice->ranks[i]);
    snprintf(text + strlen(text), nbytes - strlen(text), "%s])", notice->n > NOTICE_RANKS ? ", ..." : "");
}
