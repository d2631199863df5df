# Memory for results; a part of _core.pyx.

# A fresh page costs more than what is written to it, so long results reuse the memory of freed ones.
cdef enum:
    PAGE = 4096
    HUGE_PAGE = 1 << 21
    KEPT_FROM = 1 << 14  # bytes; the C library keeps shorter blocks itself
    MOST_KEPT = 1 << 28  # bytes in all
    KEPT_BLOCKS = 16
    MOST_DIMENSIONS = 64
    MOST_LENGTH = 1 << 30  # elements; longer arrays take the general path

cdef void *kept[KEPT_BLOCKS]
cdef size_t kept_nbytes[KEPT_BLOCKS]
cdef size_t kept_in_all = 0
cdef int oldest = 0  # of those kept
cdef cython.pymutex kept_lock  # for these four, and for some instructions only: a destructor takes it


cdef size_t block_nbytes(size_t nbytes) noexcept:
    """Rounded up, so that results of similar length reuse each other's memory."""
    cdef size_t grain = HUGE_PAGE if nbytes >= 4 * HUGE_PAGE else PAGE
    return (nbytes + grain - 1) // grain * grain


cdef void *take(int place) noexcept:
    """What is kept there, or NULL; under the lock."""
    global kept_in_all
    cdef void *taken = kept[place]
    if taken != NULL:
        kept_in_all -= kept_nbytes[place]
        kept[place] = NULL
    return taken


cdef void *reuse(size_t nbytes) noexcept:
    """A block of this length that was kept, or NULL."""
    cdef void *found = NULL
    cdef int i
    with kept_lock:
        for i in range(KEPT_BLOCKS):
            if kept[i] != NULL and kept_nbytes[i] == nbytes:
                found = take(i)
                break
    return found


cdef void keep(void *address, size_t nbytes) noexcept:
    """Keep a block, of at most MOST_KEPT bytes, and free the oldest ones that are too many for it."""
    global kept_in_all, oldest
    cdef void *evicted[KEPT_BLOCKS]
    cdef int i, n = 1
    with kept_lock:
        evicted[0] = take(oldest)
        kept[oldest], kept_nbytes[oldest] = address, nbytes
        kept_in_all += nbytes
        oldest = (oldest + 1) % KEPT_BLOCKS
        while kept_in_all > MOST_KEPT:
            evicted[n] = take((oldest + n - 1) % KEPT_BLOCKS)
            n += 1
    for i in range(n):
        free(evicted[i])


@cython.final
cdef class _Block:
    """Page-aligned memory, kept for reuse when the last array that uses it is freed."""

    cdef void *address
    cdef size_t nbytes

    def __cinit__(self, size_t nbytes):
        self.nbytes = block_nbytes(nbytes)
        self.address = reuse(self.nbytes)
        if self.address != NULL:
            return
        if posix_memalign(&self.address, HUGE_PAGE if self.nbytes >= 4 * HUGE_PAGE else PAGE, self.nbytes):
            self.address = NULL
            raise MemoryError(f"[empty] no memory for {nbytes} bytes: pass a smaller array")
        copy_use_huge_pages(self.address, self.nbytes)

    def __dealloc__(self):
        if self.address == NULL or self.nbytes > MOST_KEPT:
            free(self.address)
        else:
            keep(self.address, self.nbytes)


cdef cnp.ndarray aligned(int ndim, cnp.npy_intp *shape, cnp.dtype dtype):
    cdef cnp.npy_intp nbytes = dtype.itemsize
    cdef object owner
    cdef char *data
    cdef int i
    for i in range(ndim):
        nbytes *= shape[i]
    if nbytes >= KEPT_FROM:
        owner = _Block(nbytes)
        data = <char *>(<_Block>owner).address
    else:
        nbytes += CACHE_LINE
        owner = cnp.PyArray_EMPTY(1, &nbytes, cnp.NPY_UINT8, 0)
        data = cnp.PyArray_BYTES(owner)
        data += -<uintptr_t>data % CACHE_LINE
    Py_INCREF(dtype)  # PyArray_NewFromDescr steals a reference
    made = PyArray_NewFromDescr(cnp.ndarray, dtype, ndim, shape, NULL, data, cnp.NPY_ARRAY_CARRAY, NULL)
    cnp.set_array_base(made, owner)
    return made


def empty(tuple shape, cnp.dtype dtype) -> cnp.ndarray:
    """An uninitialised array, aligned to a cache line: JAX adopts such memory, and copies any other."""
    cdef cnp.npy_intp[MOST_DIMENSIONS] lengths
    cdef int i
    if len(shape) > MOST_DIMENSIONS or math.prod(shape) * dtype.itemsize > sys.maxsize:
        raise ValueError(f"[empty] shape {shape} of {dtype} is larger than memory can be: pass a smaller shape")
    for i, length in enumerate(shape):
        lengths[i] = length
    return aligned(len(shape), lengths, dtype)
