"""MLX runs on mlxdist in any order of imports and calls, or install() says what came too late."""

from __future__ import annotations

import importlib.util

import mpis
import pytest
from conftest import Finished, Ranks

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("mlx"), reason="MLX is not installed")
needs_mpi4py = pytest.mark.skipif(not importlib.util.find_spec("mpi4py"), reason="mpi4py is not installed")
OLDEST, PATH = next(iter(mpis.OLDER_MLX.items()))
needs_old_mlx = pytest.mark.skipif(not (PATH / "mlx").exists(), reason=f"MLX {OLDEST} is not installed")
OLD = {"PYTHONPATH": f"{PATH}:{mpis.ROOT}"}

BEGIN = """
import sys
import numpy as np

def same(x, value, length=4):
    np.testing.assert_array_equal(np.array(x), np.full(length, value, np.float32))

def all_work():
    import mlx.core as mx
    import mlxdist as dist
    world = mx.distributed.init()
    ours = dist.init()
    assert (world.rank(), world.size()) == (ours.rank(), ours.size()), (world.rank(), world.size(), ours)
    assert mx.distributed.is_available()
    x, rank, size = mx.ones(4), world.rank(), world.size()
    # MLX's calls with MLX's group, with ours behind it, and with parts of both; our calls between them.
    theirs = world.split(0)
    for group in (None, world, theirs, ours.mlx, ours.split(0).mlx):
        same(mx.distributed.all_sum(x, group=group), size)
    for group in (None, ours, ours.split(0)):
        same(dist.all_sum(x * (rank + 1), group=group), size * (size + 1) / 2)
        same(dist.all_sum(np.ones(4, np.float32), group=group), size)
    own = ours.split(rank)
    assert (own.size(), own.mlx.size(), own.mlx.rank()) == (1, 1, 0)
    same(mx.distributed.all_sum(x, group=own.mlx), 1)
    part = ours.split(0)
    assert part.mlx is part.mlx
    same(mx.distributed.all_gather(x * rank, group=part.mlx)[-4:], size - 1)

def both_mpis_are_one():
    from mpi4py import MPI
    import mlxdist as dist
    assert MPI.COMM_WORLD.allreduce(1) == dist.init().size()
    opened = {line.split()[-1] for line in open("/proc/self/maps") if "/libmpi" in line}
    assert len(opened) == 1 or sys.platform != "linux", opened

def refused(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"
"""
END = """
print("end\\n", end="", flush=True)
"""

ORDERS = {
    "MLX first, install twice": """
import mlx.core as mx
mx.eval(mx.ones(3) + 1)
import mlxdist as dist
dist.install()
dist.install()
all_work()
""",
    "init, install when needed": """
import mlxdist as dist
dist.init()
import mlx.core as mx
same(dist.all_sum(mx.ones(4)), dist.init().size())  # this installs
dist.install()
all_work()
""",
}
WITH_MPI4PY = {
    "mpi4py first": """
from mpi4py import MPI
import mlxdist as dist
dist.install()
all_work()
both_mpis_are_one()
all_work()
""",
    "mpi4py last": """
import mlxdist as dist
dist.install()
all_work()
both_mpis_are_one()
all_work()
""",
}


def check(finished: Finished, size: int) -> None:
    assert finished.status == 0, finished.output
    assert finished.output.splitlines().count("end") == size, finished.output


@pytest.mark.parametrize("name", ORDERS)
def test_order(launcher: mpis.MPI, ranks: Ranks, name: str) -> None:
    check(ranks(launcher, 2, BEGIN + ORDERS[name] + END, timeout_s=20), 2)


@needs_mpi4py
@pytest.mark.parametrize("name", WITH_MPI4PY)
def test_with_mpi4py(launcher: mpis.MPI, ranks: Ranks, name: str) -> None:
    if launcher.library_path.name == "libmpich.so.12":
        pytest.skip("mpi4py's wheel asks the dynamic linker for libmpi.so.12, which this MPICH does not have")
    environ = {"MPI4PY_LIBMPI": str(launcher.library_path)}
    check(ranks(launcher, 2, BEGIN + WITH_MPI4PY[name] + END, timeout_s=20, **environ), 2)


