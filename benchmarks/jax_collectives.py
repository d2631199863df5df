"""Compare JAX's collectives on its gloo and on mlxdist, in turns: a process can use only one of them.

    python benchmarks/jax_collectives.py [MPI] [--ranks 2] [--rounds 3]

MPI is a name from tests/mpis.py, by default openmpi-5. For each collective and size this prints the time of one call
within jit on both, median and fastest of all rounds, and the speedups.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import mpis  # noqa: E402

SIZES = ((4, 300), (1024, 300), (64 * 1024, 100), (1024 * 1024, 40), (64 * 1024 * 1024, 8))  # bytes of a rank, calls
Times = dict[str, list[float]]  # seconds, by case


def collectives(size: int) -> dict[str, Callable[[Any], Any]]:
    """What each rank does with its part."""
    from jax import lax

    over: Callable[..., Any] = partial(partial, axis_name="x")
    return {
        "psum": over(lax.psum),
        "all_gather": over(lax.all_gather, tiled=True),
        "psum_scatter": over(lax.psum_scatter, tiled=True),
        "all_to_all": over(lax.all_to_all, split_axis=0, concat_axis=0, tiled=True),
        "ppermute": over(lax.ppermute, perm=[(i, (i + 1) % size) for i in range(size)]),
    }


def rank() -> None:
    """On every rank: time all cases; rank 0 prints them."""
    import jax
    import numpy as np
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    jax.distributed.initialize()
    mesh, size = jax.make_mesh((jax.process_count(),), ("x",)), jax.process_count()
    times: Times = {}
    for name, function in collectives(size).items():
        run = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=P("x"), out_specs=P("x"), check_vma=False))
        for nbytes, calls in SIZES:
            count = max(nbytes // 4, 1 if name in ("psum", "all_gather") else size)
            x = jax.make_array_from_process_local_data(NamedSharding(mesh, P("x")), np.ones(count, np.float32))
            spent = []
            for _ in range(calls + 2):
                began = time.perf_counter()
                run(x).block_until_ready()
                spent.append(time.perf_counter() - began)
            times[f"{name} {count * 4}"] = spent[2:]
    if jax.process_index() == 0:
        print(json.dumps(times), flush=True)


def measured(mpi: mpis.MPI, implementation: str, ranks: int) -> Times:
    """What rank 0 prints."""
    environ = os.environ | mpi.environment()
    environ["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = implementation
    command = mpi.command(ranks, sys.executable, "-m", "mlxdist", __file__, "--rank")
    printed = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(json.loads(printed[printed.index("{") : printed.rindex("}") + 1]))


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mpi", nargs="?", default="openmpi-5")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        return rank()
    mpi = mpis.chosen(options.mpi)[0]
    rounds = [[measured(mpi, name, options.ranks) for name in ("gloo", "mpi")] for _ in range(options.rounds)]
    print(f"{options.ranks} ranks, {mpi.name}         gloo: median, fastest      mlxdist: median, fastest     speedups")
    for case in rounds[0][0]:
        both = [[time_s for turn in rounds for time_s in turn[place][case]] for place in (0, 1)]
        (gloo, gloo_best), (ours, best) = ((statistics.median(times), min(times)) for times in both)
        columns = " ".join(f"{time_s * 1e6:12.1f} us" for time_s in (gloo, gloo_best, ours, best))
        print(f"{case:22} {columns}  {gloo / ours:6.1f} {gloo_best / best:6.1f}")


if __name__ == "__main__":
    main()
