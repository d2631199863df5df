"""tests/parallel/test_mismatch.py without shared memory, as between hosts; --full: 100 times each, at every size."""

from __future__ import annotations

import mpis
import pytest
from conftest import PYTEST, run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    config = metafunc.config
    sizes = (2, 3, 4) if config.getoption("--full") else (3,)
    here = [mpi for mpi in mpis.chosen(config.getoption("--mpi")) if not mpi.named]
    cases = [(mpi, size, node) for mpi in here for size in sizes for node in ("0", "1")]
    if not config.getoption("--full"):
        cases = [case for case in cases if case[2] == "0"]
    ids = [f"{mpi.name}, {size} ranks, MLXDIST_SHARED_MEMORY={node}" for mpi, size, node in cases]
    metafunc.parametrize(("which", "many", "node"), cases, ids=ids)


def test_mismatch(which: mpis.MPI, many: int, node: str, request: pytest.FixtureRequest) -> None:
    environ = {
        "MLXDIST_SHARED_MEMORY": node,
        "MLXDIST_TEST_SIZE": str(many),
        "MLXDIST_TEST_LIBMPI": str(which.library_path),
        "MLXDIST_TEST_REPETITIONS": "100" if request.config.getoption("--full") else "2",
    }
    finished = run(
        which.command(many, *PYTEST, "tests/parallel/test_mismatch.py"), timeout_s=240, **which.environment(), **environ
    )
    assert finished.status == 0, finished.output
    assert " passed" in finished
