"""A rank of another host comes too late: the limit and Ctrl-C end any call, and the late one hears of it."""

from __future__ import annotations

import re
from pathlib import Path

import mpis
from hosts import late
from hosts.conftest import Job

PROGRAM = Path(late.__file__)
SOON_S = 0.3
BUSY_S = 0.5  # on a busy machine
RAISED = {"limit": "TimeoutError", "interrupted": "KeyboardInterrupt"}


def test_late(job: Job, where: mpis.MPI) -> None:
    finished = job(where, "1+1", PROGRAM, timeout_s=120)
    assert finished.status == 0, finished.output
    for how, raised in RAISED.items():
        gave_up = re.findall(rf"^\[0\] (.+) \| {how} \| (\w+) \| (\S+) \| (.*)$", finished.output, re.MULTILINE)
        came_late = re.findall(rf"^\[1\] (.+) \| {how} \| (\w+)$", finished.output, re.MULTILINE)
        assert {name for name, *_ in gave_up} == {name for name, _ in came_late} == set(late.CALLS), finished.output
        for name, came, after_s, text in gave_up:
            if name == "send" and came == "returned":
                continue  # MPI has received it on the other host, for its rank
            assert came == raised, finished.output
            assert -BUSY_S < float(after_s) < SOON_S + BUSY_S, (name, after_s)
            assert how != "limit" or "h2" in text, finished.output
        assert {came for name, came in came_late if name not in ("send", "recv")} == {"PeerError"}, finished.output
