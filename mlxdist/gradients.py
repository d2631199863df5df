"""The mean of a tree of arrays over all ranks: many small arrays share one reduction."""

from __future__ import annotations

import functools
import itertools
import math
import numbers
import struct
import zlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

from mlxdist import _core, arrays, dispatch, world
from mlxdist.arrays import mlx

OPERATION = "average_gradients"
ITEMSIZES = tuple(_core.Buffer(0, 1, type, None, ()).nbytes for type in range(len(_core.DTYPES)))
# Arrays of this many bytes or more get a reduction of their own: copying into a bucket and back took longer than that
# from 64 KiB in shared memory and from 512 KiB over TCP (2 ranks, Open MPI 5).
DIRECT = 1 << 18


def plan(kinds: Sequence[Hashable], sizes: Sequence[int], all_reduce_size: float) -> list[list[int]]:
    """Buckets of indices into the two lists: each of one kind, and full as soon as it is large enough."""
    buckets: list[list[int]] = []
    open_buckets: dict[Hashable, list[int]] = {}
    filled: dict[Hashable, int] = {}
    for place, (kind, size) in enumerate(zip(kinds, sizes, strict=True)):
        if size >= min(all_reduce_size, DIRECT):
            buckets.append([place])
            continue
        open_buckets.setdefault(kind, []).append(place)
        filled[kind] = filled.get(kind, 0) + size
        if filled[kind] >= all_reduce_size:
            buckets.append(open_buckets.pop(kind))
            del filled[kind]
    return [*buckets, *open_buckets.values()]


