# The table of operations, and the one check of a call's arguments; a part of _core.pyx.

OPERATION_NAMES = tuple(call_rows[i].called.decode() for i in range(CALLS))
# What reduce() can do, by the name that it has there: "sum" of "all_sum".
REDUCTION_OF = {name.partition("_")[2]: op for op, name in enumerate(REDUCTION_NAMES)}


# What prepare() has to know of an array, whatever its framework.
cdef struct elements:
    int type  # a place in DTYPES, or NO_TYPE
    int ndim
    const cnp.npy_intp *shape
    uintptr_t first, end  # the bounds of its memory; used only if there is an out
    bint in_order  # its elements lie one after the other


# A barrier has no array; this stands in for it.
cdef cnp.npy_intp no_length = 0
cdef elements nothing
nothing.type, nothing.ndim, nothing.shape = 0, 1, &no_length


cdef str name_of(int name):
    return OPERATION_NAMES[name]


def check_open(str call) -> None:
    """Refuse to communicate after the end and in a fork of a rank."""
    if runtime_is_closed():
        raise ValueError(f"[{call}] the group is closed: communicate before finalize() and in the rank itself")


def as_int(str call, str name, value) -> int:
    """An argument that must be a whole number, of Python or NumPy; a bool is not one."""
    try:
        return operator.index(None if isinstance(value, (bool, numpy.bool_)) else value)
    except TypeError:
        raise TypeError(f"[{call}] {name}={value!r} is not an int: pass an int") from None


cdef int peer_of(int name, int rule, Group group, object peer) except -1:
    """The rank that is named, by the rule of the row or one of its two."""
    cdef str argument = "dst" if rule == PEER_DST or rule == PEER_DST_ROOT else "src"
    cdef bint has_other = rule != PEER_ROOT and rule != PEER_DST_ROOT
    if has_other and group.size_ == 1:
        raise ValueError(f"[{name_of(name)}] a group of one has no peers: test group.size() > 1 first")
    if type(peer) is not int:
        peer = as_int(name_of(name), argument, peer)
    if not 0 <= peer < group.size_:
        raise ValueError(
            f"[{name_of(name)}] {argument}={peer} is not in the group: pass a rank from 0 to {group.size_ - 1}"
        )
    if has_other and peer == group_rank(group.handle):
        raise ValueError(f"[{name_of(name)}] {argument}={peer} is this rank itself: pass another rank")
    return peer


cdef int op_of(int name, object op) except -1:
    if not isinstance(op, str):
        raise TypeError(f"[{name_of(name)}] op={op!r} is not a str: pass one of {', '.join(REDUCTION_OF)}")
    if op not in REDUCTION_OF:
        raise ValueError(f"[{name_of(name)}] op={op!r} is not a reduction: pass one of {', '.join(REDUCTION_OF)}")
    return REDUCTION_OF[op]


cdef tuple shape_of(const elements *array):
    return tuple(array.shape[i] for i in range(array.ndim))


cdef inline int result_of(int name, int size, const elements *x, elements *result, cnp.npy_intp *shape) except -1:
    """The shape of the result, by the row's rule: MLX's, see ops.py."""
    cdef int i, rule = call_rows[name].result
    result.type, result.ndim, result.shape = x.type, x.ndim, shape
    for i in range(x.ndim):
        shape[i] = x.shape[i]
    if rule == RESULT_GATHERED:
        shape[0] = size * (shape[0] if x.ndim else 1)
        result.ndim = max(x.ndim, 1)
    elif rule == RESULT_SCATTERED or rule == RESULT_EXCHANGED:
        if x.ndim == 0 or shape[0] % size:
            raise ValueError(
                f"[{name_of(name)}] x has shape {shape_of(x)}, and axis 0 is not divisible by the group's size {size}: "
                "pad or split x"
            )
        if rule == RESULT_SCATTERED:
            shape[0] //= size
    return 0


# What out may share with x, by the row's rule.
cdef tuple IN_PLACE = ("x itself", "this rank's part of out as x", "this rank's part of x as out", "x itself")


cdef inline bint share_memory(const elements *x, const elements *out) noexcept:
    return x.first < out.end and out.first < x.end


cdef inline bint is_in_place(int rule, int rank, const elements *x, const elements *out) noexcept:
    """Whether arrays that overlap do so as IN_PLACE says: MPI_IN_PLACE."""
    if not x.in_order:
        return False
    if rule == RESULT_GATHERED:
        return x.first == out.first + <uintptr_t>rank * (x.end - x.first)
    if rule == RESULT_SCATTERED:
        return out.first == x.first + <uintptr_t>rank * (out.end - out.first)
    return x.first == out.first


