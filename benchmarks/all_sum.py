"""all_sum(x, out=y) of float32 beside a raw C loop and mpi4py, in one process on one libmpi, in alternation.

    python tests/mpis.py run openmpi-5 2 python benchmarks/all_sum.py

Each figure is the median over rounds of the slowest rank. Needs mpi4py and a C compiler (cc).
"""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import mlxdist as dist

ROUNDS = 15
COUNTS = (1, 256, 16 * 1024, 256 * 1024, 4 * 1024 * 1024)
SECONDS_A_ROUND = 0.02


def raw_loop() -> Callable[[np.ndarray, np.ndarray, int], float]:
    """Seconds of n raw MPI_Allreduce calls; the handles of this library are taken from mpi4py."""
    from mpi4py import MPI

    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "raw.so"
        source = Path(__file__).with_name("raw.c")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
        raw = ctypes.CDLL(str(library)).raw_allreduce
    raw.restype = ctypes.c_double
    function = ctypes.cast(ctypes.CDLL(dist.info().libmpi).MPI_Allreduce, ctypes.c_void_p)
    handles = [ctypes.c_void_p(MPI._addressof(handle)) for handle in (MPI.FLOAT, MPI.SUM, MPI.COMM_WORLD)]
    width = ctypes.c_size_t(MPI._sizeof(MPI.COMM_WORLD))

    def loop(x: np.ndarray, y: np.ndarray, repeats: int) -> float:
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, y)]
        seconds = raw(function, width, *handles, *pointers, ctypes.c_int(x.size), ctypes.c_long(repeats))
        assert seconds >= 0, "MPI_Allreduce failed"
        return seconds

    return loop


def python_loop(call: Callable[[np.ndarray, np.ndarray], object]) -> Callable[[np.ndarray, np.ndarray, int], float]:
    """Seconds of n calls of a Python function of two arrays."""

    def loop(x: np.ndarray, y: np.ndarray, repeats: int) -> float:
        rounds = range(repeats)
        start = time.perf_counter()
        for _ in rounds:
            call(x, y)
        return time.perf_counter() - start

    return loop


def ours(x: np.ndarray, y: np.ndarray, repeats: int) -> float:
    """As python_loop, with our keyword."""
    all_sum, rounds = dist.all_sum, range(repeats)
    start = time.perf_counter()
    for _ in rounds:
        all_sum(x, out=y)
    return time.perf_counter() - start


def slowest(seconds: float) -> float:
    return float(dist.all_max(seconds))


def main() -> None:
    group = dist.init()
    os.environ["MPI4PY_LIBMPI"] = dist.info().libmpi
    try:
        from mpi4py import MPI
    except ImportError as error:
        if group.rank() == 0:
            print(f"{dist.info().version}: left out, mpi4py does not run on {dist.info().libmpi}: {error}")
        return
    contenders = {
        "raw C": raw_loop(),
        "mpi4py": python_loop(MPI.COMM_WORLD.Allreduce),
        "mlxdist": ours,
    }
    if group.rank() == 0:
        print(f"{dist.info().version}, {group.size()} ranks, us a call (in brackets: times raw C)")
        print(f"{'bytes':>10}" + "".join(f"{name:>18}" for name in contenders))
    for count in COUNTS:
        x, y = np.ones(count, np.float32), np.empty(count, np.float32)
        trial = slowest(ours(x, y, 20)) / 20
        repeats = max(3, int(SECONDS_A_ROUND / trial))
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, loop in contenders.items():
                dist.barrier()
                times[name].append(slowest(loop(x, y, repeats) / repeats))
        median = {name: statistics.median(values) * 1e6 for name, values in times.items()}
        np.testing.assert_array_equal(y, group.size())
        if group.rank() == 0:
            cells = (f"{value:9.2f} ({value / median['raw C']:5.2f})" for value in median.values())
            print(f"{x.nbytes:>10}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
