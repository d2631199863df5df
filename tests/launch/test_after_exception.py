"""Once a call has raised, nobody touches the caller's arrays, and no other rank has a result that lacks this one.

aftermath.py draws the operation, who gives up, when and why. By default a sample; --full: ten thousand instants.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import mpis
import pytest
from conftest import Ranks, run
from launch import aftermath
from launch.test_death import KEEPING

SAMPLE, INSTANTS, FULL = 50, 400, 5000  # for each MPI: in the sample; of one job; of all jobs
DEATHS, FULL_DEATHS = 2, 60  # jobs
REST_S, FULL_REST_S = 0.2, 5.0
LINE = re.compile(r"^rank (\d): (\d+) instants, (\d+) raised$", re.MULTILINE)


def jobs(full: bool, is_first: bool) -> list[tuple[int, int, str]]:
    """Ranks, instants and MLXDIST_SHARED_MEMORY: on one host; as between hosts of one rank, or of two and of one."""
    if not full:
        return [(3, SAMPLE, "1"), (3, SAMPLE // 4, "0" if is_first else "2")]
    one_host = [(2 + i % 3, INSTANTS, "1") for i in range(-(-FULL // INSTANTS))]
    return one_host + [(2 + i % 4, INSTANTS, node) for i, node in enumerate("0202")]


def test_whoever_gives_up_is_left_alone(two: mpis.MPI, ranks: Ranks, pytestconfig: pytest.Config) -> None:
    full = pytestconfig.getoption("--full")
    for seed, (size, instants, node) in enumerate(jobs(full, two == mpis.TWO[0])):
        what = str(instants), str(seed), str(FULL_REST_S if full else REST_S)
        program = Path(aftermath.__file__)
        finished = ranks(two, size, program, *what, timeout_s=30 + instants, MLXDIST_SHARED_MEMORY=node)
        lines = LINE.findall(finished.output)
        assert sorted(int(rank) for rank, *_ in lines) == list(range(size)), f"seed {seed}: {finished.output}"
        assert all(int(raised) >= instants / 10 for *_, raised in lines), finished.output


def test_when_another_dies(pytestconfig: pytest.Config) -> None:
    """On Open MPI 5, whose launcher lets the others live."""
    (mpi,) = [mpi for mpi in mpis.MPIS if mpi.name == "openmpi-5"]
    if mpi not in mpis.chosen(pytestconfig.getoption("--mpi")):
        pytest.skip(f"{mpi.name} is not installed or not asked for")
    full = pytestconfig.getoption("--full")
    for seed in range(FULL_DEATHS if full else DEATHS):
        what = "deaths", str(seed), str(FULL_REST_S if full else REST_S)
        launcher, *command = mpi.command(4, sys.executable, aftermath.__file__, *what)
        environ = mpi.environment() | {"MLXDIST_ABORT": "0"}
        finished = run([launcher, *KEEPING[mpi.name], *command], timeout_s=60, **environ)
        assert [rank for rank, *_ in LINE.findall(finished.output)] == ["0"], f"seed {seed}: {finished.output}"