cdef inline int check_out(int name, Group group, const elements *x, const elements *result, const elements *out,
                          x_array, out_array) except -1:
    cdef int i, rule = call_rows[name].result
    cdef bint has_shape = out.ndim == result.ndim
    if out.type != x.type:
        raise ValueError(
            f"[{name_of(name)}] out has dtype {out_array.dtype}, x has dtype {x_array.dtype}: "
            f"out must have dtype {x_array.dtype}"
        )
    for i in range(out.ndim if has_shape else 0):
        has_shape = has_shape and out.shape[i] == result.shape[i]
    if not has_shape:
        raise ValueError(
            f"[{name_of(name)}] out has shape {shape_of(out)}, x has shape {shape_of(x)}: "
            f"out must have shape {shape_of(result)}"
        )
    if share_memory(x, out) and not is_in_place(rule, group_rank(group.handle), x, out):
        raise ValueError(f"[{name_of(name)}] out overlaps x in part: pass {IN_PLACE[rule]} or separate memory")
    return 0


cdef inline bint has_result(const call *made, Group group) noexcept:
    """Whether this rank gets one; otherwise it returns x."""
    return made.operation != OPERATION_SEND and (
        call_rows[made.name].peer != PEER_DST_ROOT or made.peer == group_rank(group.handle)
    )


cdef inline int prepare_call(int name, Group group, object peer, const elements *x, const elements *out, x_array,
                             out_array, object op, call *made, elements *result, cnp.npy_intp *shape) except -1:
    """Fill in the call and the shape of its result, or raise what is wrong with the arguments: the one place that does.

    out: NULL for a new result. x_array, out_array: for messages. op: a key of REDUCTION_OF; None: that of the row.
    shape: MOST_DIMENSIONS long.
    """
    cdef int i
    if runtime_is_closed():
        check_open(name_of(name))
    made.name, made.operation, made.op, made.type = name, call_rows[name].operation, call_rows[name].op, x.type
    made.peer = made.src = made.digest = made.wire = made.on_device = 0
    if op is not None:
        made.op = op_of(name, op)
    if not is_reducible(<element_type>made.type, <reduction>made.op):
        raise TypeError(
            f"[{name_of(name)}] x has dtype {x_array.dtype}, which is not combined bit by bit: pass integers or bools, "
            "or a view of x as integers"
        )
    if call_rows[name].peer == PEER_DST_SRC:
        made.peer, made.src = peer_of(name, PEER_DST, group, peer[0]), peer_of(name, PEER_SRC, group, peer[1])
    elif call_rows[name].peer != PEER_NONE:
        made.peer = peer_of(name, call_rows[name].peer, group, peer)
    result_of(name, group.size_, x, result, shape)
    if out != NULL:
        if not has_result(made, group):
            raise ValueError(
                f"[{name_of(name)}] this rank gets no result, dst={made.peer} does: pass out only on rank {made.peer}"
            )
        check_out(name, group, x, result, out, x_array, out_array)
    made.count, made.ndim = 1, x.ndim
    for i in range(x.ndim):
        made.count *= x.shape[i]
    for i in range(SHOWN_DIMENSIONS):
        made.shape[i] = x.shape[i] if i < x.ndim else 0
    return 0


cdef inline int run_call(Group group, call *made, const void *sendbuf, void *recvbuf, owners) except -1:
    """Carry out a call; ``owners`` keep the memory of a device."""
    cdef outcome why
    cdef int failed
    cdef bint is_message = not call_is_collective(made)
    settle()
    if len(pending):
        check_call(group, made, sendbuf, recvbuf)
    cdef bint was_usable = made.on_device and is_message and not group_is_broken(group.handle)
    with nogil:
        if is_message:
            failed = group_p2p(group.handle, made, sendbuf, recvbuf, &why)
        else:
            failed = group_run(group.handle, made, sendbuf, recvbuf, &why)
    if failed:
        if was_usable and group_is_broken(group.handle):
            left_with_mpi.append(owners)
        fail(name_of(made.name), &why)
    raise_interruption()
    return 0


