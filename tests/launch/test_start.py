"""init() waits in calls of MPI that nothing interrupts: it says for whom, and the process ends at the limit."""

from __future__ import annotations

import importlib.util

import mpis
import pytest
from conftest import Ranks

SOON_S = 30  # much less than the late rank sleeps, on a busy machine

LATE = """
import os, signal, sys, threading, time
rank = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("PMI_RANK") or 0)
if rank == 1:
    time.sleep({late_s})
import numpy as np
import mlxdist as dist
{before}
print("begins", end=" ")  # stays in the buffer of a pipe
began = time.monotonic()
world = dist.init({timeout})
print(f"sum {{int(dist.all_sum(1))}}\\n", end="", flush=True)
"""
AWAITED = "in init: not every process that the launcher started has called it"


def test_limit(two: mpis.MPI, ranks: Ranks) -> None:
    before = "import mlxdist.world; mlxdist.world.START_S = 3"  # a short limit of calls leaves MPI more time: 20 s
    program = LATE.format(late_s=60, before=before, timeout="timeout_s=0.5")
    finished = ranks(two, 2, program, timeout_s=SOON_S)
    assert finished.status != 0
    assert f"mlxdist: [init] waited for 3 s {AWAITED}" in finished
    assert "begins" in finished
    assert "sum" not in finished
    assert finished.left == ()


def test_without_a_limit(one: mpis.MPI, ranks: Ranks) -> None:
    """It says after 10 s for whom it waits, and goes on."""
    finished = ranks(one, 2, LATE.format(late_s=12, before="", timeout=""), timeout_s=SOON_S)
    assert finished.status == 0, finished.output
    assert finished.output.count(f"mlxdist: waiting for 10 s {AWAITED}") == 1
    assert finished.output.count("sum 2") == 2


INTERRUPT = "threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()"


def test_interrupted(launcher: mpis.MPI, ranks: Ranks) -> None:
    finished = ranks(launcher, 2, LATE.format(late_s=60, before=INTERRUPT, timeout=""), timeout_s=SOON_S)
    assert finished.status != 0
    assert f"mlxdist: [init] interrupted {AWAITED}" in finished
    assert "begins" in finished
    assert finished.left == ()


PART = """
from mpi4py import MPI
import os, time
if MPI.COMM_WORLD.rank == 1:
    time.sleep(60)  # another program
import mlxdist as dist
for _ in range(2):  # it can be called again
    try:
        dist.init(timeout_s=1)
    except dist.TimeoutError as error:
        print(error, flush=True)
os._exit(3)
"""


@pytest.mark.skipif(not importlib.util.find_spec("mpi4py"), reason="mpi4py is not installed")
def test_a_part_of_the_world(one: mpis.MPI, ranks: Ranks) -> None:
    finished = ranks(one, 2, PART, timeout_s=SOON_S, MPI4PY_LIBMPI=str(one.library_path))
    assert finished.status != 0
    assert finished.output.count(f"[init] waited for 8 s {AWAITED}") == 2, finished.output


INTERRUPTED_PART = """
from mpi4py import MPI
import os, signal, threading, time
if MPI.COMM_WORLD.rank == 1:
    time.sleep(60)  # another program
import mlxdist as dist
threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    dist.init()
except KeyboardInterrupt:
    print("raised\\n", end="", flush=True)
time.sleep(3)  # or mpirun ends the others
os._exit(3)
"""


@pytest.mark.skipif(not importlib.util.find_spec("mpi4py"), reason="mpi4py is not installed")
def test_a_part_of_the_world_is_interrupted(one: mpis.MPI, ranks: Ranks) -> None:
    finished = ranks(one, 4, INTERRUPTED_PART, timeout_s=SOON_S, MPI4PY_LIBMPI=str(one.library_path))
    assert finished.status != 0
    assert finished.output.count("raised") == 3, finished.output


NESTED = """
import mlxdist as dist
from mlxdist.mpi import choose

here = choose.this_process

def handler():  # as a signal handler would, in the middle of init()
    try:
        dist.init()
    except dist.Error as error:
        print(error)
    return here()

choose.this_process = handler
print(dist.init())
"""


def test_within_itself(ranks: Ranks) -> None:
    finished = ranks(None, 1, NESTED)
    assert finished.status == 0, finished.output
    assert "[init] a signal handler cannot call it while its thread is in init(): call it afterwards" in finished
    assert "<mlxdist.Group: rank 0 of 1>" in finished
