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


# What Python's SIGINT handler raised while the main thread was waiting in C.
cdef object interruption = None
cdef unsigned long main_thread = 0


cdef int interrupt(int signaled) noexcept nogil:
    """Whether to give up the wait: Python's handler raised, or would raise if this were the main thread."""
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
    """Raise what the handler raised; also after a call that completed all the same, because the other ranks had."""
    global interruption
    if interruption is not None and PyThread_get_thread_ident() == main_thread:
        raised, interruption = interruption, None
        raise raised
    return 0


cdef int fail(str call, outcome *why) except -1:
    """Raise what C reports as an exception; the only place that does."""
    raise_interruption()
    text = f"[{call}] {why.text.decode(errors='replace')}"
    if why.status == STATUS_MPI_FAILED:
        raise errors.MPIError(text, why.call.decode(), why.mpi_code, why.class_.decode())
    raise exception_of[why.status](text)
