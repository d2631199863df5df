"""tests/parallel/frameworks on two MPIs with 2 ranks: importing PyTorch and JAX takes seconds."""

from __future__ import annotations

import mpis
import pytest
from conftest import PYTEST, run


def test_on_ranks(two: mpis.MPI) -> None:
    finished = run(
        two.command(2, *PYTEST, "tests/parallel/frameworks"), timeout_s=300, **two.environment(), MLXDIST_TEST_SIZE="2"
    )
    assert finished.status == 0, finished.output
    assert " passed" in finished or " skipped" in finished
    assert " failed" not in finished


def test_jit_at_every_size(mpi: mpis.MPI, size: int, pytestconfig: pytest.Config) -> None:
    if (mpi.name, size) != ("intel-12", 3) and not pytestconfig.getoption("--full"):
        pytest.skip("sampled: --full for all")
    path = "tests/parallel/frameworks/test_jax_jit.py"
    environ = {"MLXDIST_TEST_SIZE": str(size), "MLXDIST_TEST_LIBMPI": str(mpi.library_path)}
    finished = run(mpi.command(size, *PYTEST, path), timeout_s=120, **mpi.environment(), **environ)
    assert finished.status == 0, finished.output
    assert " passed" in finished or " skipped" in finished
