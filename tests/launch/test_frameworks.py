"""tests/parallel/frameworks on two MPIs at 2 ranks: importing PyTorch and JAX takes seconds."""

from __future__ import annotations

import sys

import mpis
from conftest import run

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/parallel/frameworks"]


def test_on_ranks(two: mpis.MPI) -> None:
    finished = run(two.command(2, *PYTEST), timeout_s=120, **two.environment(), MLXDIST_TEST_SIZE="2")
    assert finished.status == 0, finished.output
    assert " passed" in finished or " skipped" in finished
    assert " failed" not in finished
