"""Options and fixtures for all tests: --mpi and --size select, `ranks` starts programs on ranks."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mpis
import pytest

SIZES = (1, 2, 3, 4)

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
PARALLEL = [*PYTEST, "tests/parallel", "--ignore=tests/parallel/frameworks"]
# The tests among these that exercise MPI: every operation, type and kind of group. The others take place in shared
# memory, or before anything is communicated.
WHERE_MPI_COUNTS = " or ".join(
    (
        *("test_reductions", "test_gather", "test_scatter", "test_broadcast", "test_messages", "test_halves"),
        *("test_lengths", "test_drawn", "test_in_place", "test_split", "test_mlx.py", "test_mlx_groups"),
        *("test_rooted", "test_group_of_ranks"),
    )
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mpi", default="", help="only MPIs of this name, see tests/mpis.py")
    parser.addoption("--size", default=0, type=int, help="only this number of ranks")
    parser.addoption(
        "--full",
        action="store_true",
        help="all of what is sampled: every death (an hour), all tests on every MPI and MLX",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "root: needs root; skipped, with the reason, without it")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`mpi`: all installed; `launcher`: one per launcher; `representative`: one per family; `size`: 1 to 4 ranks."""
    config = metafunc.config
    here = mpis.chosen(config.getoption("--mpi"))
    launchers, families = (mpi for mpi in here if not mpi.named), (mpi for mpi in here if mpi.name in mpis.FAMILIES)
    for name, which in (
        ("mpi", here),
        ("launcher", [*launchers]),
        ("representative", [*families]),
        ("mpi_of_two", mpis.TWO),
    ):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, which, ids=lambda mpi: mpi.name)
    if "size" in metafunc.fixturenames:
        size = config.getoption("--size")
        metafunc.parametrize("size", [size] if size else SIZES, ids=lambda size: f"{size}-ranks")


@pytest.fixture
def two(mpi_of_two: mpis.MPI, pytestconfig: pytest.Config) -> mpis.MPI:
    """Each of mpis.TWO."""
    if mpi_of_two not in mpis.chosen(pytestconfig.getoption("--mpi")):
        pytest.skip(f"{mpi_of_two.name} is not installed or not asked for")
    return mpi_of_two


@pytest.fixture
def one(pytestconfig: pytest.Config) -> mpis.MPI:
    """The first MPI that is installed: for tests that do not depend on the MPI."""
    here = mpis.chosen(pytestconfig.getoption("--mpi"))
    if not here:
        pytest.skip("no MPI is installed")
    return here[0]


@dataclass(frozen=True)
class Finished:
    """A program that has ended.

    Attributes:
        status: its exit status.
        output: what it printed, stdout and stderr together.
        elapsed_s: how long it ran.
        left: the command lines of its processes that were still running GRACE_S later.
    """

    status: int
    output: str
    elapsed_s: float
    left: tuple[str, ...]

    def __contains__(self, text: str) -> bool:
        return text in self.output


# Variables that launchers set for their ranks; a shell may have similar ones, such as OMPI_ALLOW_RUN_AS_ROOT.
RANKS_OWN = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
LAUNCHERS_OWN = ("OMPI_", "PMI", "PMIX", "HYD", "I_MPI", "FI_", "OPAL_", "MLXDIST", "MLX_", "SLURM_")


# What an MPI itself leaves in shared memory when its job is aborted: Open MPI 4 and 5, MPICH, Intel MPI.
FORGOTTEN_BY_MPI = re.compile(r"(vader_segment|sm_segment|mpich_shm|ucx_shm_posix|impi_shm|Intel_MPI)[._-].*")

# Marks every process that `run` starts, since hydra puts ranks into their own sessions and process groups.
RUN = "MLXDIST_TEST_RUN"
GRACE_S = 2.0


