"""Programs whose extensions are opened with RTLD_GLOBAL, as all are on macOS: nobody binds to names of mlxdist."""

from __future__ import annotations

import importlib.util
import itertools
import sys

import mpis
import pytest
from conftest import Ranks
from launch.test_mlx_order import BEGIN, END, check

GLOBAL = """
import os, sys
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
"""
IMPORTS = {
    "mlxdist": """
import mlxdist as dist
world = dist.init()
assert dist.all_sum(world.rank()) == sum(range(world.size()))
""",
    "mlx": """
import mlx.core as mx
mx.eval(mx.ones(3) + 1)
""",
    "mpi4py": """
from mpi4py import MPI
assert MPI.COMM_WORLD.allreduce(MPI.COMM_WORLD.rank) == sum(range(MPI.COMM_WORLD.size))
""",
}
INSTALL = """
dist.install()
all_work()
"""
ORDERS = [*itertools.permutations(IMPORTS)]


def program_of(order: list[str]) -> str:
    """MLX opens the shim as soon as it can."""
    steps = [IMPORTS[name] for name in order]
    steps.insert(1 + max(order.index("mlxdist"), order.index("mlx")), INSTALL)
    return "".join([GLOBAL, BEGIN, *steps, "both_mpis_are_one()\n" if "mpi4py" in order else "", "all_work()\n", END])


@pytest.mark.skipif(not importlib.util.find_spec("mlx"), reason="MLX is not installed")
@pytest.mark.parametrize("order", ORDERS, ids=", ".join)
def test_order(pytestconfig: pytest.Config, mpi: mpis.MPI, ranks: Ranks, order: tuple[str, ...]) -> None:
    sampled = mpi.name == "openmpi-5" or order == ORDERS[mpis.MPIS.index(mpi) % len(ORDERS)]
    if not (sampled or pytestconfig.getoption("--full")):
        pytest.skip("--full: here all orders are tried on Open MPI 5, and one on each other")
    # mpi4py's wheel has no module for the standard ABI (4.1.2), and none that opens Debian's MPICH by its name
    with_mpi4py = importlib.util.find_spec("mpi4py") and mpi.library_path.name in ("libmpi.so.40", "libmpi.so.12")
    imported = [name for name in order if name != "mpi4py" or with_mpi4py]
    environ = {"MPI4PY_LIBMPI": str(mpi.library_path)}
    check(ranks(mpi, 2, program_of(imported), **environ), 2)


FLAGS = """
import ctypes
import mlxdist
assert sys.getdlopenflags() == os.RTLD_NOW | os.RTLD_GLOBAL
everywhere = ctypes.CDLL(None)
print(hasattr(everywhere, "PyInit__multiarray_umath"), hasattr(everywhere, "PyInit__core"))
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="what is open and local is found there, too")
def test_only_the_core_is_local(ranks: Ranks) -> None:
    """The flags are the program's again, and were so for NumPy, which mlxdist imports."""
    finished = ranks(None, 1, GLOBAL + FLAGS)
    assert (finished.status, finished.output) == (0, "True False\n")
