/* The transport of a single process. The result of a collective of one rank is its input, and there is no peer for a
 * message: the callers see to both, so only a barrier gets here. */
#include <stdlib.h>

#include "mlxdist/mpi/transport.h"

static struct comm only = {0, 1};

static int start(comm_handle of, await_function *await_world, await_function *await_collective, int *ours,
                 enum thread_level *threads, struct comm **world, struct outcome *outcome) {
    (void)of, (void)await_world, (void)await_collective, (void)outcome;
    *ours = 0;
    *threads = THREADS_MULTIPLE;
    *world = &only;
    return STATUS_OK;
}

static int is_over(void) {
    return 0;
}

static int finish(int ours, struct outcome *outcome) {
    (void)ours, (void)outcome;
    return STATUS_OK;
}

static int split(struct comm *comm, int color, int key, struct comm **part, struct outcome *outcome) {
    (void)color, (void)key, (void)outcome;
    *part = comm;
    return STATUS_OK;
}

static int create(struct comm *comm, const int *ranks, int n, int tag, struct comm **part, struct outcome *outcome) {
    (void)ranks, (void)n, (void)tag, (void)outcome;
    *part = comm;
    return STATUS_OK;
}

static int release(struct comm *comm, struct outcome *outcome) {
    (void)comm, (void)outcome;
    return STATUS_OK;
}

static int barrier(struct comm *comm, struct outcome *outcome) {
    (void)comm, (void)outcome;
    return STATUS_OK;
}

const struct transport alone = {
    .start = start,
    .is_over = is_over,
    .finish = finish,
    .abort = exit,
    .split = split,
    .create = create,
    .release = release,
    .barrier = barrier,
};
