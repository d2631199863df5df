/* A job over the wire: ranks that are processes start the whole core, on hosts as the test lays them out. */
#ifndef JOB_H
#define JOB_H

#include "mlxdist/group/core.h"
#include "wire.h"

enum { RANKS = 4 };

/* The host of each rank. */
static const int one_host[RANKS] = {0, 0, 0, 0}, two_hosts[RANKS] = {0, 1, 0, 1}, in_a_row[RANKS] = {0, 0, 1, 1},
                 three_and_one[RANKS] = {0, 0, 0, 1}, two_and_two_alone[RANKS] = {0, 0, 1, 2};

static int shares = 1;
static double timeout_s;
static void (*ranks_body)(struct group *world);
static char refused[400]; /* what core_start says, if it fails on all ranks */
static void (*tamper_of_last)(void *data, int64_t nbytes);

static inline int local_size_of(int rank) {
    int size = 0;
    for (int i = 0; i < n_ranks; i++)
        size += host_of[i] == host_of[rank];
    return size;
}

static inline void run_rank(int rank) {
    struct settings settings = {{WAIT_SPINS_OVERSUBSCRIBED, timeout_s, 1, NULL, NULL, NULL}, shares, 0};
    struct outcome outcome;
    world_rank = rank;
    board->pids[rank] = getpid();
    CHECK(core_world() == NULL);
    tamper = rank == n_ranks - 1 ? tamper_of_last : NULL;
    if (*refused) {
        CHECK(core_start(&by_wire, &settings, &outcome) == STATUS_MISMATCH);
        CHECK(!strcmp(outcome.text, refused) && !core_world() && !atomic_load(&live_comms));
        return;
    }
    CHECK(core_start(&by_wire, &settings, &outcome) == STATUS_OK);
    struct group *world = core_world();
    CHECK(group_rank(world) == rank && group_size(world) == n_ranks);
    CHECK(group_local_size(world) == (shares ? local_size_of(rank) : 1) && !*core_why_not_shared());
    ranks_body(world);
}

/* The last may die. */
static inline void run_job(int size, const int *hosts, void (*run)(struct group *), int last_dies) {
    pid_t pids[MOST];
    begin(size);
    segment_unlink(&handle);
    wire_open(size);
    memcpy(host_of, hosts, (size_t)size * sizeof *hosts);
    ranks_body = run;
    for (int rank = 0; rank < size; rank++) {
        CHECK((pids[rank] = fork()) >= 0);
        if (!pids[rank]) {
            alarm(TOO_LONG_S);
            run_rank(rank);
            exit(0);
        }
    }
    for (int rank = 0; rank < size; rank++) {
        int status, dies = last_dies && rank == size - 1;
        CHECK(waitpid(pids[rank], &status, 0) == pids[rank]);
        CHECK(dies ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : status == 0);
    }
    node_close(shared_node);
    wire_close();
    munmap(board, sizeof *board);
}

static inline void run_groups(const int *hosts, void (*run)(struct group *), int last_dies) {
    run_job(RANKS, hosts, run, last_dies);
}

static inline void end(void) {
    struct outcome outcome;
    CHECK(core_finish(&outcome) == STATUS_OK);
    CHECK(core_finish(&outcome) == STATUS_OK);
}

/* Whole numbers, so that sums are exact in any order. */
static inline float number(int64_t i, int rank, uint32_t draw) {
    return (float)(scramble(draw + (uint32_t)(rank * 7919 + i)) % 1000);
}

#endif
