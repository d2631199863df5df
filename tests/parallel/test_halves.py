"""float16 and bfloat16: every bit pattern, and the rounding of sums."""

from __future__ import annotations

import numpy as np
import pytest
from parallel.reference import (
    BITWISE,
    CALLS,
    HALVES,
    MAX_COUNT,
    assert_numbers,
    dtype_of,
    long,
    parts,
    rounded,
    rounded_product,
    seeded,
)

import mlxdist as dist

EVERY_PATTERN = 2**16
# The partners of every number: zeros, one, the smallest and some other subnormals, one that makes ties, the largest,
# infinity, NaN.
OTHERS = {
    "float16": (0x0000, 0x8000, 0x3C00, 0x0001, 0x83FF, 0x1001, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0xBC01),
    "bfloat16": (0x0000, 0x8000, 0x3F80, 0x0001, 0x807F, 0x3B81, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0, 0xBF81),
}
MINUS_ZERO, ONE = 0x8000, {"float16": 0x3C00, "bfloat16": 0x3F80}


def contribution(name: str, rank: int, call: str = "all_sum") -> np.ndarray:
    """Rank 0 has every number, rank 1 the partners, further ranks -0, which changes no sum, or for a product 1."""
    others = np.array(OTHERS[name], np.uint16)
    if rank == 0:
        bits = np.tile(np.arange(EVERY_PATTERN, dtype=np.uint16), len(others))
    elif rank == 1:
        bits = np.repeat(others, EVERY_PATTERN)
    else:
        neutral = ONE[name] if call == "all_prod" else MINUS_ZERO
        bits = np.full(len(others) * EVERY_PATTERN, neutral, np.uint16)
    return bits.view(dtype_of(name))


def best(call: str, stacked: np.ndarray) -> np.ndarray:
    """max or min in float64, +0 above -0."""
    pick = np.max if call == "all_max" else np.min
    found = pick(stacked, axis=0)
    signs = pick(np.where(stacked == 0, np.copysign(1, stacked), -1 if call == "all_max" else 1), axis=0)
    return np.where(found == 0, np.copysign(0.0, signs), found)


@pytest.mark.skipif(MAX_COUNT < 1000, reason="a million elements in pieces of a few would take minutes")
@pytest.mark.parametrize("call", [call for call in CALLS if call not in BITWISE])
@pytest.mark.parametrize("name", HALVES)
def test_every_number_with_others(world: dist.Group, name: str, call: str) -> None:
    stacked = np.stack([parts(contribution(name, rank, call))[0] for rank in range(max(world.size(), 2))])
    result = np.empty_like(contribution(name, 0))
    if world.size() == 1:
        dist.all_sum(contribution(name, 0), out=result)
        assert result.tobytes() == contribution(name, 0).tobytes()
        return
    CALLS[call](contribution(name, world.rank(), call), out=result)
    with np.errstate(all="ignore"):
        if call == "all_prod":
            expected = rounded_product(stacked[0], stacked[1], name)
        else:
            expected = rounded(stacked[0] + stacked[1], name) if call == "all_sum" else best(call, stacked)
    (got,) = parts(result)
    assert_numbers(got, expected)


@pytest.mark.parametrize("name", HALVES)
def test_random_sums_are_close(world: dist.Group, name: str) -> None:
    """With more than two ranks a library may round after each step, by at most half a unit in the last place."""
    size, count = world.size(), long(5001)
    each = [seeded(77, rank).standard_normal(count).astype(dtype_of(name)) for rank in range(size)]
    stacked = np.stack([x.astype(np.float64) for x in each])
    (got,) = parts(dist.all_sum(each[world.rank()]))
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[name]
    allowed = (size - 1) * unit * np.abs(stacked).sum(axis=0)
    np.testing.assert_array_less(np.abs(got - stacked.sum(axis=0)), allowed + 1e-9)
    # and on average errors go either way, unlike those of truncation
    assert np.abs(np.mean((got - stacked.sum(axis=0)) * np.sign(got))) < unit * 0.3
