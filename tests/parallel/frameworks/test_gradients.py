"""average_gradients of PyTorch and JAX arrays, alone and together with NumPy arrays."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from parallel.frameworks.kinds import KINDS, Kind, kind_of
from parallel.reference import WITH_MEAN, assert_same, mean, values
from parallel.refused import SIZE, assert_refused, case
from parallel.ring import needs_peers

import mlxdist as dist

SHAPES = ((), (0,), (5,), (2, 3), (2, 0, 3), (300, 300))
SIZES = {"each": 0, "tiny": 30, "default": 32 * 1024**2}


@functools.cache
def expected_of(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return mean([values(name, shape, rank) for rank in range(SIZE)])


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return kind_of(request.param)


@pytest.mark.parametrize("all_reduce_size", SIZES.values(), ids=SIZES)
def test_every_dtype_shape_and_view(world: dist.Group, kind: Kind, all_reduce_size: int) -> None:
    """Together with NumPy arrays. Floating-point tensors are averaged in place, even if not in C order."""
    tree: dict[tuple[str, tuple[int, ...], str], Any] = {}
    for name in WITH_MEAN:
        for shape in SHAPES[: len(SHAPES) if name in ("float32", "bfloat16") else -1]:
            mine = values(name, shape, world.rank())
            tree[name, shape, "numpy"] = mine.copy()
            tree |= {(name, shape, view): made(mine) for view, made in kind.views.items()}
    averaged = dist.average_gradients(tree, all_reduce_size=all_reduce_size)
    for (name, shape, view), given in tree.items():
        result = averaged[name, shape, view]
        expected = expected_of(name, shape)
        if given is None:
            assert result is None
        elif view == "numpy":
            assert_same(result, expected)
        else:
            assert isinstance(result, kind.cls)
            assert_same(np.array(kind.elements(result), order="C"), expected)
            assert (result is given) == (kind.is_mutable or SIZE == 1)
            if not kind.is_mutable:
                assert_same(np.array(kind.elements(given), order="C"), values(name, shape, world.rank()))


def test_ranks_may_hold_a_leaf_in_different_frameworks(world: dist.Group) -> None:
    """Each rank another one: they share a reduction all the same."""
    made: list[Any] = [np.copy, *(kind_of(name).views["contiguous"] for name in KINDS)]
    tree = [made[(world.rank() + place) % len(made)](np.full(10, place + 10.0 * world.rank())) for place in range(7)]
    averaged = dist.average_gradients(tree)
    for place, (given, result) in enumerate(zip(tree, averaged, strict=True)):
        assert type(result) is type(given)
        assert np.asarray(result).tolist() == [place + 5.0 * (SIZE - 1)] * 10


def test_wires_that_differ(world: dist.Group, kind: Kind) -> None:
    """The wire reaches the call from every framework."""
    needs_peers(world)
    x = kind.views["contiguous"](np.ones(3, "f4"))
    with pytest.raises(dist.MismatchError, match=r"float32 \(3,\) of tree [0-9a-f]{8} as float16 between hosts"):
        dist.average_gradients(x, world.split(0), wire=None if world.rank() else "float16")


def test_gradients_of_torch(world: dist.Group) -> None:
    """Gradients as backward() leaves them, possibly expanded tensors; one parameter has none."""
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
    parameters = [torch.zeros(4, 3, requires_grad=True), torch.zeros(3, requires_grad=True), torch.zeros(1)]
    x = torch.full((2, 4), float(world.rank()))
    (x @ parameters[0] + parameters[1]).sum().backward()
    averaged = dist.average_gradients([parameter.grad for parameter in parameters])
    assert averaged[2] is None
    for parameter, result, expected in zip(parameters[:2], averaged, (float(SIZE - 1), 2.0), strict=False):
        assert result is parameter.grad
        assert set(result.flatten().tolist()) == {expected}
    (expanded,) = torch.autograd.grad(parameters[1].sum() * world.rank(), parameters[1])
    assert 0 in expanded.stride()
    assert dist.average_gradients([expanded])[0].tolist() == [(SIZE - 1) / 2] * 3


def test_torch_is_told_of_writing() -> None:
    """Otherwise backward() would continue with values other than those it saved."""
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
    if SIZE == 1:
        pytest.skip("a group of one writes nothing")
    for saved in (torch.ones(4, 4), torch.ones(4, 4).t(), torch.ones(600, 600)):
        loss = (torch.ones_like(saved, requires_grad=True) * saved).sum()
        dist.average_gradients([saved, torch.ones(3)])
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_refused() -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
    parameter, run = torch.zeros(3, requires_grad=True), dist.average_gradients
    text = r"x requires grad, .*: pass x.detach\(\), .*; x is gradients\['w'\]"
    assert_refused([case("average_gradients", text, TypeError, run, {"v": torch.ones(3), "w": parameter})])


def test_integers_are_refused(kind: Kind) -> None:
    cases = []
    for name in ("bool", "uint8", "int32", "int64"):
        x = kind.views["contiguous"](np.ones(3, name))
        text = f"x has dtype {name}, which cannot hold a mean: pass floating-point numbers; x is gradients"
        cases.append(case("average_gradients", text, TypeError, dist.average_gradients, [np.ones(3), x]))
    assert_refused(cases)


def test_jax_arrays_are_laid_out_as_jax_likes(world: dist.Group) -> None:
    jax: Any = pytest.importorskip("jax", reason="JAX is not installed")
    tree = {"a": jax.numpy.full((3, 4), world.rank(), "float32"), "b": jax.numpy.arange(5.0)}
    averaged = dist.average_gradients(tree)
    assert averaged["a"].sharding == tree["a"].sharding
    assert jax.jit(lambda tree: tree["a"].sum() + tree["b"].sum())(averaged) == 12 * (SIZE - 1) / 2 + 10
