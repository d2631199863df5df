"""torch.distributed on mlxdist: how a process group starts, and what becomes of it when a rank fails."""

from __future__ import annotations

import importlib.util
import re
import sys

import mpis
import pytest
from conftest import Ranks, run
from launch.test_death import KEEPING, SOON_S

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
SLOW_MACHINE = 5

STARTS = """
import datetime, os, sys, time
import torch
import torch.distributed as c10d
import mlxdist.torch

assert not mlxdist.info().size > 1 and mlxdist.info().backend == "not started", "an import starts nothing"
for _ in range(3):
    c10d.init_process_group("mlxdist")
    rank, size = c10d.get_rank(), c10d.get_world_size()
    assert (rank, size) == (mlxdist.info().rank, mlxdist.info().size)
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == (str(rank), str(size))
    x = torch.ones(2)
    c10d.all_reduce(x)
    assert x.tolist() == [size, size]
    store = c10d.distributed_c10d._get_default_store()
    store.set(f"key{rank}", str(rank))
    assert store.get(f"key{(rank + 1) % size}") == str((rank + 1) % size).encode()
    mlxdist.barrier()
    c10d.destroy_process_group()
    assert not c10d.is_initialized()

def refused(call, kind, *words):
    try:
        call()
    except kind as error:
        missing = [word for word in words if word not in str(error)]
        assert not missing, f"{error} lacks {missing}"
        return
    raise AssertionError(f"{words} was not raised")

wrong = dict(store=c10d.HashStore(), rank=0, world_size=size + 1)
refused(lambda: c10d.init_process_group("mlxdist", **wrong), ValueError,
        f"rank 0 of {size + 1} was passed", f"rank {rank} of {size} of MPI", "mlxdist launch")
os.environ["TORCHELASTIC_RUN_ID"] = "7"
refused(lambda: c10d.init_process_group("mlxdist", **wrong), ValueError,
        "torchrun has started rank 0", f"mlxdist launch -n {size + 1} train.py")
del os.environ["TORCHELASTIC_RUN_ID"]

if size > 1:
    for call, words in (
        (lambda: c10d.all_reduce(torch.ones(4 + rank)), ["all_sum float32 (4,)", "all_sum float32 (5,)"]),
        (lambda: c10d.all_reduce(torch.ones(4), [c10d.ReduceOp.SUM, c10d.ReduceOp.AVG][rank]), ["for a mean"]),
        (lambda: c10d.all_reduce(torch.ones(4)) if rank else c10d.broadcast(torch.ones(4), 0), ["broadcast float32"]),
        (lambda: c10d.all_reduce(torch.ones(4), async_op=True).wait() if rank else c10d.barrier(), ["barrier"]),
    ):
        c10d.init_process_group("mlxdist")
        refused(call, mlxdist.MismatchError, "rank 0:", "rank 1:", *words)
        refused(lambda: c10d.barrier(), RuntimeError, "broken")
        c10d.destroy_process_group()
    c10d.init_process_group("mlxdist", timeout=datetime.timedelta(seconds=0.5))
    if rank:
        time.sleep(2)
    else:
        refused(lambda: c10d.barrier(), TimeoutError, "rank 1", "has not reached")
    mlxdist.barrier()  # the groups of torch.distributed are its own
    c10d.destroy_process_group()
print("right", flush=True)
"""


def test_start_and_errors_on_ranks(two: mpis.MPI, ranks: Ranks) -> None:
    finished = ranks(two, 2, STARTS, MLXDIST_QUIET="1")
    assert finished.output.count("right") == 2, finished.output  # after a timeout, MPI is not finalized


def test_start_alone(ranks: Ranks) -> None:
    finished = ranks(None, 1, STARTS)
    assert finished.status == 0, finished.output
    assert "right" in finished


DIES = """
import os, signal, sys, time
import torch
import torch.distributed as c10d
import mlxdist.torch

c10d.init_process_group("mlxdist")
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(300, 300))
for step in range(4):
    loss = model(torch.ones(2, 300)).sum()
    if step == 3 and c10d.get_rank() == 1:
        print("dies", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    began_s = time.perf_counter()
    try:
        loss.backward()
    except RuntimeError as error:
        print(f"step {step}: {type(error).__name__} after {time.perf_counter() - began_s:.2f} s: {error}", flush=True)
        os._exit(0)
"""


def test_a_rank_that_dies_is_an_error_in_backward(pytestconfig: pytest.Config, two: mpis.MPI, ranks: Ranks) -> None:
    if two != mpis.TWO[0] and not pytestconfig.getoption("--full"):
        pytest.skip("one will do: shared memory says who has died, not the MPI")
    program = ranks.folder / "program.py"
    program.write_text(DIES)
    command = two.command(2, sys.executable, str(program))
    kept = [command[0], *KEEPING[two.name], *command[1:]]
    finished = run(kept, timeout_s=60, **two.environment())
    found = re.search(r"step 3: PeerError after ([\d.]+) s: .*rank 1", finished.output)
    assert found, finished.output
    assert float(found[1]) < SOON_S * SLOW_MACHINE


def test_torchrun_is_told_how_to_start(pytestconfig: pytest.Config, ranks: Ranks) -> None:
    if not pytestconfig.getoption("--full"):
        pytest.skip("takes 10 s, and test_start_and_errors_on_ranks sees the same error")
    program = ranks.folder / "program.py"
    program.write_text('import torch, mlxdist.torch\ntorch.distributed.init_process_group("mlxdist")\n')
    finished = run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(program)])
    assert finished.status
    assert "start them with mlxdist launch -n 2 train.py" in finished
