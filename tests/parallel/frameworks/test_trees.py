"""Trees of PyTorch and JAX: state_dicts, parameters, and containers that are registered with jax.tree_util."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from parallel.refused import SIZE, assert_refused, case
from parallel.ring import needs_peers

import mlxdist as dist


def model(rank: int) -> Any:
    """With leaves of several dtypes, among them numbers without dimensions."""
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(rank)
    made = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 300))
    made[1].num_batches_tracked.fill_(rank)
    return made


def test_a_state_dict(world: dist.Group) -> None:
    """Its class, keys and versions; what load_state_dict takes."""
    mine, theirs = model(world.rank()), model(SIZE - 1)
    state = mine.state_dict()
    result = dist.broadcast(state, SIZE - 1)
    assert (type(result), list(result)) == (type(state), list(state))
    assert result._metadata == state._metadata
    mine.load_state_dict(result)
    for name, expected in theirs.state_dict().items():
        assert mine.state_dict()[name].equal(expected), name
        assert result[name].dtype == expected.dtype


def test_parameters_under_no_grad(world: dist.Group) -> None:
    """They are read and written; with gradients on they are refused, one by one and in trees."""
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
    parameters = dict(model(world.rank()).named_parameters())
    each = [dict(model(rank).named_parameters()) for rank in range(SIZE)]
    first = parameters["0.weight"]
    with torch.no_grad():
        total = dist.all_sum(first)
        assert torch.equal(total, sum(named["0.weight"] for named in each)) or SIZE > 2
        assert not total.requires_grad or SIZE == 1
        assert dist.broadcast(parameters, SIZE - 1, out=parameters) is parameters
        for name, expected in each[-1].items():
            assert torch.equal(parameters[name], expected), name
            assert type(parameters[name]) is torch.nn.Parameter
            assert parameters[name].requires_grad
        assert dist.all_sum(first, out=first) is first
        assert torch.allclose(first, SIZE * each[-1]["0.weight"])
        assert dist.average_gradients([first])[0] is first
    (first.sum() * 2).backward()
    assert set(first.grad.flatten().tolist()) == {2.0}
    text = r"x requires grad, .*: pass x.detach\(\), or call it under torch.no_grad\(\)"
    assert_refused(
        [
            case("all_sum", text, TypeError, dist.all_sum, first),
            case("broadcast", rf"{text}; x is x\[0\]$", TypeError, dist.broadcast, [first], 0),
            case("all_sum", text.replace("x", "out"), TypeError, dist.all_sum, first.detach(), out=first),
        ]
    )


def test_autograd_is_told_of_parameters_that_change() -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, weight = torch.ones(3, requires_grad=True), torch.nn.Parameter(torch.ones(3))
    loss = (x * weight).sum()
    with torch.no_grad():
        dist.broadcast([weight], 0, out=[weight])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@dataclass
class Layer:
    weight: Any
    bias: Any
    activation: Any  # not a child: it stays


class Scaled:
    """Registered without names."""

    def __init__(self, factor: Any, inner: Any) -> None:
        self.factor, self.inner = factor, inner


@pytest.fixture(scope="module")
def jnp() -> Any:
    jax: Any = pytest.importorskip("jax", reason="JAX is not installed")
    jax.tree_util.register_dataclass(Layer, data_fields=["weight", "bias"], meta_fields=["activation"])
    jax.tree_util.register_pytree_node(
        Scaled, lambda x: ((x.factor, x.inner), None), lambda _, children: Scaled(*children)
    )
    return jax.numpy


def network(jnp: Any, rank: int) -> dict[str, Any]:
    layer = Layer(jnp.full((2, 3), rank, "float32"), None, np.tanh)
    return {"a": Scaled(np.full(3, float(rank)), [layer]), "b": (jnp.arange(4.0, dtype="float32") + rank,)}


def test_registered_containers(world: dist.Group, jnp: Any) -> None:
    """Come back as what they are, with what is not a child."""
    for result, expected in (
        (dist.broadcast(network(jnp, world.rank()), SIZE - 1), SIZE - 1.0),
        (dist.average_gradients(network(jnp, world.rank())), (SIZE - 1) / 2),
    ):
        assert type(result["a"]) is Scaled
        assert result["a"].factor.tolist() == [expected] * 3
        (layer,) = result["a"].inner
        assert type(layer) is Layer
        assert layer.weight.tolist() == [[expected] * 3] * 2
        assert (layer.bias, layer.activation) == (None, np.tanh)
        assert result["b"][0].tolist() == [expected + i for i in range(4)]
    whole = dist.broadcast(Layer(jnp.full(3, world.rank()), None, None), 0)  # alone, not in a dict
    assert whole.weight.tolist() == [0] * 3


def test_leaves_of_registered_containers_have_names(jnp: Any) -> None:
    wrong = {"a": Layer(jnp.ones(3), "w", None)}
    assert_refused(
        [
            case("broadcast", r"str is not an array: .*; x is x\['a'\].bias$", TypeError, dist.broadcast, wrong, 0),
            case("average_gradients", r"; x is gradients\['a'\].bias$", TypeError, dist.average_gradients, wrong),
        ]
    )


def test_registered_containers_that_differ(world: dist.Group, jnp: Any) -> None:
    needs_peers(world)
    x = jnp.ones(3)
    trees = (Layer(x, None, None), Layer(None, x, None), [x, None], Scaled(x, None))
    for run in (lambda tree, group: dist.broadcast(tree, 0, group=group), dist.average_gradients):
        for other in trees[1:]:
            with pytest.raises(dist.MismatchError, match=r"the ranks differ(.|\n)* of tree [0-9a-f]{8}"):
                run(other if world.rank() else trees[0], world.split(0))
