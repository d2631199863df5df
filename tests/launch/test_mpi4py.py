"""mlxdist and mpi4py share one MPI, whichever of them initializes it and whichever finalizes it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import mpis
import pytest
from conftest import Ranks

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("mpi4py"), reason="mpi4py is not installed")

BEGIN = """
import os, sys, threading
import numpy as np
import mlxdist as dist

def both_work():
    comm, world = MPI.COMM_WORLD, dist.init()
    assert (comm.rank, comm.size) == (world.rank(), world.size()), (comm.rank, comm.size, world)
    part = world.split(0)
    for i in range(10):
        assert comm.allreduce(i) == comm.size * i
        np.testing.assert_array_equal(dist.all_sum(np.full(1000, i)), np.full(1000, comm.size * i))
        # Messages of the two do not mix, although tags and peers are the same.
        peer = comm.size - 1 - comm.rank
        requests = [comm.isend(("theirs", i), peer, tag=0)] if comm.size > 1 else []
        if comm.size > 1:
            if comm.rank == 0:
                dist.send(np.array([i]), peer, group=part)
            else:
                assert dist.recv_like(np.array([0]), peer, group=part) == i
            assert comm.recv(source=peer, tag=0) == ("theirs", i)
        MPI.Request.waitall(requests)

def in_a_thread(call):
    caught = []
    def run():
        try:
            call()
        except Exception as error:
            caught.append(f"{type(error).__name__}: {error}")
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return "".join(caught)

def end():
    assert os.path.samefile(dist.info().libmpi, sys.argv[1]), dist.info()
    if sys.platform == "linux":
        opened = {line.split()[-1] for line in open("/proc/self/maps") if "/libmpi" in line}
        assert len(opened) == 1, opened
    print("end\\n", end="", flush=True)
"""

PROGRAMS = {
    "mpi4py first, and longer": """
from mpi4py import MPI
both_work()
assert dist.info().initialized_by == "another"
assert dist.info().found_via == "already in this process", dist.info()
assert dist.info().threads == "MPI_THREAD_MULTIPLE"
dist.finalize()
assert MPI.COMM_WORLD.allreduce(1) == MPI.COMM_WORLD.size
assert not MPI.Is_finalized()
end()
""",
    "mpi4py last": """
world = dist.init()
assert dist.all_sum(1) == world.size()
from mpi4py import MPI
both_work()
assert dist.info().initialized_by == "mlxdist"
end()
""",
    "mpi4py initializes and finalizes by hand": """
import mpi4py
mpi4py.rc.initialize = mpi4py.rc.finalize = False
from mpi4py import MPI
MPI.Init_thread(MPI.THREAD_FUNNELED)
both_work()
assert (dist.info().initialized_by, dist.info().threads) == ("another", "MPI_THREAD_FUNNELED")
said = in_a_thread(lambda: dist.all_sum(np.ones(3)))
assert said.startswith("Error: [all_sum] ") and "thread" in said, said
dist.finalize()
MPI.Finalize()
end()
""",
    "mlxdist initializes what mpi4py would not": """
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
dist.init()
both_work()
assert dist.info().initialized_by == "mlxdist"
end()
""",
    "one thread only": """
import mpi4py
mpi4py.rc.thread_level = "single"
from mpi4py import MPI
both_work()
assert dist.info().threads == "MPI_THREAD_SINGLE"
said = in_a_thread(lambda: dist.all_sum(np.ones(3)))
assert said.startswith("Error: [all_sum] ") and "thread" in said, said
end()
""",
    "one thread at a time": """
import mpi4py
mpi4py.rc.thread_level = "serialized"
from mpi4py import MPI
both_work()
assert dist.info().threads == "MPI_THREAD_SERIALIZED"
parts = [dist.init().split(0) for _ in range(3)]
x = np.full(1000, 2.0)
def reduce(part):
    for _ in range(20):
        assert (dist.all_sum(x, group=part) == 2 * part.size()).all()
assert in_a_thread(lambda: reduce(parts[0])) == ""
end()
""",
    "one thread at a time, in several groups": """