@needs_mpi4py
def test_alone_with_mpi4py(representative: mpis.MPI, ranks: Ranks) -> None:
    """It opens an MPI behind what MLX has opened."""
    environ = representative.environment() | {"MPI4PY_LIBMPI": str(representative.library_path)}
    check(ranks(None, 1, BEGIN + WITH_MPI4PY["mpi4py last"] + END, timeout_s=20, **environ), 1)


@pytest.mark.parametrize("name", ORDERS)
def test_order_alone(ranks: Ranks, name: str) -> None:
    check(ranks(None, 1, BEGIN + ORDERS[name] + END), 1)


@needs_old_mlx
def test_old_mlx(launcher: mpis.MPI, ranks: Ranks) -> None:
    it_is_old = f"import mlx.core\nassert mlx.core.__version__ == '{OLDEST}'\n"
    check(ranks(launcher, 2, BEGIN + it_is_old + ORDERS["MLX first, install twice"] + END, timeout_s=20, **OLD), 2)


TOO_LATE = """
import mlx.core as mx
print(getattr(mx.distributed, sys.argv[1])())
import mlxdist as dist
for _ in range(2):
    said = refused(dist.install)
    assert said.startswith("Error: [install] "), said
    assert "mlxdist.install() before" in said, said
said = refused(lambda: dist.all_sum(mx.ones(3)))
assert said.startswith("Error: [install] "), said
# Everything but MLX's arrays still works.
assert dist.all_sum(1) == dist.init().size()
"""


@pytest.mark.parametrize("call", ["is_available", "init"])
def test_too_late(launcher: mpis.MPI, ranks: Ranks, call: str) -> None:
    """MLX has opened Open MPI itself, or found nothing."""
    library = str(launcher.library_path) if launcher.is_openmpi else "/nonexistent/libmpi.so"
    # One needs no MPI, so that MLX has found none is as well. Nobody finalizes what MLX's init() has begun there.
    for many in (1, 2) if launcher.is_openmpi and call == "is_available" else (2,):
        check(ranks(launcher, many, BEGIN + TOO_LATE + END, call, timeout_s=20, MLX_MPI_LIBNAME=library), many)


STRANGERS_FIRST = """
import mlx.core as mx
mx.distributed.is_available()
import mlxdist as dist
print(refused(dist.install))
"""


def test_another_mpi_than_the_launchers(launcher: mpis.MPI, ranks: Ranks) -> None:
    """MLX takes the system's Open MPI, whatever started the process."""
    others = [mpi for mpi in mpis.chosen("") if mpi.is_openmpi and mpi.library_path != launcher.library_path]
    if launcher.is_openmpi or not others:
        pytest.skip("needs the launcher of another MPI than Open MPI, and an Open MPI")
    finished = ranks(launcher, 2, BEGIN + STRANGERS_FIRST, MLX_MPI_LIBNAME=str(others[0].library_path))
    assert "MLX opens one in init() and is_available(): call mlxdist.install() before" in finished


FAILS_LATE = """
import mlx.core as mx
import mlxdist as dist
dist.install()
pending = mx.distributed.all_sum(mx.ones(4))
dist.finalize()
print(f"{refused(lambda: mx.eval(pending))}\\n", end="", flush=True)
"""
TEXT = "[all_sum] MPI has been finalized"


def test_errors_inside_mlx(launcher: mpis.MPI, ranks: Ranks) -> None:
    finished = ranks(launcher, 2, BEGIN + FAILS_LATE + END, timeout_s=20)
    check(finished, 2)
    assert finished.output.count(f"RuntimeError: {TEXT}") == 2


@needs_old_mlx
def test_errors_inside_old_mlx(launcher: mpis.MPI, ranks: Ranks) -> None:
    """MLX before 0.32.2 ends the process on an exception in a stream, after printing its message."""
    finished = ranks(launcher, 2, BEGIN + FAILS_LATE + END, timeout_s=20, **OLD)
    assert f"mlxdist: {TEXT}" in finished
    assert finished.status != 0
