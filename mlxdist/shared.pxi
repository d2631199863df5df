# Memory that the ranks of a group share; a part of _core.pyx.

@cython.final
cdef class _Shared:
    """This rank's part of memory that the ranks of a group share; a writable buffer of bytes."""

    cdef group *ranks
    cdef pool *pool
    cdef void *memory
    cdef Py_ssize_t nbytes

    def __cinit__(self, Group members, int64_t nbytes):
        cdef outcome why
        cdef int failed
        self.nbytes = nbytes
        with nogil:
            failed = group_empty(members.ranks, nbytes, &self.pool, &self.memory, &why)
        if failed:
            fail("empty", &why)
        self.ranks = members.ranks
        raise_interruption()

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.memory, self.nbytes, False, flags)

    def __dealloc__(self):
        if self.pool != NULL:
            with nogil:
                group_free(self.ranks, self.pool)


def shared(Group members, int64_t nbytes) -> cnp.ndarray:
    """This rank's part of memory that the ranks of ``members`` share, as bytes; it is given back with its last view."""
    return numpy.ndarray((nbytes,), numpy.uint8, _Shared(members, nbytes))
