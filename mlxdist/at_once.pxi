# Collectives on NumPy arrays where nothing has to be converted, copied or refused; a part of _core.pyx.

cdef bint result_shape(int operation, cnp.ndarray x, int size, int *ndim, cnp.npy_intp *shape) noexcept:
    """The shape of the result, if there is one."""
    cdef int i
    ndim[0] = cnp.PyArray_NDIM(x)
    for i in range(ndim[0]):
        shape[i] = cnp.PyArray_DIM(x, i)
    if operation == OPERATION_ALLGATHER:
        shape[0] = size * (shape[0] if ndim[0] else 1)
        ndim[0] = max(ndim[0], 1)
    if operation == OPERATION_REDUCE_SCATTER:
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


cdef cnp.ndarray to_receive(shape, dtype):
    """An array for a message; None where shape or dtype is none of the usual kinds."""
    cdef cnp.npy_intp[MOST_DIMENSIONS] lengths
    cdef cnp.npy_intp count = 1
    cdef int ndim = 0
    if type(dtype) is type and issubclass(dtype, numpy.generic):
        dtype = numpy.dtype(dtype)
    if not isinstance(dtype, numpy.dtype) or element_type_of(dtype) == NO_TYPE:
        return None
    for length in shape if type(shape) is tuple else (shape,):
        if type(length) is not int or not 0 <= length <= MOST_LENGTH or ndim == MOST_DIMENSIONS:
            return None
        count *= length
        if count > MOST_LENGTH:
            return None
        lengths[ndim] = length
        ndim += 1
    return aligned(ndim, lengths, dtype)


cdef cnp.ndarray fast_path(int operation, int op, object peer, cnp.ndarray x, group, cnp.ndarray out, str name=""):
    """The result; None where the general way has to do it, or to say what is wrong."""
    cdef Group ranks = the_world if group is None else group if isinstance(group, Group) else None
    cdef outcome why
    cdef call made
    cdef int failed, i, ndim
    cdef int kind = element_type_of(x.descr)
    cdef bint is_message = operation == OPERATION_SEND or operation == OPERATION_RECV
    cdef cnp.npy_intp[MOST_DIMENSIONS] shape
    cdef char *sendbuf = cnp.PyArray_BYTES(x)
    cdef char *recvbuf
    if ranks is None or ranks.size_ < 2 or kind == NO_TYPE or not cnp.PyArray_ISCARRAY_RO(x):
        return None
    if type(peer) is not int or not 0 <= peer < ranks.size_ or (is_message and peer == group_rank(ranks.handle)):
        return None
    if not result_shape(operation, x, ranks.size_, &ndim, shape):
        return None
    if operation == OPERATION_SEND:
        out = x
    elif out is None:
        out = aligned(ndim, shape, x.descr)
    elif kind != element_type_of(out.descr) or not cnp.PyArray_ISCARRAY(out) or not has_shape(out, ndim, shape):
        return None
    recvbuf = cnp.PyArray_BYTES(out)
    if sendbuf < recvbuf + cnp.PyArray_NBYTES(out) and recvbuf < sendbuf + cnp.PyArray_NBYTES(x):
        if sendbuf != recvbuf or operation == OPERATION_ALLGATHER or operation == OPERATION_REDUCE_SCATTER:
            return None
    made.operation, made.op, made.type, made.peer = operation, op, kind, peer
    made.count, made.on_device, made.ndim = cnp.PyArray_SIZE(x), 0, cnp.PyArray_NDIM(x)
    for i in range(SHOWN_DIMENSIONS):
        made.shape[i] = cnp.PyArray_DIM(x, i) if i < made.ndim else 0
    with nogil:
        failed = run(ranks.handle, &made, sendbuf, recvbuf, &why)
    if failed:
        fail_in(ranks, &made, out, name, &why)
    raise_interruption()
    return out


# Each decorates the general form of an operation so that its commonest call is one compiled call.

def _instead_of(general, fast):
    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(fast, name, getattr(general, name))
    fast.__wrapped__ = general
    return fast


cdef bint are_plain(x, stream, out):
    return type(x) is cnp.ndarray and stream is None and (out is None or type(out) is cnp.ndarray)


def fast_collective(int operation, int op=0):
    """all_sum and all that have its arguments."""
    def decorate(general):
        def fast(x, *, group=None, stream=None, out=None):
            result = fast_path(operation, op, 0, x, group, out) if are_plain(x, stream, out) else None
            return general(x, group=group, stream=stream, out=out) if result is None else result
        return _instead_of(general, fast)
    return decorate


def fast_from(int operation, str name=""):
    """broadcast and recv_like."""
    def decorate(general):
        def fast(x, src, *, group=None, stream=None, out=None):
            result = fast_path(operation, 0, src, x, group, out, name) if are_plain(x, stream, out) else None
            return general(x, src, group=group, stream=stream, out=out) if result is None else result
        return _instead_of(general, fast)
    return decorate


def fast_send(general):
    """send."""
    def fast(x, dst, *, group=None, stream=None):
        result = fast_path(OPERATION_SEND, 0, dst, x, group, None) if are_plain(x, stream, None) else None
        return general(x, dst, group=group, stream=stream) if result is None else x
    return _instead_of(general, fast)


def fast_recv(general):
    """recv."""
    def fast(shape, dtype, src, *, group=None, stream=None):
        result = to_receive(shape, dtype) if stream is None else None
        if result is not None:
            result = fast_path(OPERATION_RECV, 0, src, result, group, result)
        return general(shape, dtype, src, group=group, stream=stream) if result is None else result
    return _instead_of(general, fast)
