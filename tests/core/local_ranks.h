/* Tests of a node without MPI: local ranks that are processes or threads, and run the same body.
 *
 * Threads share one mapping, since a tool that looks for races knows memory by its address. PROGRAM ends each file:
 * `./program NAME` runs one test, without a name it lists all. Status 77: cannot be tested here, for the reason on
 * stderr. */
#ifndef LOCAL_RANKS_H
#define LOCAL_RANKS_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mlxdist/copy.h"
#include "mlxdist/shm/arrival.h"

#ifdef __linux__
enum { IS_LINUX = 1 };
#else
enum { IS_LINUX = 0 };
#endif

enum way { PROCESSES, THREADS };
enum { MOST = 18, SKIPPED = 77, TOO_LONG_S = 100, ROUNDS_KEPT = 4 };

/* What all local ranks see. */
struct board {
    pthread_barrier_t barrier;
    long reached[2][MOST];
    int results[ROUNDS_KEPT][MOST];
    pid_t pids[MOST];
    struct shm_handle published;
    double died_s;
    int dies[MOST]; /* by this signal */
};
static struct board *board;
static int n_ranks;
static struct node *shared_node;
static struct shm_handle handle;
static void (*body)(struct node *node, int local_rank);

#define CHECK(condition) ((condition) ? (void)0 : fail(__FILE__, __LINE__, #condition, ""))
#define CHECK_TEXT(outcome, part) \
    (strstr((outcome).text, part) ? (void)0 : fail(__FILE__, __LINE__, "\"" part "\" is not in: ", (outcome).text))

_Noreturn static void fail(const char *file, int line, const char *what, const char *text) {
    fprintf(stderr, "%s:%d: %s%s\n", file, line, what, text);
    _exit(1);
}

_Noreturn __attribute__((unused)) static void skip(const char *why) {
    fprintf(stderr, "%s: %s\n", why, strerror(errno));
    _exit(SKIPPED);
}

static inline double clock_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline void sleep_s(double seconds) {
    nanosleep(&(struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)}, NULL);
}

/* A pseudorandom number. */
static inline uint32_t scramble(uint32_t x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

/* A rank is not its local rank. */
static inline int rank_of(int local_rank) {
    return 10 * local_rank + 3;
}

static inline struct call call_of(const struct node *node, struct call call) {
    call.rank = rank_of(node_local_rank(node));
    return call;
}

static inline void meet(void) {
    pthread_barrier_wait(&board->barrier);
}

/* For a test that breaks a node many times. */
static inline void begin_anew(struct node *node) {
    meet();
    if (node->local_rank == 0) {
        atomic_store(&node->memory->consensus.decided, 0);
        for (int i = 0; i < n_ranks; i++) {
            atomic_store(&node->memory->members[i].flags[0].arrived, 0);
            atomic_store(&node->memory->members[i].flags[1].arrived, 0);
            atomic_store(&node->memory->members[i].state, NODE_JOINED);
        }
    }
    node->sequence = node->calls = 0;
    meet();
}

static inline void join(struct node *node, int local_rank, int rank) {
    struct outcome outcome;
    CHECK(node_join(node, &handle, local_rank, rank, node, local_rank, &outcome) == STATUS_OK);
}

static inline void begin(int local_size) {
    pthread_barrierattr_t shared;
    n_ranks = local_size;
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(board != MAP_FAILED);
    pthread_barrierattr_init(&shared);
    pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&board->barrier, &shared, (unsigned)local_size);
    struct outcome outcome;
    CHECK(node_create(local_size, 0, &handle, &shared_node, &outcome) == STATUS_OK);
}

static inline void join_and_run(struct node *node, int local_rank) {
    board->pids[local_rank] = getpid();
    join(node, local_rank, rank_of(local_rank));
    meet();
    node_seal(node, &handle);
    CHECK(node_local_size(node) == n_ranks && node_local_rank(node) == local_rank);
    CHECK(node_local_rank_of(node, rank_of(local_rank)) == local_rank && node_local_rank_of(node, 4) == -1);
    body(node, local_rank);
    if (!board->dies[n_ranks - 1]) /* or the first to end would seem to have died */
        meet();
}

static inline void *run_thread(void *local_rank) {
    struct node mine = *shared_node;
    join_and_run(&mine, (int)(intptr_t)local_rank);
    return NULL;
}

static inline pid_t run_process(int local_rank) {
    struct outcome outcome;
    struct node *node = shared_node;
    pid_t pid = fork();
    if (pid)
        return pid;
    alarm(TOO_LONG_S);
    if (local_rank) {
        node_close(shared_node);
        CHECK(node_attach(&handle, &node, &outcome) == STATUS_OK);
    }
    join_and_run(node, local_rank);
    node_close(node);
    exit(0);
}

/* The last is waited for last; until then it is a zombie. */
static inline void run_ranks(enum way way, int local_size, void (*run)(struct node *, int), int dies) {
    pthread_t threads[MOST];
    pid_t pids[MOST];
    begin(local_size);
    board->dies[local_size - 1] = dies;
    body = run;
    for (int i = 0; i < local_size; i++)
        if (way == THREADS)
            CHECK(!pthread_create(&threads[i], NULL, run_thread, (void *)(intptr_t)i));
        else
            CHECK((pids[i] = run_process(i)) > 0);
    for (int i = 0; i < local_size; i++) {
        int status;
        if (way == THREADS) {
            CHECK(!pthread_join(threads[i], NULL));
            continue;
        }
        CHECK(waitpid(pids[i], &status, 0) == pids[i]);
        CHECK(board->dies[i] ? WIFSIGNALED(status) && WTERMSIG(status) == board->dies[i] : status == 0);
    }
    node_close(shared_node);
    pthread_barrier_destroy(&board->barrier);
    munmap(board, sizeof *board);
}

struct test {
    const char *name;
    void (*run)(void);
};

static inline int run_test(const struct test *tests, const char *name) {
    alarm(TOO_LONG_S);
    for (const struct test *test = tests; test->name; test++) {
        if (!name)
            printf("%s\n", test->name);
        else if (!strcmp(test->name, name))
            return test->run(), 0;
    }
    return name != NULL;
}

#define PROGRAM(...) \
    int main(int argc, char **argv) { \
        static const struct test tests[] = {__VA_ARGS__, {NULL, NULL}}; \
        return run_test(tests, argc > 1 ? argv[1] : NULL); \
    }

#endif
