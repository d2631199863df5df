"""A host is cut off, or a rank is stopped, interrupted or killed, in the middle of a sum: nobody waits for long."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mpis
from conftest import Finished
from hosts import amid
from hosts.conftest import Job

LIMIT_S = 3.0
STAY_S = 10.0
SOON_S = 0.5
BUSY_S = 0.5  # on a busy machine
PROGRAM = Path(amid.__file__)
ARGUMENTS = (str(LIMIT_S), str(STAY_S))
GAVE_UP = {"TimeoutError", "PeerError"}
# What keeps Open MPI from ending the job as soon as a connection fails; MPICH's launcher sees no rank die under ours
KEEPING = {"openmpi-5": ("--with-ft ulfm",), "mpich-5": ()}


@dataclass(frozen=True)
class Outcome:
    """What came of the sum on one rank, and how long after the event."""

    name: str
    after_s: float
    text: str


def outcomes(finished: Finished, at: float) -> dict[int, Outcome]:
    """Of each rank that printed one."""
    found = re.findall(r"amid \| (\d+) \| (\w+) \| ([\d.]+) \| (.*)$", finished.output, re.MULTILINE)
    return {int(rank): Outcome(name, float(when) - at, text) for rank, name, when, text in found}


class Event:
    """Something that happens in the middle, and is undone later."""

    def __init__(self, do: Callable[[], object], undo: Callable[[], object] = int, undo_after_s: float = 0) -> None:
        self.do, self.undo, self.undo_after_s = do, undo, undo_after_s
        self.at = float("nan")

    def __call__(self) -> None:
        self.at = time.monotonic()
        self.do()
        time.sleep(self.undo_after_s)
        self.undo()


def signalled(job: Job, number: int) -> Callable[[], None]:
    """Sends a signal to the rank on h2."""
    return lambda: os.kill(job.pid("h2", PROGRAM), number)


def test_a_host_is_gone(job: Job, where: mpis.MPI, how: str) -> None:
    """The others raise at the limit and name it; it comes back later, so that the job can end."""
    later_s = LIMIT_S + SOON_S + BUSY_S
    event = {
        "cut off": Event(lambda: job.bed.cut("h2"), lambda: job.bed.heal("h2"), later_s),
        "stopped": Event(signalled(job, signal.SIGSTOP), signalled(job, signal.SIGCONT), later_s),
    }[how]
    finished = job(where, "1+1", PROGRAM, *ARGUMENTS, amid=event, MLXDIST_ABORT="0", options=KEEPING[where.name])
    said = outcomes(finished, event.at)
    assert set(said) == {0, 1}, finished.output
    for rank, other in ((0, "h2"), (1, "h1")) if how == "cut off" else ((0, "h2"),):
        assert said[rank].name in GAVE_UP, finished.output
        assert other in said[rank].text, finished.output
        assert said[rank].after_s < LIMIT_S + SOON_S + BUSY_S
    assert said[1].name in GAVE_UP, finished.output


def test_a_host_comes_back(job: Job, where: mpis.MPI) -> None:
    """Cut off for a second, which is less than the limit: the sum goes on, and is right."""
    event = Event(lambda: job.bed.cut("h2"), lambda: job.bed.heal("h2"), 1.0)
    finished = job(where, "1+1", PROGRAM, "10", amid=event)
    assert finished.status == 0, finished.output
    said = outcomes(finished, event.at)
    assert [said[rank].name for rank in range(2)] == ["right"] * 2
    assert all(outcome.after_s > 1.0 for outcome in said.values())


def test_interrupted(job: Job, where: mpis.MPI) -> None:
    """One rank gets a SIGINT and raises at once; the other does not wait longer than its limit."""
    event = Event(signalled(job, signal.SIGINT))
    finished = job(where, "1+1", PROGRAM, *ARGUMENTS, amid=event, MLXDIST_ABORT="0", options=KEEPING[where.name])
    said = outcomes(finished, event.at)
    assert set(said) == {0, 1}, finished.output
    assert said[1].name == "KeyboardInterrupt", finished.output
    assert said[1].after_s < SOON_S + BUSY_S
    assert said[0].name in GAVE_UP, finished.output
    assert said[0].after_s < LIMIT_S + SOON_S + BUSY_S


def test_killed(job: Job, where: mpis.MPI) -> None:
    """All that are left raise, on its host and on others."""
    event = Event(signalled(job, signal.SIGKILL))
    finished = job(where, "2+1+1", PROGRAM, str(LIMIT_S), amid=event, MLXDIST_ABORT="0", options=KEEPING[where.name])
    said = outcomes(finished, event.at)
    assert set(said) <= {0, 1, 3}, finished.output
    # MPICH 5.0.2 crashes in MPI_Isend to a rank that has died.
    crashed = 0 if where.is_openmpi else finished.output.count("Fatal Python error: Segmentation fault")
    assert len(said) + crashed == 3, finished.output
    assert {outcome.name for outcome in said.values()} <= GAVE_UP, finished.output
    assert all(outcome.after_s < LIMIT_S + SOON_S + BUSY_S for outcome in said.values()), finished.output


def test_blame(job: Job, where: mpis.MPI) -> None:
    """Nothing keeps the job: launch says which rank it was and where, and ends soon with its status."""
    event = Event(signalled(job, signal.SIGKILL))
    finished = job(where, "2+1+1", PROGRAM, str(LIMIT_S), amid=event)
    ended_s = time.monotonic() - event.at
    assert "rank 2 on h2" in finished.output.splitlines()[-1], finished.output
    assert finished.status == 128 + signal.SIGKILL
    assert ended_s < LIMIT_S + 5
