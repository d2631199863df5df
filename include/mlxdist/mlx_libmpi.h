/* MLX opens this library as its libmpi: the 14 functions and 16 data symbols of Open MPI's ABI that MLX's "mpi"
 * backend looks up (MLX 0.29.4 to 0.32.4), over our core. Here is what Python says to that side. */
#ifndef MLXDIST_MLX_LIBMPI_H
#define MLXDIST_MLX_LIBMPI_H

#include "mlxdist/group/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* MLX knows only MPI_Allreduce on a communicator, so a communicator may mean something else: with MEANS_SUM_SCATTER
 * an all_sum fills only this rank's part of the output, with MEANS_BROADCAST it gives everybody root's array. The root
 * of MEANS_REDUCTION is the peer of its calls, a digest. */
enum mlx_collective_kind { KIND_REDUCTION, KIND_SUM_SCATTER, KIND_BROADCAST };

/* This thread's next MPI_Comm_split communicates nothing and returns this group with this meaning. */
void mlx_override_next_split(struct group *group, enum mlx_collective_kind kind, int root);

/* This thread's next MPI_Comm_split throws, communicates nothing, and leaves the group that it was called on for
 * mlx_answer(), which is NULL if that was no group of ours. */
void mlx_query_next_split(void);
struct group *mlx_queried_group(void);

/* Has MLX opened this library, and not another MPI? */
int mlx_has_opened_us(void);

#ifdef __cplusplus
}
#endif
#endif
