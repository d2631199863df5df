"""mlx.nn, unchanged, on mlxdist's groups: averaged gradients, data-parallel training, sharded layers."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import mlxdist as dist

mx: Any = pytest.importorskip("mlx.core", reason="MLX is not installed")
nn: Any = pytest.importorskip("mlx.nn")
optim: Any = pytest.importorskip("mlx.optimizers")
tree_flatten: Any = pytest.importorskip("mlx.utils").tree_flatten
dist.install()

SAMPLES = 24  # divisible by 1, 2, 3 and 4, like the widths of the layers
STEPS = 4


class MLP(nn.Module):  # type: ignore[misc]
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.first = nn.Linear(12, 24, bias)
        self.second = nn.Linear(24, 12, bias)

    def __call__(self, x: Any) -> Any:
        return self.second(mx.tanh(self.first(x)))


def model(bias: bool) -> MLP:
    mx.random.seed(7)  # the same on every rank
    return MLP(bias)


def samples() -> tuple[Any, Any]:
    random = np.random.default_rng(7)
    x = random.normal(size=(SAMPLES, 12))
    return mx.array(x, dtype=mx.float32), mx.array(np.sin(x), dtype=mx.float32)


def loss_of(network: Any, x: Any, y: Any) -> Any:
    return nn.losses.mse_loss(network(x), y)


def train(x: Any, y: Any, average: Any, transform: Any) -> tuple[list[float], dict[str, np.ndarray]]:
    network, optimizer = model(bias=False), optim.SGD(learning_rate=0.5)
    state = [network.state, optimizer.state]

    @functools.partial(transform, inputs=state, outputs=state)
    def step(x: Any, y: Any) -> Any:
        loss, gradients = nn.value_and_grad(network, loss_of)(network, x, y)
        optimizer.update(network, average(gradients))
        return average({"loss": loss})["loss"]

    losses = []
    for _ in range(STEPS):
        losses.append(step(x, y).item())
        mx.eval(state)
    return losses, {name: np.array(value) for name, value in tree_flatten(network.parameters())}


AVERAGES = pytest.mark.parametrize(
    "average", [nn.average_gradients, dist.average_gradients], ids=["mlx.nn's", "mlxdist's"]
)


@AVERAGES
@pytest.mark.parametrize("all_reduce_size", [0, 100, 32 * 1024**2], ids=["each", "small buckets", "one bucket"])
def test_average_gradients(world: dist.Group, average: Any, all_reduce_size: int) -> None:
    def gradients(rank: int) -> dict[str, Any]:
        random = np.random.default_rng(rank)
        return {"a": random.normal(size=(5, 3)), "b": [random.normal(size=7), {"c": random.normal(size=(2, 2))}]}

    def as_mlx(tree: Any) -> Any:
        return nn.utils.tree_map(lambda leaf: mx.array(leaf, dtype=mx.float32), tree)

    averaged = average(as_mlx(gradients(world.rank())), all_reduce_size=all_reduce_size)
    everybodys = [tree_flatten(gradients(rank)) for rank in range(world.size())]
    for name, value in tree_flatten(averaged):
        expected = np.mean([dict(leaves)[name] for leaves in everybodys], axis=0)
        np.testing.assert_allclose(np.array(value), expected, rtol=1e-5, atol=1e-6)


@AVERAGES
def test_data_parallel_training_is_full_batch_training(world: dist.Group, average: Any) -> None:
    if world.size() > 2:
        pytest.skip("the same on 2 ranks, where it takes less long")
    x, y = samples()
    mine = slice(world.rank(), None, world.size())
    losses, parameters = train(x[mine], y[mine], average, mx.compile)
    full_losses, full_parameters = train(x, y, lambda gradients: gradients, lambda step, **state: step)
    np.testing.assert_allclose(losses, full_losses, rtol=1e-5)
    assert full_losses[-1] < 0.9 * full_losses[0]
    for name, value in parameters.items():
        np.testing.assert_allclose(value, full_parameters[name], rtol=1e-4, atol=1e-6, err_msg=name)
        assert dist.all_max(value).tobytes() == dist.all_min(value).tobytes() == value.tobytes()  # on all ranks
    assert dist.all_max(np.array(losses)).tolist() == dist.all_min(np.array(losses)).tolist() == losses


def test_sharded_layers(world: dist.Group) -> None:
    x, y = samples()
    whole = model(bias=True)
    sharded = model(bias=True)
    sharded.first = nn.layers.distributed.shard_linear(sharded.first, "all-to-sharded", group=world.mlx)
    sharded.second = nn.layers.distributed.shard_linear(sharded.second, "sharded-to-all", group=world.mlx)
    assert sharded.first.weight.shape == (24 // world.size(), 12)
    np.testing.assert_allclose(np.array(sharded(x)), np.array(whole(x)), rtol=1e-4, atol=1e-6)

    def by_x(network: MLP) -> Any:
        return mx.grad(lambda x: loss_of(network, x, y))(x)

    np.testing.assert_allclose(np.array(by_x(sharded)), np.array(by_x(whole)), rtol=1e-4, atol=1e-6)
    shards = nn.value_and_grad(sharded, loss_of)(sharded, x, y)[1]["first"]["weight"]
    expected = nn.value_and_grad(whole, loss_of)(whole, x, y)[1]["first"]["weight"]
    part = np.split(np.array(expected), world.size())[world.rank()]
    np.testing.assert_allclose(np.array(shards), part, rtol=1e-4, atol=1e-6)
