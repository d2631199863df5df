"""tests/parallel on every MPI and at every number of ranks, and alone; its frameworks/ on fewer, see there."""

from __future__ import annotations

import sys

import mpis
import pytest
from conftest import run

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/parallel"]
PYTEST += ["--ignore=tests/parallel/frameworks"]
TIMEOUT_S = 240


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("kernels"))


def test_on_ranks(mpi: mpis.MPI, size: int, kernels: str) -> None:
    environ = {"MLXDIST_TEST_SIZE": str(size), "MLXDIST_TEST_LIBMPI": str(mpi.library_path)}
    environ["MLXDIST_TEST_KERNELS"] = kernels
    finished = run(mpi.command(size, *PYTEST), timeout_s=TIMEOUT_S, **mpi.environment(), **environ)
    assert finished.status == 0, finished.output
    assert " passed" in finished
    assert " failed" not in finished


def test_eight_ranks(two: mpis.MPI) -> None:
    """What depends on how many share the memory."""
    if two != mpis.TWO[0]:
        pytest.skip("one will do: nothing of it goes through MPI")
    files = (f"tests/parallel/test_{name}.py" for name in ("thresholds", "shared", "messages"))
    command = [*PYTEST[:-2], *files]
    finished = run(two.command(8, *command), timeout_s=TIMEOUT_S, **two.environment(), MLXDIST_TEST_SIZE="8")
    assert finished.status == 0, finished.output
    assert " passed" in finished


def test_alone() -> None:
    finished = run(PYTEST, timeout_s=TIMEOUT_S, MLXDIST_TEST_SIZE="1")
    assert finished.status == 0, finished.output
    assert " passed" in finished
