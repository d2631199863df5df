/* MLX opens this shim as its libmpi: the 14 functions and 16 data symbols of Open MPI's ABI that MLX's "mpi" backend
 * looks up (MLX 0.29.4 to 0.32.4), over our core. Here is what Python tells that side. */
#ifndef MLXDIST_SHIMS_MLX_LIBMPI_H
#define MLXDIST_SHIMS_MLX_LIBMPI_H

#include "mlxdist/shim.h"

#ifdef __cplusplus
extern "C" {
#endif

/* MLX knows only MPI_Allreduce, so a communicator says what an all_sum on it does: with KIND_SUM_SCATTER it fills only
 * this rank's part of the output, with KIND_BROADCAST every rank gets root's array, with KIND_SENDRECV that of rank
 * root % size, and sends its own to rank root / size; with KIND_OTHER_REDUCTION the reduction is root, one that MLX
 * lacks. With KIND_ALL_TO_ALL it exchanges blocks, with KIND_SCATTER it fills only this rank's part with that of root's
 * array. With KIND_REDUCE rank root / REDUCTIONS gets the reduction root % REDUCTIONS, and the others their own array;
 * so do they with KIND_GATHER, where root makes an all_gather instead. Only KIND_REDUCTION has a wire. */
enum mlx_collective_kind {
    KIND_REDUCTION,
    KIND_OTHER_REDUCTION,
    KIND_SUM_SCATTER,
    KIND_BROADCAST,
    KIND_SENDRECV,
    KIND_ALL_TO_ALL,
    KIND_GATHER,
    KIND_SCATTER,
    KIND_REDUCE
};

struct mlx_libmpi {
    /* This thread's next MPI_Comm_split communicates nothing and returns a communicator of this group and kind. wire,
     * digest: those of its calls, see call.h. */
    void (*override_next_split)(struct group *group, enum mlx_collective_kind kind, int root, int wire, int digest);

    /* This thread's next MPI_Comm_split communicates nothing and throws; afterwards queried_group() is the group that
     * it was called on, or NULL if that was not a group of ours. */
    void (*query_next_split)(void);
    struct group *(*queried_group)(void);

    /* Whether an operation of MLX has failed since forget_failure(). Until that is called all others fail too, since
     * MLX goes on with those behind it as if it had not; call it when MLX has nothing left to do. */
    int (*has_failed)(void);
    void (*forget_failure)(void);
};

#ifdef __cplusplus
}
#endif
#endif
