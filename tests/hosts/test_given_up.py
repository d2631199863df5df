"""A call that one rank gives up: nothing of a caller's is written or sent afterwards, and nobody waits for ever."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import time
from pathlib import Path

import mpis
import pytest
from conftest import Finished
from hosts import given_up
from hosts.conftest import Job

PROGRAM = Path(given_up.__file__)
BUSY_S = 1.0
GAVE_UP = {"TimeoutError", "PeerError", "RuntimeError"}


def outcomes(finished: Finished) -> dict[int, tuple[str, float]]:
    """Of each rank: what came of its call, and after how many seconds."""
    assert "right | True" in finished, finished.output
    assert "right | False" not in finished
    found = re.findall(r"(\d) \| (\w+) \| ([\d.]+)$", finished.output, re.MULTILINE)
    return {int(rank): (name, float(seconds)) for rank, name, seconds in found}


def test_a_message(job: Job, where: mpis.MPI, message: str) -> None:
    if "MLX" in message and importlib.util.find_spec("mlx") is None:
        pytest.skip("MLX is not installed")

    def stop() -> None:
        sender = job.pid("h2", PROGRAM)
        os.kill(sender, signal.SIGSTOP)
        time.sleep(given_up.LATE_S)
        os.kill(sender, signal.SIGCONT)

    finished = job(where, "1+1", PROGRAM, message, amid=stop if message != "send" else None)
    said = outcomes(finished)
    assert set(said) == {0, 1}, finished.output
    name, seconds = said[0]
    assert name in GAVE_UP, finished.output
    assert seconds < 2 * given_up.LIMIT_S + BUSY_S  # of which the message itself took some


def test_a_collective(job: Job, one: mpis.MPI) -> None:
    said = outcomes(finished := job(one, "2+2", PROGRAM, "reduce"))
    assert set(said) == {0, 1, 2}, finished.output
    assert {said[0][0], said[1][0]} <= GAVE_UP, finished.output
    assert said[2][0] in {*GAVE_UP, "returned"}, finished.output  # if the others' parts had come before they gave up
    # each arrival may begin the limit anew
    assert all(seconds < 1.5 * given_up.LIMIT_S + BUSY_S for _, seconds in said.values()), finished.output
