"""Anything that exports DLPack from host memory is read without a copy; the result is a NumPy array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from parallel.reference import CALLS, NAMES, assert_same, calls_of, reduced, values
from parallel.refused import WORLD, assert_refused, case

import mlxdist as dist
from mlxdist.arrays import numpy as host

CPU, CUDA = 1, 2


class Exporter:
    """An array of an unknown class, without the buffer protocol."""

    def __init__(self, x: np.ndarray, device: int = CPU) -> None:
        self.x = x
        self.device = device

    def __dlpack__(self, **options: Any) -> Any:
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bfloat16"])
def test_reductions(world: dist.Group, name: str) -> None:
    """NumPy does not support bfloat16 in DLPack."""
    each = [values(name, (3, 2), rank) for rank in range(world.size())]
    for call in calls_of(name):
        run = CALLS[call]
        assert_same(run(Exporter(each[world.rank()].copy())), reduced(call, each))
        assert_same(run(Exporter(each[world.rank()].copy().T)), reduced(call, each).T.copy())


def test_nothing_is_copied() -> None:
    x = np.ones(3)
    assert host.as_buffer(host.as_array("all_sum", Exporter(x))).owner.ctypes.data == x.ctypes.data


def test_out(world: dist.Group) -> None:
    x = np.ones(3)
    out = Exporter(np.zeros(3))
    if not np.from_dlpack(out).flags.writeable:
        pytest.skip("this NumPy takes all of DLPack as read-only")
    assert dist.all_sum(x, out=out) is out
    assert_same(out.x, np.full(3, float(world.size())))


def test_refused() -> None:
    elsewhere = "Exporter is not in host memory: pass cupy.from_dlpack"
    assert_refused(
        [
            case("all_sum", elsewhere, TypeError, dist.all_sum, Exporter(np.ones(3), CUDA)),
            case("all_sum", r"cannot be read by NumPy \(.*: pass a NumPy array", TypeError, dist.all_sum, big()),
            case("all_sum", "out is Exporter, ", TypeError, dist.all_sum, np.ones(3), out=Exporter(np.ones(3), CUDA)),
        ]
    )
    assert WORLD.size() == dist.all_sum(1)


def big() -> Exporter:
    return Exporter(np.ones(3, ">f4"))
