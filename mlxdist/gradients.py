"""The mean of a tree of arrays over all ranks: many small arrays share one reduction."""

from __future__ import annotations

import numbers
from typing import Any, Literal

from mlxdist import _core, arrays, dispatch, trees, work, world
from mlxdist.arrays import mlx

OPERATION = "average_gradients"
FLOAT32 = _core.DTYPES.index("float32")
# ``wire``: how sums of these dtypes cross between hosts; those of others do as they are.
WIRES: dict[str | None, dict[int, int]] = {
    None: {},
    **{name: {FLOAT32: _core.DTYPES.index(name)} for name in ("bfloat16", "float16")},
}


def adopt(x: Any, stream: Any) -> trees.Leaf:
    """A leaf that has a mean, or an error; what can be changed holds its own."""
    if mlx.owns(x):
        return trees.Leaf(x, None, trees.MLX)
    framework = arrays.of(x)
    array = framework.as_array(OPERATION, x)
    framework.synchronize(OPERATION, array, stream)
    element_type = _core.type_of(array.dtype)
    if not _core.divides(element_type):
        raise TypeError(
            f"[{OPERATION}] x has dtype {_core.DTYPES[element_type]}, which cannot hold a mean: "
            "pass floating-point numbers"
        )
    into = array if framework.owns(x) and framework.is_changeable(array) else None
    return trees.Leaf(array, framework, trees.place_of(framework, array), into, x)


def way_of(group: _core.Group, stream: Any, wires: dict[int, int], wait: bool) -> trees.Way:
    """One reduction for each bucket, and a division."""

    def on_device(flat: Any, digest: int) -> _core.Call:
        wire = wires.get(_core.type_of(flat.dtype), 0)
        return _core.prepare(OPERATION, group, None, flat, digest=digest, wire=wire)

    return trees.Way(
        lambda sources, targets, type, digest: _core.average(
            group, sources, targets, type, digest, wires.get(type, 0), wait
        ),
        on_device,
        lambda framework, flat: framework.quotient(flat, group.size()),
        lambda lazy, xs, type, digest: lazy.average(xs, group, stream, digest, wires.get(type, 0)),
        wait,
    )


