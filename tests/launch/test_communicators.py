"""Groups of communicators of mpi4py: one program of an mpirun of two, and groups of a world that runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import mpis
import pytest
from conftest import Finished, Ranks, run

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("mpi4py"), reason="mpi4py is not installed")

TIMEOUT_S = 100

# It knows nothing of mlxdist, and ends at its own time.
OTHER = """
from mpi4py import MPI
import sys
part = MPI.COMM_WORLD.Split(MPI.COMM_WORLD.Get_attr(MPI.APPNUM))
assert part.allreduce(1) == 2
assert "mlxdist" not in sys.modules
print("other\\n", end="", flush=True)
"""
BEGIN = """
from mpi4py import MPI
import numpy as np
import mlxdist as dist

def refused(comm, error, said):
    try:
        dist.group(comm)
    except error as refusal:
        assert said in str(refusal), refusal
    else:
        raise SystemExit(f"took a communicator although {said}")

def refuse_others(comm, world):
    freed = comm.Dup()
    freed.Free()
    refused(freed, ValueError, "is null or was freed")
    refused(MPI.COMM_NULL, ValueError, "is null or was freed")
    half = comm.Split(comm.rank > 0)
    inter = half.Create_intercomm(0, comm, int(comm.rank == 0))
    refused(inter, ValueError, "has two groups")
    refused(half.Get_group(), TypeError, "is not a list of ints")
    inter.Free()
    assert dist.all_sum(1) == world.size()
"""
OWN = (
    BEGIN
    + """
comm = MPI.COMM_WORLD.Split(MPI.COMM_WORLD.Get_attr(MPI.APPNUM), -MPI.COMM_WORLD.rank)
world = dist.group(comm)
assert dist.init() is world
assert (world.rank(), world.size()) == (comm.rank, 3) == (dist.info().rank, dist.info().size)
np.testing.assert_array_equal(dist.all_sum(np.ones(100_000)), np.full(100_000, 3.0))
if comm.rank != 1:
    assert dist.all_gather(comm.rank, group=dist.group([2, 0])).tolist() == [2, 0]
back = dist.group(comm.Split(0, -comm.rank))
assert dist.all_gather(comm.rank, group=back).tolist() == [2, 1, 0]
refused(MPI.COMM_WORLD, ValueError, "has processes that are not in the world")
refuse_others(comm, world)
dist.finalize()
assert comm.allreduce(1) == 3
print("own\\n", end="", flush=True)
"""
)
# The world is that of the launcher: its ranks are found in the communicator.
STARTED = (
    BEGIN
    + """
world, comm = dist.init(), MPI.COMM_WORLD
part = comm.Split(comm.rank == 1, -comm.rank)
group = dist.group(part)
assert (group.rank(), group.size()) == (part.rank, part.size)
expected = [1] if comm.rank == 1 else [2, 0]
assert np.atleast_1d(dist.all_gather(comm.rank, group=group)).tolist() == expected
part.Free()
assert dist.all_sum(1, group=group) == len(expected)
assert dist.group(MPI.COMM_SELF).size() == 1
refuse_others(comm, world)
MPI.Finalize()
refused(comm, ValueError, "MPI has been finalized")
print("own\\n", end="", flush=True)
"""
)


def library_of(mpi: mpis.MPI) -> dict[str, str]:
    if mpi.requirement is None or mpi.library_path.name == "libmpi_abi.so.1":
        pytest.skip("mpi4py's wheel has no module for this name of a library: see test_mpi4py.py")
    return mpi.environment() | {"MPI4PY_LIBMPI": str(mpi.library_path)}


def test_one_program_of_two(mpi: mpis.MPI, tmp_path: Path) -> None:
    environ = library_of(mpi)
    for name, text in (("other.py", OTHER), ("own.py", OWN)):
        (tmp_path / name).write_text(text)
    command = mpi.command(2, sys.executable, tmp_path / "other.py")
    command += [":", "-np", "3", sys.executable, str(tmp_path / "own.py")]
    finished: Finished = run(command, timeout_s=TIMEOUT_S, **environ)
    assert finished.status == 0, finished.output
    assert sorted(finished.output.split()) == ["other"] * 2 + ["own"] * 3


def test_a_group_of_the_world(mpi: mpis.MPI, ranks: Ranks) -> None:
    finished = ranks(mpi, 3, STARTED, timeout_s=TIMEOUT_S, **library_of(mpi))
    assert finished.status == 0, finished.output
    assert finished.output == "own\n" * 3


def test_alone(ranks: Ranks) -> None:
    """Without a launcher, where the world would be without MPI."""
    mpi = next((mpi for mpi in mpis.MPIS if mpi.requirement and mpi.is_here()), None)
    if mpi is None:
        pytest.skip("no MPI is installed that mpi4py could open")
    for program in (
        "world = dist.group(MPI.COMM_WORLD); assert world.size() == 1 and dist.info().backend == 'mpi'",
        "assert dist.init().size() == 1; assert dist.group(MPI.COMM_SELF).size() == 1",
    ):
        text = f"from mpi4py import MPI\nimport mlxdist as dist\n{program}\nprint('end')\n"
        finished = ranks(None, 1, text, timeout_s=TIMEOUT_S, MPI4PY_LIBMPI=str(mpi.library_path))
        assert (finished.status, finished.output) == (0, "end\n"), finished.output
    late = "import mlxdist as dist\ndist.init()\nfrom mpi4py import MPI\ndist.group(MPI.COMM_WORLD)"
    finished = ranks(None, 1, late, timeout_s=TIMEOUT_S, MPI4PY_LIBMPI=str(mpi.library_path))
    assert "[group] this process runs alone, without MPI: pass the communicator before init() is called" in finished
