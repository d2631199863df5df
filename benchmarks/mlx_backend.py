"""MLX's all_sum on MLX's own MPI backend and on mlxdist, in turns: a process can have only one of them.

    python benchmarks/mlx_backend.py MPIRUN LIBMPI [ROUNDS]

with an mpirun of Open MPI, the only one that MLX's own backend takes, and its libmpi. Prints the median over rounds of
mx.eval(all_sum(x)) on 2 ranks, and how many times as long MLX's own takes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

DTYPES = ("float32", "float16", "bfloat16")
REPEATS = {4: 2000, 1 << 20: 100, 64 << 20: 12}  # calls in a row, by bytes
BACKENDS = ("mlx", "mlxdist")


def measure(backend: str) -> None:
    """On each rank: rank 0 prints seconds a call, by dtype and bytes."""
    if backend == "mlxdist":
        import mlxdist

        mlxdist.install()
    import mlx.core as mx

    group = mx.distributed.init(strict=True, backend="mpi")
    spent_s = {}
    for name in DTYPES:
        dtype = getattr(mx, name)
        for nbytes, repeats in REPEATS.items():
            x = mx.ones((max(1, nbytes // dtype.size),), dtype)
            mx.eval(x, mx.distributed.all_sum(x))
            begun_s = time.perf_counter()
            for _ in range(repeats):
                mx.eval(mx.distributed.all_sum(x))
            spent_s[f"{name} {nbytes}"] = (time.perf_counter() - begun_s) / repeats
    if group.rank() == 0:
        print(json.dumps(spent_s), flush=True)


def run(mpirun: str, libmpi: str, backend: str) -> dict[str, float]:
    """What rank 0 printed."""
    environ = os.environ | {"MLX_MPI_LIBNAME": libmpi, "MLXDIST_LIBMPI": libmpi}
    if backend == "mlxdist":
        del environ["MLX_MPI_LIBNAME"]
    if os.geteuid() == 0:
        environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = [mpirun, "-np", "2", "--oversubscribe", "--bind-to", "none", sys.executable, __file__, backend]
    printed = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(json.loads(printed))


def main(mpirun: str, libmpi: str, rounds: str = "3") -> None:
    """Print a line a case."""
    turns = [{backend: run(mpirun, libmpi, backend) for backend in BACKENDS} for _ in range(int(rounds))]
    for case in turns[0]["mlx"]:
        own_s, ours_s = (statistics.median(turn[backend][case] for turn in turns) for backend in BACKENDS)
        print(f"{case:>20} B: MLX's own {own_s * 1e6:10.1f} us, mlxdist {ours_s * 1e6:10.1f} us, {own_s / ours_s:6.2f}")


if __name__ == "__main__":
    if sys.argv[1:] in ([backend] for backend in BACKENDS):
        measure(sys.argv[1])
    elif len(sys.argv) > 2:
        main(*sys.argv[1:4])
    else:
        sys.exit(__doc__)
