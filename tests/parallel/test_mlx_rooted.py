"""all_to_all, gather, scatter and reduce of MLX arrays: lazy, compiled, differentiated, vmapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parallel.reference import values
from parallel.refused import RANK, SIZE, WORLD, assert_refused, case
from parallel.rooted import ROOTED, rooted_of

import mlxdist as dist

mx: Any = pytest.importorskip("mlx.core", reason="MLX is not installed")

DTYPES = ("bool", "int8", "uint64", "float16", "float32", "complex64")
each_call = pytest.mark.parametrize("call", rooted_of("float32"))
each_root = pytest.mark.parametrize("root", sorted({0, SIZE - 1}))
Numbers = np.ndarray


def same(actual: Any, expected: Numbers) -> None:
    np.testing.assert_array_equal(np.array(actual), expected)


def inputs(call: str, shape: tuple[int, ...], name: str = "float32") -> list[Numbers]:
    return [values(name, ROOTED[call].shape(shape, SIZE), rank) for rank in range(SIZE)]


def integers(shape: tuple[int, ...]) -> list[Numbers]:
    return [np.random.default_rng(rank).integers(-9, 9, shape).astype(np.float32) for rank in range(SIZE)]


@pytest.mark.parametrize("call", ROOTED)
@pytest.mark.parametrize("name", DTYPES)
def test_values(world: dist.Group, call: str, name: str) -> None:
    if call not in rooted_of(name):
        return
    for shape in ((), (3,), (2, 3), (5000, 3)):
        for root in range(SIZE):
            each = inputs(call, shape, name)
            expected = ROOTED[call].expected(each, RANK, root)
            x = mx.array(each[RANK])
            result = ROOTED[call].run(x, root)
            assert result.dtype == x.dtype
            same(result, each[RANK] if expected is None else expected)


@each_call
def test_lazy_and_compiled(world: dist.Group, call: str) -> None:
    each = inputs(call, (2, 3))
    expected = ROOTED[call].expected(each, RANK, 0)
    x = mx.array(each[RANK])
    if RANK == 0:
        ROOTED[call].run(x * 2, 0)  # dropped, so it does not communicate
    run = mx.compile(lambda x: ROOTED[call].run(x, 0) + 0)
    for _ in range(2):
        same(run(x), each[RANK] if expected is None else expected)


# What a rank gets of the cotangents of all, and the shape of the cotangent at the root and elsewhere.
GRADIENTS: dict[str, tuple[Callable[[list[Numbers], int], Numbers], tuple[int, ...], tuple[int, ...]]] = {
    "all_to_all": (
        lambda cs, root: np.concatenate([np.split(c, SIZE)[RANK] for c in cs]),
        (2 * SIZE, 3),
        (2 * SIZE, 3),
    ),
    "gather": (lambda cs, root: np.split(cs[root], SIZE)[RANK], (2 * SIZE, 3), (2, 3)),
    "scatter": (lambda cs, root: np.concatenate(cs) if root == RANK else np.zeros((2 * SIZE, 3)), (2, 3), (2, 3)),
    "reduce all_sum": (lambda cs, root: cs[root], (2, 3), (2, 3)),
}


@each_root
@pytest.mark.parametrize("call", GRADIENTS)
def test_gradients(world: dist.Group, call: str, root: int) -> None:
    """The gradient of the sum of all ranks' results, each with a factor for every element."""
    expected, at_root, elsewhere = GRADIENTS[call]
    cotangents = [
        np.random.default_rng(rank + 5).integers(-9, 9, at_root if rank == root else elsewhere).astype(np.float32)
        for rank in range(SIZE)
    ]
    x = mx.array(integers(ROOTED[call].shape((2, 3), SIZE))[RANK])
    _, (gradient,) = mx.vjp(lambda x: ROOTED[call].run(x, root), [x], [mx.array(cotangents[RANK])])
    same(gradient, expected(cotangents, root))


@each_call
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_vmap(world: dist.Group, call: str, axis: int) -> None:
    """As a loop over the axis."""
    each = [np.moveaxis(x, -1, axis) for x in integers((*ROOTED[call].shape((2,), SIZE), 3, 4))]

    def run(x: Any) -> Any:
        return ROOTED[call].run(x, SIZE - 1)

    x = mx.array(each[RANK])
    mapped = mx.vmap(run, in_axes=axis)(x)
    looped = mx.stack([run(mx.take(x, i, axis)) for i in range(4)])
    same(mapped, np.array(looped))


def test_what_has_no_gradient() -> None:
    def run() -> Any:
        return mx.grad(lambda x: dist.reduce(x, 0, op="max").sum())(mx.ones(3))

    with pytest.raises(ValueError, match=r'^\[reduce\] op="max" has no gradient: pass op="sum"'):
        run()


def test_refused() -> None:
    x = mx.ones(2 * SIZE)
    cannot = "MLX's arrays cannot be written to: use the result instead of out="
    assert_refused(
        [
            case("gather", f"dst={SIZE} is not in the group", ValueError, dist.gather, x, SIZE),
            case("scatter", "axis 0 is not divisible", ValueError, dist.scatter, mx.array(1.0), 0),
            case("all_to_all", cannot, TypeError, dist.all_to_all, x, out=x),
            case("reduce", "op='mean' is not a reduction", ValueError, dist.reduce, x, 0, op="mean"),
        ]
    )


def test_groups(world: dist.Group) -> None:
    """A part of the world, and MLX's group of it."""
    part = WORLD.split(RANK % 2)
    theirs = dist.all_to_all(mx.full(part.size(), RANK), group=part)
    same(theirs, np.arange(RANK % 2, SIZE, 2))
