"""A rank leaves, in every way and whatever the others do: `mlxdist launch` blames the one that left first.

By default each of a few MPIs runs a part of the cells; --full: all of them, on every MPI, and on 3 ranks.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from pathlib import Path

import mpis
import pytest
from conftest import run

# What rank 1 does, the status that it has, and how that is said
WAYS = {
    "sys.exit(85)": ("sys.exit(85)", 85, "ended with status 85"),
    "sys.exit(0)": ("sys.exit(0)", 0, ""),
    "quit()": ("quit()", 0, ""),
    "sys.exit(text)": ("sys.exit('too hot')", 1, "ended with status 1; last: too hot"),
    "exception": ("raise ValueError('mine')", 1, "ended with status 1; last: .*ValueError: mine"),
    "os._exit(3)": ("os._exit(3)", 3, "ended with status 3"),
    "os._exit(0)": ("os._exit(0)", 0, ""),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", 137, "was killed by SIGKILL (status 137)"),
    "SIGSEGV": ("os.kill(os.getpid(), signal.SIGSEGV)", 139, "was killed by SIGSEGV (status 139)"),
    "the end": ("", 0, ""),
}
# What the others do, and whether they need rank 1 for it
OTHERS = {
    "a collective": ("dist.all_sum(1)", True),
    "recv": ("dist.recv(4, float, 1)", True),
    "computing": ("time.sleep(1)", False),
    "the end": ("", False),
}
PROGRAM = """
import os, signal, sys, time
import mlxdist as dist

rank = dist.init().rank()
dist.barrier()
if rank == 1:
    {way}
else:
    {others}
"""
SAMPLED_EACH = 9


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" not in metafunc.fixturenames:
        return
    full = metafunc.config.getoption("--full")
    here = [mpi for mpi in mpis.chosen(metafunc.config.getoption("--mpi")) if not mpi.named]
    cells = [
        pytest.param(mpi, "3" if full else "2", way, others, id=f"{mpi.name}-{way}-{others}")
        for at, mpi in enumerate(mpi for mpi in here if full or mpi in mpis.TWO)
        for n, (way, others) in enumerate(itertools.product(WAYS, OTHERS))
        if full or n % SAMPLED_EACH == at
    ]
    metafunc.parametrize(("left_mpi", "many", "way", "others"), cells)


def test_who_is_to_blame(left_mpi: mpis.MPI, many: str, way: str, others: str, tmp_path: Path) -> None:
    does, status, end = WAYS[way]
    do, need_it = OTHERS[others]
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.format(way=does or "pass", others=do or "pass"))
    finished = run(
        [sys.executable, "-m", "mlxdist", "launch", "-n", many, str(path)],
        timeout_s=60,
        MLXDIST_LIBMPI=str(left_mpi.library_path),
    )
    host = re.escape(os.uname().nodename)
    if status:
        words = rf"rank 1 on {host} {re.escape(end).replace(re.escape('.*'), '.*')}"
    elif need_it:
        status = 1
        words = rf"rank [02] on {host} ended with status 1, after rank 1 on {host} had left; last: .*"
    else:
        assert finished.status == 0, finished.output
        assert "mlxdist launch: rank" not in finished
        return
    assert finished.status == status, finished.output
    assert re.search(rf"^\0?mlxdist launch: {words}[^\n]*\n\Z", finished.output, re.MULTILINE), finished.output
    assert finished.left == ()
