/* The MPICH family: a handle is an int whose value is fixed. */
#include <stdint.h>

#include "mlxdist/mpi/abi.h"

typedef int HANDLE;
#define THIS_TRANSPORT mpi_int

static HANDLE handle(void *library, enum abi_family family, const char *symbol, int mpich, intptr_t standard) {
    (void)library, (void)family, (void)symbol, (void)standard;
    return mpich;
}

#include "mpi_impl.h"
