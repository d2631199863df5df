/* A call whose other rank finishes it and is gone while a slow rank polls: it has seen that a flag is not there yet,
 * and then looks who is gone. */
#include "local_ranks.h"

/* The other rank goes on in the middle of the slow one's poll. */
static int check_after_others(const struct node *node, int local_rank, struct outcome *outcome);
#define node_check check_after_others
#include "shm/arrival.c"
#include "shm/staging.c"
#undef node_check

enum { CHUNK = 4096, LOCAL_RANKS = 2 };

static struct node slow_node, quick_node;
static struct staging slow, quick;
static void (*goes)(struct node *);
static int is_killed;
static _Alignas(SEGMENT_LINE) char memory[LOCAL_RANKS * (sizeof(struct progress) + STAGING_SLOTS * CHUNK)];

int wait_for(const struct wait_condition *condition, const struct wait_policy *policy, struct outcome *outcome) {
    (void)policy;
    int done = condition->poll(condition->it, 1, outcome);
    return done > 0 ? STATUS_OK : done < 0 ? outcome->status : STATUS_TIMED_OUT;
}

static int check_after_others(const struct node *node, int local_rank, struct outcome *outcome) {
    void (*leaves)(struct node *) = goes;
    if (is_killed && local_rank == 1) {
        atomic_store(&quick_node.memory->members[1].flags[1].arrived, 1);
        outcome->status = STATUS_PEER_DIED;
        return STATUS_PEER_DIED;
    }
    goes = NULL;
    if (leaves) {
        staging_announce(&quick, STAGE_REDUCED, 1);
        CHECK(staging_await(&quick, STAGE_REDUCED, 1, outcome) == STATUS_OK);
        leaves(&quick_node);
    }
    return node_check(node, local_rank, outcome);
}

static struct staging staging_of(struct node *node, int local_rank) {
    return (struct staging){.node = node,
                            .local_rank = local_rank,
                            .local_size = LOCAL_RANKS,
                            .chunk = CHUNK,
                            .part = sizeof(struct progress) + STAGING_SLOTS * CHUNK,
                            .memory = memory};
}

static void begin_both(void) {
    struct outcome outcome;
    CHECK(node_create(LOCAL_RANKS, 0, &handle, &shared_node, &outcome) == STATUS_OK);
    slow_node = quick_node = *shared_node;
    join(&slow_node, 0, 0);
    join(&quick_node, 1, 1);
    segment_unlink(&handle);
}

static void finish_and(void (*leave)(struct node *)) {
    struct outcome outcome;
    begin_both();
    memset(memory, 0, sizeof memory);
    slow = staging_of(&slow_node, 0);
    quick = staging_of(&quick_node, 1);
    staging_announce(&slow, STAGE_REDUCED, 1);
    goes = leave;
    CHECK(staging_await(&slow, STAGE_REDUCED, 1, &outcome) == STATUS_OK);
    node_close(shared_node);
}

static void leave(struct node *node) {
    node_leave(node, 1);
}

static void leaves_the_group(void) {
    finish_and(leave);
}

static void gives_up_the_next_call(void) {
    finish_and(node_give_up);
}

static void is_killed_when_it_has_arrived(void) {
    struct outcome outcome;
    struct wait_policy any = {0};
    struct call call = flat_call(OPERATION_SHARE, 0, 0, 0, 0);
    begin_both();
    is_killed = 1;
    CHECK(node_arrive(&slow_node, &call, NULL, 0, 0, 1, &any, &outcome) == STATUS_OK);
    node_close(shared_node);
}

PROGRAM({"leaves-the-group", leaves_the_group}, {"gives-up-the-next-call", gives_up_the_next_call},
        {"is-killed-when-it-has-arrived", is_killed_when_it_has_arrived})
