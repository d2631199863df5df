/* Ranks that die, stop, fork or end: what the others are told, and how soon. */
#include "local_ranks.h"

static const struct wait_policy for_ever = {WAIT_SPINS_OVERSUBSCRIBED, 0, 1, NULL, NULL, NULL},
                                a_while = {WAIT_SPINS_OVERSUBSCRIBED, 0.3, 1, NULL, NULL, NULL};
static const double soon_s = 0.5; /* a loaded machine; else a millisecond or two */

static void barrier_of(const struct node *node, struct call *call) {
    *call = call_of(node, flat_call(OPERATION_BARRIER, 0, 0, 0, 0));
}

static int arrive(struct node *node, int commit, const struct wait_policy *policy, struct outcome *outcome) {
    struct call call;
    barrier_of(node, &call);
    return node_arrive(node, &call, NULL, 0, commit, 0, policy, outcome);
}

static char process_state(pid_t pid) {
    char path[64], state = '?';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    CHECK(file && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
    fclose(file);
    return state;
}

_Noreturn static void die(void) {
    board->died_s = clock_s();
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static void told_of_death(int result, const struct outcome *outcome) {
    double after_s = clock_s() - board->died_s;
    CHECK(result == STATUS_PEER_DIED);
    CHECK_TEXT(*outcome, "rank 33 (pid ");
    CHECK_TEXT(*outcome, "has died");
    CHECK(after_s < soon_s);
    CHECK(process_state(board->pids[n_ranks - 1]) == 'Z');
    printf("told after %.1f ms\n", 1e3 * after_s);
}

static int commit;

static void last_dies_before_arriving(struct node *node, int local_rank) {
    struct outcome outcome;
    CHECK(arrive(node, commit, &for_ever, &outcome) == STATUS_OK);
    if (local_rank == n_ranks - 1)
        sleep_s(0.05), die();
    told_of_death(arrive(node, commit, &for_ever, &outcome), &outcome);
    sleep_s(0.1); /* the first to end must not seem to have died */
}

/* With its lock kept by a forked child, and after it has arrived while the first has not. */
static void last_dies_after_arriving(struct node *node, int local_rank) {
    struct outcome outcome;
    struct call call;
    if (local_rank == n_ranks - 1) {
        pid_t child = fork();
        if (!child)
            sleep_s(1), _exit(0);
        barrier_of(node, &call);
        node->memory->members[local_rank].calls[1] = call;
        node->memory->members[local_rank].flags[1].fingerprint = call_fingerprint(&call);
        atomic_store(&node->memory->members[local_rank].flags[1].arrived, 1);
        sleep_s(0.05);
        die();
    }
    if (local_rank == 0)
        sleep_s(0.2);
    int result = arrive(node, 1, &for_ever, &outcome);
    CHECK(result == STATUS_PEER_DIED);
    if (local_rank)
        told_of_death(result, &outcome);
    sleep_s(0.3);
}

static void killed(void) {
    for (commit = 0; commit < 2; commit++)
        run_ranks(PROCESSES, 4, last_dies_before_arriving, SIGKILL);
}

static void killed_after_arriving_with_a_child_left(void) {
    run_ranks(PROCESSES, 4, last_dies_after_arriving, SIGKILL);
}

/* The others give up; when it goes on, it is told. */
static void last_stops(struct node *node, int local_rank) {
    struct outcome outcome;
    if (local_rank == n_ranks - 1) {
        kill(getpid(), SIGSTOP);
        CHECK(arrive(node, commit, &for_ever, &outcome) == (commit ? STATUS_PEER_DIED : STATUS_OK));
        CHECK(commit || arrive(node, commit, &for_ever, &outcome) == STATUS_PEER_DIED);
        CHECK_TEXT(outcome, "has given up a call on this group");
        return;
    }
    double began_s = clock_s();
    int result = arrive(node, commit, &a_while, &outcome);
    CHECK(result == STATUS_TIMED_OUT || (commit && result == STATUS_PEER_DIED));
    if (result == STATUS_TIMED_OUT) {
        CHECK(clock_s() - began_s >= 0.3 && clock_s() - began_s < 0.3 + soon_s);
        CHECK_TEXT(outcome, "waited for 0.3 s in barrier, call 1 of rank ");
        CHECK_TEXT(outcome, ": rank 33 (pid ");
        CHECK_TEXT(outcome, "has not reached this call");
    }
    if (local_rank == 0) {
        sleep_s(0.3);
        CHECK(process_state(board->pids[n_ranks - 1]) == 'T');
        kill(board->pids[n_ranks - 1], SIGCONT);
    }
}

static void stopped(void) {
    for (commit = 0; commit < 2; commit++)
        run_ranks(PROCESSES, 4, last_stops, 0);
}

static void fork_and_let_it_end(struct node *node, int local_rank) {
    struct outcome outcome;
    pid_t child = local_rank ? fork() : 0;
    int status;
    if (local_rank && !child) {
        node_close(node); /* of the child; its parent's lock stays */
        _exit(0);
    }
    CHECK(!local_rank || (waitpid(child, &status, 0) == child && !status));
    CHECK(arrive(node, 1, &for_ever, &outcome) == STATUS_OK);
    for (int peer = 0; peer < n_ranks; peer++)
        CHECK(node_check(node, peer, &outcome) == STATUS_OK);
    CHECK(arrive(node, 1, &for_ever, &outcome) == STATUS_OK);
}

static void forks_take_no_lock_along(void) {
    run_ranks(PROCESSES, 4, fork_and_let_it_end, 0);
}

/* All of this process's, and what lies behind them as well; then it uses their numbers for something else. */
static void close_all_files(void) {
    enum { MOST_FILES = 64 };
    for (int file = 3; file < MOST_FILES; file++) {
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
        close(open(path, O_RDWR | O_NONBLOCK));
        close(dup(file));
    }
    for (int file = 3; file < MOST_FILES; file++)
        close(file);
    for (int file = 3; file < MOST_FILES; file++)
        CHECK(open("/dev/null", O_RDWR) == file);
}

static void second_closes_its_files(struct node *node, int local_rank) {
    struct outcome outcome;
    if (local_rank == 1)
        close_all_files();
    meet();
    for (int peer = 0; peer < n_ranks; peer++)
        CHECK(node_check(node, peer, &outcome) == STATUS_OK);
    CHECK(arrive(node, 1, &for_ever, &outcome) == STATUS_OK);
    if (local_rank == n_ranks - 1)
        sleep_s(0.05), die();
    int result = arrive(node, 1, &for_ever, &outcome);
    if (local_rank == 1) /* it hears of it from the others, since a zombie has its pid still */
        CHECK(result == STATUS_PEER_DIED);
    else
        told_of_death(result, &outcome);
    sleep_s(0.1);
}

static void files_that_the_program_closes(void) {
    run_ranks(PROCESSES, 4, second_closes_its_files, SIGKILL);
}

static void end_together(struct node *node, int local_rank) {
    struct outcome outcome;
    if (local_rank == n_ranks - 1) {
        sleep_s(0.1);
        board->reached[0][local_rank] = 1;
        node_leave(node, 1);
        CHECK(node_await_end(node, &for_ever, &outcome) == STATUS_OK);
        return;
    }
    node_leave(node, 1);
    CHECK(node_await_end(node, &for_ever, &outcome) == STATUS_OK);
    CHECK(board->reached[0][n_ranks - 1] == 1);
}

static void last_dies_at_the_end(struct node *node, int local_rank) {
    struct outcome outcome;
    if (local_rank == n_ranks - 1)
        sleep_s(0.05), die();
    node_leave(node, 1);
    told_of_death(node_await_end(node, &for_ever, &outcome), &outcome);
}

static void first_will_not_wait(struct node *node, int local_rank) {
    struct outcome outcome;
    struct wait_policy short_one = {0, 0.02, 1, NULL, NULL, NULL};
    while (local_rank == n_ranks - 1 && atomic_load(&node->memory->members[0].state) != NODE_LEFT_ALONE)
        sleep_s(0.01);
    node_leave(node, 1);
    int result = node_await_end(node, local_rank ? &for_ever : &short_one, &outcome);
    CHECK(result == (local_rank ? STATUS_PEER_DIED : STATUS_TIMED_OUT));
    CHECK(strstr(outcome.text, local_rank ? "has given up" : "finalize: other ranks of this host have not called it"));
}

static void ends(void) {
    run_ranks(PROCESSES, 4, end_together, 0);
    run_ranks(THREADS, 4, end_together, 0);
    run_ranks(PROCESSES, 4, first_will_not_wait, 0);
    run_ranks(THREADS, 4, first_will_not_wait, 0);
    run_ranks(PROCESSES, 4, last_dies_at_the_end, SIGKILL);
}

/* A part of the group, whose ranks watch the locks of the whole group, and are numbered in reverse. */
static void last_dies_in_a_part(struct node *whole, int local_rank) {
    struct shm_handle *published = &board->published;
    struct outcome outcome;
    struct node *part;
    if (local_rank == 0)
        CHECK(node_create(n_ranks, 0, published, &part, &outcome) == STATUS_OK);
    meet();
    CHECK(!local_rank || node_attach(published, &part, &outcome) == STATUS_OK);
    CHECK(node_join(part, published, n_ranks - 1 - local_rank, rank_of(local_rank), whole, local_rank, &outcome) ==
          STATUS_OK);
    meet();
    node_seal(part, published);
    CHECK(part->segment.file == -1 && node_local_rank_of(part, rank_of(local_rank)) == n_ranks - 1 - local_rank);
    CHECK(arrive(part, 1, &for_ever, &outcome) == STATUS_OK);
    if (local_rank == n_ranks - 1)
        sleep_s(0.05), die();
    told_of_death(arrive(part, 1, &for_ever, &outcome), &outcome);
    sleep_s(0.1);
    node_close(part);
}

static void parts_watch_the_whole(void) {
    run_ranks(PROCESSES, 4, last_dies_in_a_part, SIGKILL);
}

PROGRAM({"killed", killed}, {"killed-after-arriving-with-a-child-left", killed_after_arriving_with_a_child_left},
        {"stopped", stopped}, {"forks-take-no-lock-along", forks_take_no_lock_along},
        {"files-that-the-program-closes", files_that_the_program_closes}, {"ends", ends},
        {"parts-watch-the-whole", parts_watch_the_whole})
