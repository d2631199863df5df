"""MPI_IN_PLACE: all_gather with x this rank's part of out, sum_scatter with out this rank's part of x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parallel.reference import long, reduced, values

import mlxdist as dist
from mlxdist import _core

# Elements of a part, of 4 bytes: for the slots, for one chunk and for several.
COUNTS = (1, 3, 2000, long(100_003), long(700_001))
each_count = pytest.mark.parametrize("count", COUNTS)
# Which ranks do it in place; the others have memory of their own.
WHO: dict[str, Callable[[int], bool]] = {"all": lambda rank: True, "some": lambda rank: rank % 2 == 0}
who = pytest.mark.parametrize("is_in_place", WHO.values(), ids=WHO)


def parts(size: int, count: int, first: int = 0) -> list[np.ndarray]:
    return [np.arange(first, first + count, dtype=np.int32) * (rank + 1) for rank in range(size)]


@who
@each_count
def test_all_gather(world: dist.Group, count: int, is_in_place: Callable[[int], bool]) -> None:
    size, rank = world.size(), world.rank()
    each = parts(size, count)
    out = np.full(size * count, -1, np.int32)
    own = out[rank * count : (rank + 1) * count]
    own[...] = each[rank]
    x = own if is_in_place(rank) else own.copy()
    assert dist.all_gather(x, out=out) is out
    assert np.array_equal(out, np.concatenate(each))


@who
@each_count
def test_sum_scatter(world: dist.Group, count: int, is_in_place: Callable[[int], bool]) -> None:
    """The rest of x stays as it is."""
    size, rank = world.size(), world.rank()
    each = parts(size, size * count)
    expected, x = each[rank].copy(), each[rank].copy()
    own = slice(rank * count, (rank + 1) * count)
    expected[own] = sum(each)[own]
    if is_in_place(rank):
        assert np.may_share_memory(dist.sum_scatter(x, out=x[own]), x)
        assert np.array_equal(x, expected)
    else:
        assert np.array_equal(dist.sum_scatter(x, out=np.empty(count, np.int32)), expected[own])
        assert np.array_equal(x, each[rank])


@pytest.mark.parametrize("name", ["float16", "bool", "complex128"])
def test_rows(world: dist.Group, name: str) -> None:
    """Of several dimensions, and through memoryviews."""
    size, rank = world.size(), world.rank()
    shape = (size * 3, 5)
    each = [values(name, shape, r) for r in range(size)]
    own = slice(rank * 3, rank * 3 + 3)
    x = each[rank].copy()
    dist.sum_scatter(x, out=x[own])
    assert np.array_equal(x[own], reduced("all_sum", each)[own], equal_nan=name != "bool")
    out = np.zeros(shape, name)
    out[own] = each[rank][own]
    dist.all_gather(memoryview(out[own]), out=memoryview(out))
    assert out.tobytes() == b"".join(each[r][r * 3 : r * 3 + 3].tobytes() for r in range(size))


def test_a_number(world: dist.Group) -> None:
    out = np.full(world.size(), -1.0)
    x: Any = out[world.rank() :].reshape(-1)[:1].reshape(())
    x[...] = world.rank()
    dist.all_gather(x, out=out)
    assert out.tolist() == list(range(world.size()))


@pytest.mark.parametrize("count", [100, 300_000])
def test_in_shared_memory(world: dist.Group, count: int) -> None:
    if _core.local_size()[0] < world.size():
        pytest.skip("not all ranks share memory")
    size, rank = world.size(), world.rank()
    held = dist.empty(size * count, np.float32)
    own = held[rank * count : (rank + 1) * count]
    held[...], own[...] = -1, rank
    dist.all_gather(own, out=held)
    assert np.array_equal(held, np.repeat(np.arange(size, dtype=np.float32), count))
    dist.sum_scatter(held, out=own)
    assert np.array_equal(own, np.full(count, size * rank, np.float32))
    dist.barrier()
