"""tests/parallel on every MPI at every number of ranks, and in one process; for frameworks/ see test_frameworks.py."""

from __future__ import annotations

import mpis
import pytest
from conftest import PARALLEL, PYTEST, WHERE_MPI_COUNTS, run

# MPICH 4.0.2 never yields: with more ranks than cores, tests that create many groups take half a minute.
SLOW = {"debian-mpich": " and not (test_split or test_mlx_groups)"}
TIMEOUT_S = 240


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("kernels"))


def test_on_ranks(mpi: mpis.MPI, size: int, kernels: str, pytestconfig: pytest.Config) -> None:
    environ = {"MLXDIST_TEST_SIZE": str(size), "MLXDIST_TEST_LIBMPI": str(mpi.library_path)}
    environ["MLXDIST_TEST_KERNELS"] = kernels
    # With more ranks than cores each test takes long, and shared memory is the same on every MPI.
    many = {2: mpis.FAMILIES, 3: [mpi.name for mpi in mpis.TWO]}.get(size, [mpis.TWO[0].name])
    everything = mpi.name in many or pytestconfig.getoption("--full")
    but = SLOW.get(mpi.name, "") if size > 2 else ""
    which = [] if everything else ["-k", f"({WHERE_MPI_COUNTS}){but}"]
    finished = run(mpi.command(size, *PARALLEL, *which), timeout_s=TIMEOUT_S, **mpi.environment(), **environ)
    assert finished.status == 0, finished.output
    assert " passed" in finished
    assert " failed" not in finished


def test_eight_ranks(two: mpis.MPI) -> None:
    """The tests that depend on how many ranks share the memory."""
    if two != mpis.TWO[0]:
        pytest.skip("one will do: nothing of it goes through MPI")
    files = (f"tests/parallel/test_{name}.py" for name in ("thresholds", "shared", "messages"))
    finished = run(two.command(8, *PYTEST, *files), timeout_s=TIMEOUT_S, **two.environment(), MLXDIST_TEST_SIZE="8")
    assert finished.status == 0, finished.output
    assert " passed" in finished


def test_alone() -> None:
    finished = run(PARALLEL, timeout_s=TIMEOUT_S, MLXDIST_TEST_SIZE="1")
    assert finished.status == 0, finished.output
    assert " passed" in finished
