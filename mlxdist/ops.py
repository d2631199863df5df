"""The public operations: check the arguments, know the shape of the result, hand on to MLX or to the core.

Everything that can be wrong with a call is found here, before any communication, so that no rank waits for half a
call.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlxdist import _core, arrays, world
from mlxdist.arrays import numpy
from mlxdist.mlx import backend

SUM, MAX, MIN = map(_core.REDUCTION_NAMES.index, ("all_sum", "all_max", "all_min"))
ALLREDUCE, SCATTER, GATHER, BROADCAST, BARRIER, SEND, RECV = map(
    _core.OPERATION_OF.__getitem__,
    ("all_reduce", "sum_scatter", "all_gather", "broadcast", "barrier", "send", "recv"),
)
NOTHING = _core.Buffer(0, 0, 0, None, ())


def members_of(call: str, group: object) -> _core.Group:
    """The group that is meant, still open."""
    if group is None:
        group = _core.world() or world.init()
    if not isinstance(group, _core.Group) and backend.owns_group(group):
        group = backend.behind(group)
    if not isinstance(group, _core.Group):
        raise TypeError(f"[{call}] group={group!r} is no group of mlxdist: give what init() or split() returned")
    if _core.is_finished():
        raise ValueError(f"[{call}] the group is closed: communicate before finalize() and in the rank itself")
    return group


def _peer(call: str, name: str, peer: Any, group: _core.Group, *, other: bool = True) -> int:
    """A rank of the group, for send and recv not one's own."""
    rank = world.as_int(call, name, peer)
    if not 0 <= rank < group.size():
        raise ValueError(f"[{call}] {name}={rank} is not in the group: give a rank from 0 to {group.size() - 1}")
    if other and rank == group.rank():
        raise ValueError(f"[{call}] {name}={rank} is this rank itself: give the rank of another")
    return rank


def _peers_exist(call: str, group: _core.Group) -> None:
    if group.size() == 1:
        raise ValueError(f"[{call}] a group of one has no peer: test group.size() > 1 first")


def _shape(call: str, shape: Any) -> tuple[int, ...]:
    try:
        lengths = tuple(map(operator.index, shape if isinstance(shape, Sequence) else (shape,)))
    except TypeError:
        raise TypeError(f"[{call}] shape={shape!r}: give an int or a sequence of ints") from None
    if any(length < 0 for length in lengths):
        raise ValueError(f"[{call}] shape={lengths} has a negative length: give lengths from 0 on")
    return lengths


def _input(call: str, x: Any, stream: object) -> tuple[arrays.Framework, Any]:
    """The framework of x, and x as an array of it that can be communicated."""
    framework = arrays.of(x)
    array = framework.as_array(call, x)
    framework.synchronize(call, array, stream)
    return framework, array


def _kind(x: object) -> str:
    """Its class and where that is from: CuPy's arrays and NumPy's are ndarrays both."""
    return f"{type(x).__module__.partition('.')[0]}.{type(x).__name__}"


def _output(framework: arrays.Framework, call: str, x: Any, shape: tuple[int, ...], out: Any) -> Any:
    """``out`` as an array that the result can be written to."""
    if backend.owns(out) or arrays.of(out) is not framework:
        raise TypeError(f"[{call}] out is {_kind(out)}, x is {_kind(x)}: give both of one framework")
    array = framework.writable(call, out)
    if array.dtype != x.dtype:
        raise ValueError(f"[{call}] out has dtype {array.dtype}, x has dtype {x.dtype}: give out the dtype of x")
    if tuple(array.shape) != shape:
        raise ValueError(
            f"[{call}] out has shape {tuple(array.shape)}, x has shape {tuple(x.shape)}: give out the shape {shape}"
        )
    device, wanted = (getattr(either, "device", None) for either in (array, x))  # NumPy 1 has none
    if device != wanted:
        raise TypeError(f"[{call}] out is on {device}, x on {wanted}: give both on one device")
    if framework.overlaps(x, array):
        raise ValueError(f"[{call}] out overlaps x in part: give x itself or memory of its own")
    return array


def _result(
    framework: arrays.Framework, array: Any, shape: tuple[int, ...], into: Any, run: Callable[[_core.Buffer], None]
) -> Any:
    """What ``run`` writes: into the array ``into``, by way of a copy where MPI cannot have its memory, or a new one."""
    if into is None:
        filled = framework.empty_like(array, shape)
        run(filled)
        return framework.result(array, filled)
    filled = framework.as_buffer(into)
    run(filled)
    if filled.owner is not into:
        framework.copyto(into, filled.owner)
    return into


