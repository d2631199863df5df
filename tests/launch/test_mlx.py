"""When MLX is imported, and its pending communication at the end of the program."""

from __future__ import annotations

import importlib.util

import mpis
import pytest
from conftest import Ranks

needs_mlx = pytest.mark.skipif(importlib.util.find_spec("mlx") is None, reason="MLX is not installed")

NUMPY_ALONE = """
import sys
import numpy, mlxdist
mlxdist.all_sum(numpy.ones(1))
print("imported" if "mlx.core" in sys.modules else "not imported")
"""


def test_who_does_not_use_mlx_does_not_import_it(ranks: Ranks) -> None:
    assert ranks(None, 1, NUMPY_ALONE).output == "not imported\n"


WITHOUT_MLX = """
import sys
sys.modules["mlx"] = None
import mlxdist
mlxdist.install()
"""


def test_install_without_mlx(ranks: Ranks) -> None:
    finished = ranks(None, 1, WITHOUT_MLX)
    assert "Error: [install] MLX is not installed: pip install mlx" in finished
    assert finished.status == 1


# Most sums are still queued in MLX's stream when the program ends; no rank may finalize MPI before the others are done.
UNFINISHED = """
import sys, time
import mlx.core as mx
import mlxdist as dist
dist.install()
time.sleep(0.5 * dist.init().rank())
stream = mx.new_stream(mx.cpu) if sys.argv[1] == "own" else None
sums = [mx.distributed.all_sum(mx.full((100_000,), float(step)), stream=stream) for step in range(8)]
mx.async_eval(sums)
print("at the end\\n", end="", flush=True)
"""


@needs_mlx
@pytest.mark.parametrize("stream", ["own", "default"])
def test_what_is_unfinished_at_the_end_is_finished(ranks: Ranks, representative: mpis.MPI, stream: str) -> None:
    finished = ranks(representative, 2, UNFINISHED, stream)
    assert finished.status == 0, finished.output
    assert finished.output.count("at the end") == 2
    assert "finalized" not in finished


WITHOUT_INSTALL = """
import mlx.core as mx
import mlxdist as dist
rank = dist.init().rank()
assert dist.average_gradients([mx.array([rank])])[0].item() == 0.5
"""


@needs_mlx
def test_a_mean_may_be_the_first_call(ranks: Ranks, representative: mpis.MPI) -> None:
    finished = ranks(representative, 2, WITHOUT_INSTALL)
    assert finished.status == 0, finished.output


# A forked process has none of MLX's threads, so its exit must not wait for them.
FORKED = """
import os, sys
import mlx.core as mx
import mlxdist as dist
dist.install()
mx.eval(dist.all_sum(mx.ones(3)) + 1)
if (pid := os.fork()) == 0:
    sys.exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
mx.eval(dist.all_sum(mx.ones(3)))
"""


@needs_mlx
def test_a_fork_ends_without_waiting_for_mlx(ranks: Ranks, launcher: mpis.MPI) -> None:
    finished = ranks(launcher, 2, FORKED, timeout_s=20)
    assert finished.status == 0, finished.output


@needs_mlx
def test_a_fork_of_a_program_that_runs_alone_ends_too(ranks: Ranks) -> None:
    finished = ranks(None, 1, FORKED, timeout_s=20)
    assert finished.status == 0, finished.output


# Rank 1 splits when it has heard from rank 0, whose main thread goes on while another one waits in the split.
SPLIT_IN_A_THREAD = """
import threading, time
import numpy as np
import mlx.core as mx
import mlxdist as dist
dist.install()
rank, theirs = dist.init().rank(), mx.distributed.init()
part = theirs.split(0)
if rank == 0:
    thread = threading.Thread(target=lambda: print(part.split(0).size()))
    thread.start()
    time.sleep(0.2)
    dist.send(np.ones(1), 1)
    thread.join()
else:
    dist.recv((1,), np.float64, 0)
    part.split(0)
"""


@needs_mlx
def test_a_split_of_mlx_holds_nobody_up(ranks: Ranks, one: mpis.MPI) -> None:
    finished = ranks(one, 2, SPLIT_IN_A_THREAD, timeout_s=20)
    assert finished.status == 0, finished.output
    assert finished.output.strip() == "2"
