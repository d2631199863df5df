#include "mlxdist/mpi/abi.h"

#include <dlfcn.h>
#include <stddef.h>

int abi_identify(void *library, enum abi_family *family) {
    if (!dlsym(library, "MPI_Get_library_version"))
        return -1;
    /* The order matters: dlsym looks into a library's dependencies too, so that a standard libmpi_abi built
     * over Open MPI shows Open MPI's symbols as well. Classic MPICH 5 and Intel MPI have the function and
     * answer -1. */
    int major = 0, minor = 0;
    int (*abi_get_version)(int *, int *) = (int (*)(int *, int *))dlsym(library, "MPI_Abi_get_version");
    if (abi_get_version && abi_get_version(&major, &minor) == 0 && major > 0)
        *family = ABI_STANDARD;
    else
        *family = dlsym(library, "ompi_mpi_comm_world") ? ABI_OPENMPI : ABI_MPICH;
    return 0;
}
