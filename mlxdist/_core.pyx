# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, auto_pickle=False
"""The compiled core: opens libmpi, owns groups, and runs operations on pointers with the GIL released.

It checks nothing that ``ops`` has checked already. Frameworks are not known here: an array is a ``Buffer``.
"""

import math
import operator
import signal
import sys
import threading
from os import fsdecode, fsencode

import numpy

from mlxdist import errors

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove

cimport numpy as cnp

cnp.import_array()


MLX_KINDS = {"reduction": KIND_REDUCTION, "sum_scatter": KIND_SUM_SCATTER, "broadcast": KIND_BROADCAST}
FAMILIES = {ABI_OPENMPI: "openmpi", ABI_MPICH: "mpich", ABI_STANDARD: "standard"}
THREAD_LEVELS = ("MPI_THREAD_SINGLE", "MPI_THREAD_FUNNELED", "MPI_THREAD_SERIALIZED", "MPI_THREAD_MULTIPLE")
REDUCTION_NAMES = tuple(call_names[i].decode() for i in range(REDUCTIONS))
OPERATION_OF = {operation_names[i].decode(): i for i in range(OPERATIONS)}  # of MPI and the core
DTYPES = tuple(numpy_names[i].decode() for i in range(ELEMENT_TYPES))

cdef dict exception_of = {
    STATUS_LIBRARY_UNFIT: errors.LoadError,
    STATUS_MISMATCH: errors.MismatchError,
    STATUS_PEER_DIED: errors.PeerError,
    STATUS_TIMED_OUT: errors.TimeoutError,
    STATUS_INTERRUPTED: KeyboardInterrupt,
    STATUS_GROUP_CLOSED: ValueError,
    STATUS_GROUP_BROKEN: errors.Error,
    STATUS_WRONG_THREAD: errors.Error,
    STATUS_OUT_OF_MEMORY: MemoryError,
    STATUS_NOT_SHARED: errors.Error,
}


# What Python's handler of SIGINT raised while the main thread was waiting in C.
cdef object interruption = None
cdef unsigned long main_thread = 0


cdef int interrupt(int signaled) noexcept nogil:
    """Whether the wait is to be given up: Python's handler raised, or would raise if this were the main thread."""
    if PyThread_get_thread_ident() != main_thread:
        if not signaled:
            return 0
        with gil:
            return default_handler()
    with gil:
        return handler_raised()


cdef bint default_handler():
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


cdef bint handler_raised():
    global interruption
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        interruption = error
    return interruption is not None


cdef int raise_interruption() except -1:
    """Also after a call that went on all the same, since the other ranks had."""
    global interruption
    if interruption is not None and PyThread_get_thread_ident() == main_thread:
        raised, interruption = interruption, None
        raise raised
    return 0


cdef int fail(str call, outcome *why) except -1:
    """Turn what C reports into an exception; the only place that does."""
    raise_interruption()
    text = f"[{call}] {why.text.decode(errors='replace')}"
    if why.status == STATUS_MPI_FAILED:
        raise errors.MPIError(text, why.call.decode(), why.mpi_code, why.class_.decode())
    raise exception_of[why.status](text)


# NumPy's number of a dtype -> element type; UNSEEN where nobody has asked yet.
cdef enum:
    NO_TYPE = -1
    UNSEEN = -2
    TYPE_NUMBERS = 1024
cdef int type_of_number[TYPE_NUMBERS]
cdef int number
for number in range(TYPE_NUMBERS):
    type_of_number[number] = UNSEEN


cdef int element_type_of(cnp.dtype dtype):
    cdef int number = dtype.type_num
    if not 0 <= number < TYPE_NUMBERS or type_of_number[number] == UNSEEN:
        # long and long long are two numbers of one name; bfloat16 (ml_dtypes) gets its number when first imported
        found = DTYPES.index(dtype.name) if dtype.name in DTYPES else NO_TYPE
        if not 0 <= number < TYPE_NUMBERS:
            return found
        type_of_number[number] = found
    return type_of_number[number] if cnp.PyArray_ISNBO(dtype.byteorder) else NO_TYPE


def type_of(cnp.dtype dtype) -> int:
    """The place of ``dtype`` in DTYPES; -1 where its arrays cannot be communicated."""
    return element_type_of(dtype)


@cython.final
cdef class Buffer:
    """Elements that lie one behind the other, and the object that keeps them alive; on_device: for libmpi only."""

    cdef void *address
    cdef readonly int64_t count
    cdef element_type type
    cdef readonly object owner
    cdef readonly tuple shape
    cdef readonly bint on_device

    def __init__(self, uintptr_t address, int64_t count, int type, owner, tuple shape, bint on_device=False):
        self.address = <void *>address
        self.count = count
        self.type = <element_type>type
        self.owner = owner
        self.shape = shape
        self.on_device = on_device

    @property
    def nbytes(self) -> int:
        return self.count * <int64_t>element_size(self.type)


