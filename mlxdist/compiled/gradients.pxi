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


cdef int run_joined(Group group, call *made, list sources, list targets) except -1:
    """Communicate the memory of ``sources`` as one array into that of ``targets``; a sum is divided, to be a mean.

    Each is a contiguous NumPy array or a Buffer of the host's memory; both may be the same list.
    """
    cdef Py_ssize_t i, n = len(sources)
    cdef piece *pieces = <piece *>malloc(n * sizeof(piece) + 1)
    cdef outcome why
    cdef int failed, size = group.size_
    cdef size_t ignored, nbytes = 0
    cdef bint sends = made.operation != OPERATION_BROADCAST or made.peer == group_rank(group.handle)
    cdef element_type type = <element_type>made.type
    cdef char *sendbuf
    cdef char *recvbuf
    cdef char *at
    if pieces == NULL:
        raise MemoryError(f"[{name_of(made.name)}] no memory for a list of the arrays: pass fewer of them")
    try:
        for i in range(n):
            pieces[i].source = memory_of(sources[i], &pieces[i].nbytes)
            pieces[i].target = memory_of(targets[i], &ignored)
            nbytes += pieces[i].nbytes
        block = None if n == 1 else _Block(nbytes)
        sendbuf = pieces[0].source if n == 1 else <char *>(<_Block>block).address
        recvbuf = pieces[0].target if n == 1 else sendbuf
        made.count = made.shape[0] = nbytes // element_size(type)
        with nogil:
            at = sendbuf
            for i in range(n if n > 1 and sends else 0):
                memcpy(at, pieces[i].source, pieces[i].nbytes)
                at += pieces[i].nbytes
            failed = group_run(group.handle, made, sendbuf, recvbuf, &why)
            if not failed:
                if made.operation == OPERATION_ALLREDUCE:
                    divide_by(type, recvbuf, made.count, size)
                at = recvbuf
                for i in range(n if n > 1 else 0):
                    memcpy(pieces[i].target, at, pieces[i].nbytes)
                    at += pieces[i].nbytes
    finally:
        free(pieces)
    if failed:
        fail(name_of(made.name), &why)
    raise_interruption()
    return 0


def average(Group group, list sources, list targets, int type, int digest, int wire) -> None:
    """Write the mean of all ranks' ``sources`` into ``targets``, by one reduction: see run_joined.

    All are of DTYPES[type], which ``divides``. A MismatchError if the digests differ, since then the ranks have
    different arrays. wire: see call.h.
    """
    cdef call made = flat_call(OPERATION_ALLREDUCE, 0, type, 0, 0)
    made.name, made.digest, made.wire = CALL_AVERAGE_GRADIENTS, digest, wire
    run_joined(group, &made, sources, targets)


def broadcast_joined(Group group, int src, list sources, list targets, int digest) -> None:
    """Write rank ``src``'s ``sources`` into ``targets``, by one broadcast of their bytes; digest as for ``average``."""
    cdef call made = flat_call(OPERATION_BROADCAST, 0, DTYPES.index("uint8"), src, 0)
    made.name, made.digest = CALL_BROADCAST, digest
    run_joined(group, &made, sources, targets)
