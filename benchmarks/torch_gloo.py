"""torch.distributed on mlxdist and on gloo, in turns in the same program; the results must agree.

mpirun -np 2 python benchmarks/torch_gloo.py [--calls all_reduce,send] [--sizes 4,64M] [--seconds 1] [--best]

For each call and size a row: the median over rounds of the slowest rank's time per call, for each backend, and how many
times faster mlxdist is. "DDP step" is forward, backward and optimizer of a model with that many bytes of parameters.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as c10d

import mlxdist.torch

ROUNDS = 15
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def nbytes_of(text: str) -> int:
    """The bytes in "64M"."""
    number = text.rstrip("KMG")
    return int(number) * UNITS[text[len(number) :]]


def floats(nbytes: int) -> Any:
    """Whole numbers, so that sums in any order agree; a multiple of the ranks in all."""
    size = c10d.get_world_size()
    count = max(nbytes // 4, 1)
    return torch.arange(-(-count // size) * size, dtype=torch.float32) % 7


def all_reduce(group: Any, nbytes: int) -> tuple[Callable[[], Any], Any]:
    """In place."""
    x = torch.zeros(max(nbytes // 4, 1))
    return lambda: c10d.all_reduce(x, group=group), x


def all_gather(group: Any, nbytes: int) -> tuple[Callable[[], Any], Any]:
    """From equal parts."""
    whole = floats(nbytes)
    part = whole.chunk(c10d.get_world_size())[c10d.get_rank()].clone()
    return lambda: c10d.all_gather_into_tensor(whole, part, group=group), whole


def reduce_scatter(group: Any, nbytes: int) -> tuple[Callable[[], Any], Any]:
    """Into equal parts."""
    whole = floats(nbytes)
    part = torch.zeros(whole.numel() // c10d.get_world_size())
    return lambda: c10d.reduce_scatter_tensor(part, whole, group=group), part


def broadcast(group: Any, nbytes: int) -> tuple[Callable[[], Any], Any]:
    """From rank 0."""
    x = floats(nbytes)
    return lambda: c10d.broadcast(x, 0, group=group), x


def all_to_all(group: Any, nbytes: int) -> tuple[Callable[[], Any], Any]:
    """Equal parts."""
    x = floats(nbytes)
    output = torch.zeros_like(x)
    return lambda: c10d.all_to_all_single(output, x, group=group), output


def send(group: Any, nbytes: int) -> tuple[Callable[[], Any], Any]:
    """There and back, between ranks 0 and 1."""
    x, rank = floats(nbytes), c10d.get_rank()

    def run() -> None:
        if rank < 2:
            (c10d.send if rank == 0 else c10d.recv)(x, 1 - rank, group)
            (c10d.recv if rank == 0 else c10d.send)(x, 1 - rank, group)

    return run, x


def ddp(group: Any, nbytes: int) -> tuple[Callable[[], Any], Any]:
    """Forward, backward and optimizer."""
    width = max(int((nbytes / 4 / 4) ** 0.5), 1)
    torch.manual_seed(0)
    layers = [torch.nn.Linear(width, width, bias=False) for _ in range(4)]
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(*layers), process_group=group)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x = torch.ones(4, width)

    def run() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return run, torch.nn.utils.parameters_to_vector(model.parameters()).detach()


CALLS = {
    "all_reduce": all_reduce,
    "all_gather": all_gather,
    "reduce_scatter": reduce_scatter,
    "broadcast": broadcast,
    "all_to_all": all_to_all,
    "send": send,
    "DDP step": ddp,
}


def slowest_s(spent_s: float) -> float:
    """Of all ranks."""
    slowest = torch.tensor(spent_s, dtype=torch.float64)
    c10d.all_reduce(slowest, c10d.ReduceOp.MAX)
    return float(slowest)


def timed_s(run: Callable[[], Any], repeats: int) -> float:
    """The slowest rank's time for one call."""
    c10d.barrier()
    began_s = time.perf_counter()
    for _ in range(repeats):
        run()
    return slowest_s(time.perf_counter() - began_s) / repeats


def main() -> None:
    """Print a row for each call and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", default=",".join(CALLS))
    parser.add_argument("--sizes", default="4,4K,256K,4M,64M")
    parser.add_argument("--seconds", type=float, default=1, help="for each row and backend")
    parser.add_argument("--best", action="store_true", help="the best round instead of the median: on a busy machine")
    options = parser.parse_args()
    statistic = min if options.best else statistics.median
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    c10d.init_process_group("mlxdist")
    backends = {"mlxdist": None, "gloo": c10d.new_group(backend="gloo")}
    if c10d.get_rank() == 0:
        print(f"torch {torch.__version__}, {c10d.get_world_size()} ranks, {mlxdist.info().version}")
        print(f"{'call':16}{'bytes':>10}{'mlxdist, us':>14}{'gloo, us':>12}{'times':>8}", flush=True)
    for call in options.calls.split(","):
        for size in options.sizes.split(","):
            made = {name: CALLS[call](group, nbytes_of(size)) for name, group in backends.items()}
            repeats = {}
            for name, (run, _) in made.items():
                timed_s(run, 2)
                repeats[name] = max(1, int(options.seconds / ROUNDS / max(timed_s(run, 3), 1e-6)))
            times_s: dict[str, list[float]] = {name: [] for name in made}
            for _ in range(ROUNDS):
                for name, (run, _) in made.items():
                    times_s[name].append(timed_s(run, repeats[name]))
            results = [result for _, result in made.values()]
            if call != "DDP step" and not torch.equal(*results):
                raise SystemExit(f"{call} of {size}: the results of mlxdist and gloo differ")
            ours_us, gloos_us = (statistic(times_s[name]) * 1e6 for name in made)
            if c10d.get_rank() == 0:
                print(f"{call:16}{size:>10}{ours_us:14.1f}{gloos_us:12.1f}{gloos_us / ours_us:8.1f}", flush=True)
    c10d.destroy_process_group()


if __name__ == "__main__":
    main()