def average_gradients(
    gradients: Any,
    group: world.GroupLike | None = None,
    all_reduce_size: float = 32 * 1024**2,
    communication_stream: Any = None,
    *,
    wire: Literal["bfloat16", "float16"] | None = None,
    wait: bool = True,
) -> Any:
    """The mean of all ranks' ``gradients``, on every rank.

    Arrays of one dtype are packed into buckets, with one reduction for each bucket. Arrays of NumPy, PyTorch and CuPy
    are averaged in place, and the result holds those same arrays. It holds new arrays for MLX (lazy), for JAX, and for
    whatever cannot be written to (read-only or expanded arrays, numbers).

    Args:
        gradients: a tree of dicts, lists and tuples, and of containers that are registered with ``jax.tree_util``, with
            arrays or None as leaves; or a single array. Keys, shapes and dtypes must be the same on every rank; the
            insertion order of keys does not matter, nor do the frameworks of arrays in host memory (but for MLX).
        group: the ranks that take part; all ranks by default.
        all_reduce_size: size of a bucket in bytes; 0 or less: one reduction for each array. An array of 256 KiB or more
            always has its own.
        communication_stream: as ``stream`` of ``all_sum``, for all arrays of the tree.
        wire: "bfloat16" or "float16", the same on every rank: float32 crosses between hosts in 16 bits, which pays over
            links of 10 Gbit/s or less. All other dtypes cross as they are, and so does memory of a GPU that libmpi
            reads itself.
        wait: False returns a ``Work`` whose ``wait()`` makes the means, and leaves the program to compute meanwhile:
            until then do not use the arrays. Not for MLX, which is lazy.

    Returns:
        The tree, with the same shapes and dtypes: ``gradients`` itself if all means are in place, else a copy, with the
        same classes of dicts, lists and tuples. In a group of one every array is itself.

        Rounding happens twice: the sum is rounded to the dtype (16-bit floats are added in float32), then the quotient.
        A sum beyond the largest float16 is infinite, as in MLX. MLX's integers and bools follow MLX's rule: they are
        summed, wrap, and give float32, but in a group of one they stay as they are.

        With ``wire`` the ranks of each host add float32 as before, and within one host that is all. Each host's sum is
        rounded to 16 bits, these are added in float32 in the order of hosts, and the total is rounded to 16 bits: every
        rank gets the same bits. A rounding changes a number by at most 2^-8 of it to bfloat16, 2^-11 to float16, and so
        the mean by at most about 2^-7, or 2^-10, of the mean of the ranks' magnitudes. float16 rounds numbers below
        6e-5 to multiples of 6e-8, and sums (not means) beyond 65504 become infinite: scale the gradients, or use
        bfloat16, which has the range of float32.

    Raises:
        TypeError: a leaf cannot be communicated, or holds integers or bools, which cannot hold a mean (but for MLX);
            the keys of a dict cannot be sorted; or group, all_reduce_size, communication_stream or wire is of an
            unsupported kind.
        ValueError: the group is closed, or wire is another str.
        MismatchError: the ranks' trees or buckets differ, or the wire of float32; every rank raises it, where MLX would
            add unrelated arrays.
        PeerError, TimeoutError, MPIError: as for ``all_sum``.

    Example:
        >>> for parameter, gradient in zip(parameters, mlxdist.average_gradients(gradients)):
        ...     parameter -= rate * gradient

        >>> gradients = mlxdist.average_gradients(gradients, wire="bfloat16")  # half the bytes between hosts

    As ``mlx.nn.average_gradients``, which has no ``wire``.
    """
    resolved = dispatch.group_of(OPERATION, group)
    if not isinstance(all_reduce_size, numbers.Real):
        raise TypeError(f"[{OPERATION}] all_reduce_size={all_reduce_size!r} is not a number: pass bytes")
    if not isinstance(wire, str | None):
        raise TypeError(f"[{OPERATION}] wire={wire!r} is not a str: pass 'bfloat16', 'float16' or None")
    if wire not in WIRES:
        raise ValueError(f"[{OPERATION}] wire={wire!r} is not a 16-bit float: pass 'bfloat16', 'float16' or None")
    leaves, structure = trees.flatten(OPERATION, gradients)
    if not leaves and resolved.size() > 1:  # the other ranks may have some
        begun = _core.average(resolved, [], [], FLOAT32, trees.digest_of(structure, b"", 0), 0, wait)
        return gradients if begun is None else work.Work([begun[0]], lambda: gradients)
    outline = _core.outline(leaves) if communication_stream is None else None
    if outline is not None:  # NumPy arrays only: nothing to convert, copy or refuse
        calls: list[Any] = []
        if resolved.size() > 1:
            buckets, checksum = trees.planned(outline, all_reduce_size)
            digest = trees.digest_of(structure, outline, checksum)
            with trees.dropped_on_error([] if wait else calls):
                for _, element_type, indices in buckets:
                    bucket = [leaves[index] for index in indices]
                    crosses_as = WIRES[wire].get(element_type, 0)
                    calls.append(_core.average(resolved, bucket, bucket, element_type, digest, crosses_as, wait))
        if wait:
            return gradients

        def finish_in_place() -> Any:
            for _, finish in calls:
                finish()
            return gradients

        return work.Work([call for call, _ in calls], finish_in_place)
    ready = trees.adopted(gradients, "gradients", leaves, lambda place: adopt(leaves[place], communication_stream))
    trees.refuse_lazy(OPERATION, ready, wait)
    if resolved.size() > 1:
        way = way_of(resolved, communication_stream, WIRES[wire], wait)
        calls, means_of = trees.communicated(ready, way, all_reduce_size, structure)
        if not wait:
            return work.Work(calls, lambda: trees.rebuild(gradients, iter(means_of())))
        return trees.rebuild(gradients, iter(means_of()))
    means = [leaf.array if leaf.into is None else leaf.result for leaf in ready]
    is_unchanged = all(mean is leaf for mean, leaf in zip(means, leaves, strict=True))
    return dispatch.given(gradients if is_unchanged else trees.rebuild(gradients, iter(means)), wait)
