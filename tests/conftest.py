"""What every test may ask for: --mpi and --size choose, `ranks` starts programs on ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mpis
import pytest

SIZES = (1, 2, 3, 4)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mpi", default="", help="only MPIs of this name, see tests/mpis.py")
    parser.addoption("--size", default=0, type=int, help="only this number of ranks")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`mpi` runs a test on every MPI that is here, `size` at every number of ranks."""
    config = metafunc.config
    if "mpi" in metafunc.fixturenames:
        here = mpis.chosen(config.getoption("--mpi"))
        metafunc.parametrize("mpi", here, ids=[mpi.name for mpi in here])
    if "size" in metafunc.fixturenames:
        size = config.getoption("--size")
        metafunc.parametrize("size", [size] if size else SIZES, ids=lambda size: f"{size}-ranks")


@dataclass(frozen=True)
class Finished:
    """A program that has ended: exit status, and what it printed on both streams together."""

    status: int
    output: str

    def __contains__(self, text: str) -> bool:
        return text in self.output


LAUNCHERS_OWN = ("OMPI_", "PMI", "PMIX", "HYD", "I_MPI", "FI_", "OPAL_", "MLXDIST", "MLX_", "SLURM_")


def run(
    command: list[str], *, timeout_s: float = 120, interrupt_after_s: float | None = None, **environ: str
) -> Finished:
    """Run ``command`` in a session of its own that is ended as a whole; after ``timeout_s`` all print their stacks."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS_OWN)}
    clean |= {"PYTHONFAULTHANDLER": "1", "PYTHONPATH": str(mpis.ROOT), "OMP_NUM_THREADS": "1", **environ}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean, start_new_session=True
    )
    try:
        if interrupt_after_s is not None:
            try:
                process.wait(interrupt_after_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        signal_all(process.pid, signal.SIGABRT)  # faulthandler prints all stacks
        try:
            output, _ = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            output = "(no output)"
        pytest.fail(f"{' '.join(command)} did not end within {timeout_s} s:\n{output}")
    finally:
        signal_all(process.pid, signal.SIGKILL)
        process.wait()
    return Finished(process.returncode, output)


def session_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except (OSError, IndexError):
        return -1


def signal_all(session: int, number: int) -> None:
    """Signal every process of a session: launchers put ranks into process groups of their own."""
    if Path("/proc/self").exists():
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        members = [pid for pid in pids if session_of(pid) == session]
    else:
        members = [session]
    for pid in members:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


class Ranks:
    """Starts Python programs, given as text or file, on the ranks of an MPI or (mpi None) alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        mpi: mpis.MPI | None,
        size: int,
        program: str | Path,
        *arguments: str,
        timeout_s: float = 60,
        **environ: str,
    ) -> Finished:
        """Run ``program`` on ``size`` ranks and return when all have ended; see ``run``."""
        if isinstance(program, str):
            path = self.folder / "program.py"
            path.write_text(program)
        else:
            path = program
        command = [sys.executable, str(path), *arguments]
        if mpi is None:
            return run(command, timeout_s=timeout_s, **environ)
        return run(mpi.command(size, *command), timeout_s=timeout_s, **mpi.environment(), **environ)


@pytest.fixture
def ranks(tmp_path: Path) -> Ranks:
    return Ranks(tmp_path)
