"""`empty`: arrays in shared memory work like any others, and are reduced without a copy."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from parallel.reference import CALLS, NAMES, assert_numbers, calls_of, dtype_of, reduced, values

import mlxdist as dist
from mlxdist import _core

LONG = 20_011  # more than an arrival can carry, for every dtype of two bytes or more

pytestmark = pytest.mark.skipif(_core.local_size()[0] < dist.init().size(), reason="not all ranks share memory")


def shared(x: np.ndarray) -> np.ndarray:
    array = dist.empty(x.shape, x.dtype)
    assert array.shape == x.shape
    assert array.dtype == x.dtype
    array[...] = x
    return array


@pytest.mark.parametrize(("name", "call"), [(name, call) for name in NAMES for call in calls_of(name)])
def test_reductions(world: dist.Group, name: str, call: str) -> None:
    inputs = [values(name, (LONG,), rank) for rank in range(world.size())]
    expected = reduced(call, inputs)
    x, out = shared(inputs[world.rank()]), dist.empty((LONG,), dtype_of(name))
    assert CALLS[call](x, out=out) is out
    assert_numbers(out, expected)
    assert x.tobytes() == inputs[world.rank()].tobytes()
    CALLS[call](x, out=x)
    assert_numbers(x, expected)


@pytest.mark.parametrize("offset", [0, 1, 4097])
def test_slices(world: dist.Group, offset: int) -> None:
    x = shared(np.arange(LONG, dtype=np.int64) + world.rank())
    part, count = x[offset:-1], world.size()
    dist.all_sum(part, out=part)
    expected = np.arange(LONG, dtype=np.int64) * count + sum(range(count))
    np.testing.assert_array_equal(part, expected[offset:-1])
    np.testing.assert_array_equal(x[:offset], np.arange(offset) + world.rank())
    assert x[-1] == LONG - 1 + world.rank()


def test_beside_other_memory_and_at_other_places(world: dist.Group) -> None:
    """Arrays are reduced in place only if their offsets match on all ranks; if not, the result is still correct."""
    inputs = [values("float32", (LONG,), rank) for rank in range(world.size())]
    mine, expected = inputs[world.rank()], reduced("all_sum", inputs)
    room = dist.empty(LONG + world.size(), np.float32)
    elsewhere = room[world.rank() : world.rank() + LONG]
    elsewhere[...] = mine
    assert_numbers(dist.all_sum(elsewhere), expected)
    assert_numbers(dist.all_sum(shared(mine)), expected)
    out = dist.empty(LONG, np.float32)
    dist.all_sum(mine, out=out)
    assert_numbers(out, expected)
    only_here = shared(mine) if world.rank() == 0 else [shared(mine), mine.copy()][1]
    assert_numbers(dist.all_sum(only_here), expected)


def test_each_rank_has_its_own(world: dist.Group) -> None:
    x = dist.empty((100,), np.int32)
    x[...] = world.rank()
    dist.barrier()
    assert set(x.tolist()) == {world.rank()}
    dist.barrier()


def test_memory_is_given_back_with_the_last_view(world: dist.Group) -> None:
    def mapped() -> int:
        with open("/proc/self/maps") as maps:
            return sum("/dev/shm/#" in line for line in maps)

    dist.all_sum(np.ones(LONG))
    gc.collect()  # what earlier tests left in circles
    before = mapped()
    x = dist.empty(LONG, np.float64)
    view = x[5:]
    del x
    view[...] = 1
    dist.all_sum(view, out=view)
    assert view[0] == world.size()
    assert mapped() == before + 2 * (world.size() > 1)  # the memory, and the spare to detach it
    del view
    gc.collect()
    assert mapped() == before


def test_of_a_part_of_the_ranks(world: dist.Group) -> None:
    part = world.split(world.rank() % 2)
    x = dist.empty(LONG, np.float64, group=part)
    x[...] = 1
    dist.all_sum(x, out=x, group=part)
    assert x[-1] == part.size()
    dist.all_sum(x, out=x)  # of another group: copied
    assert x[-1] == sum(world.size() // 2 + (rank % 2 == 0 and world.size() % 2) for rank in range(world.size()))


def test_ranks_that_differ(world: dist.Group) -> None:
    if world.size() == 1:
        pytest.skip("a group of one has nobody to differ from")
    with pytest.raises(dist.MismatchError, match=r"^\[empty\] "):
        dist.empty(10 + world.rank(), np.float64, group=world.split(0))


@pytest.mark.parametrize(
    ("arguments", "error"), [((-1,), ValueError), (((2, 2.5),), TypeError), ((3, "text"), TypeError)]
)
def test_bad_arguments(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^\[empty\] "):
        dist.empty(*arguments)