def rebuild(tree: Any, leaves: Iterator[Any]) -> Any:
    """The tree with new leaves, in the order of ``flatten``."""
    if isinstance(tree, dict):
        parts = {key: rebuild(tree[key], leaves) for key in sorted(tree)}
        return {key: parts[key] for key in tree}
    if isinstance(tree, (list, tuple)):
        branches = [rebuild(part, leaves) for part in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    return None if tree is None else next(leaves)


def paths(tree: Any, name: str = "gradients") -> Iterator[str]:
    """The Python expression for each leaf, in the order of ``flatten``."""
    if isinstance(tree, dict):
        for key in sorted(tree):
            yield from paths(tree[key], f"{name}[{key!r}]")
    elif isinstance(tree, (list, tuple)):
        for place, part in enumerate(tree):
            yield from paths(part, f"{name}[{place}]")
    elif tree is not None:
        yield name


def described(type: int, shape: Sequence[int]) -> bytes:
    """A leaf's part of ``outline``."""
    return struct.pack(f"={2 + len(shape)}q", type, len(shape), *shape)


@functools.lru_cache(maxsize=64)
def planned(outline: bytes, all_reduce_size: float) -> list[tuple[int, list[int]]]:
    """Each bucket's type and the indices of its NumPy arrays; cached, since a training loop repeats its tree."""
    words = memoryview(outline).cast("q")
    types, sizes, at = [], [], 0
    while at < len(words):
        type, ndim = words[at : at + 2]
        types.append(type)
        sizes.append(math.prod(words[at + 2 : at + 2 + ndim]) * ITEMSIZES[type])
        at += 2 + ndim
    return [(types[bucket[0]], bucket) for bucket in plan(types, sizes, all_reduce_size)]


class Leaf(NamedTuple):
    """A leaf of the tree as an array of its framework; None for MLX's arrays."""

    given: Any
    array: Any
    framework: arrays.Framework | None
    type: int
    shape: tuple[int, ...]
    stays: bool  # the mean is written into it


def adopted(x: Any, stream: Any) -> Leaf:
    """A leaf that can be communicated, or an error."""
    if mlx.owns(x):
        return Leaf(x, x, None, _core.type_of(x.dtype), x.shape, False)
    framework = arrays.of(x)
    array = framework.as_array(OPERATION, x)
    framework.synchronize(OPERATION, array, stream)
    element_type = _core.type_of(array.dtype)
    stays = framework.owns(x) and _core.divides(element_type) and framework.is_changeable(array)
    return Leaf(x, array, framework, element_type, tuple(array.shape), stays)


def adopted_leaves(leaves: Sequence[Any], gradients: Any, stream: Any) -> Iterator[Leaf]:
    """Each leaf; an error says where in the tree it is."""
    for place, x in enumerate(leaves):
        try:
            yield adopted(x, stream)
        except (TypeError, ValueError) as error:
            where = next(itertools.islice(paths(gradients), place, None))
            raise type(error)(f"{error}; x is {where}") from None


def in_host_memory(bucket: Sequence[Leaf], framework: arrays.Framework, group: _core.Group, digest: int) -> list[Any]:
    """The means of arrays that the core reads in place, or of copies in host memory."""
    sources = [framework.as_buffer(leaf.array) for leaf in bucket]
    targets = [
        source if leaf.stays else framework.empty_like(leaf.array, leaf.shape)
        for leaf, source in zip(bucket, sources, strict=True)
    ]
    _core.average(group, sources, targets, bucket[0].type, digest)
    means = []
    for leaf, target in zip(bucket, targets, strict=True):
        if leaf.stays and target.owner is not leaf.array:
            framework.copyto(leaf.array, target.owner)
        means.append(leaf.given if leaf.stays else framework.result(leaf.array, target))
    framework.changed([leaf.array for leaf in bucket if leaf.stays])
    return means


def by_framework(bucket: Sequence[Leaf], framework: arrays.Framework, group: _core.Group, digest: int) -> list[Any]:
    """The means of arrays that their framework joins and divides: those on a device, and integers."""
    flat = framework.joined([leaf.array for leaf in bucket])
    maker = arrays.of(flat)
    buffer = maker.as_buffer(flat)
    _core.prepare(OPERATION, group, None, flat, digest=digest).run(buffer, buffer)
    if buffer.owner is not flat:
        maker.copyto(flat, buffer.owner)
    mean, at, means = maker.quotient(flat, group.size()), 0, []
    for leaf in bucket:
        count = math.prod(leaf.shape)
        part = mean[at : at + count].reshape(leaf.shape)
        at += count
        if leaf.stays:
            framework.copyto(leaf.array, part)
        means.append(leaf.given if leaf.stays else framework.result(leaf.array, maker.as_buffer(part)))
    return means


def averaged(leaves: Sequence[Leaf], group: _core.Group, limit: float, stream: Any, digest: int) -> list[Any]:
    """The mean of each leaf."""
    kinds = [(leaf.framework, leaf.type, getattr(leaf.array, "device", None)) for leaf in leaves]
    buckets = plan(kinds, [math.prod(leaf.shape) * ITEMSIZES[leaf.type] for leaf in leaves], limit)
    means: list[Any] = [None] * len(leaves)
    # MLX's first: they are lazy, so what MLX refuses is refused before the others communicate
    for places in sorted(buckets, key=lambda places: leaves[places[0]].framework is not None):
        bucket = [leaves[place] for place in places]
        framework = bucket[0].framework
        if framework is None:
            results = mlx.average([leaf.array for leaf in bucket], group, stream, digest)
        elif framework.is_on_device(bucket[0].array) or not _core.divides(bucket[0].type):
            results = by_framework(bucket, framework, group, digest)
        else:
            results = in_host_memory(bucket, framework, group, digest)
        for place, result in zip(places, results, strict=True):
            means[place] = result
    return means


def digest_of(structure: bytes, outline: bytes) -> int:
    """A positive C int that ranks with the same tree have in common."""
    return zlib.crc32(outline, zlib.crc32(structure)) & 0x7FFFFFFF or 1


def average_gradients(
    gradients: Any,
    group: world.GroupLike | None = None,
    all_reduce_size: float = 32 * 1024**2,
    communication_stream: Any = None,
) -> Any:
    """The mean of all ranks' ``gradients``, on every rank.

    Arrays of one dtype are packed into buckets, with one reduction for each bucket. Arrays of NumPy, PyTorch and CuPy
    are averaged in place, and the result holds those same arrays. It holds new arrays for MLX (lazy), for JAX, for
    whatever cannot be written to (read-only or expanded arrays, numbers), and for integers.

    Args:
        gradients: a tree of dicts, lists and tuples with arrays or None as leaves, or a single array. Keys, shapes and
            dtypes must be the same on every rank; the insertion order of keys does not matter.
        group: the ranks that take part; all ranks by default.
        all_reduce_size: size of a bucket in bytes; 0 or less: one reduction for each array. An array of 256 KiB or more
            always has its own.
        communication_stream: as ``stream`` of ``all_sum``, for all arrays of the tree.

    Returns:
        The tree, with the same shapes. Floats and complex numbers keep their dtype; integers are summed and wrap, bool
        is "or", and both give float32, as in MLX. In a group of one, ``gradients`` itself.

        Rounding happens twice: the sum is rounded to the dtype (16-bit floats are added in float32), then the quotient.
        A sum beyond the largest float16 is infinite, as in MLX.

    Raises:
        TypeError: a leaf cannot be communicated, the keys of a dict cannot be sorted, or group, all_reduce_size or
            communication_stream is of an unsupported kind.
        ValueError: the group is closed.
        MismatchError: the ranks' trees differ; every rank raises it, where MLX would add unrelated arrays.
        PeerError, TimeoutError, MPIError: as for ``all_sum``.

    Example:
        >>> for parameter, gradient in zip(parameters, mlxdist.average_gradients(gradients)):
        ...     parameter -= rate * gradient

    As ``mlx.nn.average_gradients``.
    """
    resolved = dispatch.group_of(OPERATION, group)
    if not isinstance(all_reduce_size, numbers.Real):
        raise TypeError(f"[{OPERATION}] all_reduce_size={all_reduce_size!r} is not a number: pass bytes")
    try:
        leaves, structure = _core.flatten(gradients)
    except TypeError as error:
        raise TypeError(f"[{OPERATION}] the keys of a dict cannot be sorted ({error}): pass keys of one type") from None
    outline = _core.outline(leaves) if communication_stream is None else None
    if outline is not None:  # NumPy arrays only: nothing to convert, copy or refuse
        digest = digest_of(structure, outline)
        for element_type, places in planned(outline, all_reduce_size) if resolved.size() > 1 else ():
            bucket = [leaves[place] for place in places]
            _core.average(resolved, bucket, bucket, element_type, digest)
        return gradients
    ready = list(adopted_leaves(leaves, gradients, communication_stream))
    if resolved.size() == 1:
        return gradients
    outline = b"".join(described(leaf.type, leaf.shape) for leaf in ready)
    means = averaged(ready, resolved, all_reduce_size, communication_stream, digest_of(structure, outline))
    return rebuild(gradients, iter(means))
