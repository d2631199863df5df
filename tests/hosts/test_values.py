"""What comes out is right, on several hosts as on one, and the same bits on every rank and in every run."""

from __future__ import annotations

import re
from pathlib import Path

import mpis
from conftest import PYTEST, Finished
from hosts import values
from hosts.conftest import Job

# Ranks of other hosts do not notice that one has freed its group; and each case once is enough.
SELECTED = "not lets_go and not every_time"
PROGRAM = Path(values.__file__)


def digest(finished: Finished) -> str:
    """Of all sums; the same on all ranks."""
    assert finished.status == 0, finished.output
    (found,) = set(re.findall(r"digest \| \d+ \| (\w+)", finished.output))
    return found


def test_every_operation(job: Job, where: mpis.MPI, layout: str) -> None:
    finished = job(where, layout, PROGRAM, "all", timeout_s=60)
    digest(finished)
    assert finished.output.count("rounded once") == (layout.count("1") if set(layout) == set("1+") else 0)


def test_every_run(job: Job, one: mpis.MPI) -> None:
    first, second = (digest(job(one, "2+1+1", PROGRAM, "sums")) for _ in range(2))
    assert first == second


def test_mismatches(job: Job, one: mpis.MPI) -> None:
    """Ranks that make different calls are told who called what."""
    environ = {"MLXDIST_TEST_SIZE": "4", "MLXDIST_TEST_REPETITIONS": "1"}
    finished = job(one, "2+2", *PYTEST, "tests/parallel/test_mismatch.py", "-k", SELECTED, timeout_s=60, **environ)
    assert finished.status == 0, finished.output
    assert " passed" in finished
