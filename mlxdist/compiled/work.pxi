# Calls in the background, and the memory that they use meanwhile; a part of _core.pyx.

# Memory of devices, of messages that were given up: MPI may still read or write it.
cdef list left_with_mpi = []

# Calls whose end the program has not seen yet: their memory is theirs. Whether it is refused to another call does not
# depend on how far they are, or one rank might refuse what another does; unless the program has dropped them.
cdef set pending = set()


cdef struct memory_range:
    uintptr_t first, end


cdef inline bint overlap(const memory_range *one, const memory_range *other) noexcept:
    return one.first < other.end and other.first < one.end


cdef void memory_of_call(Group group, const call *made, const void *sendbuf, void *recvbuf, memory_range *read,
                         memory_range *written) noexcept:
    """What a call reads and writes, by its row."""
    cdef int64_t nbytes = call_nbytes(made), result = nbytes
    cdef int rule = call_rows[made.name].result, size = group_size(group.handle)
    if rule == RESULT_GATHERED:
        result *= size
    elif rule == RESULT_SCATTERED:
        result //= size
    read.first, written.first = <uintptr_t>sendbuf, <uintptr_t>recvbuf
    read.end = read.first + (0 if made.operation == OPERATION_RECV else nbytes)
    written.end = written.first + (0 if made.operation == OPERATION_SEND else result)


cdef int check_pending(Group group, const call *made, const void *sendbuf, void *recvbuf) except -1:
    """Refuse memory that a pending call writes, or reads if this one would write it."""
    cdef memory_range read, written
    cdef Pending other
    memory_of_call(group, made, sendbuf, recvbuf, &read, &written)
    for other in list(pending):
        if overlap(&read, &other.written) or overlap(&written, &other.written) or overlap(&written, &other.read):
            if other.is_dropped and work_is_done(other.handle):
                continue
            raise ValueError(
                f"[{name_of(made.name)}] its memory is in use by a pending {name_of(other.name)}: wait() for that first"
            )
    return 0


cdef void sweep():
    """Let go of dropped calls that have ended."""
    cdef Pending other
    for other in list(pending):
        if other.is_dropped:
            other.drop()


cdef void drop_all():
    """At the end nobody waits any more."""
    cdef Pending other
    for other in list(pending):
        other.drop()


cdef Pending start_call(Group group, const call *made, const void *sendbuf, void *recvbuf, owners):
    cdef Pending started = Pending.__new__(Pending)
    cdef outcome why
    cdef int failed
    settle()
    if len(pending):
        sweep()
        check_pending(group, made, sendbuf, recvbuf)
    memory_of_call(group, made, sendbuf, recvbuf, &started.read, &started.written)
    started.name, started.owners = made.name, owners
    started.left = made.on_device and not call_is_collective(made)
    with nogil:
        failed = group_start(group.handle, made, sendbuf, recvbuf, &started.handle, &why)
    if failed:
        fail(name_of(made.name), &why)
    pending.add(started)
    raise_interruption()
    return started


@cython.final
cdef class Pending:
    """A call that was started. Its memory is kept until it has ended."""

    cdef work *handle
    cdef object owners
    cdef memory_range read, written
    cdef int name, reader, writer
    cdef bint left, is_raised, is_dropped

    def __cinit__(self):
        self.reader = self.writer = -1

    cdef void retire(self):
        cdef outcome why
        if self.left and self.owners is not None and work_wait(self.handle, 0, &why):
            left_with_mpi.append(self.owners)
        self.owners = None
        pending.discard(self)

    def is_done(self) -> bool:
        """Whether it has ended, with a result or an error."""
        cdef bint is_done = work_is_done(self.handle)
        if is_done:
            self.retire()
        return is_done

    cpdef drop(self):
        """Nobody will ask for its end: if it has failed, say so."""
        cdef outcome why
        self.is_dropped = True
        if not work_is_done(self.handle):
            return
        self.retire()
        if not self.is_raised and work_wait(self.handle, 0, &why):
            self.is_raised = True
            text = why.text.decode(errors="replace")
            if not text.startswith("this group was broken by an earlier error"):  # which has been raised or reported
                sys.stderr.write(f"mlxdist: [{name_of(self.name)}] nobody waited for this call: {text}\n")

    def wait(self, double timeout_s) -> None:
        """Wait for its end, and raise its error. timeout_s: negative: as long as the call itself."""
        cdef outcome why
        cdef int failed
        with nogil:
            failed = work_wait(self.handle, timeout_s, &why)
        if work_is_done(self.handle):
            self.retire()
            self.is_raised = True
        if failed:
            fail(name_of(self.name), &why)
        raise_interruption()

    @cython.critical_section
    def descriptor(self) -> int:
        """One that can be read from, and never is, once the call has ended."""
        cdef int reader, writer
        if self.reader < 0:
            reader, writer = pipe()
            self.reader, self.writer = reader, writer
            work_notify(self.handle, writer)
        return self.reader

    def __dealloc__(self):
        if self.handle == NULL:
            return
        if self.reader >= 0:
            work_notify(self.handle, -1)
            close(self.reader)
            close(self.writer)
        if not work_is_done(self.handle):
            Py_INCREF(self.owners)  # the end of the interpreter: its thread may still use them
        work_release(self.handle)
