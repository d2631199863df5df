/* Open MPI: a handle is the address of the library's data. The standard ABI: a pointer of fixed value. */
#include <dlfcn.h>
#include <stdint.h>

#include "mlxdist/mpi/abi.h"

typedef void *HANDLE;
#define THIS_TRANSPORT mpi_ptr

static HANDLE handle(void *library, enum abi_family family, const char *symbol, int mpich, intptr_t standard) {
    (void)mpich;
    return family == ABI_OPENMPI ? dlsym(library, symbol) : (HANDLE)standard;
}

#include "mpi_impl.h"
