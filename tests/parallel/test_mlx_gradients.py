"""average_gradients of MLX arrays: lazy, with the results of mlx.nn's, in any transformation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from parallel.ring import needs_peers

import mlxdist as dist
from mlxdist import _core

mx: Any = pytest.importorskip("mlx.core", reason="MLX is not installed")
nn: Any = pytest.importorskip("mlx.nn")
tree_flatten: Any = pytest.importorskip("mlx.utils").tree_flatten
dist.install()

MLX = tuple(int(part) for part in mx.__version__.split(".")[:3])
DTYPES = ("bool_", "int8", "uint16", "int32", "int64", "float16", "bfloat16", "float32", "complex64")
SHAPES = ((5,), (2, 3), (), (0, 2), (300, 300))
SIZES = {"each": 0, "tiny": 30, "default": 32 * 1024**2}
each_size = pytest.mark.parametrize("all_reduce_size", SIZES.values(), ids=SIZES)


def drawn(rank: int, dtype: str) -> list[Any]:
    random = np.random.default_rng(rank)
    return [mx.array(random.normal(scale=100, size=shape)).astype(getattr(mx, dtype)) for shape in SHAPES]


def bits(x: Any) -> tuple[Any, tuple[int, ...], bytes]:
    x = mx.contiguous(x)
    return x.dtype, x.shape, bytes(memoryview(x)) if x.size else b""


@each_size
def test_the_results_of_mlx(world: dist.Group, all_reduce_size: int) -> None:
    """Every bit, dtype and shape, even for mixed dtypes, where MLX makes one reduction for each array."""
    trees: list[Any] = [drawn(world.rank(), dtype) for dtype in DTYPES]
    trees.append(dict(zip(DTYPES, trees, strict=True)))
    for tree in trees:
        ours, theirs = (
            average(tree, all_reduce_size=all_reduce_size) for average in (dist.average_gradients, nn.average_gradients)
        )
        for (name, x), (other_name, y) in zip(tree_flatten(ours), tree_flatten(theirs), strict=True):
            assert name == other_name
            assert bits(x) == bits(y), (name, x, y)


def test_lazy(world: dist.Group) -> None:
    """A dropped result does not communicate, but NumPy arrays of the same tree have been averaged all the same."""
    averaged = dist.average_gradients({"a": mx.ones(3), "b": np.full(3, float(world.rank())), "c": None})
    assert averaged["b"].tolist() == [(world.size() - 1) / 2] * 3
    assert averaged["c"] is None
    mx.eval(averaged["a"])
    if world.rank() == 0:
        dist.average_gradients([mx.ones(3)] * 2)
    assert dist.all_sum(mx.ones(1)).item() == world.size()


def test_compiled_with_gradients(world: dist.Group) -> None:
    if world.size() > 2:
        pytest.skip("the same on 2 ranks, where it takes less long")

    def loss(parameters: Any, x: Any) -> Any:
        return (parameters["w"] * x).sum() + 2 * parameters["b"].astype(mx.float32).sum()

    @mx.compile
    def step(parameters: Any, x: Any) -> Any:
        value, gradients = mx.value_and_grad(loss)(parameters, x)
        return value, dist.average_gradients(gradients, all_reduce_size=8)

    parameters = {"w": mx.ones((2, 2)), "b": mx.ones(3, dtype=mx.float16)}
    for factor in (1, 2):
        x = mx.full((2, 2), factor * world.rank(), dtype=mx.float32)
        _, gradients = step(parameters, x)
        assert gradients["w"].tolist() == [[factor * (world.size() - 1) / 2] * 2] * 2
        assert gradients["b"].tolist() == [2.0] * 3
        assert gradients["b"].dtype == mx.float16


def test_streams_and_groups(world: dist.Group) -> None:
    part = world.split(world.rank() % 2)
    ranks = range(world.rank() % 2, world.size(), 2)
    stream = mx.new_stream(mx.cpu)
    averaged = dist.average_gradients([mx.full(3, world.rank()), mx.ones(2)], part, communication_stream=stream)
    assert averaged[0].tolist() == [float(np.mean(ranks))] * 3


@pytest.mark.skipif(MLX < (0, 32, 2), reason="this MLX ends the process on an error in evaluation")
def test_trees_that_differ(world: dist.Group) -> None:
    """With the same number of elements under other names."""
    needs_peers(world)
    group = world.split(0)
    averaged = dist.average_gradients({"a" if world.rank() else "b": mx.ones(3)}, group)
    with pytest.raises(RuntimeError, match=r"the ranks differ(.|\n)*of tree [0-9a-f]{8}"):
        mx.eval(averaged)


@pytest.mark.parametrize("wire", ["bfloat16", "float16"])
def test_wire(world: dist.Group, wire: Any) -> None:
    """Lazy as without; in one host the bits are the same."""
    tree: list[Any] = [drawn(world.rank(), dtype) for dtype in ("float32", "float16", "int32")]
    if _core.local_size()[0] < world.size():
        tree = tree[1:]
    exact, crossed = dist.average_gradients(tree), dist.average_gradients(tree, wire=wire)
    assert [bits(x) for _, x in tree_flatten(crossed)] == [bits(x) for _, x in tree_flatten(exact)]
    if world.rank() == 0:
        dist.average_gradients([mx.ones(3)], wire=wire)


@pytest.mark.skipif(MLX < (0, 32, 2), reason="this MLX ends the process on an error in evaluation")
def test_wires_that_differ(world: dist.Group) -> None:
    needs_peers(world)
    averaged = dist.average_gradients(mx.ones(3), world.split(0), wire=None if world.rank() else "bfloat16")
    with pytest.raises(RuntimeError, match=r"float32 \(3,\) of tree [0-9a-f]{8} as bfloat16 between hosts"):
        mx.eval(averaged)


def test_too_long(world: dist.Group) -> None:
    """Rejected before NumPy arrays of the same tree communicate."""
    needs_peers(world)
    x = np.full(3, float(world.rank()))
    huge = mx.broadcast_to(mx.array(1.0), (2**16, 2**16))  # not evaluated, and nothing is allocated
    with pytest.raises(ValueError, match=r"^\[average_gradients\] the array has 4294967296 elements"):
        dist.average_gradients([x, huge])
    assert x.tolist() == [world.rank()] * 3
