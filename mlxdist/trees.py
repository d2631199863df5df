"""Trees of arrays: taken apart, communicated in buckets of small leaves, and put together again.

A tree is made of dicts, lists and tuples, and of containers that are registered with ``jax.tree_util``.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import math
import struct
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from mlxdist import _core, arrays, dispatch
from mlxdist.arrays import jax, mlx

ITEMSIZES = tuple(_core.Buffer(0, 1, type, None, ()).nbytes for type in range(len(_core.DTYPES)))
# Arrays of this many bytes or more are communicated by themselves: copying into a bucket and back took longer than that
# from 64 KiB in shared memory and from 512 KiB over TCP (2 ranks, Open MPI 5).
DIRECT = 1 << 18
BUCKET_NBYTES = 32 * 1024**2
# Where leaves are; each device of a framework is a number from 3 on. Ranks compare them, see ``described``.
HOST, MLX, TRACED = 0, 1, 2
LAZY = {MLX: "MLX", TRACED: "JAX"}


def is_tree(x: object) -> bool:
    """Whether ``x`` is a container, and not a leaf."""
    return isinstance(x, (dict, list, tuple)) or jax.children(x) is not None


def flatten(call: str, tree: Any) -> tuple[list[Any], bytes]:
    """The leaves, without None, and the structure, for ranks to compare."""
    try:
        return _core.flatten(tree, call, jax.children)
    except TypeError as error:
        raise TypeError(f"[{call}] the keys of a dict cannot be sorted ({error}): pass keys of one type") from None


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
    if tree is None:
        return None
    children = jax.children(tree)
    if children is None:
        return next(leaves)
    return jax.with_children(tree, [rebuild(part, leaves) for _, part in children])


def _tuple_like(given: tuple[Any, ...], parts: list[Any]) -> Any:
    """Of the class of ``given``, whatever its constructor takes, with the same attributes."""
    try:
        made = tuple.__new__(type(given), parts)
    except TypeError:  # those written in C, as time.struct_time, take a sequence
        return type(given)(parts)
    if hasattr(given, "__dict__"):
        vars(made).update(vars(given))
    return made


def paths(tree: Any, name: str) -> Iterator[str]:
    """The Python expression for each leaf, in the order of ``flatten``."""
    if isinstance(tree, dict):
        for key in sorted(tree):
            yield from paths(tree[key], f"{name}[{key!r}]")
    elif isinstance(tree, (list, tuple)):
        for place, part in enumerate(tree):
            yield from paths(part, f"{name}[{place}]")
    elif tree is not None:
        children = jax.children(tree)
        if children is None:
            yield name
        for key, part in children or ():
            yield from paths(part, f"{name}{key}")


def plan(kinds: Sequence[Hashable], sizes: Sequence[int], bucket_nbytes: float) -> list[list[int]]:
    """Buckets of indices into the two lists: each of one kind, and full as soon as it is large enough."""
    buckets: list[list[int]] = []
    open_buckets: dict[Hashable, list[int]] = {}
    filled: dict[Hashable, int] = {}
    for place, (kind, size) in enumerate(zip(kinds, sizes, strict=True)):
        if size >= min(bucket_nbytes, DIRECT):
            buckets.append([place])
            continue
        open_buckets.setdefault(kind, []).append(place)
        filled[kind] = filled.get(kind, 0) + size
        if filled[kind] >= bucket_nbytes:
            buckets.append(open_buckets.pop(kind))
            del filled[kind]
    return [*buckets, *open_buckets.values()]


def described(place: int, type: int, shape: Sequence[int]) -> bytes:
    """A leaf's part of the outline: HOST, MLX, TRACED or a device; its dtype; its shape."""
    return struct.pack(f"={3 + len(shape)}q", place, type, len(shape), *shape)


class Bucket(NamedTuple):
    """Leaves that are communicated together: where, the dtype of the first and their indices."""

    place: int
    type: int
    leaves: list[int]


