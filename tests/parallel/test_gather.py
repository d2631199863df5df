"""all_gather: every type, shape and way to get the result."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from parallel.providers import PROVIDERS, elements
from parallel.reference import NAMES, assert_new, assert_same, dtype_of, long, seeded, thinned, values

import mlxdist as dist

SHAPES = ((), (0,), (1,), (5,), (2, 3), (2, 0, 3), (3, 2, 2))
PROVIDED = ("contiguous", "strided", "Fortran order", "negative strides", "read-only", "memoryview", "number")


def gathered(name: str, shape: tuple[int, ...], size: int) -> np.ndarray:
    return np.concatenate([np.atleast_1d(values(name, shape, rank)) for rank in range(size)])


@pytest.mark.parametrize("name", NAMES)
def test_every_case(world: dist.Group, name: str) -> None:
    size = world.size()
    cases = itertools.product(SHAPES, PROVIDED, ("new", "out"))
    for shape, provider, way in thinned(cases, name, size, 3, 11):
        x = PROVIDERS[provider](values(name, shape, world.rank()))
        if x is None:
            continue
        before, expected = elements(x).tobytes(), gathered(name, shape, size)
        if way == "new":
            result = dist.all_gather(x)
            if size > 1:
                assert_same(result, expected)
                assert_new(result, elements(x))
            else:
                assert_same(result, expected)
                assert result is x or shape == () or not isinstance(x, np.ndarray)
        else:
            out = np.empty(expected.shape, dtype_of(name))
            assert dist.all_gather(x, out=out) is out
            assert_same(out, expected)
        assert elements(x).tobytes() == before


def test_large(world: dist.Group) -> None:
    count = long(100_003)
    each = [seeded(rank, 3).integers(0, 2**32, count, np.uint32) for rank in range(world.size())]
    assert_same(dist.all_gather(each[world.rank()]), np.concatenate(each))


def test_keeps_every_bit(world: dist.Group) -> None:
    """The values are not interpreted: a signalling NaN and a bool of 2 arrive as they are."""
    x = np.array([0x7D01, 0xFC01], np.uint16)
    assert dist.all_gather(x.view(np.float16)).tobytes() == x.tobytes() * world.size()
    assert dist.all_gather(np.array([2], np.uint8).view(np.bool_)).tobytes() == bytes([2]) * world.size()
