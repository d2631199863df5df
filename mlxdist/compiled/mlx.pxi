# The core's side for MLX, see mlx_libmpi.h; a part of _core.pyx.

cdef const mlx_libmpi *libmpi_of_mlx = NULL  # none in a world of one, see mlx/backend.py

cdef int64_t MOST_FOR_MLX = 0xffffffff  # elements: MLX passes sizes on as 32-bit numbers

# What attach() found in MLX, and what it does. Its array type is stored last, with release, and loaded with acquire.
cdef atomic_object mlx_array = NULL
cdef tuple mlx_devices = None
cdef object mlx_default_stream = None
cdef object mlx_cpu = None
cdef object mlx_world = None
cdef object mlx_group_of = None
cdef object mlx_finish = None

REDUCTION = ("reduction", 0, 0, 0)  # the place in Group.mlx_groups of a group that only reduces
cdef list native_of = [None] * CALLS  # MLX's own functions
cdef list streams = []  # that communicate


def attach_mlx(mx, world, group_of, finish) -> None:
    """Use MLX from now on: ``mx`` is its module, ``world`` its group of the world, the others are of mlx/backend.py."""
    global mlx_devices, mlx_default_stream, mlx_cpu, mlx_world, mlx_group_of, mlx_finish
    mlx_devices = (mx.Device, mx.DeviceType)
    mlx_default_stream, mlx_cpu = mx.default_stream, mx.cpu
    mlx_world, mlx_group_of, mlx_finish = world, group_of, finish
    streams.append(mlx_default_stream(mlx_cpu))
    array = mx.array
    Py_INCREF(array)
    store_object(&mlx_array, <PyObject *>array, memory_order_release)


def mlx_groups_of(Group group) -> dict:
    """MLX's groups of the same ranks, by kind, root, wire and digest."""
    return group.mlx_groups


def mlx_streams() -> list:
    """MLX's streams that communicate."""
    return streams


cdef inline int note(stream) except -1:
    if stream is None or isinstance(stream, mlx_devices):
        stream = mlx_default_stream(mlx_cpu)
    if stream not in streams:  # two threads may add the same one, which is then waited for twice
        streams.append(stream)
    return 0


cdef inline object resolved_for_mlx(group):
    """MLX's group that is meant."""
    if group is None:
        return mlx_world
    if isinstance(group, Group):
        known = (<Group>group).mlx_groups.get(REDUCTION)
        return mlx_group_of(group) if known is None else known
    return group


cdef inline bint mlx_has_failed() noexcept:
    return libmpi_of_mlx != NULL and libmpi_of_mlx.has_failed()


def recover_mlx() -> None:
    """Go on after an operation has failed: what the program calls from now on does not depend on it unawares."""
    if mlx_has_failed():
        mlx_finish()
        libmpi_of_mlx.forget_failure()


cdef inline object begin_mlx(group, stream):
    """What all of MLX's operations have in common; returns MLX's group."""
    if mlx_has_failed():
        recover_mlx()
    note(stream)
    return resolved_for_mlx(group)


def check_mlx_count(str call, int64_t count) -> None:
    """Refuse an array whose length MLX would cut off, as it does without an error."""
    if count > MOST_FOR_MLX:
        raise ValueError(
            f"[{call}] the array has {count} elements, and MLX communicates at most {MOST_FOR_MLX}: split it"
        )


cdef inline object checked(str call, group, result):
    """What MLX will evaluate, if its length is right."""
    cdef int64_t count = result.size
    if count > MOST_FOR_MLX:
        check_mlx_count(call, count // group.size() if call == "all_gather" else count)
    return result


cdef inline object mlx_collective(str call, native, x, group, stream):
    group = begin_mlx(group, stream)
    return checked(call, group, native(x, group=group, stream=stream))


def over_mlx(str call, native):
    """MLX's function of this name for groups of either kind: every operation of MLX passes through one of these."""
    def collective(x, *, group=None, stream=None):
        return mlx_collective(call, native, x, group, stream)

    def send(x, dst, *, group=None, stream=None):
        group = begin_mlx(group, stream)
        return checked(call, group, native(x, dst, group=group, stream=stream))

    def recv(shape, dtype, src, *, group=None, stream=None):
        group = begin_mlx(group, stream)
        return checked(call, group, native(shape, dtype, src, group=group, stream=stream))

    def recv_like(x, src, *, group=None, stream=None):
        group = begin_mlx(group, stream)
        return checked(call, group, native(x, src, group=group, stream=stream))

    native_of[OPERATION_NAMES.index(call)] = native
    return {"send": send, "recv": recv, "recv_like": recv_like}.get(call, collective)


def override_next_mlx_split(Group group, int kind, int root, int wire, int digest) -> None:
    """MLX's next split on this thread returns ``group``, see mlx_libmpi.h."""
    libmpi_of_mlx.override_next_split(group.handle, <mlx_collective_kind>kind, root, wire, digest)


def behind_mlx(part):
    """The group behind one of MLX's, whose ``split`` is ``part``; None if it does not run on the core."""
    libmpi_of_mlx.query_next_split()
    try:
        part(0)
    except RuntimeError:
        pass
    cdef c_group *handle = libmpi_of_mlx.queried_group()
    if handle == NULL:
        return None
    cdef Group world = present_world()
    return world if handle == world.handle else wrap(type(world), group_retain(handle))


def connect_mlx(str path) -> bool:
    """Connect the library of this path to the core; False if MLX has not opened it as its libmpi."""
    global libmpi_of_mlx
    libmpi_of_mlx = <const mlx_libmpi *>shim_connect(fsencode(path))
    return libmpi_of_mlx != NULL
