"""Communication through MPI, as between hosts: in tiny pieces, and in the largest that one call can carry."""

from __future__ import annotations

import re
from pathlib import Path

import mpis
import pytest
from conftest import PARALLEL, WHERE_MPI_COUNTS, Ranks, run

THROUGH_MPI = {"MLXDIST_SHARED_MEMORY": "0"}

# Messages can have MAX_COUNT ** 2 bytes, reductions any length.
PROGRAM = """
import numpy as np
import mlxdist as dist

world = dist.init()
rank, size = world.rank(), world.size()
for n in range(40):
    for dtype in (np.int32, np.float16, np.complex64):
        x = (np.arange(n) + rank).astype(dtype)
        sums = (size * np.arange(n) + sum(range(size))).astype(dtype)
        np.testing.assert_array_equal(dist.all_sum(x), sums)
        np.testing.assert_array_equal(dist.all_max(x), (np.arange(n) + size - 1).astype(dtype))
        np.testing.assert_array_equal(dist.all_min(x), np.arange(n).astype(dtype))
        whole = np.tile(x, size)
        np.testing.assert_array_equal(dist.sum_scatter(whole), sums)
        np.testing.assert_array_equal(dist.all_to_all(whole), [r + i for r in range(size) for i in range(n)])
        reduced = dist.reduce(x, size - 1)
        np.testing.assert_array_equal(reduced, sums if rank == size - 1 else x)
for n in range(7 * 8):
    x = np.arange(n, dtype=np.uint8) + rank
    np.testing.assert_array_equal(dist.all_gather(x), [r + i for r in range(size) for i in range(n)])
    for root in range(size):
        np.testing.assert_array_equal(dist.broadcast(x, root), np.arange(n) + root)
        np.testing.assert_array_equal(dist.scatter(np.tile(x, size), root), np.arange(n) + root)
        gathered = dist.gather(x, root)
        np.testing.assert_array_equal(gathered, [r + i for r in range(size) for i in range(n)] if rank == root else x)
    if rank == 0:
        dist.send(x, size - 1)
    elif rank == size - 1:
        np.testing.assert_array_equal(dist.recv_like(x, 0), np.arange(n))
print("end\\n", end="")
"""


def test_pieces_of_seven(mpi: mpis.MPI, ranks: Ranks) -> None:
    size = 3 if mpi.name in mpis.FAMILIES else 2
    finished = ranks(mpi, size, PROGRAM, timeout_s=20, MLXDIST_MAX_COUNT="7", **THROUGH_MPI)
    assert (finished.status, finished.output) == (0, "end\n" * size)


@pytest.mark.parametrize(("many", "sharing"), [(2, "0"), (3, "2")], ids=["apart", "two on a host and one"])
def test_every_operation_and_type(mpi: mpis.MPI, many: int, sharing: str, pytestconfig: pytest.Config) -> None:
    """With pieces of a few thousand elements, so that the longest messages of these tests fit."""
    if many > 2 and mpi.name != mpis.FAMILIES[0] and not pytestconfig.getoption("--full"):
        pytest.skip("one will do")
    environ = {"MLXDIST_MAX_COUNT": "4099", "MLXDIST_TEST_SIZE": str(many), "MLXDIST_SHARED_MEMORY": sharing}
    finished = run(mpi.command(many, *PARALLEL, "-k", WHERE_MPI_COUNTS), timeout_s=120, **mpi.environment(), **environ)
    assert finished.status == 0, finished.output
    assert " passed" in finished
    assert " failed" not in finished


LONG = """
import numpy as np
import mlxdist as dist

LENGTH = 2**31 + 8
AROUND = [0, 1, 2**20 + 3, 2**31 - 2, 2**31 - 1, 2**31, 2**31 + 1, LENGTH - 1]
BETWEEN = [2, 2**30, 2**31 - 3, 2**31 + 2, LENGTH - 2]
world = dist.init()
rank = world.rank()

def check(around, between):
    np.testing.assert_array_equal(x[AROUND], np.arange(len(AROUND)) * 3 + around)
    np.testing.assert_array_equal(x[BETWEEN], between)

x = np.full(LENGTH, rank + 1, np.uint8)
x[AROUND] = np.arange(len(AROUND)) * (rank + 1)
dist.all_sum(x, out=x)
check(0, 3)
x[AROUND] += rank
dist.broadcast(x, 1, out=x)
check(1, 3)
x[BETWEEN] = 9 - rank
if rank == 0:
    dist.send(x, 1)
else:
    dist.recv_like(x, 0, out=x)
check(1, 9)
print("end\\n", end="")
"""
NEEDED_GIB = 14


def available_gib() -> float:
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return int(found[1]) / 2**20 if found else 0


@pytest.mark.parametrize("environ", [THROUGH_MPI, {}], ids=["through MPI", "inside a host"])
def test_longer_than_an_int(representative: mpis.MPI, ranks: Ranks, environ: dict[str, str]) -> None:
    if not environ and representative.name != mpis.FAMILIES[0]:
        pytest.skip("one will do: nothing of it goes through MPI")
    if (gib := available_gib()) < NEEDED_GIB:
        pytest.skip(f"two arrays of 2 GiB and libmpi's copies need {NEEDED_GIB} GiB, there are {gib:.0f}")
    finished = ranks(representative, 2, LONG, timeout_s=60, **environ)
    assert (finished.status, finished.output) == (0, "end\n" * 2)
