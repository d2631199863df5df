# cython: language_level=3
"""What _core.pyx uses from the C core, the C library and NumPy."""

from libc.stdint cimport int64_t, intptr_t


cimport numpy as cnp
from cpython.ref cimport PyObject


cdef extern from "<numpy/arrayobject.h>":
    cnp.ndarray PyArray_NewFromDescr(type, cnp.dtype, int ndim, cnp.npy_intp *shape, cnp.npy_intp *strides, void *data,
                                     int flags, PyObject *)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **, size_t alignment, size_t nbytes)

cdef extern from "<stdatomic.h>" nogil:
    """
    typedef _Atomic(PyObject *) atomic_object;
    """
    ctypedef int atomic_int
    ctypedef PyObject *atomic_object
    int memory_order_relaxed, memory_order_acquire, memory_order_release
    int load_int "atomic_load_explicit"(atomic_int *, int order)
    void store_int "atomic_store_explicit"(atomic_int *, int, int order)
    PyObject *load_object "atomic_load_explicit"(atomic_object *, int order)
    void store_object "atomic_store_explicit"(atomic_object *, PyObject *, int order)

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
    #define CALL_NAME(name, call, ...) call,
    static const char *const call_names[] = {MLXDIST_REDUCTIONS(CALL_NAME)};
    """
    enum element_type:
        pass
    enum reduction:
        pass
    enum:
        ELEMENT_TYPES, REDUCTIONS
        STATUS_MPI_FAILED, STATUS_LIBRARY_UNFIT, STATUS_MISMATCH, STATUS_PEER_DIED, STATUS_TIMED_OUT
        STATUS_INTERRUPTED, STATUS_GROUP_CLOSED, STATUS_GROUP_BROKEN, STATUS_WRONG_THREAD, STATUS_OUT_OF_MEMORY
        STATUS_NOT_SHARED
    struct outcome:
        int status, mpi_code
        const char *class_
        const char *call
        const char *text
    const char *const *numpy_names
    const char *const *call_names
    size_t element_size(element_type type)
    int is_reducible(element_type type, reduction op)

cdef extern from "mlxdist/mpi/abi.h" nogil:
    enum abi_family:
        ABI_OPENMPI, ABI_MPICH, ABI_STANDARD
    int abi_identify(void *library, abi_family *family)

cdef extern from "mlxdist/kernels/kernels.h" nogil:
    void c_reduce "reduce"(element_type type, reduction op, const void *const *inputs, int n_inputs, void *output,
                           size_t count)
    int divide_by(element_type type, void *numbers, size_t count, int n)
    void narrow(element_type to, const float *numbers, void *narrowed, size_t count)
    void widen(element_type from_, const void *narrowed, float *numbers, size_t count)
    const char *kernels_variant(int i)
    int kernels_choose(const char *name)
    const char *kernels_chosen()

cdef extern from "mlxdist/copy.h" nogil:
    enum:
        CACHE_LINE
    void copy_use_huge_pages(void *memory, size_t nbytes)

cdef extern from "mlxdist/measure.h" nogil:
    enum:
        MEASURE_BYTE
    double measure_copy_s(void *to, void *source, size_t nbytes, int non_temporal, int64_t repeats)

cdef extern from "mlxdist/call.h" nogil:
    """
    #define OPERATION_NAME(name, call) call,
    static const char *const operation_names[] = {MLXDIST_OPERATIONS(OPERATION_NAME)};
    """
    enum:
        OPERATION_ALLREDUCE, OPERATION_BROADCAST, OPERATION_SEND, OPERATION_RECV, OPERATIONS
        CALL_ALL_SUM, CALL_ALL_MAX, CALL_ALL_MIN, CALL_ALL_PROD, CALL_ALL_BAND, CALL_ALL_BOR
        CALL_ALL_GATHER, CALL_SUM_SCATTER, CALL_BROADCAST, CALL_BARRIER, CALL_SEND, CALL_RECV, CALL_RECV_LIKE
        CALL_ALL_TO_ALL, CALL_GATHER, CALL_SCATTER, CALL_REDUCE, CALL_SENDRECV, CALL_AVERAGE_GRADIENTS, CALLS
        RESULT_GATHERED, RESULT_SCATTERED, RESULT_EXCHANGED
        PEER_NONE, PEER_ROOT, PEER_DST_ROOT, PEER_DST, PEER_SRC, PEER_DST_SRC
        SHOWN_DIMENSIONS, DIGEST_OF_MEAN
    struct call_row:
        const char *called
        int operation, op, result, peer
    const call_row *call_rows
    struct call:
        int operation, op, type, peer
        int64_t count
        int on_device, ndim, src
        int64_t shape[8]
        int name, digest, wire
    int call_is_collective(const call *call)
    int call_reads(const call *call, int rank)
    int64_t call_nbytes(const call *call)
    call flat_call(int operation, int op, int type, int peer, int64_t count)
    const char *const *operation_names

cdef extern from "mlxdist/wait.h" nogil:
    enum:
        WAIT_SPINS
    struct wait_policy:
        int spins
        double timeout_s
        int quiet
        int (*interrupt)(int signals) noexcept
        int (*check)(void *checked, outcome *outcome) noexcept
    int wait_is_under_way()
    void wait_watch_interrupts()
    void wait_unwatch_interrupts()

cdef extern from "mlxdist/mpi/transport.h" nogil:
    ctypedef intptr_t comm_handle
    enum thread_level:
        pass
    struct transport:
        void (*version)(char *text, size_t nbytes)
    const transport alone

cdef extern from "mlxdist/mpi/runtime.h" nogil:
    struct settings:
        wait_policy policy
        int share
        comm_handle comm
    struct c_runtime "runtime":
        const transport *transport
        int ours
        thread_level threads
    c_runtime runtime
    const transport *runtime_load(void *library, int64_t max_count, outcome *outcome)
    int runtime_is_closed()
    int runtime_is_over()
    int runtime_await_start(const wait_policy *policy, outcome *outcome)
    void runtime_end_start()
    int runtime_is_forked()

cdef extern from "mlxdist/group/work.h" nogil:
    struct work:
        pass
    int work_is_done(const work *)
    int work_wait(work *, double timeout_s, outcome *)
    void work_notify(work *, int descriptor)
    void work_release(work *)

cdef extern from "mlxdist/group/core.h" nogil:
    struct c_group "group":
        pass
    int core_start(const transport *transport, const settings *settings, outcome *outcome)
    c_group *core_world()
    int core_finish(outcome *outcome)
    void core_abort(int status)
    const char *core_why_not_shared()
    c_group *group_retain(c_group *group)
    void group_release(c_group *group)
    int group_rank(const c_group *group)
    int group_size(const c_group *group)
    int group_local_size(const c_group *group)
    int group_local_rank(const c_group *group)
    int group_is_broken(const c_group *group)
    void group_set_timeout(c_group *group, double timeout_s)
    int group_split(c_group *group, int color, int key, c_group **part, outcome *outcome)
    int group_create(c_group *, const int *ranks, int n, int is_only_thread, c_group **part, outcome *)
    int group_ranks_of(c_group *, comm_handle comm, int *ranks, int *n, outcome *)
    int group_run(c_group *, call *, const void *sendbuf, void *recvbuf, outcome *)
    int group_run_raw(c_group *, call *, void *sendbuf, void *recvbuf, int64_t repeats, int rewrite,
                      double *spent_s, outcome *)
    struct symmetric:
        pass
    int group_empty(c_group *, int64_t nbytes, symmetric **, void **memory, outcome *)
    void group_free(c_group *, symmetric *)
    int group_p2p(c_group *, call *, const void *sendbuf, void *recvbuf, outcome *)
    int group_start(c_group *, const call *, const void *sendbuf, void *recvbuf, work **, outcome *)

cdef extern from "<unistd.h>" nogil:
    int close(int descriptor)

cdef extern from "<pythread.h>" nogil:
    unsigned long PyThread_get_thread_ident()

cdef extern from "<Python.h>" nogil:
    int PyGILState_Check()

cdef extern from "<Python.h>":
    int Py_AddPendingCall(int (*)(void *) except -1, void *)

cdef extern from "mlxdist/shim.h" nogil:
    const void *shim_connect(const char *path)

cdef extern from "mlxdist/shims/mlx_libmpi.h" nogil:
    enum mlx_collective_kind:
        KIND_REDUCTION, KIND_OTHER_REDUCTION, KIND_SUM_SCATTER, KIND_BROADCAST, KIND_SENDRECV
        KIND_ALL_TO_ALL, KIND_GATHER, KIND_SCATTER, KIND_REDUCE
    struct mlx_libmpi:
        void (*override_next_split)(c_group *group, mlx_collective_kind kind, int root, int wire,
                                    int digest) noexcept
        void (*query_next_split)() noexcept
        c_group *(*queried_group)() noexcept
        int (*has_failed)() noexcept
        void (*forget_failure)() noexcept

cdef extern from "mlxdist/shims/jax_mpiwrapper.h" nogil:
    struct jax_mpiwrapper:
        void (*set_clique)(c_group *group) noexcept

cdef extern from "mlxdist/xla/handler.h" nogil:
    enum:
        XLA_GROUPS
    struct xla_call:
        int64_t group
        call call
    struct ffi_frame:
        pass
    struct ffi_error:
        pass
    int xla_add_group(c_group *group)
    void xla_drop_group(int number)
    ffi_error *xla_handler(ffi_frame *frame) noexcept
    void xla_after_call(void (*after)() noexcept nogil)
