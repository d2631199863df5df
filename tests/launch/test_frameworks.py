"""tests/parallel/frameworks on two MPIs with 2 ranks only: importing PyTorch and JAX takes seconds."""

from __future__ import annotations

import mpis
from conftest import PYTEST, run


def test_on_ranks(two: mpis.MPI) -> None:
    finished = run(
        two.command(2, *PYTEST, "tests/parallel/frameworks"), timeout_s=120, **two.environment(), MLXDIST_TEST_SIZE="2"
    )
    assert finished.status == 0, finished.output
    assert " passed" in finished or " skipped" in finished
    assert " failed" not in finished
