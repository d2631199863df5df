"""broadcast from every root, and barrier."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from parallel.providers import PROVIDERS, elements, may_be_out
from parallel.reference import NAMES, assert_new, assert_same, long, seeded, thinned, values

import mlxdist as dist

SHAPES = ((), (0,), (1,), (5,), (2, 3), (2, 0, 3))
WAYS = ("new", "out", "in place")


@pytest.mark.parametrize("name", NAMES)
def test_every_case(world: dist.Group, name: str) -> None:
    size, rank = world.size(), world.rank()
    cases = itertools.product(SHAPES, PROVIDERS, WAYS, range(size))
    for shape, provider, way, root in thinned(cases, name, size, 7, 37):
        x = PROVIDERS[provider](values(name, shape, rank))
        if x is None or (way == "in place" and not may_be_out(x)):
            continue
        before, expected = elements(x).tobytes(), elements(PROVIDERS[provider](values(name, shape, root)))
        expected = np.array(expected, order="C")
        if way == "in place":
            assert dist.broadcast(x, root, out=x) is x
            assert_same(np.asarray(elements(x)), expected)
            continue
        if way == "out":
            out = np.empty_like(expected)
            assert dist.broadcast(x, root, out=out) is out
            assert_same(out, expected)
        elif size > 1:
            result = dist.broadcast(x, root)
            assert_same(result, expected)
            assert_new(result, elements(x))
        assert elements(x).tobytes() == before


def test_large_and_exact(world: dist.Group) -> None:
    """The values are not interpreted: every bit arrives."""
    for root in range(world.size()):
        each = [seeded(rank, 6).integers(0, 256, 2 * long(150_001), np.uint8) for rank in range(world.size())]
        result = dist.broadcast(each[world.rank()].view(np.float16), root)
        assert result.tobytes() == each[root].tobytes()


def test_nobody_leaves_a_barrier_before_the_last_has_come(world: dist.Group) -> None:
    for last in range(world.size()):
        time.sleep(0.03 if world.rank() == last else 0)
        came = time.monotonic()
        dist.barrier()
        left = time.monotonic()
        times = dist.all_gather(np.array([[came, left]]))
        assert times.reshape(-1, 2)[:, 0].max() <= times.reshape(-1, 2)[:, 1].min()


def test_barrier_returns_nothing(world: dist.Group) -> None:
    assert dist.barrier(group=world) is None  # type: ignore[func-returns-value]
