/* What is asked of MPI: about a dozen whole operations, the same from every library.
 *
 * mpi_int serves the MPICH family, mpi_ptr Open MPI and the standard ABI (one source, mpi_impl.h, compiled twice),
 * alone a single process without any MPI. Operations block; sizes are in bytes where no arithmetic is done, else in
 * elements, and may exceed 2^31. No operation is called with a type, peer or size that its group does not allow:
 * that is checked above. */
#ifndef MLXDIST_TRANSPORT_H
#define MLXDIST_TRANSPORT_H

#include "mlxdist/abi.h"
#include "mlxdist/types.h"

/* A communicator; each transport's own struct begins with it. */
struct comm {
    int rank, size;
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
    int (*send)(struct comm *comm, const void *sendbuf, int64_t nbytes, int dst, struct outcome *outcome);
    /* A message of another length than nbytes is taken off the wire, thrown away and reported: LENGTHS_DIFFER. */
    int (*recv)(struct comm *comm, void *recvbuf, int64_t nbytes, int src, struct outcome *outcome);
};

extern const struct transport mpi_int, mpi_ptr, alone;

#endif