import mpi4py
mpi4py.rc.thread_level = "serialized"
from mpi4py import MPI
os.environ["MLXDIST_SHARED_MEMORY"] = "0"
world = dist.init()
assert dist.info().threads == "MPI_THREAD_SERIALIZED"
parts = [world.split(0) for _ in range(3)]
x, failures = np.full(1000, 2.0), []
def work(part):
    other = 1 - part.rank()
    try:
        for _ in range(300):
            assert (dist.all_sum(x, group=part) == 4).all()
            assert (dist.all_max(x, group=part) == 2).all()
            assert (dist.sum_scatter(x, group=part) == 4).all()
            assert dist.all_gather(x, group=part).shape == (2000,)
            assert (dist.broadcast(x, 1, group=part) == 2).all()
            assert (dist.sendrecv(x, other, other, group=part) == 2).all()
            dist.barrier(group=part)
    except Exception as error:
        failures.append(error)
threads = [threading.Thread(target=work, args=(part,)) for part in parts]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert failures == [], failures
end()
""",
    "mpi4py finalizes too early": """
from mpi4py import MPI
both_work()
part = dist.init().split(0)
assert part.is_usable
MPI.Finalize()
assert not part.is_usable
for call in (lambda: dist.all_sum(np.ones(3)), lambda: dist.barrier(group=part), lambda: part.split(0)):
    try:
        call()
    except (ValueError, dist.Error) as error:
        assert "finalized" in str(error), error
    else:
        raise SystemExit("communicated after the end of MPI")
del part
dist.finalize()
end()
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_shared(mpi: mpis.MPI, ranks: Ranks, tmp_path: Path, name: str) -> None:
    if mpi.library_path.name == "libmpi_abi.so.1":
        pytest.skip("mpi4py's wheel has no module for the standard ABI (4.1.2)")
    library = tmp_path / ("libmpi.so.40" if mpi.is_openmpi else "libmpi.so.12")
    # mpi4py's modules ask the dynamic linker for these names, which Debian's MPICH lacks.
    library.symlink_to(mpi.library_path)
    environ = {"MPI4PY_LIBMPI": str(mpi.library_path)}
    if mpi.library_path.name != library.name:
        environ["LD_LIBRARY_PATH"] = str(tmp_path)
    finished = ranks(mpi, 2, BEGIN + PROGRAMS[name], str(mpi.library_path), timeout_s=20, **environ)
    assert finished.status == 0, finished.output
    assert finished.output == "end\nend\n"


def test_mpi4py_that_comes_last_opens_the_same_library_by_itself(launcher: mpis.MPI, ranks: Ranks) -> None:
    if launcher.requirement is None:
        pytest.skip("the dynamic linker finds Debian's MPI anyway, or by another name than mpi4py's")
    finished = ranks(launcher, 2, BEGIN + PROGRAMS["mpi4py last"], str(launcher.library_path), timeout_s=20)
    assert finished.status == 0, finished.output
    assert finished.output == "end\nend\n"


ANOTHER = """
import numpy as np
{imports}
print(f"sum {{dist.all_sum(np.float64(1))}} {{MPI.COMM_WORLD.size}}\\n", end="", flush=True)
"""
MPI4PY_FIRST = ANOTHER.format(imports="from mpi4py import MPI\nimport mlxdist as dist")
INIT_FIRST = ANOTHER.format(imports="import mlxdist as dist\ndist.init()\nfrom mpi4py import MPI")


def test_the_remedies_where_mpi4py_has_opened_another_mpi(ranks: Ranks) -> None:
    ours, other = (mpi for name in ("mpich-5", "openmpi-5") for mpi in mpis.MPIS if mpi.name == name)
    if not (ours.is_here() and other.is_here()):
        pytest.skip("MPICH and Open MPI are not installed")  # the reverse aborts in mpi4py: MPICH under PMIx
    environ = {"MPI4PY_LIBMPI": str(other.library_path)}
    told = ranks(ours, 2, MPI4PY_FIRST, timeout_s=20, **environ)
    assert told.status != 0
    assert "(already in this process): " in told
    launcher = other.launcher_path.resolve().parent / "mpirun"
    assert f": start the ranks with {launcher}, or call init() before the package" in told, told.output
    assert "MLXDIST_LIBMPI" not in told
    family = {"MPI4PY_MPIABI": "openmpi"}
    for mpi, program, more in ((other, MPI4PY_FIRST, {}), (ours, INIT_FIRST, {}), (ours, INIT_FIRST, family)):
        followed = ranks(mpi, 2, program, timeout_s=20, **environ, **more)
        assert followed.status == 0, followed.output
        assert followed.output.count("sum 2.0 2\n") == 2, followed.output
