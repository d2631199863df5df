# Groups, and the start and end of the world; a part of _core.pyx.

cdef object made_here = object()  # what only wrap() can pass


cdef class Group:
    """Ranks that communicate with each other; see world.Group."""

    cdef c_group *handle
    cdef int size_  # how many ranks
    cdef int number  # in programs of XLA, see xla.pxi; -1: in none
    cdef dict mlx_groups  # MLX's of the same ranks, by kind, root and wire: see mlx/backend.py
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        if len(args) != 1 or args[0] is not made_here:
            raise TypeError(
                "[Group] a group cannot be created directly: call mlxdist.init() or group(), or a group's split()"
            )
        self.number = -1

    def __dealloc__(self):
        if self.number >= 0:
            xla_drop_group(self.number)
        if self.handle != NULL:
            group_release(self.handle)

    def rank(self) -> int:
        """This process's rank in the group, from 0 to size() - 1."""
        return group_rank(self.handle)

    def size(self) -> int:
        """How many ranks the group has."""
        return group_size(self.handle)

    def local_rank(self) -> int:
        """This process's rank among the group's ranks on this host, from 0 to local_size() - 1.

        The order is that of the ranks in the group. Ranks that share no memory count as if each were on a host of its
        own, see ``local_size``.

        Example:
            >>> mlxdist.init().local_rank()
            0
        """
        return group_local_rank(self.handle)

    def local_size(self) -> int:
        """How many ranks of the group are on this host, this one among them.

        On a host are those that share memory: where that is disabled or impossible, which ``info().shared_memory``
        reports, each rank counts as a host of its own, and this is 1.

        Example:
            >>> mlxdist.init().local_size()
            1
        """
        return group_local_size(self.handle)


cdef Group wrap(type cls, c_group *handle):
    cdef Group wrapped = cls.__new__(cls, made_here)
    wrapped.handle = handle
    wrapped.size_ = group_size(handle)
    wrapped.mlx_groups = {}
    return wrapped


cdef Library started = None
# start() stores it last, with release: a thread that has not waited for init() may be the first to use it.
cdef atomic_object the_world = NULL


cdef void set_policy(wait_policy *policy, double timeout_s, bint quiet) noexcept:
    policy.spins, policy.timeout_s, policy.quiet, policy.interrupt = WAIT_SPINS, timeout_s, quiet, interrupt
    policy.check = NULL


def start(
    Library library, type cls, *, double timeout_s=0, bint quiet=False, int share=1, uintptr_t comm=0
) -> Group:
    """Start MPI with ``library``, or alone with None; the world as a ``cls``. See runtime.h's settings."""
    global started
    cdef outcome why
    cdef settings chosen_settings
    cdef const transport *chosen = &alone if library is None else library.transport
    cdef int failed
    set_policy(&chosen_settings.policy, timeout_s, quiet)
    chosen_settings.share, chosen_settings.comm = share, <comm_handle>comm
    if chosen != &alone and PyThread_get_thread_ident() == main_thread:
        wait_watch_interrupts()
    with nogil:
        failed = core_start(chosen, &chosen_settings, &why)
    if failed:
        fail("init", &why)
    started = library
    made = wrap(cls, group_retain(core_world()))
    Py_INCREF(made)
    store_object(&the_world, <PyObject *>made, memory_order_release)
    return made  # init() raises what a signal handler raised: by then its next call finds the world


def await_start(double timeout_s, bint quiet) -> None:
    """Wait until start() ends on another thread; TimeoutError and KeyboardInterrupt only while it is in MPI_Init."""
    cdef outcome why
    cdef wait_policy policy
    cdef int failed
    set_policy(&policy, timeout_s, quiet)
    with nogil:
        failed = runtime_await_start(&policy, &why)
    if failed:
        fail("init", &why)


def end_start() -> None:
    """End await_start(), whether start() has run or not."""
    runtime_end_start()


def make_global() -> None:
    """Put the started library's names in front of those of libraries opened from now on: see mlx/backend.py."""
    if started is not None and dlopen(fsencode(started.path), RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL) == NULL:
        raise errors.LoadError(f"[install] {started.path} cannot be made global: {fsdecode(dlerror())}")


