"""tests/threads.py for some rounds; `make test-pythons` runs it without the GIL."""

from __future__ import annotations

import mpis
from conftest import Ranks


def test_threads_at_once(two: mpis.MPI, ranks: Ranks) -> None:
    finished = ranks(two, 2, mpis.ROOT / "tests" / "threads.py", "--rounds", "5", timeout_s=220)
    assert finished.status == 0, finished.output
    assert "the GIL, 2 ranks, 5 rounds" in finished
    assert "Traceback" not in finished, finished.output