def buffer_of(cnp.ndarray x) -> Buffer:
    """The elements of a C-contiguous array of a dtype of DTYPES, where they lie."""
    return Buffer(<uintptr_t>cnp.PyArray_DATA(x), cnp.PyArray_SIZE(x), element_type_of(x.descr), x, (<object>x).shape)


include "memory.pxi"


def use_kernels(str name) -> str:
    """Let reductions be done by the kernels of this name, "" for the best that the processor has; their name."""
    if kernels_choose(name.encode()):
        raise ValueError(f"[init] there are no kernels {name!r} for this processor: pass one of {kernels()}")
    return kernels_chosen().decode()


def kernels() -> tuple:
    """Names of all that were built, the best first."""
    cdef int i = 0
    names = []
    while kernels_variant(i) != NULL:
        names.append(kernels_variant(i).decode())
        i += 1
    return tuple(names)


def reduce_locally(int op, inputs, cnp.ndarray output) -> None:
    """``output`` = the reduction ``CALLS[op]`` of ``inputs``, all alike and contiguous, without any communication."""
    cdef const void *pointers[64]
    cdef int i
    if not 0 < len(inputs) <= 64:
        raise ValueError(f"[reduce_locally] {len(inputs)} inputs: pass 1 to 64")
    for i, x in enumerate(inputs):
        pointers[i] = cnp.PyArray_DATA(x)
    reduce(<element_type>element_type_of(output.descr), <reduction>op, pointers, len(inputs),
           cnp.PyArray_DATA(output), cnp.PyArray_SIZE(output))


def divide_locally(cnp.ndarray numbers, int n) -> None:
    """Divide a contiguous array of floats or complex numbers by ``n`` in place."""
    divide_by(<element_type>element_type_of(numbers.descr), cnp.PyArray_DATA(numbers), cnp.PyArray_SIZE(numbers), n)


@cython.final
cdef class Library:
    """An opened libmpi that can do all we ask for; it need not be initialized.

    Attributes:
        path: the file it came from, as the loader reports it.
        family: "openmpi", "mpich" or "standard", see abi.h.
        version: the first line that it says of itself.
    """

    cdef void *handle
    cdef const transport *transport
    cdef readonly str path, family, version

    @staticmethod
    def open(str path, int64_t max_count, bint already_open=False) -> Library:
        """Open ``path``; an Error of the loader's or our own words where it does not do."""
        cdef Library library = Library()
        cdef outcome why
        cdef Dl_info info
        cdef abi_family family
        cdef char[512] text
        library.handle = dlopen(fsencode(path), RTLD_NOW | RTLD_LOCAL | (RTLD_NOLOAD if already_open else 0))
        if library.handle == NULL:
            why_not = dlerror()
            raise errors.LoadError(fsdecode(why_not) if why_not != NULL else f"{path} is not open")
        library.transport = runtime_load(library.handle, max_count, &why)
        if library.transport == NULL:
            dlclose(library.handle)
            raise errors.LoadError(why.text.decode())
        abi_identify(library.handle, &family)
        library.family = FAMILIES[family]
        library.transport.version(text, sizeof(text))
        library.version = text.decode(errors="replace")
        dladdr(dlsym(library.handle, "MPI_Get_library_version"), &info)
        library.path = fsdecode(info.dli_fname)
        return library

    def close(self) -> None:
        """Let go of a library that was looked at and not started."""
        dlclose(self.handle)


def open_silently(str path) -> bool:
    """Open a library that another will look for by its bare name."""
    return dlopen(fsencode(path), RTLD_NOW | RTLD_LOCAL) != NULL


cdef bint wrapping = False


cdef class Group:
    """Ranks that communicate with each other; see world.Group."""

    cdef c_group *handle
    cdef int size_  # how many ranks
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        if not wrapping:
            raise TypeError("[Group] a group comes from mlxdist.init() or from another group's split()")

    def __dealloc__(self):
        if self.handle != NULL:
            group_release(self.handle)

    def rank(self) -> int:
        """This process's rank in the group, from 0 to size() - 1."""
        return group_rank(self.handle)

    def size(self) -> int:
        """How many ranks the group has."""
        return group_size(self.handle)


