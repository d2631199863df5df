"""Every launcher with every library, and variables left over without a launcher: the right world, or an error."""

from __future__ import annotations

import platform
from pathlib import Path

import mpis
import pytest
from conftest import Ranks

TIMEOUT_S = 10
LIBRARIES = {mpi.name: mpi for mpi in mpis.chosen("")}
GFORKER = mpis.MPI("gforker", "mpich==5.0.2", "bin/mpiexec.gforker", "lib/libmpi.so.12", "MPICH Version")

# The libraries that make a world of 2 with each launcher. The others abort or make worlds of one, and are refused.
MPICH_AND_INTEL = ("mpich-5", "mpich-abi", "debian-mpich", "intel-12", "intel-abi")
WORKS = {
    "openmpi-5": ("openmpi-5",),
    "openmpi-4": ("openmpi-4", "openmpi-5"),
    "debian-openmpi": ("debian-openmpi", "openmpi-4", "openmpi-5"),
    "mpich-5": MPICH_AND_INTEL,
    "gforker": MPICH_AND_INTEL,
    "intel-12": MPICH_AND_INTEL,
    "debian-mpich": ("mpich-5", "mpich-abi", "debian-mpich"),
}

PROGRAM = """
import numpy as np
import mlxdist as dist
group = dist.init()
total = dist.all_sum(np.arange(3.0) + group.rank())
print(f"size {group.size()}, sum {total.tolist()}\\n", end="", flush=True)
"""
SUM_OF_TWO = "size 2, sum [1.0, 3.0, 5.0]"


def is_known(name: str) -> bool:
    """Whether WORKS covers this version: Debian's are those of Debian 12, Open MPI 4.1.4 and MPICH 4.0.2."""
    if not name.startswith("debian"):
        return True
    system = platform.freedesktop_os_release()
    return (system["ID"], system.get("VERSION_ID")) == ("debian", "12")


def check(ranks: Ranks, launcher: mpis.MPI, library: str) -> None:
    path = str(LIBRARIES[library].library_path)
    finished = ranks(launcher, 2, PROGRAM, timeout_s=TIMEOUT_S, MLXDIST_LIBMPI=path)
    works = finished.status == 0
    if is_known(launcher.name) and is_known(library):
        assert works == (library in WORKS[launcher.name]), finished.output
    assert finished.output.count("size ") == finished.output.count(SUM_OF_TWO) == (2 if works else 0), finished.output
    if not works:
        assert 0 < finished.status < 128, finished.output
        assert "signal" not in finished.output.lower()
        assert "LoadError: [init]" in finished
        assert f"{path} (" in finished
        assert "start the ranks with" in finished


@pytest.mark.parametrize("library", LIBRARIES)
def test_cross_matrix(ranks: Ranks, launcher: mpis.MPI, library: str) -> None:
    check(ranks, launcher, library)


@pytest.mark.skipif(not GFORKER.is_here(), reason="MPICH is not here, or has no gforker")
@pytest.mark.parametrize("library", LIBRARIES)
def test_cross_matrix_gforker(ranks: Ranks, library: str) -> None:
    check(ranks, GFORKER, library)


def test_a_library_named_without_a_launcher(ranks: Ranks, mpi: mpis.MPI) -> None:
    """The user's choice is opened, and makes a world of one."""
    program = f"{PROGRAM}print(dist.info().libmpi)"
    path = str(mpi.library_path)
    finished = ranks(None, 1, program, timeout_s=TIMEOUT_S, MLXDIST_LIBMPI=path)
    assert finished.status == 0, finished.output
    assert finished.output.split("\n")[:2] == ["size 1, sum [0.0, 1.0, 2.0]", path]


# A variable left over from another job: two init() in one process, in either order, and no silent world of one.
LEFT_OVER = """
import sys
import mlxdist as dist
for strict in sys.argv[1:]:
    try:
        group = dist.init(strict=strict == "strict")
    except dist.LoadError as error:
        print("refused", error)
        assert str(error).startswith("[init] ")
    else:
        raise SystemExit(f"made a world of {group.size()}")
"""


@pytest.mark.parametrize(
    ("environ", "order", "remedies"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "2"}, ("strict", "any"), ("start the ranks with", "unset OMPI_COMM_WORLD_SIZE")),
        ({"PMI_SIZE": "2"}, ("any", "strict"), ("start the ranks with", "unset PMI_SIZE")),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_MPI_TYPE": "none"}, ("any", "strict"), ("srun --mpi=pm",)),
    ],
    ids=["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"],
)
def test_a_size_without_its_launcher(
    ranks: Ranks, environ: dict[str, str], order: tuple[str, str], remedies: tuple[str, ...], mpi: mpis.MPI
) -> None:
    path = str(mpi.library_path)
    finished = ranks(None, 1, LEFT_OVER, *order, timeout_s=TIMEOUT_S, MLXDIST_LIBMPI=path, **environ)
    assert finished.status == 0, finished.output
    assert finished.output.count("refused [init]") == 2, finished.output
    assert path in finished
    assert any(remedy in finished for remedy in remedies), finished.output


def test_no_library_under_a_launcher(ranks: Ranks, mpi: mpis.MPI) -> None:
    """An error on every rank that lists the places tried; a barrier of files keeps one rank from ending the other."""
    program = """
import pathlib, sys, time
import mlxdist as dist
try:
    dist.init()
except dist.LoadError as error:
    print(f"refused {error}\\n", end="", flush=True)
    here = pathlib.Path(sys.argv[0]).parent
    pathlib.Path(f"{here}/{time.time_ns()}.refused").touch()
    while len(list(here.glob("*.refused"))) < 2:
        time.sleep(0.01)
    raise
"""
    finished = ranks(mpi, 2, program, timeout_s=TIMEOUT_S, MLXDIST_LIBMPI="/nonexistent/libmpi.so")
    assert 0 < finished.status < 128, finished.output
    assert finished.output.count("refused [init] no usable libmpi was found for") == 2, finished.output
    assert finished.output.count("/nonexistent/libmpi.so (MLXDIST_LIBMPI): ") >= 2, finished.output
    assert "pip install" in finished


@pytest.mark.parametrize("kind", ["text", "another library", "empty folder", "missing"])
def test_what_is_not_a_libmpi(ranks: Ranks, tmp_path: Path, kind: str) -> None:
    """Named by the user: no fallback to a group of one, strict or not."""
    name, expected = {
        "text": ("libmpi.so.40", "invalid ELF header"),
        "another library": ("libm.so.6", "not an MPI library"),
        "empty folder": ("empty", "no libmpi in"),
        "missing": ("nowhere/libmpi.so.12", "cannot open shared object file"),
    }[kind]
    (tmp_path / "libmpi.so.40").write_text("GROUP ( /usr/lib/libmpi.so.40.30.4 )\n" * 10)
    (tmp_path / "empty").mkdir()
    path = name if kind == "another library" else str(tmp_path / name)
    finished = ranks(None, 1, LEFT_OVER, "any", "strict", timeout_s=TIMEOUT_S, MLXDIST_LIBMPI=path)
    assert finished.status == 0, finished.output
    assert finished.output.count("refused [init]") == 2, finished.output
    assert expected in finished
    assert f"{path} (MLXDIST_LIBMPI): " in finished or f"MLXDIST_LIBMPI: no libmpi in {path}" in finished
