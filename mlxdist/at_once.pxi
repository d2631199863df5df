# Collectives on NumPy arrays where nothing has to be converted, copied or refused; a part of _core.pyx.

cdef bint result_shape(int operation, cnp.ndarray x, int size, int *ndim, cnp.npy_intp *shape) noexcept:
    """The shape of the result, if there is one."""
    cdef int i
    ndim[0] = cnp.PyArray_NDIM(x)
    for i in range(ndim[0]):
        shape[i] = cnp.PyArray_DIM(x, i)
    if operation == ALLGATHER:
        shape[0] = size * (shape[0] if ndim[0] else 1)
        ndim[0] = max(ndim[0], 1)
    if operation == REDUCE_SCATTER:
        if ndim[0] == 0 or shape[0] % size:
            return False
        shape[0] //= size
    return True


cdef bint has_shape(cnp.ndarray out, int ndim, cnp.npy_intp *shape) noexcept:
    cdef int i
    if cnp.PyArray_NDIM(out) != ndim:
        return False
    for i in range(ndim):
        if cnp.PyArray_DIM(out, i) != shape[i]:
            return False
    return True


cdef cnp.ndarray at_once(int operation, int op, object peer, cnp.ndarray x, members, cnp.ndarray out):
    """The result; None where the general way has to do it, or to say what is wrong."""
    cdef Group ranks = the_world if members is None else members if isinstance(members, Group) else None
    cdef outcome why
    cdef call made
    cdef int failed, i, ndim
    cdef int kind = element_type_of(x.descr)
    cdef cnp.npy_intp[64] shape
    cdef char *sendbuf = cnp.PyArray_BYTES(x)
    cdef char *recvbuf
    if ranks is None or ranks.many < 2 or kind == NO_TYPE or not cnp.PyArray_ISCARRAY_RO(x):
        return None
    if type(peer) is not int or not 0 <= peer < ranks.many:
        return None
    if not result_shape(operation, x, ranks.many, &ndim, shape):
        return None
    if out is None:
        out = aligned(ndim, shape, x.descr)
    elif kind != element_type_of(out.descr) or not cnp.PyArray_ISCARRAY(out) or not has_shape(out, ndim, shape):
        return None
    recvbuf = cnp.PyArray_BYTES(out)
    cdef bint may_be_same = operation == ALLREDUCE or operation == BROADCAST
    if sendbuf < recvbuf + cnp.PyArray_NBYTES(out) and recvbuf < sendbuf + cnp.PyArray_NBYTES(x):
        if sendbuf != recvbuf or not may_be_same:
            return None
    made.operation, made.op, made.type, made.peer = operation, op, kind, peer
    made.count, made.on_device, made.ndim = cnp.PyArray_SIZE(x), 0, cnp.PyArray_NDIM(x)
    for i in range(SHOWN_DIMENSIONS):
        made.shape[i] = cnp.PyArray_DIM(x, i) if i < made.ndim else 0
    with nogil:
        failed = group_run(ranks.ranks, &made, sendbuf, recvbuf, &why)
    if failed:
        fail(CALLS[op] if operation == ALLREDUCE else operation_names[operation].decode(), &why)
    raise_interruption()
    return out


def fast_path(int operation, int op=0):
    """Decorate the general form of a collective so that its commonest call is one compiled call."""
    def decorate(general):
        if operation == BROADCAST:
            def fast(x, src, *, group=None, stream=None, out=None):
                if type(x) is cnp.ndarray and stream is None and (out is None or type(out) is cnp.ndarray):
                    result = at_once(operation, op, src, x, group, out)
                    if result is not None:
                        return result
                return general(x, src, group=group, stream=stream, out=out)
        else:
            def fast(x, *, group=None, stream=None, out=None):
                if type(x) is cnp.ndarray and stream is None and (out is None or type(out) is cnp.ndarray):
                    result = at_once(operation, op, 0, x, group, out)
                    if result is not None:
                        return result
                return general(x, group=group, stream=stream, out=out)
        for name in ("__name__", "__qualname__", "__doc__", "__module__"):
            setattr(fast, name, getattr(general, name))
        fast.__wrapped__ = general
        return fast
    return decorate
