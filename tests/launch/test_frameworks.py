"""tests/parallel/frameworks on one MPI of each family at 2 ranks: importing PyTorch and JAX takes seconds."""

from __future__ import annotations

import sys

import mpis
import pytest
from conftest import run

FAMILIES = ("openmpi-5", "mpich-5", "intel-12")
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/parallel/frameworks"]


def test_on_ranks(mpi: mpis.MPI) -> None:
    if mpi.name not in FAMILIES:
        pytest.skip(f"{', '.join(FAMILIES)} stand for the rest")
    finished = run(mpi.command(2, *PYTEST), timeout_s=120, **mpi.environment(), MLXDIST_TEST_SIZE="2")
    assert finished.status == 0, finished.output
    assert " passed" in finished or " skipped" in finished
    assert " failed" not in finished