@functools.lru_cache(maxsize=64)
def planned(outline: bytes, bucket_nbytes: float, mixed: bool = False) -> tuple[list[Bucket], int]:
    """The buckets, and a checksum of them; cached, since a training loop repeats its tree.

    mixed: those in host memory are of several dtypes.
    """
    words = memoryview(outline).cast("q")
    kinds, types, sizes, at = [], [], [], 0
    while at < len(words):
        place, type, ndim = words[at : at + 3]
        kinds.append((place, None if mixed and place == HOST else type))
        types.append(type)
        sizes.append(math.prod(words[at + 3 : at + 3 + ndim]) * ITEMSIZES[type])
        at += 3 + ndim
    buckets = [Bucket(kinds[leaves[0]][0], types[leaves[0]], leaves) for leaves in plan(kinds, sizes, bucket_nbytes)]
    # The lazy ones first: what MLX or JAX refuses is refused before the others communicate
    buckets.sort(key=lambda bucket: bucket.place not in LAZY)
    return buckets, zlib.crc32(repr(buckets).encode())


def digest_of(structure: bytes, outline: bytes, checksum: int) -> int:
    """A positive C int that ranks with the same tree in the same buckets have in common."""
    return max(zlib.crc32(outline, zlib.crc32(structure, checksum)) & 0x7FFFFFFF, 2)  # 0 and 1 mean something else


class Leaf(NamedTuple):
    """A leaf of the tree as an array of its framework; None for MLX's arrays."""

    array: Any
    framework: arrays.Framework | None
    place: Hashable  # HOST, MLX, TRACED or a device of the framework
    into: Any = None  # the array of the same framework that the result is written into; None: a new one
    result: Any = None  # what is returned then


def place_of(framework: arrays.Framework, array: Any) -> Hashable:
    """Where it is, of a framework other than MLX."""
    if jax.is_traced(array):
        return TRACED
    return (framework, array.device) if framework.is_on_device(array) else HOST


def adopted(tree: Any, name: str, leaves: Sequence[Any], adopt: Callable[[int], Leaf]) -> list[Leaf]:
    """What ``adopt`` makes of each leaf by its index; an error says where in the tree it is."""
    made = []
    for place in range(len(leaves)):
        try:
            made.append(adopt(place))
        except (TypeError, ValueError) as error:
            where = next(itertools.islice(paths(tree, name), place, None))
            raise type(error)(f"{error}; x is {where}") from None
    return made


def refuse_lazy(call: str, leaves: Sequence[Leaf], wait: bool) -> None:
    """What is computed in the background anyway."""
    for place in {leaf.place for leaf in leaves}.intersection(LAZY):
        dispatch.refuse_lazy(call, wait, LAZY[cast(int, place)])


# Calls under way, none with wait=True; what makes the results when they are done.
Started = tuple[list[_core.Pending], Callable[[], Any]]


@contextlib.contextmanager
def dropped_on_error(calls: Sequence[Any]) -> Iterator[None]:
    """If a later bucket is refused, nobody waits for those that are under way: calls, or pairs that begin with one."""
    try:
        yield
    except BaseException:
        for call in calls:
            (call[0] if isinstance(call, tuple) else call).drop()
        raise


class Way(NamedTuple):
    """How a bucket is communicated; the last argument of each is the digest of the tree."""

    # sources, targets: Buffers; the dtype. None, or in the background the call and what completes the targets.
    in_host_memory: Callable[[list[Any], list[Any], int, int], tuple[_core.Pending, Callable[[], None]] | None]
    on_device: Callable[[Any, int], _core.Call]  # in place, on what the framework joined
    completed: Callable[[arrays.OnDevice, Any], Any]  # the results, from what that has left there
    lazily: Callable[[Any, list[Any], int, int], list[Any]]  # the module for them, and arrays of one dtype
    wait: bool
    mixes_dtypes: bool = False  # in host memory


