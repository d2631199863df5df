# Trees of arrays, and the mean of many arrays in one reduction; a part of _core.pyx.

cdef enum:
    DEEPEST = 200  # levels of a tree; one that contains itself has more

cdef int walk(tree, list leaves, list words, int level, str call, children) except -1:
    if level > DEEPEST:
        raise ValueError(f"[{call}] the tree has more than {DEEPEST} levels: pass one that does not contain itself")
    if isinstance(tree, dict):
        words.append("{")
        for key in sorted(tree):
            words.append(key if type(key) is str else repr(key))
            walk((<dict>tree)[key], leaves, words, level + 1, call, children)
        words.append("}")
    elif isinstance(tree, (list, tuple)):
        words.append("[")
        for part in tree:
            walk(part, leaves, words, level + 1, call, children)
        words.append("]")
    elif tree is None:
        words.append("None")
    else:
        found = None if type(tree) is cnp.ndarray else children(tree)
        if found is None:
            words.append("x")
            leaves.append(tree)
            return 0
        words.append(f"({type(tree).__module__}.{type(tree).__qualname__}")
        for key, part in found:
            words.append(key)
            walk(part, leaves, words, level + 1, call, children)
        words.append(")")
    return 0


def flatten(tree, str call, children) -> tuple:
    """The leaves of dicts (by sorted keys), lists and tuples, without None; and the structure, for ranks to compare.

    children: those of any other container by their names; None of a leaf.
    """
    cdef list leaves = [], words = []
    walk(tree, leaves, words, 0, call, children)
    return leaves, "\0".join(words).encode(errors="surrogatepass")


def divides(int type) -> bool:
    """Whether dividing DTYPES[type] keeps that dtype: not so for integers and bool."""
    return <bint>divide_by(<element_type>type, NULL, 0, 1)


def outline(list leaves) -> bytes | None:
    """As ``gradients.described`` each; None if one needs the general path.

    That is any but a NumPy array in C order that the mean can be written into.
    """
    cdef Py_ssize_t n = 0
    cdef int kind, i
    cdef int64_t *word
    for x in leaves:
        if type(x) is not cnp.ndarray or not cnp.PyArray_ISCARRAY(x):
            return None
        kind = element_type_of((<cnp.ndarray>x).descr)
        if kind == NO_TYPE or not divide_by(<element_type>kind, NULL, 0, 1):
            return None
        n += 3 + cnp.PyArray_NDIM(x)
    words = PyBytes_FromStringAndSize(NULL, n * sizeof(int64_t))
    word = <int64_t *>PyBytes_AsString(words)
    for x in leaves:
        word[0] = 0  # gradients.HOST
        word[1], word[2] = element_type_of((<cnp.ndarray>x).descr), cnp.PyArray_NDIM(x)
        for i in range(word[2]):
            word[3 + i] = cnp.PyArray_DIM(x, i)
        word += 3 + word[2]
    return words


cdef struct piece:
    char *source
    char *target
    size_t nbytes


cdef char *memory_of(x, size_t *nbytes) except? NULL:
    if isinstance(x, cnp.ndarray):
        nbytes[0] = cnp.PyArray_NBYTES(x)
        return cnp.PyArray_BYTES(x)
    nbytes[0] = x.nbytes
    return <char *>(<Buffer?>x).address


@cython.final
cdef class _Bucket:
    """Arrays that are communicated as one: one array where it is, several in a copy of all of them.

    sources, targets: of contiguous NumPy arrays or Buffers of the host's memory; both may be the same list.
    """

    cdef piece *pieces
    cdef Py_ssize_t n
    cdef object sources, targets, block
    cdef char *sendbuf
    cdef char *recvbuf
    cdef call made
    cdef Group group

    def __cinit__(self, Group group, list sources, list targets, int name, int type, int peer, int digest, int wire):
        cdef Py_ssize_t i
        cdef size_t ignored, nbytes = 0
        self.n, self.group = len(sources), group
        self.sources, self.targets = sources, targets
        self.pieces = <piece *>malloc(self.n * sizeof(piece) + 1)
        if self.pieces == NULL:
            raise MemoryError(f"[{name_of(name)}] no memory for a list of the arrays: pass fewer of them")
        for i in range(self.n):
            self.pieces[i].source = memory_of(sources[i], &self.pieces[i].nbytes)
            self.pieces[i].target = memory_of(targets[i], &ignored)
            nbytes += self.pieces[i].nbytes
        self.block = None if self.n == 1 else _Block(nbytes)
        self.sendbuf = self.pieces[0].source if self.n == 1 else <char *>(<_Block>self.block).address
        self.recvbuf = self.pieces[0].target if self.n == 1 else self.sendbuf
        self.made = flat_call(call_rows[name].operation, 0, type, peer, nbytes // element_size(<element_type>type))
        self.made.name, self.made.digest, self.made.wire = name, digest, wire
        for i in range(self.n if len(pending) else 0):
            check_pending(name_of(name), self.pieces[i].source, self.pieces[i].nbytes, self.pieces[i].target,
                          self.pieces[i].nbytes)

    def __dealloc__(self):
        free(self.pieces)

    cdef void pack(self) noexcept nogil:
        """Unless another rank's arrays are broadcast."""
        cdef char *at = self.sendbuf
        cdef Py_ssize_t i
        if self.made.operation == OPERATION_BROADCAST and self.made.peer != group_rank(self.group.handle):
            return
        for i in range(self.n if self.n > 1 else 0):
            memcpy(at, self.pieces[i].source, self.pieces[i].nbytes)
            at += self.pieces[i].nbytes

    cdef void unpack(self) noexcept nogil:
        """Of a sum: the means."""
        cdef char *at = self.recvbuf
        cdef Py_ssize_t i
        if self.made.operation == OPERATION_ALLREDUCE:
            divide_by(<element_type>self.made.type, at, self.made.count, self.group.size_)
        for i in range(self.n if self.n > 1 else 0):
            memcpy(self.pieces[i].target, at, self.pieces[i].nbytes)
            at += self.pieces[i].nbytes

    def finish(self) -> None:
        with nogil:
            self.unpack()

    cdef object run(self, bint wait):
        cdef outcome why
        cdef int failed
        if not wait:
            with nogil:
                self.pack()
            return start_call(self.group, &self.made, self.sendbuf, self.recvbuf, self), self.finish
        settle()
        with nogil:
            self.pack()
            failed = group_run(self.group.handle, &self.made, self.sendbuf, self.recvbuf, &why)
            if not failed:
                self.unpack()
        if failed:
            fail(name_of(self.made.name), &why)
        raise_interruption()
        return None


def average(Group group, list sources, list targets, int type, int digest, int wire, bint wait=True):
    """Write the mean of all ranks' ``sources`` into ``targets``, by one reduction: see _Bucket.

    All are of DTYPES[type], which ``divides``. A MismatchError if the digests differ, since then the ranks have
    different arrays. wire: see call.h. wait=False: returns the call in the background, and what writes the means when
    it is done.
    """
    return _Bucket(group, sources, targets, CALL_AVERAGE_GRADIENTS, type, 0, digest, wire).run(wait)


def broadcast_joined(Group group, int src, list sources, list targets, int digest, bint wait=True):
    """Write rank ``src``'s ``sources`` into ``targets``, by one broadcast of their bytes; otherwise as ``average``."""
    return _Bucket(group, sources, targets, CALL_BROADCAST, DTYPES.index("uint8"), src, digest, 0).run(wait)
