/* What is asked of MPI: some twenty whole operations, the same for every library.
 *
 * mpi_int serves the MPICH family, mpi_ptr Open MPI and the standard ABI (one source, mpi_impl.h, compiled twice),
 * alone a single process without any MPI (alone.c). Collectives block; an operation that may have to wait for a peer is
 * only started, and test() tells whether it is done. Sizes are in bytes, in elements for reductions, and may exceed
 * 2^31. Types, peers and sizes are checked by the callers. */
#ifndef MLXDIST_MPI_TRANSPORT_H
#define MLXDIST_MPI_TRANSPORT_H

#include "mlxdist/mpi/abi.h"
#include "mlxdist/types.h"

/* A communicator; each transport's own struct begins with it. */
struct comm {
    int rank, size;
};

/* As the source of a message. */
enum { ANY_RANK = -1 };

/* MPI's handles, an int or a pointer. */
typedef intptr_t request_handle, message_handle, comm_handle;

/* A message that has arrived. */
struct message {
    message_handle handle;
    int64_t nbytes;
};

enum thread_level { THREADS_SINGLE, THREADS_FUNNELED, THREADS_SERIALIZED, THREADS_MULTIPLE };

/* Wait until a request is done. */
typedef int await_function(request_handle *request, struct outcome *outcome);

struct transport {
    /* Look up every function and handle of the opened library; max_count: the most elements that one call gets. */
    int (*load)(void *library, enum abi_family family, int64_t max_count, struct outcome *outcome);
    /* The first line of the library's description of itself; works before start. */
    void (*version)(char *text, size_t nbytes);
    /* Initialize MPI unless it is: then *ours = 0. *world is a private duplicate of `of`, a communicator of the
     * program's, or of MPI_COMM_WORLD if that is 0. await_world waits for it; if that gives up, start may be called
     * again. After a failure call finish if *ours is not 0. await_collective: how a collective waits where threads may
     * call one at a time, with the others let in. */
    int (*start)(comm_handle of, await_function *await_world, await_function *await_collective, int *ours,
                 enum thread_level *threads, struct comm **world, struct outcome *outcome);
    /* Nonzero: MPI has been finalized, by us or by others. */
    int (*is_over)(void);
    /* Free what start made; finalize MPI if ours. */
    int (*finish)(int ours, struct outcome *outcome);
    void (*abort)(int status);

    /* color and key are not negative. */
    int (*split)(struct comm *comm, int color, int key, struct comm **part, struct outcome *outcome);
    /* These n ranks of comm, in this order; only they call it. tag: the same on all of them, and of no other call under
     * way. */
    int (*create)(struct comm *comm, const int *ranks, int n, int tag, struct comm **part, struct outcome *outcome);
    /* The ranks of comm that a communicator of the program's has, at most comm->size; negative where it has another. */
    int (*ranks_of)(struct comm *comm, comm_handle other, int *ranks, int *n, struct outcome *outcome);
    /* The ranks of the same host. */
    int (*split_host)(struct comm *comm, struct comm **part, struct outcome *outcome);
    int (*release)(struct comm *comm, struct outcome *outcome);

    /* sendbuf may be recvbuf. */
    int (*allreduce)(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t count, enum element_type type,
                     enum reduction op, struct outcome *outcome);
    /* sendbuf: size * count elements; recvbuf: count elements, this rank's part of sendbuf or without overlap. */
    int (*reduce_scatter)(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t count, enum element_type type,
                          enum reduction op, struct outcome *outcome);
    /* sendbuf: nbytes, this rank's part of recvbuf or without overlap; recvbuf: size * nbytes. */
    int (*allgather)(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t nbytes, struct outcome *outcome);
    /* A block of nbytes for each rank, and one from each; sendbuf may be recvbuf in memory of the host. */
    int (*alltoall)(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t nbytes, struct outcome *outcome);
    /* As allgather and reduce, for root alone; the others have no recvbuf. sendbuf of root may be its recvbuf, of
     * gather its part there. */
    int (*gather)(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t nbytes, int root,
                  struct outcome *outcome);
    int (*reduce)(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t count, enum element_type type,
                  enum reduction op, int root, struct outcome *outcome);
    /* recvbuf: nbytes, of root perhaps its part of sendbuf; the others have no sendbuf. */
    int (*scatter)(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t nbytes, int root,
                   struct outcome *outcome);
    int (*broadcast)(struct comm *comm, void *buf, int64_t nbytes, int root, struct outcome *outcome);
    int (*barrier)(struct comm *comm, struct outcome *outcome);

    /* These do not wait. MPI uses the buffers until test() has found the request done. */
    int (*send)(struct comm *comm, const void *sent, int64_t nbytes, int dst, int tag, request_handle *request,
                struct outcome *outcome);
    int (*test)(request_handle *request, int *done, struct outcome *outcome);
    /* nbytes: at least those that are sent. */
    int (*recv)(struct comm *comm, void *recvbuf, int64_t nbytes, int src, int tag, request_handle *request,
                struct outcome *outcome);
    /* Is there a message? What is found must be received by recv_found: message->nbytes. src may be ANY_RANK. */
    int (*probe)(struct comm *comm, int src, int tag, int *found, struct message *message, struct outcome *outcome);
    /* The same, but it is not received. */
    int (*look)(struct comm *comm, int src, int tag, int *found, struct outcome *outcome);
    int (*recv_found)(void *recvbuf, struct message *message, request_handle *request, struct outcome *outcome);
};

extern const struct transport mpi_int, mpi_ptr, alone;

#endif
