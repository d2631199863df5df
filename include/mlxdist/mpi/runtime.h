/* The MPI that this process uses, and the shutdown lock: no operation begins after MPI has ended, in a fork, or on a
 * thread that this MPI does not allow. */
#ifndef MLXDIST_MPI_RUNTIME_H
#define MLXDIST_MPI_RUNTIME_H

#include "mlxdist/mpi/transport.h"
#include "mlxdist/wait.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the user may choose. */
struct settings {
    struct wait_policy policy;
    int share;        /* 0: no shared memory; more than 1: so many ranks of a host share it, as if those were a host */
    comm_handle comm; /* the ranks of this communicator are the world; 0: those of MPI_COMM_WORLD */
};

struct runtime {
    const struct transport *transport; /* NULL: not started */
    struct settings settings;
    enum thread_level threads;
    int ours; /* MPI was initialized by us */
};

extern struct runtime runtime;

/* The transport for an opened library, with all its functions looked up; NULL: see outcome. */
const struct transport *runtime_load(void *library, int64_t max_count, struct outcome *outcome);
/* Once in a process. world is a private duplicate. */
int runtime_start(const struct transport *transport, const struct settings *settings, struct comm **world,
                  struct outcome *outcome);

/* Around every operation: the end waits for those that have entered. */
int runtime_enter(struct outcome *outcome);
void runtime_leave(void);
/* Other threads than the one that started MPI may enter. */
int runtime_allows_threads(void);
/* Around every call of MPI: where it allows less than MPI_THREAD_MULTIPLE, one at a time. */
void runtime_begin_call(void);
void runtime_end_call(void);

/* TRANSPORT(barrier, comm, outcome): one call of the transport, alone where MPI wants that. */
#define TRANSPORT(function, ...) (runtime_begin_call(), runtime_ended_call(runtime.transport->function(__VA_ARGS__)))
static inline int runtime_ended_call(int result) {
    runtime_end_call();
    return result;
}

/* On another thread during the start, which waits in MPI_Init, where nothing ends it. OK: it has ended, or MPI is
 * initialized and it gives up by itself. */
int runtime_await_start(const struct wait_policy *policy, struct outcome *outcome);
void runtime_end_start(void);

/* Let no other operation enter, and wait for those under way, which soon give up if they wait for another rank. 1: this
 * call has closed the runtime and holds the lock until runtime_leave; 0: it was closed before; -1: see outcome. */
int runtime_close(const struct wait_policy *policy, struct outcome *outcome);
int runtime_is_closed(void);
int runtime_is_over(void);   /* the same, or MPI has been finalized by others */
int runtime_is_forked(void); /* this process is a child of the rank, made by fork */

#ifdef __cplusplus
}
#endif
#endif
