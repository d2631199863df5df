# Operations within programs that XLA has compiled, see xla/handler.h; a part of _core.pyx.

cdef cython.pymutex numbers_lock  # for Group.number; held for some instructions


cdef int number_of(str call, Group group) except -1:
    """The group's number in programs, which it keeps as long as it lives."""
    cdef int number
    with numbers_lock:
        if group.number < 0:
            group.number = xla_add_group(group.handle)
        number = group.number
    if number < 0:
        raise ValueError(
            f"[{call}] {XLA_GROUPS} groups are in compiled programs: use one group several times, or jax.clear_caches()"
        )
    return number


def packed(Call ready) -> bytes:
    """A checked call as the attribute of a program; the program must keep the group."""
    cdef xla_call made
    memset(&made, 0, sizeof(made))  # also what is between the fields: equal calls are equal bytes
    made.group = number_of(name_of(ready.made.name), ready.group)
    made.call = ready.made
    return (<char *>&made)[:sizeof(made)]


cdef int raise_in_main_thread(void *nothing) except -1:
    """What Python calls on the main thread as soon as it can."""
    return raise_interruption()


cdef void after_call() noexcept nogil:
    """XLA raises its own error, not what a signal handler raised during a call on the main thread."""
    if PyThread_get_thread_ident() != main_thread:
        return
    with gil:
        if interruption is not None:
            Py_AddPendingCall(raise_in_main_thread, NULL)


def handler():
    """The function to register with XLA, as a capsule."""
    xla_after_call(after_call)
    return PyCapsule_New(<void *>xla_handler, NULL, NULL)


# Waits for what this thread has started of programs that communicate. JAX starts them and returns, so that a call
# behind one could otherwise come before it; on another rank it would not. Written once, before the first program.
cdef object await_programs = None


cdef inline int settle() except -1:
    """What every call that does not come from such a program does first."""
    if await_programs is not None:
        await_programs()
    return 0


def settle_by(awaits) -> None:
    """Call ``awaits`` before every such call from now on."""
    global await_programs
    await_programs = awaits
