# What becomes of a call: exceptions, and Ctrl-C during a wait; a part of _core.pyx.

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


# What Python's SIGINT handler raised while the main thread was waiting in C; no other thread reads it.
cdef object interruption = None
cdef unsigned long main_thread = threading.main_thread().ident
cdef atomic_int is_exiting = False


cdef int interrupt(int signals) noexcept nogil:
    """Whether to give up the wait: Python's handler raised, or would raise if it could run here.

    It runs on the main thread, and not in a call that MLX makes with the GIL held, since that cannot raise what the
    handler raised: Python runs the handler when MLX has returned.
    """
    if PyThread_get_thread_ident() != main_thread or PyGILState_Check():
        if not signals:
            return 0
        with gil:
            return would_raise(signals)
    with gil:
        return handler_raised()


cdef bint would_raise(int signals) noexcept:
    """Whether Python's handler raises at the ``signals``-th SIGINT: known of its default, and of asyncio.run()'s."""
    # signal.getsignal is written in Python, where the main thread would run the handler.
    handler = _signal.getsignal(_signal.SIGINT)
    if handler is _signal.default_int_handler:
        return True
    return signals > 1 and getattr(getattr(handler, "func", None), "__module__", None) == "asyncio.runners"


cdef bint handler_raised():
    global interruption
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        interruption = error
    return interruption is not None


cpdef int raise_interruption() except -1:
    """Raise what the handler raised; also after a call that completed all the same, because the other ranks had.

    Everything that waits in C ends with this: else a later call would raise it.
    """
    global interruption
    if PyThread_get_thread_ident() == main_thread and interruption is not None:
        raised, interruption = interruption, None
        raise raised
    return 0


def begin_exit() -> None:
    """From now on daemon threads end without a word in calls that fail since this rank or another has ended."""
    store_int(&is_exiting, True, memory_order_relaxed)


cdef int fail(str call, outcome *why) except -1:
    """Raise what C reports as an exception; the only place that does."""
    raise_interruption()
    # With the limited API Python code makes the traceback (Cython 3.3.1), in which a Ctrl-C of just now would be lost.
    PyErr_CheckSignals()
    if load_int(&is_exiting, memory_order_relaxed) and why.status in (STATUS_GROUP_CLOSED, STATUS_MISMATCH):
        if PyThread_get_thread_ident() != main_thread:
            raise SystemExit
    text = f"[{call}] {why.text.decode(errors='replace')}"
    if why.status == STATUS_MPI_FAILED:
        raise errors.MPIError(text, why.call.decode(), why.mpi_code, why.class_.decode())
    raise exception_of[why.status](text)
