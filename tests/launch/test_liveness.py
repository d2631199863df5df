"""Who is alive, and what is left: files that the program closes, pid namespaces, death at any instant.

--full: a thousand deaths instead of a few.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import mpis
import pytest
from conftest import Finished, Ranks, run
from launch.test_death import KEEPING

BEGIN = """
import os, signal, sys, time
import numpy as np
import mlxdist as dist

def say(text):
    print(text + "\\n", end="", flush=True)

rank = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"])
say(f"rank {rank} is pid {os.getpid()}")
"""


def left_by(finished: Finished) -> list[str]:
    """What the ranks have left in shared memory; other jobs on this machine may have some of their own there."""
    pids = {f"{int(pid):x}" for pid in re.findall(r"is pid (\d+)$", finished.output, re.MULTILINE)}
    return [path.name for path in Path("/dev/shm").glob("mlxdist.*") if path.name.split(".")[1] in pids]


AWAIT_THE_DEAD = """
began = time.monotonic()
try:
    dist.all_sum(1)
except dist.Error as error:
    say(f"{type(error).__name__} after {time.monotonic() - began:.3f} s: {error}")
os._exit(0)
"""

CLOSED = """
world = dist.init(timeout_s=20)
part = world.split(0)
dist.barrier()
if rank == 1:
    for file in os.listdir("/proc/self/fd"):  # as a monitor does
        if os.path.realpath(f"/proc/self/fd/{file}").startswith("/dev/shm/"):
            os.close(os.open(f"/proc/self/fd/{file}", os.O_RDONLY))
            os.close(os.dup(int(file)))
    if sys.argv[1] == "all":
        os.closerange(3, 1000)
        files = [os.open("/dev/null", os.O_RDWR) for _ in range(100)]
for late in 0, 1:  # each waits for the other for some time
    time.sleep(0.3 * (rank == late))
    assert dist.all_sum(1, group=part) == 2
if rank == int(sys.argv[2]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def died_soon(finished: Finished, who: str) -> None:
    assert (told := re.search(r"^PeerError after ([\d.]+) s: (.*)$", finished.output, re.MULTILINE)), finished.output
    assert who in told[2], finished.output
    assert "has died" in told[2], finished.output
    assert float(told[1]) < 5


@pytest.mark.parametrize("dies", [0, 1])
@pytest.mark.parametrize("which", ["others", "all"])
def test_files_that_a_rank_closes(which: str, dies: int, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Neither hides it from the others nor makes it look dead, and it still sees them die."""
    found = [mpi for mpi in mpis.chosen(pytestconfig.getoption("--mpi")) if mpi.name == "openmpi-5"]
    if not found:
        pytest.skip("only Open MPI 5 lets the other rank live on")
    path = tmp_path / "program.py"
    path.write_text(BEGIN + CLOSED + AWAIT_THE_DEAD)
    launcher, *command = found[0].command(2, sys.executable, path, which, str(dies))
    finished = run([launcher, *KEEPING["openmpi-5"], *command], timeout_s=40, **found[0].environment())
    died_soon(finished, f"rank {dies} (pid")


NAMESPACES = """
world = dist.init(timeout_s=20)
say(f"rank {rank} shares memory with {dist.info().shared_memory}")
x = dist.empty(3, np.float32)
x[:] = 1
assert dist.all_sum(x, out=x)[0] == 2
say(f"named: {[name for name in os.listdir('/dev/shm') if name.startswith('mlxdist.1.')]}")
dist.barrier()
if rank == 1:
    os._exit(3)
"""


@pytest.mark.root
def test_ranks_in_pid_namespaces_of_their_own(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Both are pid 1, as in containers that share /dev/shm."""
    found = [mpi for mpi in mpis.chosen(pytestconfig.getoption("--mpi")) if mpi.name == "mpich-5"]
    if not found:
        pytest.skip("the launcher of MPICH 5 is needed: others do not start ranks through another program")
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no pid namespace can be made here: {tried.stderr}")
    path = tmp_path / "program.py"
    path.write_text(BEGIN + NAMESPACES + AWAIT_THE_DEAD)
    launcher, *command = found[0].command(2, *unshare, sys.executable, path)
    environ = {"MLXDIST_LIBMPI": str(found[0].library_path)}  # the launcher, which tells, is not seen in there
    finished = run([launcher, *KEEPING["mpich-5"], *command], timeout_s=40, **environ)
    assert finished.output.count("is pid 1\n") == 2, finished.output
    assert finished.output.count("shares memory with 2 ranks on this host") == 2, finished.output
    assert finished.output.count("named: []") == 2, finished.output
    died_soon(finished, "rank 1 (pid 1 ")


KILLED = """
victim, delay_s = int(sys.argv[1]), float(sys.argv[2])
if rank == victim:  # nothing handles the signal, so it ends the process in the middle of anything
    signal.setitimer(signal.ITIMER_REAL, delay_s)
world = dist.init()
while True:
    part = world.split(0)
    x = dist.empty(1 << 22, group=part)
    dist.all_sum(np.ones(100_000), group=part)
"""


def test_killed_at_any_instant(two: mpis.MPI, ranks: Ranks, pytestconfig: pytest.Config) -> None:
    """During the start, a split, empty() or the first long call; the launcher kills the others."""
    draw = random.Random(two.name)
    for _ in range(500 if pytestconfig.getoption("--full") else 6):
        victim, delay_s = draw.randrange(2), draw.uniform(0.001, 1)
        finished = ranks(two, 2, BEGIN + KILLED, str(victim), str(delay_s))
        assert finished.status != 0, finished.output
        assert finished.left == ()
        assert left_by(finished) == [], (victim, delay_s)
