"""tests/faults.py for a short while; `make soak FAULTS=1` runs it for minutes, with kills too."""

from __future__ import annotations

import mpis
from faults import failure

SECONDS = 10


def test_timeouts_and_interrupts(two: mpis.MPI) -> None:
    """Deaths are in test_liveness.py and test_after_exception.py."""
    assert failure(two, 3, "rounds", SECONDS, seed=7) == ""