@cython.final
cdef class Call:
    """A call whose arguments have been checked; ``shape`` is that of its result, ``in_place``: x and out overlap.

    ``has_result``: this rank gets one.
    """

    cdef call made
    cdef Group group
    cdef readonly tuple shape
    cdef readonly bint in_place
    cdef readonly bint has_result

    @property
    def peer(self):
        """The rank that was named; (dst, src) if both were; else 0."""
        if call_rows[self.made.name].peer == PEER_DST_SRC:
            return self.made.peer, self.made.src
        return self.made.peer

    def run(self, Buffer x, Buffer out) -> None:
        """Communicate from ``x`` into ``out``; an operation that uses only one gets it twice."""
        self.made.on_device = x.on_device or out.on_device
        run_call(self.group, &self.made, x.address, out.address, (x.owner, out.owner))

    def start(self, Buffer x, Buffer out) -> Pending:
        """The same in the background."""
        self.made.on_device = x.on_device or out.on_device
        return start_call(self.group, &self.made, x.address, out.address, (x.owner, out.owner))


cdef int describe(str call, dtype, tuple shape, memory, elements *array, cnp.npy_intp *lengths) except -1:
    cdef int i
    if len(shape) > MOST_DIMENSIONS:
        raise ValueError(
            f"[{call}] an array has {len(shape)} dimensions, at most {MOST_DIMENSIONS} can be communicated: reshape it"
        )
    array.type = type_of(dtype)
    array.ndim, array.shape = len(shape), lengths
    for i, length in enumerate(shape):
        lengths[i] = length
    array.first, array.end, array.in_order = (0, 0, False) if memory is None else memory
    return 0


def prepare(str name, Group group, peer, x, out=None, *, memory=(None, None), op=None, int digest=0,
            int wire=0) -> Call:
    """A call of the operation ``name`` on arrays of any framework, which have ``dtype`` and ``shape``.

    memory: of x and of out, see Framework.memory. op: see prepare_call. digest, wire: see call.h.
    """
    cdef Call ready = Call()
    cdef elements source, target, result
    cdef cnp.npy_intp[MOST_DIMENSIONS] x_shape, out_shape, result_shape
    describe(name, x.dtype, tuple(x.shape), memory[0], &source, x_shape)
    if out is not None:
        describe(name, out.dtype, tuple(out.shape), memory[1], &target, out_shape)
    ready.group = group
    prepare_call(OPERATION_NAMES.index(name), group, peer, &source, NULL if out is None else &target, x, out,
                 op, &ready.made, &result, result_shape)
    ready.made.digest, ready.made.wire = digest, wire
    ready.shape = shape_of(&result)
    ready.has_result = has_result(&ready.made, group)
    ready.in_place = out is not None and share_memory(&source, &target)
    return ready


# Elements at an address, for messages.
cdef list flat_arrays = [types.SimpleNamespace(dtype=name) for name in DTYPES]


cdef int prepare_flat(Group group, int name, peer, op, int type, uintptr_t x, int64_t count, uintptr_t out,
                      int64_t out_count, bint mean, call *made) except -1:
    """A call on elements at two addresses in host memory. 1: it is done, in a group of one."""
    cdef elements source, target, result
    cdef cnp.npy_intp length = count, out_length = out_count
    cdef cnp.npy_intp[MOST_DIMENSIONS] shape
    source.type = target.type = type
    source.ndim = target.ndim = 1
    source.shape, target.shape = &length, &out_length
    source.first, source.end = x, x + <uintptr_t>count * element_size(<element_type>type)
    target.first, target.end = out, out + <uintptr_t>out_count * element_size(<element_type>type)
    source.in_order = target.in_order = True
    prepare_call(name, group, peer, &source, NULL if out_count < 0 else &target, flat_arrays[type], flat_arrays[type],
                 op, made, &result, shape)
    made.digest = DIGEST_OF_MEAN if mean else 0
    if group.size_ == 1 and out_count > 0:
        memmove(<void *>out, <void *>x, source.end - source.first)
    return group.size_ == 1


def run_flat(Group group, int name, peer, op, int type, uintptr_t x, int64_t count, uintptr_t out, int64_t out_count,
             bint mean=False) -> None:
    """OPERATION_NAMES[name] from ``count`` elements of DTYPES[type] at one address to ``out_count`` at another.

    Both are in host memory, and may be the same; an operation that uses only one gets it twice. out_count: -1 where
    this rank gets no result. op: see prepare_call. mean: the caller divides the sum, and all ranks must say so.
    """
    cdef call made
    if not prepare_flat(group, name, peer, op, type, x, count, out, out_count, mean, &made):
        run_call(group, &made, <void *>x, <void *>out, None)


def start_flat(owners, Group group, int name, peer, op, int type, uintptr_t x, int64_t count, uintptr_t out,
               int64_t out_count, bint mean=False) -> Pending | None:
    """The same in the background, while ``owners`` keep the memory; None if it is done."""
    cdef call made
    if prepare_flat(group, name, peer, op, type, x, count, out, out_count, mean, &made):
        return None
    return start_call(group, &made, <void *>x, <void *>out, owners)