def run(
    command: list[str], *, timeout_s: float = 120, interrupt_after_s: float | None = None, **environ: str
) -> Finished:
    """Run ``command`` and end everything it started; after ``timeout_s`` every Python process prints its stacks."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS_OWN)}
    clean |= {"PYTHONFAULTHANDLER": "1", "PYTHONPATH": str(mpis.ROOT), "OMP_NUM_THREADS": "1"}
    clean.pop("PYTHONUNBUFFERED", None)  # print() would write the newline separately, behind another rank's line
    mark = f"{RUN}={uuid.uuid4()}"
    clean |= {**environ, RUN: mark.partition("=")[2]}
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean,
        start_new_session=True,
        # the process that started the tests may ignore it, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        if interrupt_after_s is not None:
            try:
                process.wait(interrupt_after_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=timeout_s)
        elapsed_s = time.monotonic() - began
        while members(mark) and time.monotonic() < began + elapsed_s + GRACE_S:
            time.sleep(0.05)
        left = tuple(members(mark).values())
    except subprocess.TimeoutExpired:
        signal_all(mark, signal.SIGABRT, only=sys.executable)  # faulthandler prints all stacks
        try:
            output, _ = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            output = "(no output)"
        pytest.fail(f"{' '.join(command)} did not end within {timeout_s} s:\n{output}")
    finally:
        signal_all(mark, signal.SIGKILL)
        if process.poll() is None:
            process.kill()  # if there is no /proc
        process.wait()
    return Finished(process.returncode, output, elapsed_s, left)


def members(mark: str) -> dict[int, str]:
    """The running processes with ``mark`` in their environment, and their command lines; none without /proc."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
        except OSError:
            pass
    return found


def signal_all(mark: str, number: int, only: str = "") -> None:
    """Signal every process with ``mark``, or only those whose command line begins with ``only``."""
    for pid, line in members(mark).items():
        try:
            if line.startswith(only):
                os.kill(pid, number)
        except ProcessLookupError:
            pass


def best_kernels() -> str:
    """The fastest that this processor can run, by what Linux says of it."""
    if platform.machine() == "aarch64":
        return "neon"
    flags = Path("/proc/cpuinfo").read_text().split()
    return "avx512" if "avx512vl" in flags else "avx2" if "avx2" in flags else "plain"


def own_files() -> set[Path]:
    """In shared memory, and where the build for macOS has its locks."""
    found = set()
    for path in (*Path("/dev/shm").glob("*"), *Path("/tmp").glob("mlxdist.*.*.*")):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_uid == os.getuid():
                found.add(path)
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_stays_in_shared_memory() -> Iterator[None]:
    """mlxdist leaves nothing there, whatever happened to the ranks; what libmpi leaves there after an abort is removed.

    Runs only outside of ranks. What belongs to other users may be of their own tests.
    """
    if any(name in os.environ for name in RANKS_OWN):
        yield
        return
    before = own_files()
    yield
    used = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            used |= set(maps.read_text().split())
    new = own_files() - before
    # The second word of the name is its creator's pid; if that is alive, the file belongs to another run of the tests.
    ours = [path for path in new if path.name.startswith("mlxdist.")]
    assert [path for path in ours if not Path("/proc", str(int(path.name.split(".")[1], 16))).exists()] == []
    for path in new:
        if FORGOTTEN_BY_MPI.fullmatch(path.name) and str(path) not in used:
            path.unlink(missing_ok=True)


def needs(program: str) -> None:
    """Skip the test if something that ``program`` imports is not installed."""
    for module in ("accelerate", "jax", "mlx", "mlx_lm", "sklearn", "torch", "tqdm"):
        if re.search(rf"^(import|from) {module}\b", program, re.MULTILINE) and importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


class Ranks:
    """Starts Python programs, given as text or as a file, on the ranks of an MPI or, if mpi is None, in one process."""

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
        """Run ``program`` on ``size`` ranks and wait for all of them; see ``run``."""
        if isinstance(program, str):
            path = self.folder / "program.py"
            path.write_text(program)
        else:
            path = program
        command = [sys.executable, str(path), *arguments]
        if mpi is None:
            return run(command, timeout_s=timeout_s, **environ)
        return run(mpi.command(size, *command), timeout_s=timeout_s, **(mpi.environment() | environ))


@pytest.fixture
def ranks(tmp_path: Path) -> Ranks:
    return Ranks(tmp_path)
