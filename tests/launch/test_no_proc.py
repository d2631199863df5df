"""mlxdist launch and doctor where there is no /proc, as on macOS; ps is one that prints as macOS's does."""

from __future__ import annotations

import sys
from pathlib import Path

import mpis
import pytest
from broken import MPICH, SetUp, script, unshared

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not MPICH.is_here(), reason="not here: MPICH, which needs no /proc itself"),
]

# {here}/proc is the system's own, which only this program knows.
PS = """#!{python} -IS
import os, sys
if "-p" in sys.argv:
    print("S")
    sys.exit()
for pid in filter(str.isdecimal, os.listdir("{here}/proc")):
    try:
        with open("{here}/proc/" + pid + "/stat") as stat, open("{here}/proc/" + pid + "/cmdline") as line:
            parent, name = stat.read().rpartition(")")[2].split()[1], line.read().split("\\0")[0]
        print("%5s %5s %s" % (pid, parent, name or "(kernel)"))
    except OSError:
        pass
"""
NO_PROC = """mkdir -p {here}/proc
mount --bind /proc {here}/proc
mount -t tmpfs -o ro tmpfs /proc
mount --bind {here}/ps /bin/ps"""


def without_proc(here: Path, ps: str) -> SetUp:
    script(here / "ps", ps.format(python=sys.executable, here=here))
    # UCX, the other choice of MPICH, reads /proc
    set_up = unshared("--mount", NO_PROC.format(here=here), MPIR_CVAR_CH4_NETMOD="ofi")(here)
    if why := set_up.why_not():
        pytest.skip(f"cannot be made here: {why}")
    return set_up


def test_launch_and_doctor(tmp_path: Path) -> None:
    set_up = without_proc(tmp_path, PS)
    launched = set_up.run(
        sys.executable, "-m", "mlxdist", "launch", "-n", "2", str(mpis.ROOT / "examples/seed_numpy.py")
    )
    assert launched.status == 0, launched.output
    assert launched.output.count(" [2. 2. 2.") == 2, launched.output
    told = set_up.run(sys.executable, "-m", "mlxdist", "doctor")
    assert told.status == 0, told.output
    assert "2 ranks on this host" in told
    assert "It works." in told


NESTED = """
import subprocess, sys
import mlxdist
world = mlxdist.init()
if world.rank() == 0:
    me = [sys.executable, "-c", "import mlxdist; print('size', mlxdist.init().size())"]
    for before in ([], [sys.argv[1], "-np", "2"]):
        done = subprocess.run([*before, *me], capture_output=True, text=True)
        print(done.stdout, done.stderr.splitlines()[-1:])
mlxdist.barrier()
"""


@pytest.mark.parametrize(("ps", "ranks", "refused"), [(PS, 2, 1), ("#!/nowhere/ps\n", 0, 2)], ids=["ps", "no ps"])
def test_a_rank_may_start_ranks(ps: str, ranks: int, refused: int, tmp_path: Path) -> None:
    """A child of a rank is refused; ranks of an mpiexec that a rank has started are not, if ps shows that mpiexec."""
    set_up = without_proc(tmp_path, ps)
    (tmp_path / "nested.py").write_text(NESTED)
    mpiexec = str(MPICH.launcher_path)
    finished = set_up.run(mpiexec, "-np", "1", sys.executable, str(tmp_path / "nested.py"), mpiexec)
    assert finished.status == 0, finished.output
    assert finished.output.count("size 2") == ranks, finished.output
    assert finished.output.count("this process was started by a rank") == refused, finished.output