def _in_host_memory(bucket: Sequence[Leaf], way: Way, type: int, digest: int) -> Started:
    """Of arrays that the core reads in place, or of copies in host memory; of any frameworks."""
    frameworks = [cast(arrays.Framework, leaf.framework) for leaf in bucket]
    sources = [framework.as_buffer(leaf.array) for leaf, framework in zip(bucket, frameworks, strict=True)]
    targets = [
        source
        if leaf.into is leaf.array
        else framework.empty_like(leaf.array, tuple(leaf.array.shape))
        if leaf.into is None
        else framework.as_buffer(leaf.into)
        for leaf, framework, source in zip(bucket, frameworks, sources, strict=True)
    ]
    begun = way.in_host_memory(sources, targets, type, digest)

    def finish() -> list[Any]:
        if begun is not None:
            begun[1]()
        results = []
        for leaf, framework, target in zip(bucket, frameworks, targets, strict=True):
            if leaf.into is not None and target.owner is not leaf.into:
                framework.copyto(leaf.into, target.owner)
            if leaf.into is not None:
                framework.changed(leaf.into)
            results.append(framework.result(leaf.array, target) if leaf.into is None else leaf.result)
        return results

    return [] if begun is None else [begun[0]], finish


def _on_device(bucket: Sequence[Leaf], way: Way, type: int, digest: int) -> Started:
    """Of arrays that their framework joins."""
    framework = cast(arrays.OnDevice, bucket[0].framework)
    flat = framework.joined([leaf.array for leaf in bucket])
    buffer, ready = framework.as_buffer(flat), way.on_device(flat, digest)
    calls = [] if way.wait else [ready.start(buffer, buffer)]
    if way.wait:
        ready.run(buffer, buffer)

    def finish() -> list[Any]:
        if buffer.owner is not flat:
            framework.copyto(flat, buffer.owner)
        whole, at, results = way.completed(framework, flat), 0, []
        for leaf in bucket:
            count = math.prod(leaf.array.shape)
            part = whole[at : at + count].reshape(leaf.array.shape)
            at += count
            if leaf.into is None:
                results.append(framework.result(leaf.array, framework.as_buffer(part)))
            else:
                framework.copyto(leaf.into, part)
                results.append(leaf.result)
        return results

    return calls, finish


def communicated(leaves: Sequence[Leaf], way: Way, bucket_nbytes: float, structure: bytes) -> Started:
    """The result of each leaf."""
    # A device by its first leaf: its name may be the rank's own
    numbered: dict[Hashable, int] = {place: place for place in (HOST, MLX, TRACED)}
    outline = b"".join(
        described(numbered.setdefault(leaf.place, len(numbered)), _core.type_of(leaf.array.dtype), leaf.array.shape)
        for leaf in leaves
    )
    buckets, checksum = planned(outline, bucket_nbytes, way.mixes_dtypes)
    digest = digest_of(structure, outline, checksum)
    calls: list[_core.Pending] = []
    finishes: list[tuple[list[int], Callable[[], list[Any]]]] = []
    with dropped_on_error(calls):
        for place, element_type, indices in buckets:
            bucket = [leaves[index] for index in indices]
            if place in LAZY:
                lazy = mlx if place == MLX else dispatch.traced()
                found = way.lazily(lazy, [leaf.array for leaf in bucket], element_type, digest)
                finishes.append((indices, functools.partial(list, found)))
                continue
            begun, finish = (_in_host_memory if place == HOST else _on_device)(bucket, way, element_type, digest)
            calls += begun
            # An array that is in the tree twice is finished before it is read again
            finishes.append((indices, finish if begun else functools.partial(list, finish())))

    def finish_all() -> list[Any]:
        results: list[Any] = [None] * len(leaves)
        for indices, finish in finishes:
            for index, result in zip(indices, finish(), strict=True):
                results[index] = result
        return results

    return calls, finish_all