def _same(call: str, shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    return shape


def _gathered(call: str, shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    return (size * shape[0], *shape[1:]) if shape else (size,)


def _scattered(call: str, shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    if not shape or shape[0] % size:
        raise ValueError(
            f"[{call}] x has shape {shape}, and axis 0 does not divide by the group's size {size}: pad or split x"
        )
    return (shape[0] // size, *shape[1:])


def _collective(
    call: str,
    x: Any,
    members: _core.Group,
    stream: Any,
    out: Any,
    result_shape: Callable[[str, tuple[int, ...], int], tuple[int, ...]],
    lazy: Callable[[], Any],
    run: Callable[[arrays.Framework, Any, _core.Buffer], None],
) -> Any:
    """What all collectives have in common: ``lazy`` is MLX's way, ``run`` communicates from an array into a Buffer."""
    size = members.size()
    if backend.owns(x):
        result_shape(call, tuple(x.shape), size)
        return lazy()
    framework, array = _input(call, x, stream)
    shape = result_shape(call, tuple(array.shape), size)
    into = None if out is None else _output(framework, call, array, shape, out)
    if size > 1:
        result = _result(framework, array, shape, into, lambda filled: run(framework, array, filled))
        return result if out is None else out
    if out is None:
        return array
    framework.copyto(into, array)
    return out


def _reduce(op: int, x: Any, group: Any, stream: Any, out: Any) -> Any:
    call = _core.REDUCTION_NAMES[op]
    members = members_of(call, group)
    return _collective(
        call,
        x,
        members,
        stream,
        out,
        _same,
        lambda: backend.collective(call, x, members, stream, out),
        lambda framework, x, out: _core.communicate(members, ALLREDUCE, framework.as_buffer(x), out, op),
    )


@_core.fast_collective(ALLREDUCE, SUM)
def all_sum(x: Any, *, group: world.Group | None = None, stream: Any = None, out: Any = None) -> Any:
    """The sum of all ranks' ``x``, on every rank.

    Args:
        x: an array, buffer or number; the same shape and dtype on every rank. bool: "or". Integers wrap. 16-bit floats
            are added in float32 and rounded to nearest even.
        group: the ranks that take part; all by default.
        stream: MLX's stream or device for an mx.array; for a tensor or CuPy array on a GPU the stream that makes it, if
            not the current one.
        out: an array of x's kind, shape and dtype that the result goes to, ``out=x`` too; not for arrays of MLX and
            JAX, which cannot be written to.

    Returns:
        ``out``, or a new array of x's kind, shape and dtype; an mx.array is lazy. In a group of one it is ``x`` itself.

    Raises:
        TypeError: x, group, stream or out is of a kind that cannot be used.
        ValueError: out has another shape or dtype, is read-only, not contiguous or overlaps x in part; the group is
            closed.
        MismatchError: the ranks made different calls; every rank raises it.
        PeerError, TimeoutError: a rank has died, or not come within the time limit of ``init``. After one of these
            three the group cannot be used any more.
        MPIError: libmpi failed.

    Example:
        >>> mlxdist.all_sum(np.ones(10))        # 2 ranks: array([2., 2., ...])

    As ``mx.distributed.all_sum``; MPI_Allreduce (MPI 4.1, section 6.9.6).
    """
    return _reduce(SUM, x, group, stream, out)


@_core.fast_collective(ALLREDUCE, MAX)
def all_max(x: Any, *, group: world.Group | None = None, stream: Any = None, out: Any = None) -> Any:
    """The largest of all ranks' ``x``, element by element, on every rank.

    NaN if any rank has NaN there. bool: "or". Complex numbers are ordered by real, then imaginary part, as in MLX.
    Arguments, result and errors as of ``all_sum``.

    Example:
        >>> mlxdist.all_max(np.float32(loss))
    """
    return _reduce(MAX, x, group, stream, out)


@_core.fast_collective(ALLREDUCE, MIN)
def all_min(x: Any, *, group: world.Group | None = None, stream: Any = None, out: Any = None) -> Any:
    """The smallest of all ranks' ``x``, element by element, on every rank.

    NaN if any rank has NaN there. bool: "and". Complex numbers are ordered by real, then imaginary part, as in MLX.
    Arguments, result and errors as of ``all_sum``.

    Example:
        >>> mlxdist.all_min(np.arange(4))
    """
    return _reduce(MIN, x, group, stream, out)


@_core.fast_collective(GATHER)
def all_gather(x: Any, *, group: world.Group | None = None, stream: Any = None, out: Any = None) -> Any:
    """All ranks' ``x``, one behind the other along axis 0, on every rank.

    x of shape (n, ...) gives (size * n, ...), a number gives (size,). ``out`` may not overlap x. In a group of one:
    ``x`` itself. Arguments and errors otherwise as of ``all_sum``.

    Example:
        >>> mlxdist.all_gather(np.array([rank]))        # 3 ranks: array([0, 1, 2])

    As ``mx.distributed.all_gather``; MPI_Allgather (MPI 4.1, section 6.7).
    """
    members = members_of("all_gather", group)
    return _collective(
        "all_gather",
        x,
        members,
        stream,
        out,
        _gathered,
        lambda: backend.collective("all_gather", x, members, stream, out),
        lambda framework, x, out: _core.communicate(members, GATHER, framework.as_buffer(x), out),
    )


@_core.fast_collective(SCATTER)
def sum_scatter(x: Any, *, group: world.Group | None = None, stream: Any = None, out: Any = None) -> Any:
    """This rank's part of the sum of all ranks' ``x``.

    x of shape (size * n, ...) gives (n, ...): rank r gets rows r * n to (r + 1) * n of the sum. ``out`` may not overlap
    x. In a group of one: ``x`` itself. Arguments and errors otherwise as of ``all_sum``.

    Raises:
        ValueError: axis 0 does not divide by the group's size.

    Example:
        >>> mlxdist.sum_scatter(np.arange(4))        # 2 ranks: array([0, 2]) and array([4, 6])

    As ``mx.distributed.sum_scatter``; MPI_Reduce_scatter_block (MPI 4.1, section 6.10.1).
    """
    members = members_of("sum_scatter", group)
    return _collective(
        "sum_scatter",
        x,
        members,
        stream,
        out,
        _scattered,
        lambda: backend.sum_scatter(x, members, stream, out),
        lambda framework, x, out: _core.communicate(members, SCATTER, framework.as_buffer(x), out, SUM),
    )


@_core.fast_from(BROADCAST)
def broadcast(x: Any, src: int, *, group: world.Group | None = None, stream: Any = None, out: Any = None) -> Any:
    """Rank ``src``'s ``x``, on every rank.

    Every rank gives an x of the same shape and dtype; only src's values count. Arguments, result and errors otherwise
    as of ``all_sum``.

    Raises:
        TypeError, ValueError: src is no rank of the group.

    Example:
        >>> weights = mlxdist.broadcast(weights, 0)

    MPI_Bcast (MPI 4.1, section 6.4).
    """
    members = members_of("broadcast", group)
    root = _peer("broadcast", "src", src, members, other=False)

    def run(framework: arrays.Framework, x: Any, out: _core.Buffer) -> None:
        if members.rank() == root:
            framework.copyto(out.owner, x)
        _core.communicate(members, BROADCAST, out, out, peer=root)

    return _collective(
        "broadcast",
        x,
        members,
        stream,
        out,
        _same,
        lambda: backend.broadcast(x, root, members, stream, out),
        run,
    )


def barrier(*, group: world.Group | None = None) -> None:
    """Return when every rank of the group has called it.

    Example:
        >>> mlxdist.barrier()

    MPI_Barrier (MPI 4.1, section 6.3).
    """
    _core.communicate(members_of("barrier", group), BARRIER, NOTHING, NOTHING)


def empty(shape: Any, dtype: Any = np.float64, *, group: world.Group | None = None) -> np.ndarray:
    """A NumPy array in memory that all ranks of the group share, uninitialised; every rank must call it alike.

    ``all_sum``, ``all_max`` and ``all_min`` of such an array, in place or into another such ``out``, read and write all
    ranks' arrays where they lie, and copy nothing; slices of one work too, if all ranks take the same. In all else it
    is an ordinary array, and this rank's alone. The memory is given back when the last array that uses it goes.

    Args:
        shape: an int or a sequence of ints.
        dtype: NumPy's dtype, type or name.
        group: the ranks that will reduce it.

    Raises:
        TypeError, ValueError: shape or dtype cannot be.
        MismatchError: the ranks ask for different numbers of bytes.
        Error: the ranks are on several hosts, or there is too little shared memory (``/dev/shm``).

    Example:
        >>> gradient = mlxdist.empty(1_000_000, np.float32)
        >>> mlxdist.all_sum(gradient, out=gradient)
    """
    members = members_of("empty", group)
    lengths = _shape("empty", shape)
    wanted = numpy.template("empty", dtype)
    if wanted is None:
        raise TypeError(f"[empty] dtype={dtype!r} is no dtype of NumPy: give one of {', '.join(_core.DTYPES)}")
    if members.size() == 1:
        return _core.empty(lengths, wanted.dtype)
    shared = _core.shared(members, math.prod(lengths) * wanted.dtype.itemsize)
    return np.ndarray(lengths, wanted.dtype, shared)


@_core.fast_send
def send(x: Any, dst: int, *, group: world.Group | None = None, stream: Any = None) -> Any:
    """Send ``x`` to rank ``dst``, which must call ``recv`` for it; returns ``x``.

    An mx.array is sent when the result is evaluated.

    Raises:
        TypeError: x cannot be communicated; dst is no int.
        ValueError: dst is not in the group or this rank itself; the group has one rank, or is closed.
        PeerError, TimeoutError: dst has died, or not received within the time limit; the group cannot be used any more,
            unless nothing of the message had gone.

    Example:
        >>> mlxdist.send(np.arange(4), 1)

    As ``mx.distributed.send``; MPI_Send (MPI 4.1, section 3.2).
    """
    members = members_of("send", group)
    _peers_exist("send", members)
    rank = _peer("send", "dst", dst, members)
    if backend.owns(x):
        return backend.send(x, rank, members, stream)
    framework, array = _input("send", x, stream)
    buffer = framework.as_buffer(array)
    _core.communicate(members, SEND, buffer, buffer, peer=rank)
    return x


@_core.fast_recv
def recv(shape: Any, dtype: Any, src: int, *, group: world.Group | None = None, stream: Any = None) -> Any:
    """An array of ``shape`` and ``dtype`` that rank ``src`` sends.

    Args:
        shape: an int or a sequence of ints.
        dtype: NumPy's dtype, type or name gives a NumPy array, an ``mx.Dtype`` a lazy mx.array, torch's a tensor and
            ``jax.numpy``'s type a JAX array.
        src: a rank of the group other than this.

    Raises:
        TypeError, ValueError: as of ``send``, and for a shape or dtype that cannot be.
        MismatchError: the message has another dtype or length; it is thrown away, and later messages can be received.
        PeerError, TimeoutError: src has died, or has not sent within the time limit; after the latter try again, unless
            the message had begun to come.

    Example:
        >>> mlxdist.recv((4,), np.int64, 0)

    As ``mx.distributed.recv``; MPI_Improbe and MPI_Imrecv (MPI 4.1, section 3.8.2).
    """
    members = members_of("recv", group)
    _peers_exist("recv", members)
    rank = _peer("recv", "src", src, members)
    lengths = _shape("recv", shape)
    if backend.owns_dtype(dtype):
        return backend.recv(lengths, dtype, rank, members, stream)
    framework, template = arrays.to_receive("recv", dtype)
    framework.synchronize("recv", template, stream)
    try:
        filled = framework.empty_like(template, lengths)
    except (OverflowError, RuntimeError, TypeError, ValueError):  # NumPy's and torch's words for it
        raise ValueError(f"[recv] shape={shape} is larger than memory can be: give the shape that was sent") from None
    _core.communicate(members, RECV, filled, filled, peer=rank)
    return framework.result(template, filled)


@_core.fast_from(RECV, "recv_like")
def recv_like(x: Any, src: int, *, group: world.Group | None = None, stream: Any = None, out: Any = None) -> Any:
    """An array of ``x``'s kind, shape and dtype that rank ``src`` sends; ``out=x`` receives into x.

    Errors as of ``recv`` and, for out, of ``all_sum``.

    Example:
        >>> mlxdist.recv_like(x, 0)

    As ``mx.distributed.recv_like``.
    """
    members = members_of("recv_like", group)
    _peers_exist("recv_like", members)
    rank = _peer("recv_like", "src", src, members)
    if backend.owns(x):
        return backend.recv_like(x, rank, members, stream, out)
    framework, array = _input("recv_like", x, stream)
    shape = tuple(array.shape)
    into = None if out is None else _output(framework, "recv_like", array, shape, out)

    def run(filled: _core.Buffer) -> None:
        _core.communicate(members, RECV, filled, filled, peer=rank, name="recv_like")

    result = _result(framework, array, shape, into, run)
    return result if out is None else out
