# Operations on NumPy arrays whose memory is used as it is, in one compiled call; a part of _core.pyx.

cdef inline elements elements_of(cnp.ndarray x) noexcept:
    cdef elements array
    array.type, array.ndim, array.shape = element_type_of(x.descr), cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x)
    return array


cdef inline void add_memory(cnp.ndarray x, elements *array) noexcept:
    array.first = <uintptr_t>cnp.PyArray_BYTES(x)
    array.end = array.first + <uintptr_t>cnp.PyArray_NBYTES(x)
    array.in_order = True


cdef cnp.ndarray number_as_array(x):
    """A number as an array; None if it is something else, or too large."""
    dtype = DTYPE_OF_NUMBER.get(type(x))
    if dtype is None and not isinstance(x, numpy.generic):
        return None
    try:
        return numpy.asarray(x, dtype)
    except OverflowError:
        return None


cdef inline Group resolved_group(group):
    """The group that is meant; None where the general path has to start the world, or to look at ``group``."""
    if group is None:
        return present_world()
    return <Group>group if isinstance(group, Group) else None


cdef inline object fast(int name, x, peer, group, stream, out, op):
    """The result; None where the general path has to convert or refuse an array, or to start the world."""
    cdef Group resolved = resolved_group(group)
    cdef cnp.ndarray source_array, target_array
    cdef elements source, target, result
    cdef call made
    cdef cnp.npy_intp[MOST_DIMENSIONS] shape
    cdef bint gets_result
    if resolved is None or stream is not None:
        return None
    source_array = <cnp.ndarray>x if type(x) is cnp.ndarray else number_as_array(x)
    if source_array is None:
        return None
    source = elements_of(source_array)
    if source.type == NO_TYPE or not cnp.PyArray_ISCARRAY_RO(source_array):
        return None
    if out is not None:
        if type(out) is not cnp.ndarray or not cnp.PyArray_ISCARRAY(<cnp.ndarray>out):
            return None
        target = elements_of(<cnp.ndarray>out)
        add_memory(source_array, &source)
        add_memory(<cnp.ndarray>out, &target)
    prepare_call(name, resolved, peer, &source, NULL if out is None else &target, source_array, out, op, &made,
                 &result, shape)
    gets_result = has_result(&made, resolved)
    if out is not None:
        target_array = <cnp.ndarray>out
    elif not gets_result or (resolved.size_ == 1 and result.ndim == source.ndim):
        target_array = source_array
    else:
        target_array = aligned(result.ndim, shape, source_array.descr)
    if resolved.size_ == 1:
        if target_array is not source_array:
            memmove(cnp.PyArray_BYTES(target_array), cnp.PyArray_BYTES(source_array), cnp.PyArray_NBYTES(source_array))
        return target_array
    run_call(resolved, &made, cnp.PyArray_BYTES(source_array), cnp.PyArray_BYTES(target_array), None)
    return target_array if gets_result else x


cdef cnp.ndarray to_receive(shape, dtype):
    """An array for a message; None where shape or dtype needs the general path."""
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


# The general path of each operation, by its row; operation() fills it in.
cdef list general_of = [None] * CALLS


cdef object collective(int name, x, group, stream, out, bint wait):
    result = fast(name, x, None, group, stream, out, None) if wait else None
    if result is not None:
        return result
    # A number that MLX gathers in a group of one would have no dimension.
    cdef bint is_lazy = <PyObject *>Py_TYPE(x) == load_object(&mlx_array, memory_order_acquire)
    if is_lazy and out is None and wait and native_of[name] is not None and (
        resolved_group(group) is not None and (name != CALL_ALL_GATHER or x.ndim)
    ):
        check_open(name_of(name))
        return mlx_collective(name_of(name), native_of[name], x, group, stream)
    return general_of[name](x, group=group, stream=stream, out=out, wait=wait)


cdef object with_peer(int name, x, peer, group, stream, out, bint wait):
    result = fast(name, x, peer, group, stream, out, None) if wait else None
    return general_of[name](x, peer, group=group, stream=stream, out=out, wait=wait) if result is None else result


def all_sum(x, *, group=None, stream=None, out=None, bint wait=True):
    return collective(CALL_ALL_SUM, x, group, stream, out, wait)


