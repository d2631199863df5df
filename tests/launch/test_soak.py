"""tests/soak.py for a short while; `make soak` runs it for minutes."""

from __future__ import annotations

import mpis
import pytest
from conftest import Ranks

SECONDS, TIMEOUT_S = 8, 120


@pytest.mark.parametrize("node", ["1", "0"], ids=["slots", "no slots"])
def test_a_short_soak(representative: mpis.MPI, ranks: Ranks, node: str) -> None:
    if (representative.name == "intel-12") != (node == "0"):
        pytest.skip("with shared memory on Open MPI and MPICH, without on Intel MPI, since it takes long")
    program = mpis.ROOT / "tests" / "soak.py"
    options = ("--seconds", str(SECONDS), "--seed", "7")
    finished = ranks(representative, 4, program, *options, timeout_s=TIMEOUT_S, MLXDIST_SHARED_MEMORY=node)
    assert finished.status == 0, finished.output
    assert f"4 ranks, {'' if node == '1' else 'no '}slots, seed 7: " in finished
    assert ": level" in finished
    assert "Traceback" not in finished
