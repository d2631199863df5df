# Memory that the ranks of a group share; a part of _core.pyx.

@cython.final
cdef class _Shared:
    """This rank's part of memory that a group shares; a writable buffer of bytes."""

    cdef c_group *handle
    cdef symmetric *symmetric
    cdef void *memory
    cdef Py_ssize_t nbytes

    def __cinit__(self, Group group, int64_t nbytes):
        cdef outcome why
        cdef int failed
        self.nbytes = nbytes
        settle()
        with nogil:
            failed = group_empty(group.handle, nbytes, &self.symmetric, &self.memory, &why)
        if failed:
            fail("empty", &why)
        self.handle = group.handle
        raise_interruption()

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.memory, self.nbytes, False, flags)

    def __dealloc__(self):
        if self.symmetric != NULL:
            with nogil:
                group_free(self.handle, self.symmetric)


def shared(Group group, int64_t nbytes) -> cnp.ndarray:
    """This rank's part of memory that ``group`` shares, as bytes; freed with its last view."""
    return numpy.ndarray((nbytes,), numpy.uint8, _Shared(group, nbytes))
