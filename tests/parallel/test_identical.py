"""Every rank gets the same bits, even if the order of additions matters."""

from __future__ import annotations

import numpy as np
import pytest
from parallel.reference import CALLS, COMPLEX, REALS, calls_of, dtype_of, long, seeded

import mlxdist as dist


@pytest.mark.parametrize("count", [3, long(10_007), long(200_003)])
def test_results_are_bit_identical(world: dist.Group, count: int) -> None:
    random = seeded(count, world.rank())
    results = []
    for name in (*REALS, *COMPLEX):
        # of many magnitudes, so that the order of a sum matters
        x = random.standard_normal((2, count)) * 10.0 ** random.integers(-3, 4, (2, count))
        values = (x[0] + 1j * x[1] if name in COMPLEX else x[0]).astype(dtype_of(name))
        calls = calls_of(name, in_any_order=False) if count < 100 else ["all_sum", "all_prod"]
        results += [CALLS[call](values).view(np.uint8) for call in calls]
    mine = np.concatenate(results)
    everyones = dist.all_gather(mine).reshape(world.size(), -1)
    for theirs in everyones:
        np.testing.assert_array_equal(theirs, mine)


def test_repeated_sums_are_bit_identical(world: dist.Group) -> None:
    x = seeded(5, world.rank()).standard_normal(long(10_007)).astype(np.float32)
    first = dist.all_sum(x)
    for _ in range(3):
        assert dist.all_sum(x).tobytes() == first.tobytes()