def all_max(x, *, group=None, stream=None, out=None, bint wait=True):
    return collective(CALL_ALL_MAX, x, group, stream, out, wait)


def all_min(x, *, group=None, stream=None, out=None, bint wait=True):
    return collective(CALL_ALL_MIN, x, group, stream, out, wait)


def all_prod(x, *, group=None, stream=None, out=None, bint wait=True):
    return collective(CALL_ALL_PROD, x, group, stream, out, wait)


def all_band(x, *, group=None, stream=None, out=None, bint wait=True):
    return collective(CALL_ALL_BAND, x, group, stream, out, wait)


def all_bor(x, *, group=None, stream=None, out=None, bint wait=True):
    return collective(CALL_ALL_BOR, x, group, stream, out, wait)


def all_gather(x, *, group=None, stream=None, out=None, bint wait=True):
    return collective(CALL_ALL_GATHER, x, group, stream, out, wait)


def sum_scatter(x, *, group=None, stream=None, out=None, bint wait=True):
    return collective(CALL_SUM_SCATTER, x, group, stream, out, wait)


def broadcast(x, src, *, group=None, stream=None, out=None, bint wait=True):
    return with_peer(CALL_BROADCAST, x, src, group, stream, out, wait)


def all_to_all(x, *, group=None, stream=None, out=None, bint wait=True):
    return collective(CALL_ALL_TO_ALL, x, group, stream, out, wait)


def gather(x, dst, *, group=None, stream=None, out=None, bint wait=True):
    return with_peer(CALL_GATHER, x, dst, group, stream, out, wait)


def scatter(x, src, *, group=None, stream=None, out=None, bint wait=True):
    return with_peer(CALL_SCATTER, x, src, group, stream, out, wait)


def reduce(x, dst, *, op="sum", group=None, stream=None, out=None, bint wait=True):
    result = fast(CALL_REDUCE, x, dst, group, stream, out, op) if wait else None
    if result is not None:
        return result
    return general_of[CALL_REDUCE](x, dst, op=op, group=group, stream=stream, out=out, wait=wait)


def recv_like(x, src, *, group=None, stream=None, out=None, bint wait=True):
    return with_peer(CALL_RECV_LIKE, x, src, group, stream, out, wait)


def sendrecv(x, dst, src, *, group=None, stream=None, out=None, bint wait=True):
    result = fast(CALL_SENDRECV, x, (dst, src), group, stream, out, None) if wait else None
    if result is not None:
        return result
    return general_of[CALL_SENDRECV](x, dst, src, group=group, stream=stream, out=out, wait=wait)


def send(x, dst, *, group=None, stream=None, bint wait=True):
    result = fast(CALL_SEND, x, dst, group, stream, None, None) if wait else None
    return general_of[CALL_SEND](x, dst, group=group, stream=stream, wait=wait) if result is None else x


def recv(shape, dtype, src, *, group=None, stream=None, bint wait=True):
    result = to_receive(shape, dtype) if stream is None and wait else None
    if result is not None:
        result = fast(CALL_RECV, result, src, group, stream, result, None)
    if result is not None:
        return result
    return general_of[CALL_RECV](shape, dtype, src, group=group, stream=stream, wait=wait)


def barrier(*, group=None, bint wait=True):
    cdef Group resolved = resolved_group(group) if wait else None
    cdef elements result
    cdef call made
    cdef cnp.npy_intp[MOST_DIMENSIONS] shape
    if resolved is None:
        return general_of[CALL_BARRIER](group=group, wait=wait)
    if resolved.size_ == 1 and not runtime_is_closed():
        return
    prepare_call(CALL_BARRIER, resolved, None, &nothing, NULL, None, None, None, &made, &result, shape)
    run_call(resolved, &made, NULL, NULL, None)


def operation(general):
    """Decorates the general path of an operation: returns the fast path of the same name, where there is one."""
    general_of[OPERATION_NAMES.index(general.__name__)] = general
    fast_form = globals().get(general.__name__)
    if fast_form is None:
        return general
    for name in ("__qualname__", "__doc__", "__module__", "__annotations__"):
        setattr(fast_form, name, getattr(general, name))
    fast_form.__wrapped__ = general
    return fast_form
