"""What CONTRIBUTING says "To add" is true: one thing of each kind is added to a copy of the tree, built, and used."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import checkout
import mpis
import pytest
from broken import SYSTEM_PATH
from conftest import PYTEST, Finished, Ranks, run
from launch.additions import ADDITIONS, HAS_FLOAT128, TINYARRAY, TINYRUN, USE_MPI, USES, Places
from unit.test_library import COMPILER, build


def add(tree: Path, places: Places) -> None:
    for name, named, text in places:
        file = tree / name
        old = file.read_text() if file.exists() else ""
        assert old.count(named) == 1 or not named, f"{name} has {named!r} {old.count(named)} times"
        end = old.index(named) + len(named) if named else len(old)
        if named and text.endswith("\n") and not named.endswith("\n"):
            end = old.index("\n", end) + 1
        file.write_text(old[:end] + text + old[end:])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built copy of the files that git tracks or would add, with all additions."""
    tree = tmp_path_factory.mktemp("added")
    try:
        checkout.copy(tree)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a checkout: {error}")
    for places in ADDITIONS:
        add(tree, places)
    (tree / "tinyarray.py").write_text(TINYARRAY)
    (tree / ".mpi").mkdir()
    for prefix in mpis.PREFIXES.iterdir():
        (tree / ".mpi" / prefix.name).symlink_to(prefix)
    built = within(tree, "setup.py", "--quiet", "build_ext", "--inplace", timeout_s=180)
    assert built.status == 0, built.output
    return tree


def within(tree: Path, *arguments: str | Path, timeout_s: float = 60, **environ: str) -> Finished:
    """Run Python in the copy, so that it imports the copy."""
    command = ["env", f"--chdir={tree}", sys.executable, *map(str, arguments)]
    return run(command, timeout_s=timeout_s, **({"PYTHONPATH": str(tree)} | environ))


BEGIN = """
import numpy as np
import mlxdist as dist
from mlxdist import _core

world = dist.init()
rank = world.rank()
assert world.size() == 2
"""


@pytest.mark.parametrize("shared", ["1", "0"], ids=["in shared memory", "by MPI"])
def test_a_reduction_two_operations_a_framework_a_shim_and_a_dtype(
    tree: Path, ranks: Ranks, representative: mpis.MPI, shared: str
) -> None:
    program = "".join([BEGIN, *USES, "print(dist.__file__)"])
    finished = ranks(representative, 2, program, PYTHONPATH=str(tree), MLXDIST_SHARED_MEMORY=shared)
    assert finished.status == 0, finished.output
    assert finished.output.count(str(tree / "mlxdist")) == 2, finished.output


@pytest.mark.skipif(not HAS_FLOAT128, reason="NumPy's longdouble is not float128 here")
def test_the_kernels_tests_miss_the_new_names(tree: Path) -> None:
    """Until reference.py has them."""
    finished = within(tree, *PYTEST[1:], "tests/unit/test_kernels.py", "-k", "table")
    assert finished.status == 1, finished.output
    assert "float128" in finished, finished.output


def test_an_operation_that_mlx_lacks_is_refused(tree: Path) -> None:
    if not importlib.util.find_spec("mlx"):
        pytest.skip("mlx is not installed")
    finished = within(tree, "-c", "import mlx.core as mx, mlxdist; mlxdist.all_first(mx.array(1))")
    assert "TypeError: [all_first] MLX has no all_first: pass numpy.array(x)" in finished, finished.output


def test_a_framework_passes_the_tests_of_all(tree: Path, one: mpis.MPI) -> None:
    folder = "tests/parallel/frameworks"
    files = (f"{folder}/test_frameworks.py", f"{folder}/test_gradients.py")
    command = ["env", f"--chdir={tree}", *PYTEST, *files, "-k", "tinyarray"]
    finished = run(one.command(2, *command), PYTHONPATH=str(tree), **one.environment())
    assert finished.status == 0, finished.output
    assert " passed" in finished, finished.output


def test_a_check_of_doctor(tree: Path) -> None:
    finished = within(tree, *PYTEST[1:], "tests/launch/test_doctor.py", "-k", "few")
    assert finished.status == 0, finished.output
    assert "1 passed" in finished or "1 skipped" in finished, finished.output


@pytest.mark.parametrize("name", ["test_layers.py", "test_docs.py"])
def test_the_rules_still_hold(tree: Path, name: str) -> None:
    finished = within(tree, *PYTEST[1:], f"tests/unit/{name}")
    assert finished.status == 0, finished.output


@pytest.fixture(scope="module")
def tiny(tree: Path) -> Path:
    """Where Tiny MPI is installed: a fake libmpi, and an mpirun that starts one rank."""
    if COMPILER is None:
        pytest.skip("no C compiler to build a fake libmpi with")
    prefix = tree / ".mpi" / "tinympi-1.2"
    for folder in ("bin", "lib"):
        (prefix / folder).mkdir(parents=True)
    build(prefix / "lib", handle="int", VERSION='"Tiny MPI 1.2"').rename(prefix / "lib" / "libtinympi.so.1")
    command = [COMPILER, "-w", "-x", "c", "-", "-o", str(prefix / "bin" / "tinyrun")]
    subprocess.run(command, input=TINYRUN, text=True, check=True)
    (prefix / "bin" / "mpiexec").symlink_to("tinyrun")
    return prefix


def test_an_mpi_is_found_and_named(tree: Path, tiny: Path) -> None:
    listed = within(tree, "tests/mpis.py", "list", "tiny")
    assert listed.output == "tiny-1\n"
    rank = ("--ranks", "3", "env", f"--chdir={tree}", sys.executable, "-c", USE_MPI)
    finished = run([str(tiny / "bin" / "tinyrun"), *rank], PYTHONPATH=str(tree))
    library = f"Tiny MPI 1.2 ({tiny}/lib/libtinympi.so.1)"
    assert json.loads(finished.output) == ["Tiny MPI's tinyrun", library, "prefix of the launcher"]


def test_a_stranger_is_refused_under_an_mpi(tree: Path, tiny: Path, one: mpis.MPI) -> None:
    rank = ("--ranks", "3", "env", f"--chdir={tree}", sys.executable, "-c", USE_MPI)
    stranger = str(one.library_path)
    finished = run([str(tiny / "bin" / "tinyrun"), *rank], PYTHONPATH=str(tree), MLXDIST_LIBMPI=stranger)
    assert finished.status != 0
    assert "cannot join the ranks of Tiny MPI's tinyrun" in finished, finished.output
    assert f"set MLXDIST_LIBMPI={tiny}" in finished, finished.output


def test_an_mpi_is_launched_with_its_own_options(tree: Path, tiny: Path) -> None:
    launch = ("-m", "mlxdist", "launch", "--dry-run", "-n", "2", "--hosts", "a,b", "x.py")
    finished = within(tree, *launch, TINYMPI_ROOT=str(tiny), PATH=SYSTEM_PATH)
    assert finished.output == f"{tiny}/bin/tinyrun --ranks 2 --on a:1,b:1 {sys.executable} x.py\n"


def test_doctor_knows_an_mpi(tree: Path, tiny: Path) -> None:
    facts = "from mlxdist.cli.doctor import environment as e; print(e.facts(e.examine()))"
    finished = within(tree, "-c", facts, PATH=f"{tiny}/bin:{SYSTEM_PATH}")
    assert f"{tiny}/bin/mpiexec (Tiny MPI's tinyrun 1.2), its ranks open {tiny}/lib/libtinympi.so.1" in finished, (
        finished.output
    )
