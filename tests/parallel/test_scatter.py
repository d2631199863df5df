"""sum_scatter: every type and shape; rank r gets the r-th part of the rows."""

from __future__ import annotations

import numpy as np
import pytest
from parallel.providers import PROVIDERS, elements
from parallel.reference import NAMES, assert_new, assert_same, long, reduced, seeded, values

import mlxdist as dist

ROWS = ((1,), (5,), (1, 3), (2, 2, 2), (0,), (2, 0), (long(101),))
PROVIDED = ("contiguous", "strided", "Fortran order", "negative strides", "read-only", "stride 0", "unaligned")


@pytest.mark.parametrize("name", NAMES)
def test_every_case(world: dist.Group, name: str) -> None:
    size, rank = world.size(), world.rank()
    for number, ((rows, *rest), provider) in enumerate(zip(ROWS, PROVIDED, strict=True)):
        # a different provider for each type, so that all pairs are covered
        provider = PROVIDED[(number + NAMES.index(name)) % len(PROVIDED)]
        each = [PROVIDERS[provider](values(name, (size * rows, *rest), each)) for each in range(size)]
        before, part = elements(each[rank]).tobytes(), slice(rank * rows, (rank + 1) * rows)
        expected = reduced("all_sum", each)[part]
        if number % 2 or size == 1:
            out = np.empty_like(expected, order="C")
            assert dist.sum_scatter(each[rank], out=out) is out
            assert_same(out, expected)
        else:
            result = dist.sum_scatter(each[rank])
            assert_same(result, expected)
            assert_new(result, each[rank])
        assert elements(each[rank]).tobytes() == before


def test_buffers(world: dist.Group) -> None:
    size = world.size()
    x, out = bytearray(range(2 * size)), bytearray(2)
    assert dist.sum_scatter(x, out=out) is out
    assert list(out) == [(2 * world.rank() + i) * size for i in range(2)]


def test_large(world: dist.Group) -> None:
    size, rank = world.size(), world.rank()
    count = long(30_011)
    each = [seeded(each, 4).integers(-1000, 1000, (size * 2, count)).astype(np.float32) for each in range(size)]
    assert_same(dist.sum_scatter(each[rank]), np.sum(each, axis=0)[2 * rank : 2 * rank + 2])
