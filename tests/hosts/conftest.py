"""Four hosts for the tests in this folder, and jobs on them; see testbed.py."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mpis
import pytest
from conftest import Finished, run
from hosts.testbed import Testbed, why_not

# When a test's own action comes: so much of a long transfer has gone over the wire, and most of it has not.
AMID_NBYTES = 4 << 20
LEAVE_S = 5.0  # for what mpirun has started over ssh


# What is tried on each of mpis.TWO with --full, else on one of them, in turn
IN_TURN = {
    "layout": ("1+1", "2+2", "3+1", "2+1+1", "1+1+1+1"),
    "message": ("receive, MLX", "send"),
    "how": ("cut off", "stopped"),
}
# Tests of one thing that are tried on the second of them without --full; others on the first
ON_THE_SECOND = ("test_interrupted", "test_blame", "test_a_network_that_misleads")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    config = metafunc.config
    here = [mpi for mpi in mpis.TWO if mpi in mpis.chosen(config.getoption("--mpi"))]
    names = IN_TURN.keys() & metafunc.fixturenames
    for name in names:
        cases = [(mpi, what) for what in IN_TURN[name] for mpi in here]
        if not config.getoption("--full"):
            cases = [(here[i % len(here)], what) for i, what in enumerate(IN_TURN[name]) if here]
        metafunc.parametrize(("where", name), cases, ids=[f"{mpi.name}, {what}" for mpi, what in cases])
    if "where" in metafunc.fixturenames and not names and here:
        first = (metafunc.function.__name__ in ON_THE_SECOND) % len(here)
        which = here if config.getoption("--full") else here[first : first + 1]
        metafunc.parametrize("where", which, ids=lambda mpi: mpi.name)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    if why := why_not():
        pytest.skip(why)
    with Testbed(4, rate="200mbit", shared=[tmp_path_factory.getbasetemp()]) as bed:
        yield bed


class Job:
    """Starts ranks with `mlxdist launch` on h1. They leave no process and no shared memory on any host."""

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed

    def __call__(
        self,
        mpi: mpis.MPI,
        layout: str,
        *program: str | Path,
        options: tuple[str, ...] = (),
        amid: Callable[[], None] | None = None,
        timeout_s: float = 30,
        **environ: str,
    ) -> Finished:
        """Run ``program`` and wait for all ranks.

        Args:
            layout: "2+1" is two ranks on h1 and one on h2.
            options: of mpirun.
            amid: called when h2 has sent AMID_NBYTES.
        """
        counts = layout.split("+")
        hosts = ",".join(f"h{i}:{count}" for i, count in enumerate(counts, 1))
        size = sum(map(int, counts))
        if mpi.is_openmpi:  # or ranks that wait take the processors from those that work
            options = (*options, "--mca mpi_yield_when_idle 1")
        launch = [sys.executable, "-m", "mlxdist", "launch", "-n", str(size), "--hosts", hosts]
        launch += [f"--mpi-arg={option}" for option in options]
        environ |= {"MLXDIST_LIBMPI": str(mpi.library_path), "MLXDIST_QUIET": "1"}
        environ["PYTHONPATH"] = os.pathsep.join((str(mpis.ROOT), str(mpis.ROOT / "tests")))
        done = threading.Event()
        acting = threading.Thread(target=self._act, args=(amid, self.bed.sent("h2") + AMID_NBYTES, done))
        acting.start()
        try:
            return run(self.bed.command("h1", *launch, *program), timeout_s=timeout_s, **environ)
        finally:
            done.set()
            acting.join()

    def _act(self, amid: Callable[[], None] | None, at: int, done: threading.Event) -> None:
        while amid and not done.wait(0.005):
            if self.bed.sent("h2") >= at:
                return amid()

    def pid(self, host: str, program: Path) -> int:
        """The process of the only rank on ``host``."""
        start = f"{sys.executable} {program}"
        (pid,) = (pid for pid, line in self.bed.processes(host).items() if line.startswith(start))
        return pid

    def left(self) -> list[str]:
        """Processes and shared memory that are still on the hosts a while later."""
        deadline = time.monotonic() + LEAVE_S
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _left(self) -> list[str]:
        found = [line for host in self.bed.address for line in self.bed.processes(host).values()]
        for host in self.bed.address:
            found += map(str, self.bed.path(host, "/dev/shm").glob("mlxdist.*"))
        return found


@pytest.fixture
def job(bed: Testbed) -> Iterator[Job]:
    job = Job(bed)
    yield job
    left = job.left()
    bed.end_processes()
    for host in bed.address:
        bed.heal(host)
        for path in bed.path(host, "/dev/shm").iterdir():  # MPI's own after an abort, too
            path.unlink()
    assert left == []
