/* jaxlib opens this shim as the MPI behind its MPItrampoline: XLA's "mpi" collectives of the CPU, over our core. It
 * does so when jaxlib is loaded, which may be before the core has started; until mlxdist_connect() there is no
 * communicator. Here is what Python tells that side. */
#ifndef MLXDIST_SHIMS_JAX_MPIWRAPPER_H
#define MLXDIST_SHIMS_JAX_MPIWRAPPER_H

#include "mlxdist/shim.h"

#ifdef __cplusplus
extern "C" {
#endif

struct jax_mpiwrapper {
    /* XLA makes a communicator for each clique of devices by a split of MPI_COMM_WORLD, which does not say who is in it
     * (mlxdist/jax/cliques.py). From now on a split gives this group, of which it must be a rank; NULL: it fails. */
    void (*set_clique)(struct group *group);
};

#ifdef __cplusplus
}
#endif
#endif
