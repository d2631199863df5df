"""Reductions: every type, shape, kind of array and way to get the result."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
from parallel.providers import PROVIDERS, elements, may_be_out
from parallel.reference import (
    BITWISE,
    CALLS,
    COMPLEX,
    NAMES,
    WITH_MEAN,
    assert_new,
    assert_same,
    calls_of,
    long,
    reduced,
    seeded,
    thinned,
    values,
)
from parallel.refused import assert_refused, case

import mlxdist as dist
from mlxdist import _core

SHAPES = ((), (0,), (1,), (5,), (2, 3), (2, 0, 3), (long(1021),))
WAYS = ("new", "out", "in place")


@pytest.mark.parametrize("name", NAMES)
def test_every_case(world: dist.Group, name: str) -> None:
    expected = {
        (call, shape, repeated): reduced(call, [seen(name, shape, rank, repeated) for rank in range(world.size())])
        for call, shape, repeated in itertools.product(calls_of(name), SHAPES, (False, True))
    }
    cases = itertools.product(SHAPES, PROVIDERS, WAYS, calls_of(name))
    for shape, provider, way, call in thinned(cases, name, world.size(), 11, 43):
        x = PROVIDERS[provider](values(name, shape, world.rank()))
        if x is None or (way == "in place" and not may_be_out(x)):
            continue
        try:
            run(world, call, x, way, expected[call, shape, provider == "stride 0"])
        except Exception as error:
            raise AssertionError(f"{call} of {name} {shape}, {provider}, {way}") from error


def seen(name: str, shape: tuple[int, ...], rank: int, repeated: bool) -> np.ndarray:
    x = values(name, shape, rank)
    return PROVIDERS["stride 0"](x) if repeated else x


def run(world: dist.Group, call: str, x: Any, way: str, expected: np.ndarray) -> None:
    before = elements(x).tobytes()
    if way == "in place":
        assert CALLS[call](x, out=x) is x
        assert_same(elements(x), expected)
        return
    if way == "out":
        out = np.empty_like(expected)
        assert CALLS[call](x, out=out) is out
        assert_same(out, expected)
    else:
        result = CALLS[call](x)
        if world.size() > 1:
            assert_same(result, expected)
            assert_new(result, elements(x))
        elif type(x) is np.ndarray:
            assert result is x
        else:
            assert_same(result, expected)
    assert elements(x).tobytes() == before


@pytest.mark.parametrize("count", [3, 5000, 50_000])
def test_bools_of_any_byte(world: dist.Group, count: int) -> None:
    """Each byte but 0 is True, as for NumPy, and results have only 0 and 1, whichever way they take."""
    size, rank = world.size(), world.rank()
    if size == 1:
        pytest.skip("a group of one keeps its bytes")
    choice = np.array([0, 1, 2, 128, 255], np.uint8)
    inputs = np.stack([seeded(count, other).choice(choice, count) for other in range(size)])
    truths = inputs != 0
    for call in CALLS:
        expected = truths.any(0) if call in ("all_sum", "all_max", "all_bor") else truths.all(0)
        for empty in (np.empty, dist.empty) if _core.local_size()[0] == size else (np.empty,):
            x, out = empty((count,), np.bool_), empty((count,), np.bool_)
            x.view(np.uint8)[...] = inputs[rank]
            np.testing.assert_array_equal(CALLS[call](x, out=out).view(np.uint8), expected)
            np.testing.assert_array_equal(CALLS[call](x, out=x).view(np.uint8), expected)
    shares = inputs[:, : count // size * size]
    share = dist.sum_scatter(np.ascontiguousarray(shares[rank]).view(np.bool_))
    np.testing.assert_array_equal(share.view(np.uint8), np.split((shares != 0).any(0), size)[rank])


def test_numbers_have_one_dtype_each(world: dist.Group) -> None:
    """By type, not by value: ranks that pass different numbers must agree."""
    size = world.size()
    for number, total, dtype in (
        (True, True, np.bool_),
        (-1, -size, np.int64),
        (2**62, (size * 2**62 + 2**63) % 2**64 - 2**63, np.int64),
        (0.5, 0.5 * size, np.float64),
        (0.5j, 0.5j * size, np.complex128),
        (np.float32(0.5), 0.5 * size, np.float32),
    ):
        assert_same(dist.all_sum(number), np.array(total, dtype))


@pytest.mark.parametrize("name", COMPLEX)
@pytest.mark.parametrize("count", [3, long(50_021)])
def test_products_of_complex_numbers(world: dist.Group, name: str, count: int) -> None:
    """Of numbers whose products are exact."""
    each = [seeded(rank, 8).choice((-2, -1, 1, 2), (2, count)) for rank in range(world.size())]
    each = [(x[0] + 1j * x[1]).astype(name) for x in each]
    x, expected = each[world.rank()].copy(), functools.reduce(np.multiply, each)
    np.testing.assert_array_equal(dist.all_prod(x), expected)
    np.testing.assert_array_equal(dist.all_prod(x, out=x), expected)


def test_the_bits_of_floats_are_refused() -> None:
    """On whichever path."""
    remedy = "not combined bit by bit: pass integers or bools, or a view of x as integers"
    each = [values(name, (3,), 0) for name in WITH_MEAN]
    assert_refused(
        case(call, f"x has dtype {x.dtype.name}, which is {remedy}", TypeError, CALLS[call], given)
        for call, x in itertools.product(BITWISE, each)
        for given in (x, x[::-1])
    )


def test_out_of_every_kind(world: dist.Group) -> None:
    """Buffers are written in place; the result of a number can go into a 0-d array."""
    expected = np.arange(3, dtype=np.uint8) * world.size()
    x = np.arange(3, dtype=np.uint8)
    for out in (bytearray(3), memoryview(bytearray(3)), np.zeros(3, np.uint8).view(np.ndarray)):
        assert dist.all_sum(x, out=out) is out
        assert bytes(out) == expected.tobytes()
    out = np.zeros(())
    assert dist.all_sum(1.0, out=out) is out
    assert out == world.size()
    held = np.zeros(5, np.uint8)
    dist.all_sum(x, out=held[1:4])
    np.testing.assert_array_equal(held, [0, *expected, 0])
