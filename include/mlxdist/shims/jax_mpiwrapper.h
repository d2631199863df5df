/* jaxlib opens this shim as the MPI behind its MPItrampoline: XLA's "mpi" collectives of the CPU, over our core. It does
 * so when jaxlib is loaded, which may be before the core has started; until mlxdist_connect() there is no communicator.
 * Here is what Python tells that side. */
#ifndef MLXDIST_SHIMS_JAX_MPIWRAPPER_H
#define MLXDIST_SHIMS_JAX_MPIWRAPPER_H

#include "mlxdist/shim.h"

#ifdef __cplusplus
extern "C" {
#endif

struct jax_mpiwrapper {
    /* XLA makes a communicator for each clique of devices by a split of MPI_COMM_WORLD, in which only the processes of
     * the program take part. From now on that is a split of this group; NULL: of the world. */
    void (*split_within)(struct group *group);
};

#ifdef __cplusplus
}
#endif
#endif
