"""The mean of a tree of arrays over all ranks: many small arrays share one reduction."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import numbers
import struct
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast

from mlxdist import _core, arrays, dispatch, work, world
from mlxdist.arrays import jax, mlx

OPERATION = "average_gradients"
ITEMSIZES = tuple(_core.Buffer(0, 1, type, None, ()).nbytes for type in range(len(_core.DTYPES)))
# Arrays of this many bytes or more get a reduction of their own: copying into a bucket and back took longer than that
# from 64 KiB in shared memory and from 512 KiB over TCP (2 ranks, Open MPI 5).
DIRECT = 1 << 18
# Where leaves are averaged; each device of a framework is a number from 3 on. Ranks compare them, see ``described``.
HOST, MLX, TRACED = 0, 1, 2
LAZY = (MLX, TRACED)
# ``wire``: how sums of these dtypes cross between hosts; those of others do as they are.
WIRES: dict[str | None, dict[int, int]] = {
    None: {},
    **{name: {_core.DTYPES.index("float32"): _core.DTYPES.index(name)} for name in ("bfloat16", "float16")},
}


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
    made: Any = copy.copy(tree) if isinstance(tree, (dict, list)) else None  # a defaultdict with its factory
    if isinstance(tree, dict):
        for key in sorted(tree):
            made[key] = rebuild(tree[key], leaves)
        return made
    if isinstance(tree, list):
        made[:] = [rebuild(part, leaves) for part in tree]
        return made
    if isinstance(tree, tuple):
        return _tuple_like(tree, [rebuild(part, leaves) for part in tree])
    return None if tree is None else next(leaves)


def _tuple_like(given: tuple[Any, ...], parts: list[Any]) -> Any:
    """Of the class of ``given``, whatever its constructor takes, with the same attributes."""
    try:
        made = tuple.__new__(type(given), parts)
    except TypeError:  # those written in C, as time.struct_time, take a sequence
        return type(given)(parts)
    if hasattr(given, "__dict__"):
        vars(made).update(vars(given))
    return made


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


def described(place: int, type: int, shape: Sequence[int]) -> bytes:
    """A leaf's part of the outline: HOST, MLX, TRACED or a device; its dtype; its shape."""
    return struct.pack(f"={3 + len(shape)}q", place, type, len(shape), *shape)


class Bucket(NamedTuple):
    """Leaves that share a reduction: where it takes place, their dtype and their indices."""

    place: int
    type: int
    leaves: list[int]


@functools.lru_cache(maxsize=64)
def planned(outline: bytes, all_reduce_size: float) -> tuple[list[Bucket], int]:
    """The buckets, and a checksum of them; cached, since a training loop repeats its tree."""
    words = memoryview(outline).cast("q")
    kinds, sizes, at = [], [], 0
    while at < len(words):
        place, type, ndim = words[at : at + 3]
        kinds.append((place, type))
        sizes.append(math.prod(words[at + 3 : at + 3 + ndim]) * ITEMSIZES[type])
        at += 3 + ndim
    buckets = [Bucket(*kinds[leaves[0]], leaves) for leaves in plan(kinds, sizes, all_reduce_size)]
    # The lazy ones first: what MLX or JAX refuses is refused before the others communicate
    buckets.sort(key=lambda bucket: bucket.place not in LAZY)
    return buckets, zlib.crc32(repr(buckets).encode())


class Leaf(NamedTuple):
    """A leaf of the tree as an array of its framework; None for lazy arrays."""

    given: Any
    array: Any
    framework: arrays.Framework | None
    place: Hashable  # HOST, MLX, TRACED or a device of the framework
    type: int
    shape: tuple[int, ...]
    stays: bool  # the mean is written into it


def adopted(x: Any, stream: Any) -> Leaf:
    """A leaf that can be communicated, or an error."""
    if mlx.owns(x):
        return Leaf(x, x, None, MLX, _core.type_of(x.dtype), x.shape, False)
    framework = arrays.of(x)
    array = framework.as_array(OPERATION, x)
    framework.synchronize(OPERATION, array, stream)
    element_type = _core.type_of(array.dtype)
    if not _core.divides(element_type):
        raise TypeError(
            f"[{OPERATION}] x has dtype {_core.DTYPES[element_type]}, which cannot hold a mean: "
            "pass floating-point numbers"
        )
    stays = framework.owns(x) and framework.is_changeable(array)
    place = TRACED if jax.is_traced(x) else (framework, array.device) if framework.is_on_device(array) else HOST
    return Leaf(x, array, framework, place, element_type, tuple(array.shape), stays)


def adopted_leaves(leaves: Sequence[Any], gradients: Any, stream: Any) -> Iterator[Leaf]:
    """Each leaf; an error says where in the tree it is."""
    for place, x in enumerate(leaves):
        try:
            yield adopted(x, stream)
        except (TypeError, ValueError) as error:
            where = next(itertools.islice(paths(gradients), place, None))
            raise type(error)(f"{error}; x is {where}") from None


# A bucket's call under way, or none with wait=True; what makes the means of its leaves when that is done.
Started = tuple[list[_core.Pending], Callable[[], list[Any]]]


