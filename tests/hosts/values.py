"""Every operation on every dtype against NumPy, on ranks of several hosts; sums are the same bits on all of them.

values.py all|sums: all of that, or only sums that depend on the order of additions. Each rank prints the SHA-256 of
these: `digest | RANK | SHA-256`.
"""

from __future__ import annotations

import hashlib
import socket
import sys
from collections.abc import Iterator

import numpy as np
from parallel.reference import (
    CALLS,
    COMPLEX,
    HALVES,
    NAMES,
    REALS,
    assert_numbers,
    assert_same,
    calls_of,
    dtype_of,
    parts,
    reduced,
    rounded,
    seeded,
    values,
)

import mlxdist as dist

# A message that goes at once, some pieces, and many chunks. The last repeats the one before, in which the reference is
# computed one element at a time; without a common factor with any chunk.
COUNT = 997
LENGTHS = (3, COUNT, 50_021)


def of(name: str, count: int, rank: int) -> np.ndarray:
    return np.resize(values(name, (min(count, COUNT),), rank), count)


def reduced_at(root: int, rank: int, x: np.ndarray, inputs: list[np.ndarray], count: int) -> np.ndarray:
    return np.resize(reduced("all_max", [y[:COUNT] for y in inputs]), count) if rank == root else x


def check_operations(group: dist.Group, name: str, count: int) -> None:
    size, rank = group.size(), group.rank()
    inputs = [of(name, count, r) for r in range(size)]
    x, last = inputs[rank], size - 1
    for call in calls_of(name):
        expected = np.resize(reduced(call, [y[:COUNT] for y in inputs]), count)
        assert_same(CALLS[call](x, group=group), expected)
        if call == "all_sum" and name != "bool":
            wide = np.stack([np.roll(x, block) for block in range(size)])
            assert_same(dist.sum_scatter(wide, group=group), np.roll(expected, rank)[np.newaxis])
    assert_same(dist.all_gather(x[np.newaxis], group=group), np.stack(inputs))
    for root in {0, last}:
        assert_same(dist.broadcast(x, root, group=group), inputs[root])
        own = np.stack([np.roll(inputs[root], block) for block in range(size)])
        assert_same(dist.scatter(own, root, group=group), own[rank : rank + 1])
        gathered = dist.gather(x[np.newaxis], root, group=group)
        assert_same(gathered, np.stack(inputs) if rank == root else x[np.newaxis])
        assert_same(dist.reduce(x, root, op="max", group=group), reduced_at(root, rank, x, inputs, count))
    blocks = np.stack([np.roll(x, block) for block in range(size)])
    assert_same(dist.all_to_all(blocks, group=group), np.stack([np.roll(y, rank) for y in inputs]))
    got = dist.sendrecv(x, (rank + 1) % size, (rank - 1) % size, group=group)
    assert_same(got, inputs[rank - 1])


def sums(world: dist.Group) -> Iterator[np.ndarray]:
    """Of numbers of many magnitudes."""
    for name in (*REALS, *COMPLEX):
        for count in LENGTHS:
            random = seeded(count, world.rank())
            x = random.standard_normal((2, count)) * 10.0 ** random.integers(-3, 4, (2, count))
            yield dist.all_sum((x[0] + 1j * x[1] if name in COMPLEX else x[0]).astype(dtype_of(name)))


def digest(world: dist.Group) -> str:
    return hashlib.sha256(b"".join(total.tobytes() for total in sums(world))).hexdigest()


def check_rounding(world: dist.Group, name: str, count: int) -> None:
    """The sum in float64, rounded once: the numbers are such that float32 has room for it."""
    each = [
        random.integers(-255, 256, count) * 2.0 ** random.integers(-4, 5, count)
        for random in map(seeded, range(world.size()))
    ]
    each = [x.astype(dtype_of(name)) for x in each]
    exact = np.sum([x.astype(np.float64) for x in each], axis=0)
    (got,) = parts(dist.all_sum(each[world.rank()]))
    assert_numbers(got, rounded(exact, name))


def check(world: dist.Group) -> None:
    backwards = world.split(0, world.size() - world.rank())
    for name in NAMES:
        for count in LENGTHS:
            check_operations(world, name, count)
        check_operations(backwards, name, COUNT)
    hosts = dist.all_gather(np.frombuffer(socket.gethostname().encode().ljust(64), np.uint8)[np.newaxis])
    if len(np.unique(hosts, axis=0)) == world.size():
        for name in HALVES:
            for count in LENGTHS:
                check_rounding(world, name, count)
        print("rounded once\n", end="", flush=True)


def main() -> None:
    world = dist.init()
    if sys.argv[1] == "all":
        check(world)
    first = digest(world)
    assert digest(world) == first
    print(f"digest | {world.rank()} | {first}\n", end="", flush=True)


if __name__ == "__main__":
    main()
