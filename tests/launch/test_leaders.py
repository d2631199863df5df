"""The rank that speaks for its host to others gives up or leaves: no rank waits for it, whatever its own limit is."""

from __future__ import annotations

import re

import mpis
import pytest
from conftest import Ranks

BEGIN = """
import os, time
import mlxdist as dist
from mlxdist import _core

def outcome(call):
    try:
        call()
        said = "nothing"
    except dist.Error as error:
        said = f"{type(error).__name__} {error}"
    print(f"rank {rank}: {said}\\n", end="", flush=True)

world = dist.init()
rank = world.rank()
"""
FREED = """
group = world.split(0)
dist.barrier(group=group)
if rank == leaves:
    del group
    dist.barrier()
else:
    outcome(lambda: dist.all_sum(1, group=group))
    dist.barrier()
"""
FINALIZED = """
if rank == 0:
    _core.set_timeout(world, 0.5)
time.sleep(1 if rank > 1 else 0)
outcome(dist.finalize)
time.sleep(3)
os._exit(0)  # MPI would wait for all ranks
"""


@pytest.mark.parametrize(("leaves", "error"), [(0, "PeerError"), (1, "MismatchError")])
def test_a_rank_that_frees_a_group(one: mpis.MPI, ranks: Ranks, leaves: int, error: str) -> None:
    program = BEGIN + f"leaves = {leaves}\n" + FREED
    finished = ranks(one, 4, program, timeout_s=30, MLXDIST_SHARED_MEMORY="2")
    said = re.findall(r"^rank (\d): (\w+)", finished.output, re.MULTILINE)
    assert sorted(said) == [(str(rank), error) for rank in range(4) if rank != leaves], finished.output


def test_a_limit_of_finalize(one: mpis.MPI, ranks: Ranks) -> None:
    finished = ranks(one, 4, BEGIN + FINALIZED, timeout_s=30, MLXDIST_SHARED_MEMORY="2", MLXDIST_ABORT="0")
    said = re.findall(r"^rank (\d): (\w+)", finished.output, re.MULTILINE)
    expected = ["TimeoutError", "PeerError", "PeerError", "PeerError"]
    assert sorted(said) == [(str(rank), error) for rank, error in enumerate(expected)], finished.output
