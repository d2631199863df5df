"""Ranks that die in every way, before, during and after every call: the others raise the right error, and soon.

By default each launcher runs a part of the cells, so that together they cover every operation at every stage and every
way of dying; --full: all of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import mpis
import pytest
from conftest import run
from launch import dying

STAGES = ("before", "amid", "after")
OPERATIONS = (*dying.COLLECTIVES, *dying.MESSAGES, "finalize")
ORDERLY = tuple(dying.END)
# What keeps the launcher from ending the job as soon as a rank dies.
KEEPING = {
    "openmpi-5": ["--with-ft", "ulfm"],
    "mpich-5": ["-disable-auto-cleanup"],
    "intel-12": ["-disable-auto-cleanup"],
}
TIMEOUT_S = 30
SOON_S = 1.0
LIMIT_S = 1.0


@dataclasses.dataclass(frozen=True)
class Cell:
    """Who dies, when and how."""

    mpi: mpis.MPI
    operation: str
    stage: str
    way: str

    def __str__(self) -> str:
        return f"{self.mpi.name}, {self.operation}, {self.stage}, {self.way}"

    @property
    def goes_into_mpi(self) -> bool:
        """Whether the ranks that have arrived call MPI, which waits forever for a stopped rank."""
        return "large" in self.operation or self.operation in ("split", "finalize")

    def classes(self) -> set[str]:
        """What a survivor may raise."""
        if self.way == "SIGSTOP":
            return {"TimeoutError", "PeerError"}  # the latter if another rank has given up before
        if self.way in ORDERLY:
            return {"MismatchError", "PeerError"} if self.stage == "amid" else {"MismatchError"}
        return {"PeerError"}

    def outcomes(self) -> tuple[set[str], set[str]]:
        """The permitted outcomes of the call and of the one after it."""
        right, error = {"right"}, self.classes()
        if self.operation == "finalize":
            fine = self.stage == "after" or (self.stage == "before" and self.way in ORDERLY)
            return (right if fine else error), right
        is_kept = self.operation == "send" or (self.operation == "send, large" and self.mpi.name.startswith("intel"))
        if is_kept:  # MPI buffers small messages until they are received, and Intel MPI this one too
            return (right if self.stage == "after" else right | error), right | error
        if self.stage == "before":
            return error, error
        if self.stage == "after":
            return right, error
        all_or_none = self.goes_into_mpi and self.operation not in dying.MESSAGES
        return (error if all_or_none else right | error), error


def cells(names: tuple[str, ...], every: int, config: pytest.Config) -> Iterator[Cell]:
    """All cells, or every n-th, on the installed MPIs.

    Without ranks that are stopped after all have arrived: the others wait for those in MPI itself.
    """
    full = config.getoption("--full")
    for n, mpi in enumerate(mpi for mpi in mpis.chosen(config.getoption("--mpi")) if mpi.name in names):
        for i, (operation, (s, stage), (w, way)) in enumerate(
            itertools.product(OPERATIONS, enumerate(STAGES), enumerate(dying.WAYS))
        ):
            o = i // (len(STAGES) * len(dying.WAYS))
            cell = Cell(mpi, operation, stage, way)
            if (full or ((o + n) % every == 0 and (o + n) % 3 == s and (o + 2 * n) % 7 == w)) and not (
                stage == "amid" and way == "SIGSTOP" and cell.goes_into_mpi
            ):
                yield cell


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    launchers = tuple(mpi.name for mpi in mpis.MPIS if not mpi.named)
    for name, names, every in (("kept", tuple(KEEPING), 2), ("plain", launchers, 4)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, list(cells(names, every, metafunc.config)), ids=str)


LINE = re.compile(r"^(\d) (\d) \| (\w+) \| (\w+) \| (-?[\d.]+) \| (.*)$", re.MULTILINE)


def check_lines(cell: Cell, output: str) -> list[tuple[str, ...]]:
    """Check the report of each survivor, and return it."""
    first_may, second_may = cell.outcomes()
    lines = LINE.findall(output)
    for size, rank, first, second, seconds, why in lines:
        said = f"{cell}: rank {rank} of {size} {first}, {second} after {seconds} s: {why}\n{output}"
        assert first in first_may, said
        assert second in second_may, said
        timeout_s = SOON_S + (LIMIT_S if cell.way == "SIGSTOP" else 0) + (dying.LATE_S if cell.stage == "amid" else 0)
        assert float(seconds) < timeout_s, said
        if {first, second} & {"MismatchError"}:
            assert "has ended or freed this group" in why, said
        elif {first, second} & {"PeerError"}:
            assert re.search("has died|has given up|MPI_ERR_PROC_FAILED", why), said
    return lines


@pytest.mark.timeout(TIMEOUT_S * 2)
def test_the_survivors_are_told(kept: Cell, tmp_path: Path) -> None:
    """On launchers that let the others live; those of MPICH and Intel end them soon all the same."""
    mpi = kept.mpi
    launcher, *command = mpi.command(4, sys.executable, dying.__file__, kept.operation, kept.stage, kept.way, tmp_path)
    environ = mpi.environment() | {"MLXDIST_ABORT": "0", "MLXDIST_QUIET": "1"}
    if kept.way == "SIGSTOP":
        environ["MLXDIST_TIMEOUT_S"] = str(LIMIT_S)
    finished = run([launcher, *KEEPING[mpi.name], *command], timeout_s=TIMEOUT_S, **environ)
    lines = check_lines(kept, finished.output)
    assert finished.left == ()
    # hydra and Intel's launcher end the others soon after a death, Open MPI's mpirun after a nonzero status
    if kept.way in ORDERLY or kept.way == "SIGSTOP" or (mpi.is_openmpi and kept.way != "os._exit(3)"):
        sizes = (4,) if kept.operation == "finalize" else (4, 3) if kept.stage == "amid" else (4, 3, 2)
        assert sorted(line[:2] for line in lines) == sorted((str(k), str(r)) for k in sizes for r in range(k - 1))
    if kept.way == "SIGSTOP" and kept.operation not in ("send", "send, large", "finalize"):
        assert any("TimeoutError" in line for line in lines), finished.output
    if kept.way in ("exception", "sys.exit(1)"):
        assert finished.status != 0


@pytest.mark.timeout(TIMEOUT_S * 2)
def test_the_job_ends(plain: Cell, tmp_path: Path) -> None:
    """Nothing is caught and the launcher has no options: no hang, no wrong result, and a nonzero status."""
    mpi = plain.mpi
    size = 2 + len(plain.operation) % 3 if plain.stage != "amid" else 4
    environ = mpi.environment() | ({"MLXDIST_TIMEOUT_S": str(LIMIT_S)} if plain.way == "SIGSTOP" else {})
    program = (dying.__file__, plain.operation, plain.stage, plain.way, tmp_path, "uncaught")
    finished = run(mpi.command(size, sys.executable, *program), timeout_s=TIMEOUT_S, **environ)
    assert "wrong numbers" not in finished
    assert finished.left == ()
    may_be_fine = plain.way == "sys.exit(0)" or plain.operation in ("send", "finalize")
    assert finished.status != 0 or may_be_fine, finished.output