def cuda_aware() -> bool:
    """Whether the started libmpi says that it reads GPU memory. MPICH 3.4.3 aborts when asked: ask only if needed."""
    cdef int (*query)() noexcept
    query = NULL
    if started is not None:
        query = <int (*)() noexcept>dlsym(started.handle, "MPIX_Query_cuda_support")
    return query != NULL and query() == 1


cdef inline Group present_world():
    cdef PyObject *made = load_object(&the_world, memory_order_acquire)
    return None if made == NULL else <Group>made


def world() -> Group | None:
    """The world that start() made."""
    return present_world()


def initialized_by_us() -> bool:
    """Whether MPI was initialized by start(), not by someone else before."""
    return runtime.transport != NULL and <bint>runtime.ours


def threads() -> str:
    """What MPI allows threads to do, in its own words."""
    return THREAD_LEVELS[runtime.threads]


def local_size() -> tuple:
    """How many ranks of the world share this host's memory; if they cannot, why not."""
    return group_local_size(core_world()), core_why_not_shared().decode(errors="replace")


def set_timeout(Group group, double timeout_s) -> None:
    """Let calls on ``group`` wait for ``timeout_s`` seconds, 0: forever."""
    group_set_timeout(group.handle, timeout_s)


def is_broken(Group group) -> bool:
    """Whether an error has left its ranks at different calls."""
    return <bint>group_is_broken(group.handle)


def finish() -> None:
    """End all communication, after calls under way have ended and the other ranks of this host do the same."""
    cdef outcome why
    cdef int failed
    settle()
    with nogil:
        failed = core_finish(&why)
    drop_all()
    if runtime_is_closed():  # else other threads are still in calls
        wait_unwatch_interrupts()
    if failed:
        fail("finalize", &why)
    raise_interruption()


def is_waiting() -> bool:
    """Whether this thread is in a call, and what runs is a signal handler."""
    return <bint>wait_is_under_way()


def is_finished() -> bool:
    """Whether finish() has run, MPI has been finalized by others, or this is a fork of a rank."""
    return <bint>runtime_is_over()


def is_forked() -> bool:
    """Whether this process was forked from a rank."""
    return <bint>runtime_is_forked()


def abort(int status) -> None:
    """End the whole job immediately."""
    with nogil:
        core_abort(status)


def split(Group parent, int color, int key) -> Group:
    """A part of ``parent``: the ranks that passed the same color, ordered by key."""
    cdef outcome why
    cdef c_group *part
    cdef int failed
    settle()
    with nogil:
        failed = group_split(parent.handle, color, key, &part, &why)
    if failed:
        fail("split", &why)
    made = wrap(type(parent), part)
    raise_interruption()
    return made


def create(Group parent, list ranks, bint is_only_thread) -> Group:
    """These ranks of ``parent``, which have been checked; the members call it."""
    cdef outcome why
    cdef c_group *part
    cdef int failed, n = len(ranks)
    settle()
    cdef int *members = <int *>malloc(n * sizeof(int))
    if members == NULL:
        raise MemoryError("[group] no memory for a list of ranks: free some")
    for i in range(n):
        members[i] = ranks[i]
    with nogil:
        failed = group_create(parent.handle, members, n, is_only_thread, &part, &why)
    free(members)
    if failed:
        fail("group", &why)
    made = wrap(type(parent), part)
    raise_interruption()
    return made


def ranks_of(Group group, uintptr_t comm) -> list:
    """The ranks of ``group`` that a communicator of the opened libmpi has, in its order; None for one that has none."""
    cdef outcome why
    cdef int n, failed
    cdef int *ranks = <int *>malloc(group.size_ * sizeof(int))
    if ranks == NULL:
        raise MemoryError("[group] no memory for a list of ranks: free some")
    with nogil:
        failed = group_ranks_of(group.handle, <comm_handle>comm, ranks, &n, &why)
    found = [ranks[i] if i < group.size_ and ranks[i] >= 0 else None for i in range(0 if failed else n)]
    free(ranks)
    if failed:
        fail("group", &why)
    return found
