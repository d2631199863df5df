/* What is asked of MPI: about a dozen whole operations, the same from every library.
 *
 * mpi_int serves the MPICH family, mpi_ptr Open MPI and the standard ABI (one source, mpi_impl.h, compiled twice),
 * alone a single process without any MPI. Collectives block, what may have to wait for a peer only begins: test()
 * tells whether it is done. Sizes are in bytes where no arithmetic is done, else in elements, and may exceed 2^31. No
 * operation is called with a type, peer or size that its group does not allow: that is checked above. */
#ifndef MLXDIST_MPI_TRANSPORT_H
#define MLXDIST_MPI_TRANSPORT_H

#include "mlxdist/mpi/abi.h"
#include "mlxdist/types.h"

/* A communicator; each transport's own struct begins with it. */
struct comm {
    int rank, size;
};

/* MPI's handles, an int or a pointer. */
typedef intptr_t request_handle, message_handle;

/* A message that has come. */
struct message {
    message_handle handle;
    int64_t nbytes;
    int tag;
};

enum thread_level { THREADS_SINGLE, THREADS_FUNNELED, THREADS_SERIALIZED, THREADS_MULTIPLE };

struct transport {
    /* Look up every function and handle of the opened library; one call may carry max_count elements. */
    int (*load)(void *library, enum abi_family family, int64_t max_count, struct outcome *outcome);
    /* The first line of the library's own description; works before start. */
    void (*version)(char *text, size_t nbytes);
    /* Initialize MPI, unless somebody has: then ours = 0. world is a private duplicate. After a failure finish is due
     * where ours is not 0. */
    int (*start)(int *ours, enum thread_level *threads, struct comm **world, struct outcome *outcome);
    /* Nonzero: MPI has been finalized, by whomever. */
    int (*is_over)(void);
    /* Give back what start took; finalize MPI if that was ours. */
    int (*finish)(int ours, struct outcome *outcome);
    void (*abort)(int status);

    /* color and key are not negative. */
    int (*split)(struct comm *comm, int color, int key, struct comm **part, struct outcome *outcome);
    /* Those of the same host. */
    int (*split_host)(struct comm *comm, struct comm **part, struct outcome *outcome);
    int (*release)(struct comm *comm, struct outcome *outcome);

    /* sendbuf may be recvbuf. */
    int (*allreduce)(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t count, enum element_type type,
                     enum reduction op, struct outcome *outcome);
    /* sendbuf: size * count elements, recvbuf: count elements, apart from each other. */
    int (*reduce_scatter)(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t count, enum element_type type,
                          enum reduction op, struct outcome *outcome);
    /* sendbuf: nbytes, recvbuf: size * nbytes, apart from each other. */
    int (*allgather)(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t nbytes, struct outcome *outcome);
    int (*broadcast)(struct comm *comm, void *buf, int64_t nbytes, int root, struct outcome *outcome);
    int (*barrier)(struct comm *comm, struct outcome *outcome);

    /* These do not wait. sent or agreed belongs to MPI until test() has found it done. */
    int (*send)(struct comm *comm, const void *sent, int64_t nbytes, int dst, int tag, request_handle *request,
                struct outcome *outcome);
    /* lowest[i] = the lowest of all ranks' own[i], for i < 2. */
    int (*agree)(struct comm *comm, const uint64_t *own, uint64_t *lowest, request_handle *request,
                 struct outcome *outcome);
    int (*test)(request_handle *request, int *done, struct outcome *outcome);
    int (*probe)(struct comm *comm, int src, int *found, struct message *message, struct outcome *outcome);
    /* recvbuf: message->nbytes, MPI's until test() has found it done. */
    int (*recv)(void *recvbuf, struct message *message, request_handle *request, struct outcome *outcome);
};

extern const struct transport mpi_int, mpi_ptr, alone;

#endif
