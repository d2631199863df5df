"""Compare MLX programs on MLX's own MPI backend and on mlxdist, in turns: a process can use only one of them.

    python benchmarks/mlx_backend.py [MPI ...] [--ranks 2] [--rounds 3] [--kinds short sums averages sharded ...]

Each MPI is a name from tests/mpis.py, by default openmpi-5. MLX's own backend supports only Open MPI, so it runs on the
first one; mlxdist runs on all. For each case in mlx_cases.py this prints MLX's own time in the fastest round and, for
each MPI, the speedup of mlxdist over it, in the fastest rounds and in the median ones, and the largest relative
difference of the results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import mpis  # noqa: E402

Results = dict[str, tuple[float, list[float]]]  # seconds and numbers, by case


def measured(mpi: mpis.MPI, backend: str, ranks: int, model: str, kinds: list[str]) -> Results:
    """What rank 0 prints."""
    environ = os.environ | mpi.environment()
    if backend == "mlx":
        environ["MLX_MPI_LIBNAME"] = str(mpi.library_path)
    command = mpi.command(ranks, sys.executable, Path(__file__).with_name("mlx_cases.py"), backend, model, *kinds)
    printed = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(json.loads(printed))


def difference(own: list[float], ours: list[float]) -> float:
    """The largest relative difference."""
    return max(abs(x - y) / max(abs(x), 1e-30) for x, y in zip(own, ours, strict=True))


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mpi", nargs="*", default=["openmpi-5"])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=[], help="default: all")
    options = parser.parse_args()
    used = [mpis.chosen(name)[0] for name in options.mpi]
    setups = [(used[0], "mlx"), *((mpi, "mlxdist") for mpi in used)]
    with tempfile.TemporaryDirectory() as model:
        subprocess.run([sys.executable, ROOT / "examples" / "lora_tiny_model.py", model], check=True)
        turns = [
            [measured(*setup, options.ranks, model, options.kinds) for setup in setups] for _ in range(options.rounds)
        ]
    print(f"{options.ranks} ranks" + " " * 36 + "MLX's own " + "".join(f"{mpi.name:>22}" for mpi in used))
    for case in turns[0][0]:
        times_s = [[turn[place][case][0] for turn in turns] for place in range(len(setups))]
        own, *ours = (result[case][1] for result in turns[0])
        columns = (
            f"{min(times_s[0]) / min(our_s):6.2f} {statistics.median(times_s[0]) / statistics.median(our_s):6.2f} "
            f"({difference(own, x):7.1e})"
            for our_s, x in zip(times_s[1:], ours, strict=True)
        )
        print(f"{case:40} {min(times_s[0]) * 1e6:10.1f} us " + " ".join(columns))


if __name__ == "__main__":
    main()
