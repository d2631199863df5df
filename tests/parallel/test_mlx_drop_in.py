"""After install(): mx.distributed.sum_scatter, and groups of either kind in either world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mlxdist as dist
from mlxdist import _core

mx: Any = pytest.importorskip("mlx.core", reason="MLX is not installed")
nn: Any = pytest.importorskip("mlx.nn", reason="MLX is not installed")
dist.install()


@pytest.fixture(params=["world", "ours", "MLX's"])
def part(request: pytest.FixtureRequest, world: dist.Group) -> tuple[Any, list[int]]:
    """A group, and its members as ranks of the world."""
    color = world.rank() % 2
    members = list(range(color, world.size(), 2))
    if request.param == "world":
        return mx.distributed.init(), list(range(world.size()))
    if request.param == "ours":
        return world.split(color), members
    if world.size() == 1:
        pytest.skip("MLX does not split a group of one")
    return mx.distributed.init().split(color), members


def rows(world: dist.Group, members: list[int]) -> np.ndarray:
    """The inputs of all ranks: (ranks of the world, 2 * members, 3)."""
    return np.random.default_rng(5).integers(-9, 9, (world.size(), 2 * len(members), 3)).astype(np.float32)


def own(x: np.ndarray, group: Any) -> np.ndarray:
    """The part of a sum that this rank of the group gets."""
    return np.split(x, group.size())[group.rank()]


def test_sum_scatter(world: dist.Group, part: tuple[Any, list[int]]) -> None:
    group, members = part
    x = rows(world, members)
    mine = mx.array(x[world.rank()])
    expected = own(x[members].sum(axis=0), group)
    np.testing.assert_array_equal(mx.distributed.sum_scatter(mine, group=group), expected)
    np.testing.assert_array_equal(dist.sum_scatter(mine, group=group), expected)
    compiled = mx.compile(lambda x: mx.distributed.sum_scatter(x, group=group, stream=mx.cpu))
    for factor in (1, 2):
        np.testing.assert_array_equal(compiled(factor * mine), factor * expected)


def test_a_group_is_first_seen_while_tracing(world: dist.Group) -> None:
    """As in a sharded layer: MLX's own group, with operations only in a compiled function."""
    if world.size() == 1:
        pytest.skip("MLX does not split a group of one")
    group = mx.distributed.init().split(0)
    compiled = mx.compile(lambda x: mx.distributed.sum_scatter(x, group=group))
    assert compiled(mx.arange(world.size())).tolist() == [world.size() * world.rank()]


def test_sum_scatter_has_a_gradient(world: dist.Group, part: tuple[Any, list[int]]) -> None:
    group, members = part
    x = mx.array(rows(world, members)[world.rank()])
    weight = 1.0 + world.rank()
    gradient = mx.grad(lambda x: (weight * mx.distributed.sum_scatter(x, group=group)).sum())(x)
    expected = np.repeat([1.0 + rank for rank in members], 2)[:, None] * np.ones(3)
    np.testing.assert_array_equal(gradient, expected)


def test_sum_scatter_is_lazy(world: dist.Group) -> None:
    mx.distributed.sum_scatter(mx.ones(world.size() * (1 + world.rank())))  # never evaluated, or ranks would differ
    assert dist.all_sum(mx.array(1)).item() == world.size()


def test_sum_scatter_refuses(world: dist.Group) -> None:
    if world.size() > 1:
        with pytest.raises(ValueError, match="is not divisible by the group's size"):
            mx.distributed.sum_scatter(mx.ones((world.size() + 1, 2)))
    with pytest.raises(TypeError):
        mx.distributed.sum_scatter(mx.ones(2), None)  # group is keyword-only
    assert mx.distributed.sum_scatter(mx.arange(world.size())).tolist() == [world.size() * world.rank()]


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "all_sum": lambda x, group: dist.all_sum(x, group=group),
    "all_max": lambda x, group: dist.all_max(x, group=group),
    "all_gather": lambda x, group: dist.all_gather(x, group=group),
    "sum_scatter": lambda x, group: dist.sum_scatter(x, group=group),
    "broadcast": lambda x, group: dist.broadcast(x, 0, group=group),
    "average_gradients": lambda x, group: dist.average_gradients({"x": x}, group)["x"],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_ours_takes_both(world: dist.Group, part: tuple[Any, list[int]], call: Callable[[Any, Any], Any]) -> None:
    group, members = part
    x = rows(world, members)
    expected = {
        "all_sum": lambda: x[members].sum(axis=0),
        "all_max": lambda: x[members].max(axis=0),
        "all_gather": lambda: np.concatenate(x[members]),
        "sum_scatter": lambda: own(x[members].sum(axis=0), group),
        "broadcast": lambda: x[members[0]],
        "average_gradients": lambda: x[members].sum(axis=0) / len(members),
    }[next(name for name, known in CALLS.items() if known is call)]()
    mine = x[world.rank()]
    np.testing.assert_array_equal(call(mx.array(mine), group), expected)
    np.testing.assert_array_equal(call(mine.copy(), group), expected)


def test_a_group_of_mlx_is_one_group(world: dist.Group, part: tuple[Any, list[int]]) -> None:
    group, _ = part
    dist.barrier(group=group)
    if _core.local_size()[0] < dist.init().size():
        pytest.skip("not all ranks share memory")
    shared = dist.empty((4,), np.int32, group=group)
    shared[:] = 1
    assert dist.all_sum(shared, group=group).tolist() == [group.size()] * 4


def test_mlx_takes_both(world: dist.Group, part: tuple[Any, list[int]]) -> None:
    group, members = part
    x = mx.array([1.0 + world.rank()])
    values = [1.0 + rank for rank in members]
    assert mx.distributed.all_sum(x, group=group).tolist() == [sum(values)]
    assert mx.distributed.all_max(x=x, group=group).tolist() == [max(values)]
    assert mx.distributed.all_min(x, group=group, stream=mx.cpu).tolist() == [min(values)]
    assert mx.distributed.all_gather(x, group=group).tolist() == values
    assert nn.average_gradients({"w": x}, group)["w"].tolist() == [sum(values) / len(values)]
    layer = nn.layers.distributed.AllToShardedLinear(3, 2 * len(members), group=group)
    assert layer.weight.shape == (2, 3)
    if group.size() > 1:
        if group.rank() == 0:
            mx.eval(mx.distributed.send(x, 1, group=group))
        elif group.rank() == 1:
            assert mx.distributed.recv((1,), mx.float32, 0, group=group).tolist() == [values[0]]
            mx.eval(mx.distributed.send(x, 0, group=group))
        if group.rank() == 0:
            assert mx.distributed.recv_like(x, 1, group=group).tolist() == [values[1]]


def test_any_backend_is_ours(world: dist.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_RANK", "0")  # MLX's ring would create a group of its own from these
    monkeypatch.setenv("MLX_HOSTFILE", "/nonexistent")
    assert mx.distributed.init().size() == world.size()
    assert mx.distributed.init(backend="mpi").size() == world.size()
    with pytest.raises(ValueError, match="zzz"):
        mx.distributed.init(backend="zzz")
