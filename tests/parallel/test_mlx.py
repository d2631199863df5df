"""MLX's own operations on mlxdist's groups match the reference: every dtype, reduction and shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parallel.reference import CALLS, NAMES, assert_same, calls_of, dtype_of, reduced, values

import mlxdist as dist

mx: Any = pytest.importorskip("mlx.core", reason="MLX is not installed")
dist.install()

DTYPES = tuple(name for name in NAMES if name != "complex128")  # MLX has no others
View = Callable[[Any, Any], Any]
VIEWS: dict[str, tuple[tuple[int, ...], View]] = {
    "0-d": ((), lambda x, lib: x),
    "vector": ((5,), lambda x, lib: x),
    "matrix": ((2, 3), lambda x, lib: x),
    "transposed": ((3, 4), lambda x, lib: x.T),
    "strided": ((9,), lambda x, lib: x[::2]),
    "backwards": ((5,), lambda x, lib: x[::-1]),
    "columns": ((4, 5), lambda x, lib: x[:, 1:3]),
    "broadcast": ((4, 1), lambda x, lib: lib.broadcast_to(x, (4, 3))),
    "empty": ((0, 3), lambda x, lib: x),
}


def mlx_dtype(name: str) -> Any:
    return getattr(mx, "bool_" if name == "bool" else name)


def to_mlx(x: np.ndarray) -> Any:
    """bfloat16 by its bits: MLX does not support ml_dtypes."""
    if x.dtype == dtype_of("bfloat16"):
        return mx.array(x.view(np.uint16)).view(mx.bfloat16)
    return mx.array(x, dtype=mlx_dtype(x.dtype.name))


def to_numpy(x: Any) -> np.ndarray:
    if x.dtype == mx.bfloat16:
        return np.array(x.view(mx.uint16)).view(dtype_of("bfloat16"))
    return np.array(x)


def stream_of(name: str) -> Any:
    """float64 works only on the CPU."""
    return mx.cpu if name == "float64" else None


def everybodys(world: dist.Group, name: str, shape: tuple[int, ...], view: View = VIEWS["matrix"][1]) -> list[Any]:
    return [view(values(name, shape, rank), np) for rank in range(world.size())]


def gathered(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.atleast_1d(x) for x in arrays])


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(world: dist.Group, name: str) -> None:
    shape = (3 * world.size(), 7)
    theirs = everybodys(world, name, shape)
    x, stream = to_mlx(theirs[world.rank()]), stream_of(name)
    assert_same(to_numpy(x), theirs[world.rank()])
    for call in calls_of(name):
        run = getattr(mx.distributed, call, CALLS[call])
        assert_same(to_numpy(run(x, stream=stream)), reduced(call, theirs))
    assert_same(to_numpy(mx.distributed.all_gather(x, stream=stream)), gathered(theirs))
    parts = np.split(reduced("all_sum", theirs), world.size())
    assert_same(to_numpy(dist.sum_scatter(x, stream=stream)), parts[world.rank()])
    src = NAMES.index(name) % world.size()
    assert_same(to_numpy(dist.broadcast(x, src, stream=stream)), theirs[src])


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_views(world: dist.Group, name: str) -> None:
    for place, (shape, view) in enumerate(VIEWS.values()):
        theirs = everybodys(world, name, shape, view)
        x = view(to_mlx(values(name, shape, world.rank())), mx)
        call = list(CALLS)[place % 3]
        assert_same(to_numpy(CALLS[call](x)), reduced(call, theirs))
        assert_same(to_numpy(dist.all_gather(x)), gathered(theirs))
        assert_same(to_numpy(dist.broadcast(x, place % world.size())), np.array(theirs[place % world.size()]))


def test_sum_scatter_of_views(world: dist.Group) -> None:
    n = world.size()
    views: dict[str, tuple[tuple[int, ...], View]] = {
        "transposed": ((3, 2 * n), lambda x, lib: x.T),
        "strided": ((4 * n, 3), lambda x, lib: x[::2]),
        "broadcast": ((1, 3), lambda x, lib: lib.broadcast_to(x, (2 * n, 3))),
        "a temporary, reduced in place": ((2 * n, 3), lambda x, lib: x + x),
        "empty": ((0, 3), lambda x, lib: x),
    }
    for shape, view in views.values():
        part = dist.sum_scatter(view(to_mlx(values("float32", shape, world.rank())), mx))
        total = reduced("all_sum", everybodys(world, "float32", shape, view))
        assert_same(to_numpy(part), np.split(total, n)[world.rank()])


def test_no_input_is_changed(world: dist.Group) -> None:
    numbers = values("int32", (4 * world.size(),), world.rank())
    x = to_mlx(numbers)
    mx.eval(dist.all_sum(x), dist.all_max(x), dist.sum_scatter(x), dist.broadcast(x, world.size() - 1))
    assert_same(to_numpy(x), numbers)


def test_bfloat16_beyond_float16(world: dist.Group) -> None:
    """In float16 the bits of these numbers mean NaN and infinity."""
    row = np.array([3e38, -3e38, 2e37, -2e37, 2.0**121, -(2.0**121), 2.0**120, 0.0])
    theirs = [np.roll(row, rank).astype(dtype_of("bfloat16")) for rank in range(world.size())]
    float16 = theirs[0].view(np.float16)
    assert np.isnan(float16).any()
    assert np.isinf(float16).any()
    x = to_mlx(theirs[world.rank()])
    for call in ("all_max", "all_min"):
        assert_same(to_numpy(CALLS[call](x)), reduced(call, theirs))
    alternating = mx.array([2.0**121, -(2.0**121)], dtype=mx.bfloat16) * (-1) ** world.rank()
    assert dist.all_sum(alternating).tolist() == [2.0**121 * (world.size() % 2), -(2.0**121) * (world.size() % 2)]


def test_ring(world: dist.Group) -> None:
    if world.size() == 1:
        pytest.skip("a group of one has no peers")
    to, source = (world.rank() + 1) % world.size(), (world.rank() - 1) % world.size()
    for name in DTYPES:
        stream = stream_of(name)
        x = to_mlx(values(name, (2, 3), world.rank())).T
        sent = mx.distributed.send(x, to, stream=stream)
        if world.rank() % 2:
            arrived = dist.recv_like(x, source, stream=stream)
            mx.eval(arrived)
            mx.eval(sent)
        else:
            mx.eval(sent)
            arrived = dist.recv((3, 2), x.dtype, source, stream=stream)
        assert_same(to_numpy(arrived), np.ascontiguousarray(values(name, (2, 3), source).T))


def test_python_numbers(world: dist.Group) -> None:
    for number, dtype in ((3, mx.int32), (1.5, mx.float32), (True, mx.bool_)):
        total = mx.distributed.all_sum(number)
        assert (total.dtype, total.shape) == (dtype, ())
        assert total.item() == (True if dtype == mx.bool_ else world.size() * number)


def test_a_long_array(world: dist.Group) -> None:
    count = 300_007
    total = dist.all_sum(mx.arange(count, dtype=mx.int64) * (world.rank() + 1))
    np.testing.assert_array_equal(np.array(total), np.arange(count) * sum(range(1, world.size() + 1)))


def test_results_of_dtypes_at_once(world: dist.Group) -> None:
    """A single evaluation with pending operations of every dtype and reduction."""
    theirs = {name: everybodys(world, name, (2, 5)) for name in DTYPES if name != "float64"}
    totals = {
        (name, call): CALLS[call](to_mlx(theirs[name][world.rank()])) for name in theirs for call in calls_of(name)
    }
    mx.eval(totals)
    for (name, call), total in totals.items():
        assert_same(to_numpy(total), reduced(call, theirs[name]))
