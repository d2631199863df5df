"""What mlx_backend.py runs on each rank: `python benchmarks/mlx_cases.py mlx|mlxdist MODEL [KIND ...]`.

MODEL is a directory filled by examples/lora_tiny_model.py. Rank 0 prints seconds and results for each case, as JSON.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

if sys.argv[1] == "mlxdist":
    import mlxdist

    mlxdist.install()

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.nn.layers.distributed import shard_linear
from mlx.utils import tree_flatten

Case = tuple[str, float, list[float]]  # name, seconds per call, resulting numbers
REPEATS = {4: 1000, 1 << 20: 50, 64 << 20: 6}  # calls in a row, by number of bytes


def quick_s(repeats: int, call: Callable[[], Any]) -> float:
    """The 10th percentile of the time of a call. The first call compiles and is not counted."""
    mx.eval(call())
    times_s = []
    for _ in range(repeats):
        begun_s = time.perf_counter()
        mx.eval(call())
        times_s.append(time.perf_counter() - begun_s)
    return statistics.quantiles(times_s, n=10)[0]


def norms(tree: Any) -> list[float]:
    """The norm of each array."""
    return [mx.linalg.norm(x.astype(mx.float32)).item() for _, x in tree_flatten(tree)]


def all_sums(group: mx.distributed.Group) -> Iterator[Case]:
    """A single reduction, of several lengths and dtypes."""
    for dtype in (mx.float32, mx.float16, mx.bfloat16):
        for nbytes, repeats in REPEATS.items():
            x = mx.random.normal((max(1, nbytes // dtype.size),)).astype(dtype) * (group.rank() + 1)
            mx.eval(x)
            spent_s = quick_s(repeats, lambda x=x: mx.distributed.all_sum(x))
            yield f"all_sum {dtype} {nbytes} B".replace("mlx.core.", ""), spent_s, norms(mx.distributed.all_sum(x))


def short_calls(group: mx.distributed.Group) -> Iterator[Case]:
    """One number in each operation, where what Python and MLX do around it takes longest."""
    x, other = mx.full((1,), float(group.rank() + 1)), group.rank() ^ 1
    mx.eval(x)

    def there_and_back() -> Any:
        if group.rank() % 2 == 0:
            mx.eval(mx.distributed.send(x, other))
            return mx.distributed.recv((1,), x.dtype, other)
        received = mx.distributed.recv((1,), x.dtype, other)
        mx.eval(received)
        return mx.distributed.send(received, other)

    calls = {
        "all_sum 4 B": lambda: mx.distributed.all_sum(x),
        "all_gather 4 B": lambda: mx.distributed.all_gather(x),
        "mlxdist.all_sum 4 B": lambda: (mlxdist if sys.argv[1] == "mlxdist" else mx.distributed).all_sum(x),
    }
    if group.size() % 2 == 0:
        calls["send and recv 4 B, there and back"] = there_and_back
    for name, call in calls.items():
        yield name, quick_s(4000, call), norms(call())


def averages(group: mx.distributed.Group) -> Iterator[Case]:
    """Many small gradients, and a few large ones."""
    for count, length in ((200, 64), (10, 1 << 18)):
        for dtype in (mx.float32, mx.float16):
            tree = {
                f"layer {i}": (mx.random.normal((length,)) * (group.rank() + 1)).astype(dtype) for i in range(count)
            }
            mx.eval(tree)
            name = f"nn.average_gradients {count} of {length} {dtype}".replace("mlx.core.", "")
            yield (
                name,
                quick_s(2000 // count, lambda tree=tree: nn.average_gradients(tree)),
                norms(nn.average_gradients(tree)),
            )


def compiled_step(group: mx.distributed.Group) -> Iterator[Case]:
    """Data-parallel training; the results are the final weights."""
    model = nn.Sequential(nn.Linear(256, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 10))
    optimizer = optim.SGD(0.01, momentum=0.9)
    images, labels = mx.random.normal((64, 256)), mx.random.randint(0, 10, (64,))
    mine = slice(group.rank(), None, group.size())
    gradients_of = nn.value_and_grad(model, lambda x, y: nn.losses.cross_entropy(model(x), y, reduction="mean"))
    state = [model.state, optimizer.state]

    @functools.partial(mx.compile, inputs=state, outputs=state)
    def step(x: mx.array, y: mx.array) -> mx.array:
        loss, gradients = gradients_of(x, y)
        optimizer.update(model, nn.average_gradients(gradients))
        return mx.distributed.all_sum(loss) / group.size()

    def whole() -> Any:
        return step(images[mine], labels[mine]), state

    yield "compiled data parallel step", quick_s(100, whole), norms(model.parameters())


def sharded_layers(group: mx.distributed.Group) -> Iterator[Case]:
    """Forward, and forward and backward, through pairs of layers that are sharded over the ranks."""
    layers = [nn.Linear(512, 512) for _ in range(8)]
    for place, kind in enumerate(["all-to-sharded", "sharded-to-all"] * 4):
        layers[place] = shard_linear(layers[place], kind)
    model = nn.Sequential(*layers)
    x = mx.random.normal((8, 512))
    yield "sharded layers", quick_s(200, lambda: model(x)), norms(model(x))
    gradients_of = nn.value_and_grad(model, lambda x: model(x).square().sum())
    yield "sharded layers, gradients", quick_s(100, lambda: gradients_of(x)), [gradients_of(x)[0].item()]


def lora(group: mx.distributed.Group) -> Iterator[Case]:
    """Training by mlx-lm itself; the results are the losses that it reports."""
    from mlx_lm import lora as command
    from mlx_lm.tuner.callbacks import TrainingCallback

    class Reports(TrainingCallback):
        def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
            speeds.append(train_info["iterations_per_second"])
            losses.append(train_info["train_loss"])

    speeds: list[float] = []
    losses: list[float] = []
    wanted = {"model": sys.argv[2], "data": sys.argv[2], "adapter_path": f"{sys.argv[2]}/adapters", "iters": 60}
    wanted |= {"optimizer": "sgd", "learning_rate": 0.01, "num_layers": 2, "save_every": 1000, "steps_per_report": 5}
    np.random.seed(0)  # the order of the batches
    args = SimpleNamespace(**command.CONFIG_DEFAULTS | wanted)
    model, tokenizer = command.load(args.model)
    train_set, valid_set, _ = command.load_dataset(args, tokenizer)
    command.train_model(args, model, train_set, valid_set, Reports())
    yield "LoRA", 1 / max(speeds), losses


KINDS = {
    "short": short_calls,
    "sums": all_sums,
    "averages": averages,
    "compiled": compiled_step,
    "sharded": sharded_layers,
    "lora": lora,
}


def main() -> None:
    """Run on each rank."""
    group = mx.distributed.init(strict=True, backend="mpi")
    own = Path(sys.argv[2], str(group.rank()))  # for MLX's kernels: ranks must not write the same file at the same time
    own.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = str(own)
    results = {}
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):  # mlx-lm's tables
        for kind in sys.argv[3:] or KINDS:
            mx.random.seed(0)
            results |= {name: (spent_s, numbers) for name, spent_s, numbers in KINDS[kind](group)}
    if group.rank() == 0:
        print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
