"""The seed programs find the launcher's MPI by themselves, and run alone if there is none."""

from __future__ import annotations

import os
from pathlib import Path

import mpis
import pytest
from conftest import Finished, Ranks

EXAMPLES = mpis.ROOT / "examples"
SEEDS = ("seed.py", "seed_dist.py", "seed_numpy.py")
NOWHERE = {"PATH": "/nonexistent", "LD_LIBRARY_PATH": "", "CONDA_PREFIX": ""}


def check(finished: Finished, seed: str, size: int) -> None:
    """Each rank printed its number and its ten sums; output of ranks may be interleaved, but not within an array."""
    assert finished.status == 0, finished.output
    one = "[" + " ".join([f"{size}."] * 10) + "]"
    if seed != "seed_numpy.py":
        one = f"array([{size}, {size}, {size}, ..., {size}, {size}, {size}], dtype=float32)"
    assert finished.output.count(one) == size, finished.output
    rest = finished.output.replace(one, "")
    assert sorted("".join(rest.split())) == [str(rank) for rank in range(size)], finished.output


@pytest.mark.parametrize("promised", [2, 4])
@pytest.mark.parametrize("seed", SEEDS)
def test_on_ranks(mpi: mpis.MPI, ranks: Ranks, seed: str, promised: int) -> None:
    check(ranks(mpi, promised, EXAMPLES / seed), seed, promised)


@pytest.mark.parametrize("environ", [{}, NOWHERE], ids=["path", "nowhere"])
@pytest.mark.parametrize("seed", SEEDS)
def test_alone(ranks: Ranks, seed: str, environ: dict[str, str]) -> None:
    check(ranks(None, 1, EXAMPLES / seed, **environ), seed, 1)


WHICH = """
import os, sys, mlxdist
group, info = mlxdist.init(), mlxdist.info()
assert (group.rank(), group.size()) == (info.rank, info.size), info
assert os.path.samefile(info.libmpi, sys.argv[1]), info
assert info.version.startswith(sys.argv[2]), info
assert (info.backend, info.initialized_by) == ("mpi", "mlxdist"), info
assert f"={group.size()}" in info.launcher, info
found = {line.split()[-1] for line in open("/proc/self/maps") if "libmpi" in line} if sys.platform == "linux" else {1}
assert len(found) == 1, found
print("right", group.size())
"""


def test_the_library_is_the_launchers_own(mpi: mpis.MPI, ranks: Ranks, tmp_path: Path) -> None:
    """Whatever is on PATH: here, if installed, another MPI's mpirun and mpiexec."""
    others = (other for other in mpis.chosen("") if other.requirement != mpi.requirement)
    for other in (*others, mpi)[:1]:
        for name in ("mpirun", "mpiexec"):
            (tmp_path / name).symlink_to(other.launcher_path)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    finished = ranks(mpi, 2, WHICH, str(mpi.library_path), mpi.version, PATH=path)
    assert finished.status == 0, finished.output
    assert finished.output.count("right") == finished.output.count("2") == 2, finished.output


ALONE = """
import os, sys, time
import mlxdist
def files():
    return {line.split(maxsplit=5)[-1] for line in open("/proc/self/maps")}
try:
    mlxdist.init(strict=True)
except mlxdist.LoadError as error:
    assert "[init] strict=True" in str(error) and "mpirun" in str(error), error
else:
    raise SystemExit("strict=True ran alone")
before = files()
began = time.perf_counter()
group = mlxdist.init()
elapsed_ms = (time.perf_counter() - began) * 1e3
assert files() == before, files() - before
assert not any("libmpi" in file for file in before), before
assert (group.rank(), group.size(), mlxdist.info().backend) == (0, 1, "alone")
assert mlxdist.init() is group
try:
    mlxdist.init(strict=True)
except mlxdist.LoadError:
    pass
else:
    raise SystemExit("strict=True was content with the group of one that runs already")
print(f"init() alone took {elapsed_ms:.2f} ms")
assert elapsed_ms < 50
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="/proc/self/maps tells what is open")
@pytest.mark.parametrize("environ", [{}, NOWHERE], ids=["path", "nowhere"])
def test_alone_nothing_is_opened(ranks: Ranks, environ: dict[str, str]) -> None:
    finished = ranks(None, 1, ALONE, **environ)
    print(finished.output)
    assert finished.status == 0, finished.output
    assert "init() alone took" in finished
