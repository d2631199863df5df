/* What becomes of an arrival with commit if a local rank is slow: here wait_for does what the other local rank does
 * meanwhile. */
#include "local_ranks.h"

static struct node slow, quick;
static void (*meanwhile)(void);
static int has_run_out;
static const struct wait_policy any;

int wait_for(const struct wait_condition *condition, const struct wait_policy *policy, struct outcome *outcome) {
    void (*others)(void) = meanwhile;
    (void)policy;
    meanwhile = NULL;
    if (others)
        others();
    int done = others && has_run_out ? 0 : condition->poll(condition->it, 1, outcome);
    if (done)
        return done > 0 ? STATUS_OK : outcome->status;
    outcome->status = STATUS_TIMED_OUT;
    return STATUS_TIMED_OUT;
}

static void start(void (*others)(void), int run_out) {
    struct outcome outcome;
    CHECK(node_create(2, 0, &handle, &shared_node, &outcome) == STATUS_OK);
    slow = quick = *shared_node;
    join(&slow, 0, rank_of(0));
    join(&quick, 1, rank_of(1));
    segment_unlink(&handle);
    meanwhile = others;
    has_run_out = run_out;
}

static int arrive(struct node *node, enum operation operation, struct outcome *outcome) {
    struct call call = call_of(node, flat_call(operation, 0, 0, 0, 0));
    return node_arrive(node, &call, NULL, 0, 1, 0, &any, outcome);
}

static void go_on(void) {
    struct outcome outcome;
    CHECK(arrive(&quick, OPERATION_SPLIT, &outcome) == STATUS_OK);
}

static void go_on_and_give_up(void) {
    struct outcome outcome;
    go_on();
    CHECK(arrive(&quick, OPERATION_SPLIT, &outcome) == STATUS_TIMED_OUT);
}

static void go_on_and_leave(void) {
    go_on();
    node_leave(&quick, 1);
}

static void give_up(void) {
    node_give_up(&quick);
    CHECK(consensus_decide(&quick.memory->consensus, 1, 1) == 1);
}

static void be_refused(void) {
    struct outcome outcome;
    CHECK(arrive(&quick, OPERATION_BARRIER, &outcome) == STATUS_MISMATCH);
    node_leave(&quick, 1);
}

/* The slow one is at its first arrival all the while. */
static void check(void (*others)(void), int expected, const char *text) {
    for (int run_out = 0; run_out < 2; run_out++) {
        struct outcome outcome = {0};
        start(others, run_out);
        int result = arrive(&slow, OPERATION_SPLIT, &outcome);
        CHECK(result == expected || (run_out && expected && result == STATUS_TIMED_OUT));
        CHECK(result != expected || !expected || strstr(outcome.text, text));
        node_close(shared_node);
    }
}

static void all_go_on(void) {
    check(go_on, STATUS_OK, "");
}

static void all_go_on_though_one_gave_up_later(void) {
    check(go_on_and_give_up, STATUS_OK, "");
}

static void all_go_on_though_one_left_later(void) {
    check(go_on_and_leave, STATUS_OK, "");
}

static void none_goes_on(void) {
    check(give_up, STATUS_PEER_DIED, "has given up a call on this group");
}

static void a_mismatch_is_one_though_its_finder_has_left(void) {
    check(be_refused, STATUS_MISMATCH, "the ranks differ in call 1 on this group of 2");
}

static void what_is_decided_stays(void) {
    start(NULL, 0);
    CHECK(consensus_decide(&slow.memory->consensus, 1, 0) == 0 && consensus_decide(&slow.memory->consensus, 1, 1) == 0);
    CHECK(consensus_decide(&slow.memory->consensus, 2, 1) == 1 && consensus_decide(&slow.memory->consensus, 2, 0) == 1);
    CHECK(consensus_decide(&slow.memory->consensus, 1, 1) == 0); /* a late rank learns that all went on */
    CHECK(consensus_decide(&slow.memory->consensus, 2, 0) == 1);
    node_close(shared_node);
}

PROGRAM({"all-go-on", all_go_on}, {"all-go-on-though-one-gave-up-later", all_go_on_though_one_gave_up_later},
        {"all-go-on-though-one-left-later", all_go_on_though_one_left_later}, {"none-goes-on", none_goes_on},
        {"a-mismatch-is-one-though-its-finder-has-left", a_mismatch_is_one_though_its_finder_has_left},
        {"what-is-decided-stays", what_is_decided_stays})