def in_host_memory(bucket: Sequence[Leaf], group: _core.Group, digest: int, wire: int, wait: bool) -> Started:
    """The means of arrays that the core reads in place, or of copies in host memory; of any frameworks."""
    frameworks = [cast(arrays.Framework, leaf.framework) for leaf in bucket]
    sources = [framework.as_buffer(leaf.array) for leaf, framework in zip(bucket, frameworks, strict=True)]
    targets = [
        source if leaf.stays else framework.empty_like(leaf.array, leaf.shape)
        for leaf, framework, source in zip(bucket, frameworks, sources, strict=True)
    ]
    arguments = (group, sources, targets, bucket[0].type, digest, wire)
    started = None if wait else _core.start_average(*arguments)
    if wait:
        _core.average(*arguments)

    def finish() -> list[Any]:
        if started is not None:
            started[1]()
        means = []
        for leaf, framework, target in zip(bucket, frameworks, targets, strict=True):
            if leaf.stays and target.owner is not leaf.array:
                framework.copyto(leaf.array, target.owner)
            if leaf.stays:
                framework.changed(leaf.array)
            means.append(leaf.given if leaf.stays else framework.result(leaf.array, target))
        return means

    return [] if started is None else [started[0]], finish


def on_device(bucket: Sequence[Leaf], group: _core.Group, digest: int, wire: int, wait: bool) -> Started:
    """The means of arrays that their framework joins and divides."""
    framework = cast(arrays.OnDevice, bucket[0].framework)
    flat = framework.joined([leaf.array for leaf in bucket])
    buffer = framework.as_buffer(flat)
    ready = _core.prepare(OPERATION, group, None, flat, digest=digest, wire=wire)
    calls = [] if wait else [ready.start(buffer, buffer)]
    if wait:
        ready.run(buffer, buffer)

    def finish() -> list[Any]:
        if buffer.owner is not flat:
            framework.copyto(flat, buffer.owner)
        mean, at, means = framework.quotient(flat, group.size()), 0, []
        for leaf in bucket:
            count = math.prod(leaf.shape)
            part = mean[at : at + count].reshape(leaf.shape)
            at += count
            if leaf.stays:
                framework.copyto(leaf.array, part)
            means.append(leaf.given if leaf.stays else framework.result(leaf.array, framework.as_buffer(part)))
        return means

    return calls, finish


def averaged(
    leaves: Sequence[Leaf],
    group: _core.Group,
    limit: float,
    stream: Any,
    wires: dict[int, int],
    structure: bytes,
    wait: bool,
) -> Started:
    """The mean of each leaf."""
    # A device by its first leaf: its name may be the rank's own
    numbered: dict[Hashable, int] = {place: place for place in (HOST, MLX, TRACED)}
    outline = b"".join(
        described(numbered.setdefault(leaf.place, len(numbered)), leaf.type, leaf.shape) for leaf in leaves
    )
    buckets, checksum = planned(outline, limit)
    digest = digest_of(structure, outline, checksum)
    means: list[Any] = [None] * len(leaves)
    calls: list[_core.Pending] = []
    finishes: list[tuple[list[int], Callable[[], list[Any]]]] = []
    for place, element_type, indices in buckets:
        bucket = [leaves[index] for index in indices]
        wire = wires.get(element_type, 0)
        if place in LAZY:
            lazy = mlx if place == MLX else dispatch.traced()
            results = lazy.average([leaf.array for leaf in bucket], group, stream, digest, wire)
            finishes.append((indices, functools.partial(list, results)))
            continue
        started, finish = (in_host_memory if place == HOST else on_device)(bucket, group, digest, wire, wait)
        calls += started
        finishes.append((indices, functools.partial(list, finish()) if wait else finish))

    def finish_all() -> list[Any]:
        for indices, finish in finishes:
            for index, result in zip(indices, finish(), strict=True):
                means[index] = result
        return means

    return calls, finish_all


def digest_of(structure: bytes, outline: bytes, checksum: int) -> int:
    """A positive C int that ranks with the same tree in the same buckets have in common."""
    return max(zlib.crc32(outline, zlib.crc32(structure, checksum)) & 0x7FFFFFFF, 2)  # 0 and 1 mean something else


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
        gradients: a tree of dicts, lists and tuples with arrays or None as leaves, or a single array. Keys, shapes and
            dtypes must be the same on every rank; the insertion order of keys does not matter, nor do the frameworks
            of arrays in host memory (but for MLX).
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
    try:
        leaves, structure = _core.flatten(gradients)
    except TypeError as error:
        raise TypeError(f"[{OPERATION}] the keys of a dict cannot be sorted ({error}): pass keys of one type") from None
    outline = _core.outline(leaves) if communication_stream is None else None
    started: list[tuple[_core.Pending, Callable[[], None]]] = []

    def finish_in_place() -> Any:
        for _, finish in started:
            finish()
        return gradients

    if outline is not None:  # NumPy arrays only: nothing to convert, copy or refuse
        if resolved.size() > 1:
            buckets, checksum = planned(outline, all_reduce_size)
            digest = digest_of(structure, outline, checksum)
            for _, element_type, indices in buckets:
                bucket = [leaves[index] for index in indices]
                arguments = (resolved, bucket, bucket, element_type, digest, WIRES[wire].get(element_type, 0))
                if wait:
                    _core.average(*arguments)
                else:
                    started.append(_core.start_average(*arguments))
        return gradients if wait else work.Work([call for call, _ in started], finish_in_place)
    ready = list(adopted_leaves(leaves, gradients, communication_stream))
    for place in {leaf.place for leaf in ready if leaf.place in LAZY}:
        dispatch.refuse_lazy(OPERATION, wait, "MLX" if place == MLX else "JAX")
    if resolved.size() > 1:
        calls, means_of = averaged(ready, resolved, all_reduce_size, communication_stream, WIRES[wire], structure, wait)
        if not wait:
            return work.Work(calls, lambda: rebuild(gradients, iter(means_of())))
        return rebuild(gradients, iter(means_of()))
    means = [leaf.given if leaf.stays else leaf.array for leaf in ready]
    is_unchanged = all(mean is leaf for mean, leaf in zip(means, leaves, strict=True))
    return dispatch.given(gradients if is_unchanged else rebuild(gradients, iter(means)), wait)
