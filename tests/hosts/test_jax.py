"""JAX's own collectives between hosts: the processes find rank 0's host, and the results are right."""

from __future__ import annotations

import importlib.util
import sys

import mpis
import pytest
from conftest import run
from hosts.testbed import Testbed

SHARDED = mpis.ROOT / "tests" / "launch" / "sharded.py"


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_an_unchanged_program(bed: Testbed, where: mpis.MPI, pytestconfig: pytest.Config) -> None:
    hosts = "h1:2,h2:2" if pytestconfig.getoption("--full") else "h1,h2"
    started = ["launch", "--hosts", hosts, "-m", "mlxdist", str(SHARDED), "1"]
    finished = run(
        bed.command("h1", sys.executable, "-m", "mlxdist", *started),
        timeout_s=120,
        MLXDIST_LIBMPI=str(where.library_path),
    )
    assert finished.status == 0, finished.output
    assert finished.output.count("mpi is right") == (4 if ":" in hosts else 2)
