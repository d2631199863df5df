"""Compare average_gradients in buckets with one reduction for each array, in turns; the results must agree.

mpirun -np 2 python benchmarks/gradients.py [--arrays 200] [--elements 64] [--rounds 300]

Each figure is the median over rounds of the slowest rank. If MLX is installed it is measured too; its results are
evaluated immediately.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import mlxdist as dist

DTYPES = {"float32": ["float32"], "float16": ["float16"], "float32 and float16": ["float32", "float16"]}


def drawn(dtypes: list[str], arrays: int, elements: int, rank: int) -> dict[str, np.ndarray]:
    """Different numbers on every rank."""
    random = np.random.default_rng(rank)
    return {
        f"layer {place}": random.normal(size=elements).astype(dtypes[place % len(dtypes)]) for place in range(arrays)
    }


def one_by_one(tree: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a program would do without average_gradients."""
    size = dist.init().size()
    for x in tree.values():
        dist.all_sum(x, out=x)
        x /= size
    return tree


def mlx_backends() -> dict[str, Callable[[Any], Any]]:
    """Empty if MLX is not installed."""
    try:
        import mlx.core as mx
        import mlx.nn as nn
    except ImportError:
        return {}
    dist.install()

    def evaluated(average: Callable[..., Any], size: int) -> Callable[[Any], Any]:
        def run(tree: Any) -> Any:
            result = average(tree, all_reduce_size=size)
            mx.eval(result)
            return result

        return run

    return {
        "MLX: in buckets": evaluated(dist.average_gradients, 32 * 1024**2),
        "MLX: mlx.nn.average_gradients": evaluated(nn.average_gradients, 32 * 1024**2),
        "MLX: a reduction for each": evaluated(nn.average_gradients, 0),
    }


def made_by_mlx(x: np.ndarray) -> Any:
    """The same numbers as an mx.array."""
    import mlx.core as mx

    return mx.array(x)


def medians_us(backends: dict[str, Callable[[Any], Any]], trees: dict[str, Any], rounds: int) -> dict[str, float]:
    """Run in turns, so that a disturbance affects all, and in random order: whatever runs after MLX takes longer."""
    times_s = np.zeros((rounds, len(backends)))
    names = list(backends)
    for turn in range(rounds):
        for place in np.random.default_rng(turn).permutation(len(names)):
            run, tree = backends[names[place]], trees[names[place]]
            dist.barrier()
            start_s = time.perf_counter()
            run(tree)
            times_s[turn, place] = time.perf_counter() - start_s
    return dict(zip(names, np.median(dist.all_max(times_s), axis=0) * 1e6, strict=True))


def main() -> None:
    """Print a table for each mix of dtypes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arrays", type=int, default=200)
    parser.add_argument("--elements", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    world = dist.init()
    numpy_ways = {
        "in buckets": dist.average_gradients,
        "all_sum and division of each": one_by_one,
        "all_reduce_size=0": lambda tree: dist.average_gradients(tree, all_reduce_size=0),
    }
    mlx_ways = mlx_backends()
    for label, dtypes in DTYPES.items():
        numbers = drawn(dtypes, options.arrays, options.elements, world.rank())
        if world.rank() == 0:
            print(f"{options.arrays} arrays of {options.elements} {label}, {world.size()} ranks", flush=True)
        results = set()
        for ways, made in ((numpy_ways, np.copy), (mlx_ways, made_by_mlx)):
            trees = {name: {key: made(x) for key, x in numbers.items()} for name in ways}
            for name, run in ways.items():
                averaged = run(trees[name])
                results.add(b"".join(np.array(averaged[key]).tobytes() for key in numbers))
            spent_us = medians_us(ways, trees, options.rounds)
            for name, us in spent_us.items():
                if world.rank() == 0:
                    print(f"  {name:30} {us:9.1f} us {us / next(iter(spent_us.values())):7.1f} times", flush=True)
        assert len(results) == 1, "the ways do not agree"


if __name__ == "__main__":
    main()
