/* A shim is a shared object of its own that a framework opens in the place of another library, with the names that it
 * looks up there. The core exports none of these: it is loaded before libmpi, and Open MPI would bind to them instead
 * of its own, where extensions are opened with RTLD_GLOBAL and on macOS, for which Open MPI is linked with a flat
 * namespace (5.0). So only the framework opens a shim, after libmpi. The two are not linked, they exchange pointers. */
#ifndef MLXDIST_SHIM_H
#define MLXDIST_SHIM_H

#include "mlxdist/group/core.h"
#include "mlxdist/kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What shims use of the core. */
/* clang-format off */
#define MLXDIST_CORE(row) \
    row(core_world) \
    row(group_retain) \
    row(group_release) \
    row(group_rank) \
    row(group_size) \
    row(group_break) \
    row(group_split) \
    row(group_create) \
    row(group_run) \
    row(group_p2p) \
    row(group_start) \
    row(work_is_done) \
    row(work_wait) \
    row(work_release) \
    row(reduce)
/* clang-format on */

#define MLXDIST_POINTER(name) __typeof__(name) *name;
struct core_functions {
    MLXDIST_CORE(MLXDIST_POINTER)
};
#undef MLXDIST_POINTER

/* Every shim exports it, besides the names that its framework looks up: takes the core's functions, and returns those
 * of its own, a struct of the type in its header. */
__attribute__((visibility("default"))) const void *mlxdist_connect(const struct core_functions *core);

/* The core's side: connect the shim of this path. NULL if no framework has opened it. */
const void *shim_connect(const char *path);

#ifdef __cplusplus
}
#endif
#endif
