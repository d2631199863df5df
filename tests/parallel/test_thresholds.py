"""Lengths around every threshold between slots, one chunk of the staging buffer and several; with any alignment."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from parallel.reference import NAMES, assert_numbers, dtype_of, values

import mlxdist as dist

SHORT, SLOT, CHUNK = (6 << 10, 12 << 10), 32 << 10, 512 << 10
MOST = 4200
NBYTES = sorted(
    {edge + step for edge in (*SHORT, SLOT, CHUNK, 4 * CHUNK, 5 * CHUNK) for step in (-64, -8, 0, 8, 48, 64, 4096)}
)


def at(offset: int, x: np.ndarray) -> np.ndarray:
    """A copy that begins ``offset`` bytes after the start of a cache line."""
    raw = np.empty(x.nbytes + 128, np.uint8)
    begin = -raw.ctypes.data % 64 + offset
    copy = raw[begin : begin + x.nbytes].view(x.dtype)
    copy[...] = x
    return copy


@pytest.mark.parametrize("nbytes", NBYTES)
def test_sums(world: dist.Group, nbytes: int) -> None:
    inputs = [values("float64", (nbytes // 8,), rank) for rank in range(world.size())]
    with np.errstate(invalid="ignore"):
        expected = functools.reduce(np.add, inputs)  # in rank order
    x = at(16, inputs[world.rank()])
    out = at(8 * (world.rank() % 8), np.zeros_like(x))  # alignment may differ between ranks
    dist.all_sum(x, out=out)
    assert_numbers(out, expected)
    dist.all_sum(x, out=x)
    assert_numbers(x, expected)


@pytest.mark.parametrize("name", ["int8", "float16", "complex128"])
@pytest.mark.parametrize("offset", [0, 16, 24, 63])
def test_alignment(world: dist.Group, name: str, offset: int) -> None:
    for count in (70_001, 600_003):
        numbers = np.resize(np.arange(20), count).astype(name)  # their sums are exact in every dtype
        x = numbers * np.asarray(world.rank() + 1, name)
        raw = np.zeros(x.nbytes + 128, np.uint8)
        begin = -raw.ctypes.data % 64 + offset
        out = np.ndarray(count, x.dtype, raw, begin)
        dist.all_sum(x, out=out)
        np.testing.assert_array_equal(out, numbers * np.asarray(sum(range(world.size() + 1)), name))
        assert not raw[:begin].any()
        assert not raw[begin + out.nbytes :].any()


@pytest.mark.parametrize("nbytes", [*(edge + 8 for edge in SHORT), SLOT + 8, CHUNK + 8, 9 * CHUNK + 24])
def test_the_other_operations(world: dist.Group, nbytes: int) -> None:
    size, count = world.size(), nbytes // 8
    inputs = [values("int64", (count,), rank) for rank in range(size)]
    np.testing.assert_array_equal(dist.all_gather(inputs[world.rank()]), np.concatenate(inputs))
    root = size - 1
    np.testing.assert_array_equal(dist.broadcast(inputs[world.rank()], root), inputs[root])
    whole = [values("int64", (count * size,), rank) for rank in range(size)]
    mine = slice(world.rank() * count, (world.rank() + 1) * count)
    np.testing.assert_array_equal(dist.sum_scatter(whole[world.rank()]), np.sum(whole, axis=0)[mine])
    np.testing.assert_array_equal(dist.all_max(inputs[world.rank()]), np.max(inputs, axis=0))
    np.testing.assert_array_equal(dist.all_min(inputs[world.rank()]), np.min(inputs, axis=0))


@pytest.mark.parametrize("name", NAMES)
def test_every_short_length(world: dist.Group, name: str) -> None:
    """0 to 4,200 elements, with sums that are exact in every dtype."""
    numbers = np.arange(MOST) % (2 if name == "bool" else 4)
    x = (numbers * (world.rank() + 1)).astype(dtype_of(name))
    each = [numbers * (rank + 1) for rank in range(world.size())]
    expected = {
        dist.all_sum: np.sum(each, axis=0).astype(x.dtype),
        dist.all_max: np.max(each, axis=0).astype(x.dtype),
        dist.all_min: np.min(each, axis=0).astype(x.dtype),
    }
    for count in range(MOST + 1):
        operation = dist.all_sum if count % 2 else (dist.all_max, dist.all_min)[count // 2 % 2]
        begin = MOST - count if count % 3 else 0  # aligned or not
        result = operation(x[begin : begin + count])
        assert result.tobytes() == expected[operation][begin : begin + count].tobytes(), count
