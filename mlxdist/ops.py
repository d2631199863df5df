"""The public operations: signatures and docstrings.

Each has a compiled form of the same name, in compiled/fast_path.pxi, for NumPy arrays that can be used as they are;
everything else goes through ``dispatch``. Both end in one check of the arguments: ``prepare_call`` in
compiled/operations.pxi.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlxdist import _core, dispatch, parameters, trees, world
from mlxdist.arrays import numpy


@_core.operation
def all_sum(
    x: Any, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """The sum of all ranks' ``x``, on every rank.

    Args:
        x: an array, buffer or number, with the same shape and dtype on every rank. The sum of bools is "or". Integers
            wrap. 16-bit floats are added in float32 and rounded once, to nearest even; on several hosts once for each
            that has several ranks, and once in the end. All ranks get the same bits, but for memory of a GPU that
            libmpi sums.
        group: the ranks that take part; all ranks by default.
        stream: for an mx.array, MLX's stream or device. For a tensor or CuPy array on a GPU, the stream that produces
            it, unless that is the current one.
        out: where to write the result: an array of x's kind, shape and dtype, or x itself. Arrays of MLX and JAX cannot
            be written to.
        wait: False returns a ``Work`` at once, whose ``wait()`` returns the result: until then do not use x and out.
            Not for mx.array, which is lazy, and not inside JAX's jit.

    Returns:
        ``out``, or a new array of x's kind, shape and dtype; an mx.array is lazy. A number or buffer gives a NumPy
        array. In a group of one, ``x`` itself.

    Raises:
        TypeError: x, group, stream or out is of an unsupported kind.
        ValueError: out has the wrong shape or dtype, is read-only, is not contiguous or overlaps x in part; or the
            group is closed.
        MismatchError: the ranks made different calls; every rank raises it.
        PeerError, TimeoutError: a rank has died or given up a call; or this one has waited for the timeout set by
            ``init``, for a rank to reach this call or to go on. Each of these three errors breaks the group: later
            calls on it fail.
        MPIError: libmpi failed.

    Example:
        >>> mlxdist.all_sum(np.ones(10))        # 2 ranks: array([2., 2., ...])

    As ``mx.distributed.all_sum``; MPI_Allreduce (MPI 4.1, section 6.9.6).
    """
    return dispatch.run("all_sum", x, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def all_max(
    x: Any, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """The largest of all ranks' ``x``, element by element, on every rank.

    NaN if any rank has NaN there. bool: "or". Complex numbers are ordered by real, then imaginary part, as in MLX.
    Arguments, result and errors as for ``all_sum``.

    Example:
        >>> mlxdist.all_max(np.float32(loss))

    As ``mx.distributed.all_max``; MPI_Allreduce with MPI_MAX (MPI 4.1, section 6.9.2).
    """
    return dispatch.run("all_max", x, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def all_min(
    x: Any, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """The smallest of all ranks' ``x``, element by element, on every rank.

    NaN if any rank has NaN there. bool: "and". Complex numbers are ordered by real, then imaginary part, as in MLX.
    Arguments, result and errors as for ``all_sum``.

    Example:
        >>> mlxdist.all_min(np.arange(4))

    As ``mx.distributed.all_min``; MPI_Allreduce with MPI_MIN (MPI 4.1, section 6.9.2).
    """
    return dispatch.run("all_min", x, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def all_prod(
    x: Any, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """The product of all ranks' ``x``, element by element, on every rank.

    bool: "and". Integers wrap. 16-bit floats are multiplied in float32 and rounded as a sum is. Arguments, result and
    errors as for ``all_sum``.

    The gradient of an mx.array follows the rule of MLX's ``all_sum``: each rank's is that of its own result alone, its
    cotangent times the product of the other ranks' x. It is right where elements are zero, for which it gathers x.

    Example:
        >>> mlxdist.all_prod(np.array([2, 3]))        # 2 ranks: array([4, 9])

    MPI_Allreduce with MPI_PROD (MPI 4.1, section 6.9.2).
    """
    return dispatch.run("all_prod", x, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def all_band(
    x: Any, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """The bits that are set in all ranks' ``x``, element by element, on every rank.

    x has integers, or bools: "and". Its gradient, of an mx.array, is 0. Arguments, result and errors as for
    ``all_sum``.

    Raises:
        TypeError: x has floats or complex numbers.

    Example:
        >>> mlxdist.all_band(np.array([0b0110, 0b0101])[rank])        # 2 ranks: array(0b0100)

    MPI_Allreduce with MPI_BAND (MPI 4.1, section 6.9.2).
    """
    return dispatch.run("all_band", x, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def all_bor(
    x: Any, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """The bits that are set in any rank's ``x``, element by element, on every rank.

    x has integers, or bools: "or". Otherwise as ``all_band``.

    Example:
        >>> mlxdist.all_bor(np.array([0b0110, 0b0101])[rank])        # 2 ranks: array(0b0111)

    MPI_Allreduce with MPI_BOR (MPI 4.1, section 6.9.2).
    """
    return dispatch.run("all_bor", x, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def all_gather(
    x: Any, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """All ranks' ``x``, concatenated along axis 0 in rank order, on every rank.

    x of shape (n, ...) gives (size * n, ...), a number gives (size,), also in a group of one, where
    ``mx.distributed.all_gather`` returns it as it is. x may be this rank's part of ``out`` (MPI_IN_PLACE), but must not
    overlap it otherwise. Otherwise arguments, result and errors as for ``all_sum``.

    Example:
        >>> mlxdist.all_gather(np.array([rank]))        # 3 ranks: array([0, 1, 2])
        >>> mlxdist.all_gather(whole[rank * n : (rank + 1) * n], out=whole)

    As ``mx.distributed.all_gather``; MPI_Allgather (MPI 4.1, section 6.7).
    """
    return dispatch.run("all_gather", x, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def sum_scatter(
    x: Any, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """This rank's part of the sum of all ranks' ``x``.

    x of shape (size * n, ...) gives (n, ...): rank r gets rows r * n to (r + 1) * n of the sum. ``out`` may be these
    rows of x, the rest of which is not changed, but must not overlap x otherwise. Otherwise arguments, result and
    errors as for ``all_sum``.

    Raises:
        ValueError: the length of axis 0 is not a multiple of the group's size.

    Example:
        >>> mlxdist.sum_scatter(np.arange(4))        # 2 ranks: array([0, 2]) and array([4, 6])

    As ``mx.distributed.sum_scatter``; MPI_Reduce_scatter_block (MPI 4.1, section 6.10.1).
    """
    return dispatch.run("sum_scatter", x, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def broadcast(
    x: Any, src: int, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """Rank ``src``'s ``x``, on every rank.

    Every rank passes an x of the same shape and dtype; only src's values are used. Otherwise arguments, result and
    errors as for ``all_sum``.

    x may be a tree of arrays, with the same structure on every rank: dicts, lists and tuples, a PyTorch state_dict,
    containers that are registered with ``jax.tree_util``. The result is a tree with the same classes and new arrays, or
    ``out``, which may be x. Arrays of less than 256 KiB share a message.

    Raises:
        TypeError, ValueError: src is not a rank of the group; a leaf of the tree is refused, or the keys of a dict
            cannot be sorted; out is a tree of another structure.
        MismatchError: as for ``all_sum``; or the trees differ.

    Example:
        >>> weights = mlxdist.broadcast(weights, 0)

        >>> model.load_state_dict(mlxdist.broadcast(model.state_dict(), 0))

    MPI_Bcast (MPI 4.1, section 6.4).
    """
    if trees.is_tree(x):
        return parameters.broadcast(x, src, group, stream, out, wait)
    return dispatch.run("broadcast", x, src, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def all_to_all(
    x: Any, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """Block j of ``x`` to rank j, from every rank; block i of the result comes from rank i.

    x of shape (size * n, ...) consists of blocks of n rows; the result has x's shape. Otherwise arguments, result and
    errors as for ``all_sum``.

    Raises:
        ValueError: the length of axis 0 is not a multiple of the group's size.

    Example:
        >>> mlxdist.all_to_all(np.arange(2) + 10 * rank)        # 2 ranks: array([0, 10]) and array([1, 11])

    MPI_Alltoall (MPI 4.1, section 6.8).
    """
    return dispatch.run("all_to_all", x, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def gather(
    x: Any, dst: int, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """All ranks' ``x``, concatenated along axis 0 in rank order, on rank ``dst``; the others get x itself.

    x of shape (n, ...) gives (size * n, ...), a number gives (size,). On the other ranks an mx.array is sent when the
    result is evaluated. x may be dst's part of ``out`` (MPI_IN_PLACE). Otherwise arguments, result and errors as for
    ``all_sum``.

    Raises:
        TypeError, ValueError: dst is not a rank of the group; out was passed on another rank than dst.

    Example:
        >>> losses = mlxdist.gather(loss, 0)

    MPI_Gather (MPI 4.1, section 6.5).
    """
    return dispatch.run("gather", x, dst, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def scatter(
    x: Any, src: int, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """This rank's part of rank ``src``'s ``x``.

    x of shape (size * n, ...) gives (n, ...): rank r gets rows r * n to (r + 1) * n. Every rank passes an x of the same
    shape and dtype; only src's values are used. ``out`` may be these rows of x. Otherwise arguments, result and errors
    as for ``all_sum``.

    Raises:
        TypeError, ValueError: src is not a rank of the group; the length of axis 0 is not a multiple of its size.

    Example:
        >>> batch = mlxdist.scatter(batches, 0)

    MPI_Scatter (MPI 4.1, section 6.6).
    """
    return dispatch.run("scatter", x, src, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def reduce(
    x: Any,
    dst: int,
    *,
    op: str = "sum",
    group: world.GroupLike | None = None,
    stream: Any = None,
    out: Any = None,
    wait: bool = True,
) -> Any:
    """The sum of all ranks' ``x``, or another reduction, on rank ``dst``; the others get x itself.

    On the other ranks an mx.array is sent when the result is evaluated.

    Args:
        x, group, stream, out, wait: as for ``all_sum``.
        dst: the rank that gets the result.
        op: "sum", "max", "min", "prod", "band" or "bor", as of ``all_sum``, ``all_max`` and so on.

    Raises:
        TypeError, ValueError: dst is not a rank of the group; op is not a reduction, or not one of x's dtype; out was
            passed on another rank than dst. Other errors as for ``all_sum``.

    Example:
        >>> longest = mlxdist.reduce(seconds, 0, op="max")

    MPI_Reduce (MPI 4.1, section 6.9.1).
    """
    return dispatch.run("reduce", x, dst, op=op, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def barrier(*, group: world.GroupLike | None = None, wait: bool = True) -> Any:
    """Return when every rank of the group has called it; None.

    Arguments and errors as for ``all_sum``.

    Example:
        >>> mlxdist.barrier()

    MPI_Barrier (MPI 4.1, section 6.3).
    """
    return dispatch.barrier(group, wait)


def empty(shape: Any, dtype: Any = np.float64, *, group: world.GroupLike | None = None) -> np.ndarray:
    """An uninitialised NumPy array in memory that the ranks of the group share; every rank must make the same call.

    Reductions, ``all_sum`` and its like, of such arrays, in place or into another one as ``out``, work directly on all
    ranks' arrays and copy nothing. That holds for slices too, if every rank passes the same slice. In every other
    respect it is an ordinary array that belongs to this rank. After an error no other rank reads or writes it any more.
    Its memory is freed with the last array that uses it.

    Args:
        shape: an int or a sequence of ints.
        dtype: NumPy's dtype, type or name.
        group: the ranks that will reduce it.

    Raises:
        TypeError, ValueError: shape or dtype is invalid.
        MismatchError: the ranks asked for different numbers of bytes.
        Error: the ranks run on several hosts, or ``/dev/shm`` is too small.

    Example:
        >>> gradient = mlxdist.empty(1_000_000, np.float32)
        >>> mlxdist.all_sum(gradient, out=gradient)
    """
    resolved = dispatch.group_of("empty", group)
    lengths = dispatch.shape_of("empty", shape)
    wanted = numpy.template("empty", dtype)
    if wanted is None:
        raise TypeError(f"[empty] dtype={dtype!r} is not a dtype of NumPy: pass one of {', '.join(_core.DTYPES)}")
    if resolved.size() == 1:
        return _core.empty(lengths, wanted.dtype)
    shared = _core.shared(resolved, math.prod(lengths) * wanted.dtype.itemsize)
    return np.ndarray(lengths, wanted.dtype, shared)


@_core.operation
def send(x: Any, dst: int, *, group: world.GroupLike | None = None, stream: Any = None, wait: bool = True) -> Any:
    """Send ``x`` to rank ``dst``, which must call ``recv`` for it; returns ``x``.

    An mx.array is sent when the result is evaluated. ``stream`` and ``wait`` as for ``all_sum``; with ``wait=False``
    messages progress together, and only those from one rank to another keep their order.

    Raises:
        TypeError: x cannot be communicated, or dst is not an int.
        ValueError: dst is not in the group, or is this rank itself; the group has one rank, or is closed.
        PeerError, TimeoutError: dst has died, or has not received the message before the timeout. The group is broken,
            unless nothing had been sent.

    Example:
        >>> mlxdist.send(np.arange(4), 1)

    As ``mx.distributed.send``; MPI_Send (MPI 4.1, section 3.2).
    """
    return dispatch.run("send", x, dst, group=group, stream=stream, wait=wait)


@_core.operation
def recv(
    shape: Any, dtype: Any, src: int, *, group: world.GroupLike | None = None, stream: Any = None, wait: bool = True
) -> Any:
    """An array of ``shape`` and ``dtype`` that rank ``src`` sends.

    Args:
        shape: an int or a sequence of ints.
        dtype: a dtype, type or name of NumPy gives a NumPy array, an ``mx.Dtype`` a lazy mx.array, a ``torch.dtype`` a
            tensor, a type of ``jax.numpy`` a JAX array.
        src: another rank of the group.
        group, stream, wait: as for ``send``.

    Raises:
        TypeError, ValueError: as for ``send``, or shape or dtype is invalid.
        MismatchError: the message has another dtype or length; it is discarded, and later messages can be received.
        PeerError, TimeoutError: src has died, or has not sent anything before the timeout. After a timeout recv can be
            called again, unless part of the message had arrived.

    Example:
        >>> mlxdist.recv((4,), np.int64, 0)

    As ``mx.distributed.recv``; MPI_Improbe and MPI_Imrecv (MPI 4.1, section 3.8.2).
    """
    return dispatch.receive(shape, dtype, src, group=group, stream=stream, wait=wait)


@_core.operation
def recv_like(
    x: Any, src: int, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """An array of ``x``'s kind, shape and dtype that rank ``src`` sends; ``out=x`` receives into x.

    Arguments and errors as for ``recv`` and, for out, ``all_sum``.

    Example:
        >>> mlxdist.recv_like(x, 0)

    As ``mx.distributed.recv_like``.
    """
    return dispatch.run("recv_like", x, src, group=group, stream=stream, out=out, wait=wait)


@_core.operation
def sendrecv(
    x: Any,
    dst: int,
    src: int,
    *,
    group: world.GroupLike | None = None,
    stream: Any = None,
    out: Any = None,
    wait: bool = True,
) -> Any:
    """Send ``x`` to rank ``dst`` and receive an array like it from rank ``src``, at the same time.

    All ranks can call it at once, around a ring or in pairs, whatever the length: if all called ``send`` first, long
    messages would wait for each other. The peers may also call ``send`` and ``recv``. ``out=x`` replaces x.

    Args:
        x: as for ``all_sum``; an mx.array is sent when the result is evaluated.
        dst: another rank of the group.
        src: another rank of the group, or the same one.
        group, stream, out, wait: as for ``all_sum``.

    Raises:
        TypeError, ValueError: as for ``send`` and, for out, ``all_sum``.
        MismatchError, PeerError, TimeoutError: as for ``send`` and ``recv``. The group is broken, unless no message had
            begun or both were complete.

    Example:
        >>> left = mlxdist.sendrecv(x, (rank + 1) % size, (rank - 1) % size)

    MPI_Sendrecv (MPI 4.1, section 3.10).
    """
    return dispatch.run("sendrecv", x, (dst, src), group=group, stream=stream, out=out, wait=wait)
