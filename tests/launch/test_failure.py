"""When one rank fails, the job ends soon, reports why, and leaves nothing behind."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mpis
import pytest
from conftest import FORGOTTEN_BY_MPI, Finished, run

TIMEOUT_S = 10
Job = Callable[..., Finished]

BEGIN = """
import os, signal, sys, time
import numpy as np
import mlxdist as dist
rank = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"])

def begin():
    dist.init()
    dist.barrier()
    maps = open("/proc/self/maps").read().split() if sys.platform == "linux" else []
    line = " ".join([f"rank {rank} began", *{name for name in maps if name.startswith("/dev/shm/")}])
    print(line + "\\n", end="")
"""


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """Run a program on two ranks; no processes and no shared memory may remain."""
    outputs = []

    def job(mpi: mpis.MPI, program: str, *, interrupt_after_s: float | None = None, **environ: str) -> Finished:
        path = tmp_path / "job.py"
        path.write_text(BEGIN + program)
        environ |= mpi.environment()
        command = mpi.command(2, sys.executable, path)
        finished = run(command, timeout_s=TIMEOUT_S, interrupt_after_s=interrupt_after_s, **environ)
        outputs.append(finished.output)
        assert finished.status != 0, finished.output
        assert finished.left == ()
        assert "not reached" not in finished
        return finished

    yield job
    used = {Path(name) for output in outputs for name in re.findall(r"/dev/shm/\S+", output)}
    left = {path for path in used if path.exists()}
    for path in left:
        path.unlink()
    assert [path for path in left if not FORGOTTEN_BY_MPI.fullmatch(path.name)] == []


WAIT = "\ndist.all_sum(np.ones(3))\nprint('not reached')"
RAISE = "\nif rank == 1: raise KeyError('broken')\n"


def test_an_exception_on_one_rank_ends_the_job(mpi: mpis.MPI, job: Job) -> None:
    finished = job(mpi, f"begin(){RAISE}{WAIT}")
    assert "KeyError: 'broken'" in finished
    assert "mlxdist: rank 1 of 2 failed with KeyError" in finished
    # What the rank printed before is not lost in a buffer.
    assert "rank 1 began" in finished


def test_without_abort_the_others_finish_their_work(mpi: mpis.MPI, job: Job) -> None:
    finished = job(mpi, f"begin(){RAISE}time.sleep(0.5)\nprint('rank 0 has finished')", MLXDIST_ABORT="0")
    assert "KeyError: 'broken'" in finished
    assert "rank 0 has finished" in finished
    assert "the job is ended" not in finished


@pytest.mark.parametrize("end", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_rank_that_vanishes(launcher: mpis.MPI, job: Job, end: str) -> None:
    """The launcher ends the job."""
    job(launcher, f"begin()\nif rank == 1: {end}{WAIT}")


def test_interrupted(launcher: mpis.MPI, job: Job) -> None:
    """Ctrl-C while rank 0 waits in libmpi and rank 1 in Python."""
    finished = job(launcher, f"begin()\nif rank == 1: time.sleep(60){WAIT}", interrupt_after_s=1.5)
    assert finished.elapsed_s >= 1.5