cdef Group wrap(type cls, c_group *handle):
    global wrapping
    wrapping = True
    cdef Group wrapped = cls.__new__(cls)
    wrapping = False
    wrapped.handle = handle
    wrapped.size_ = group_size(handle)
    return wrapped


cdef Group the_world = None
cdef Library started = None


def start(Library library, type cls, *, double timeout_s=0, bint quiet=False, bint share=True,
          bint check=True) -> Group:
    """Start MPI with ``library``, or alone with None; the world as a ``cls``. See job.h's settings."""
    global the_world, started, main_thread
    cdef outcome why
    cdef settings chosen_settings
    cdef const transport *chosen = &alone if library is None else library.transport
    cdef int failed
    chosen_settings.policy.spins, chosen_settings.policy.timeout_s = WAIT_SPINS, timeout_s
    chosen_settings.policy.quiet, chosen_settings.policy.interrupt = quiet, interrupt
    chosen_settings.share, chosen_settings.check = share, check
    main_thread = threading.main_thread().ident
    if chosen != &alone and PyThread_get_thread_ident() == main_thread:
        wait_watch_interrupts()
    with nogil:
        failed = core_start(chosen, &chosen_settings, &why)
    if failed:
        fail("init", &why)
    started = library
    the_world = wrap(cls, group_retain(core_world()))
    return the_world


def make_global() -> None:
    """Put the started library's names in front of those of libraries opened from now on: see mlx.py."""
    if started is not None and dlopen(fsencode(started.path), RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL) == NULL:
        raise errors.LoadError(f"[install] {started.path} cannot be made global: {fsdecode(dlerror())}")


def cuda_aware() -> bool:
    """Whether the started libmpi reads GPU memory, as it says. MPICH 3.4.3 aborts when asked: ask if it matters."""
    cdef int (*query)() noexcept
    query = NULL
    if started is not None:
        query = <int (*)() noexcept>dlsym(started.handle, "MPIX_Query_cuda_support")
    return query != NULL and query() == 1


def world() -> Group | None:
    """The world that start() made."""
    return the_world


def initialized_by_us() -> bool:
    """Whether MPI was initialized by start(), not by somebody before."""
    return runtime.transport != NULL and <bint>runtime.ours


def threads() -> str:
    """What MPI allows threads to do, in its own words."""
    return THREAD_LEVELS[runtime.threads]


def local_size() -> tuple:
    """How many ranks of the world share this host's memory, and where they cannot, why."""
    return group_local_size(core_world()), core_why_not_shared().decode(errors="replace")


def set_timeout(Group group, double timeout_s) -> None:
    """Let calls on ``members`` wait for ``limit_s`` seconds, 0: for ever."""
    group_set_timeout(group.handle, timeout_s)


def is_broken(Group group) -> bool:
    """Whether an error has left its ranks at different calls."""
    return <bint>group_is_broken(group.handle)


def finish() -> None:
    """End all communication; waits for what is under way and for the other ranks of this host."""
    cdef outcome why
    cdef int failed
    with nogil:
        failed = core_finish(&why)
    wait_unwatch_interrupts()
    if failed:
        fail("finalize", &why)


def is_finished() -> bool:
    """Whether finish() has run, or this is a fork of a rank."""
    return <bint>runtime_is_closed()


def is_forked() -> bool:
    """Whether this process was forked from a rank."""
    return <bint>runtime_is_forked()


def abort(int status) -> None:
    """End the whole job at once."""
    with nogil:
        core_abort(status)


def split(Group parent, int color, int key) -> Group:
    """A part of ``parent``: the ranks that gave the same color, ordered by key."""
    cdef outcome why
    cdef c_group *part
    cdef int failed
    with nogil:
        failed = group_split(parent.handle, color, key, &part, &why)
    if failed:
        fail("split", &why)
    return wrap(type(parent), part)


def override_next_mlx_split(Group group, int kind, int root) -> None:
    """MLX's next split on this thread returns ``members``, see mlx_libmpi.h."""
    mlx_override_next_split(group.handle, <mlx_collective_kind>kind, root)


def behind_mlx(part):
    """The group behind one of MLX's, whose ``split`` is given; None if that is not over this module."""
    mlx_query_next_split()
    try:
        part(0)
    except RuntimeError:
        pass
    cdef c_group *handle = mlx_queried_group()
    if handle == NULL:
        return None
    return the_world if handle == the_world.handle else wrap(type(the_world), group_retain(handle))


def mlx_opened_us() -> bool:
    """Whether MLX has opened this module as its libmpi."""
    return <bint>mlx_has_opened_us()


include "shared.pxi"


include "operations.pxi"
include "fast_path.pxi"
include "gradients.pxi"
include "measure.pxi"
