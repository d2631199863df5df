# cython: language_level=3
"""What C gives to _core.pyx."""

from libc.stdint cimport int64_t


cimport numpy as cnp
from cpython.ref cimport PyObject


cdef extern from "<numpy/arrayobject.h>":
    cnp.ndarray PyArray_NewFromDescr(type, cnp.dtype, int ndim, cnp.npy_intp *shape, cnp.npy_intp *strides, void *data,
                                     int flags, PyObject *)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **, size_t alignment, size_t nbytes)

cdef extern from "<dlfcn.h>" nogil:
    int RTLD_NOW, RTLD_LOCAL, RTLD_GLOBAL, RTLD_NOLOAD
    void *dlopen(const char *path, int mode)
    void *dlsym(void *library, const char *symbol)
    int dlclose(void *library)
    char *dlerror()
    ctypedef struct Dl_info:
        const char *dli_fname
    int dladdr(const void *address, Dl_info *info)

cdef extern from "mlxdist/types.h" nogil:
    """
    #define NUMPY_NAME(name, numpy, ...) numpy,
    static const char *const numpy_names[] = {MLXDIST_TYPES(NUMPY_NAME)};
    #define CALL_NAME(name, call) call,
    static const char *const call_names[] = {MLXDIST_REDUCTIONS(CALL_NAME)};
    """
    enum element_type:
        pass
    enum reduction:
        pass
    enum:
        ELEMENT_TYPES, REDUCTIONS
        OK, MPI_FAILED, LIBRARY_UNFIT, MISMATCH, PEER_DIED, TIMED_OUT, INTERRUPTED
        GROUP_CLOSED, GROUP_SPENT, WRONG_THREAD, OUT_OF_MEMORY, NOT_SHARED
    struct outcome:
        int what, code
        const char *class_
        const char *call
        const char *text
    const char *const *numpy_names
    const char *const *call_names
    size_t element_size(element_type type)

cdef extern from "mlxdist/abi.h" nogil:
    enum abi_family:
        ABI_OPENMPI, ABI_MPICH, ABI_STANDARD
    int abi_identify(void *library, abi_family *family)

cdef extern from "mlxdist/kernels.h" nogil:
    void reduce(element_type type, reduction op, const void *const *inputs, int n_inputs, void *output, size_t count)
    int divide_by(element_type type, void *numbers, size_t count, int n)
    const char *kernels_variant(int i)
    int kernels_choose(const char *name)
    const char *kernels_chosen()

cdef extern from "mlxdist/copy.h" nogil:
    void copy_use_huge_pages(void *memory, size_t nbytes)

cdef extern from "mlxdist/measure.h" nogil:
    enum:
        MEASURE_BYTE
    double measure_copy_s(void *to, void *source, size_t nbytes, int past_cache, int64_t repeats)

cdef extern from "mlxdist/call.h" nogil:
    """
    #define OPERATION_NAME(name, call) call,
    static const char *const operation_names[] = {MLXDIST_OPERATIONS(OPERATION_NAME)};
    """
    enum:
        ALLREDUCE, REDUCE_SCATTER, ALLGATHER, BROADCAST, SPLIT, SEND, RECV, OPERATIONS
        SHOWN_DIMENSIONS
    struct call:
        int operation, op, type, peer
        int64_t count
        int on_device, ndim
        int64_t shape[8]
    const char *const *operation_names

cdef extern from "mlxdist/wait.h" nogil:
    enum:
        SPINS
    struct patience:
        int spins
        double limit_s
        int quiet
        int (*interrupt)(int signaled) noexcept
    void wait_watch_interrupts()
    void wait_unwatch_interrupts()

cdef extern from "mlxdist/transport.h" nogil:
    enum thread_level:
        pass
    struct transport:
        void (*version)(char *text, size_t nbytes)
    const transport alone

cdef extern from "mlxdist/job.h" nogil:
    struct settings:
        patience patience
        int share, check
    struct c_job "job":
        const transport *transport
        int ours
        thread_level threads
    c_job job
    const transport *job_load(void *library, int64_t max_count, outcome *outcome)
    int job_is_closed()
    int job_is_forked()

cdef extern from "mlxdist/core.h" nogil:
    struct group:
        pass
    int core_start(const transport *transport, const settings *settings, outcome *outcome)
    group *core_world()
    int core_finish(outcome *outcome)
    void core_abort(int status)
    const char *core_not_sharing()
    group *group_retain(group *group)
    void group_release(group *group)
    int group_rank(const group *group)
    int group_size(const group *group)
    int group_sharing(const group *group)
    int group_is_spent(const group *group)
    void group_limit(group *group, double limit_s)
    int group_split(group *group, int color, int key, group **part, outcome *outcome)
    int group_run(group *, call *, const void *sendbuf, void *recvbuf, outcome *)
    int group_run_bare(group *, call *, void *sendbuf, void *recvbuf, int64_t repeats, int rewrite,
                       double *spent_s, outcome *)
    struct pool:
        pass
    int group_empty(group *, int64_t nbytes, pool **, void **memory, outcome *)
    void group_free(group *, pool *)
    int group_send(group *, call *, const void *sendbuf, outcome *)
    int group_recv(group *, call *, void *recvbuf, outcome *)

cdef extern from "<pythread.h>" nogil:
    unsigned long PyThread_get_thread_ident()

cdef extern from "mlxdist/mlx_libmpi.h" nogil:
    enum mlx_meaning:
        MEANS_REDUCTION, MEANS_SUM_SCATTER, MEANS_BROADCAST
    void mlx_offer(group *group, mlx_meaning meaning, int root)
    void mlx_ask()
    group *mlx_answer()
    int mlx_has_opened_us()
