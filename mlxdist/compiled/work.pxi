# Calls in the background, and the memory that they use meanwhile; a part of _core.pyx.

# Memory of devices, of messages that were given up: MPI may still read or write it.
cdef list left_with_mpi = []

# Calls whose end the program has not seen yet: their memory is theirs. Whether it is refused to another call does not
# depend on how far they are, or one rank might refuse what another does; unless the program has dropped them.
cdef set pending = set()


cdef inline bint overlap(uintptr_t one, int64_t nbytes, uintptr_t other, int64_t other_nbytes) noexcept:
    return nbytes > 0 and other_nbytes > 0 and one < other + other_nbytes and other < one + nbytes


cdef int check_pending(str call, const void *sendbuf, int64_t read, const void *recvbuf, int64_t written) except -1:
    """Refuse memory that a pending call writes, or reads if this one would write it."""
    cdef uintptr_t source = <uintptr_t>sendbuf, target = <uintptr_t>recvbuf
    cdef Pending other
    for other in list(pending):
        if overlap(source, read, other.target, other.written) or overlap(target, written, other.target, other.written):
            used = "writes"
        elif overlap(target, written, other.source, other.read):
            used = "reads"
        else:
            continue
        if other.is_held or not work_is_done(other.handle):
            raise ValueError(
                f"[{call}] an array is in use, {name_of(other.name)} with wait=False {used} it: wait() for that first"
            )
    return 0


cdef int check_call(Group group, const call *made, const void *sendbuf, void *recvbuf) except -1:
    return check_pending(name_of(made.name), sendbuf, nbytes_read(group, made), recvbuf, nbytes_written(group, made))


cdef inline int64_t nbytes_read(Group group, const call *made) noexcept:
    cdef bint reads = made.operation != OPERATION_RECV and (
        not call_is_collective(made) or call_reads(made, group_rank(group.handle))
    )
    return call_nbytes(made) if reads else 0


cdef inline int64_t nbytes_written(Group group, const call *made) noexcept:
    cdef int64_t nbytes = call_nbytes(made)
    cdef int rule = call_rows[made.name].result
    if not has_result(made, group):
        return 0
    if rule == RESULT_GATHERED:
        return nbytes * group.size_
    return nbytes // group.size_ if rule == RESULT_SCATTERED else nbytes


cdef void sweep():
    """Let go of dropped calls that have ended."""
    cdef Pending other
    for other in list(pending):
        if not other.is_held:
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
        check_call(group, made, sendbuf, recvbuf)
    started.source, started.target = <uintptr_t>sendbuf, <uintptr_t>recvbuf
    started.read, started.written = nbytes_read(group, made), nbytes_written(group, made)
    started.name, started.owners = made.name, owners
    started.left = made.on_device and not call_is_collective(made)
    with nogil:
        failed = group_start(group.handle, made, sendbuf, recvbuf, &started.handle, &why)
    if failed:
        fail(name_of(made.name), &why)
    pending.add(started)
    raise_interruption()
    started.is_held = True  # whoever has it asks for its end, or drops it
    return started


@cython.final
cdef class Pending:
    """A call that was started. Its memory is kept until it has ended."""

    cdef work *handle
    cdef object owners
    cdef uintptr_t source, target
    cdef int64_t read, written  # bytes of these
    cdef int name, reader, writer
    cdef bint left, is_raised, is_held

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
        self.is_held = False
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
