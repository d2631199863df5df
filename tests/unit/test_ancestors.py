"""processes: the ancestors of this one, by /proc or ps; launchers: whether they make it a child of a rank."""

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

import macos
import pytest

from mlxdist.mpi import launchers, processes
from mlxdist.mpi.launchers import cut_off, detect, is_child_of_rank
from mlxdist.mpi.processes import Process, ancestors

SHELL = Process(90, "/usr/bin/dash")


@pytest.mark.parametrize(
    ("rank_pid", "above", "child"),
    [
        pytest.param("", (), False, id="no rank above"),
        pytest.param("50", (), False, id="the rank itself"),
        pytest.param("40", (Process(40, "/usr/bin/python3"),), True, id="forked by the rank"),
        pytest.param(
            "40", (SHELL, Process(40, "/usr/bin/python3"), Process(30, "/p/bin/prterun")), True, id="run by the rank"
        ),
        pytest.param(
            "40", (Process(45, "/p/bin/prterun"), Process(40, "/usr/bin/python3")), False, id="mpirun run by the rank"
        ),
        pytest.param(
            "40",
            (Process(45, "/p/bin/hydra_pmi_proxy"), Process(44, "/p/bin/mpiexec"), Process(40, "/usr/bin/python3")),
            False,
            id="hydra run by the rank",
        ),
        pytest.param("40", (Process(60, "slurmstepd"),), False, id="srun run by the rank"),
        pytest.param("40", (Process(1, "/usr/sbin/init"),), True, id="orphan of the rank"),
        pytest.param("40", (), True, id="no ancestor is known"),
    ],
)
def test_child_of_rank(rank_pid: str, above: tuple[Process, ...], child: bool) -> None:
    assert is_child_of_rank({"MLXDIST_RANK_PID": rank_pid}, 50, above) is child


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder instead of /proc, which is empty."""
    monkeypatch.setattr(processes, "PROC", str(tmp_path / "proc"))
    (tmp_path / "proc").mkdir()
    return tmp_path / "proc"


def fake_process(proc: Path, pid: int, parent: int, name: str, executable: str | None) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} {pid} {pid} 0 -1")
    if executable:
        (proc / str(pid) / "exe").symlink_to(executable)


def test_ancestors_reads_parent_by_parent(proc: Path) -> None:
    fake_process(proc, os.getpid(), 30, "python3", "/usr/bin/python3")
    fake_process(proc, 30, 20, "a) S 7 (b", "/p/bin/a) S 7 (b")
    fake_process(proc, 20, 10, "prterun", "/p/bin/prterun (deleted)")
    fake_process(proc, 10, 1, "slurmstepd", None)
    fake_process(proc, 1, 0, "init", None)
    assert ancestors() == (
        Process(30, "/p/bin/a) S 7 (b"),
        Process(20, "/p/bin/prterun"),
        Process(10, "slurmstepd"),
        Process(1, "init"),
    )


def test_ancestors_of_others_may_be_hidden(proc: Path) -> None:
    fake_process(proc, os.getpid(), 30, "python3", "/usr/bin/python3")
    assert ancestors() == (Process(30, ""),)


def test_ancestors_ends_in_a_cycle(proc: Path) -> None:
    fake_process(proc, os.getpid(), os.getpid(), "python3", "/usr/bin/python3")
    assert {process.pid for process in ancestors()} == {os.getpid()}


def printing(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """A Python program instead of ps."""
    monkeypatch.setattr(processes, "PS", (sys.executable, "-c", program))


def on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    printing(monkeypatch, f"print({macos.PS.format(pid=os.getpid(), ppid=987654)!r}, end='')")


FROM_RANK_TO_LAUNCHD = (
    Process(987654, "python3"),
    Process(9120, "/opt/homebrew/Cellar/open-mpi/5.0.8/bin/prterun"),
    Process(641, "-zsh"),
    Process(640, "login"),
    Process(612, "/System/Applications/Utilities/Terminal.app/Contents/MacOS/Terminal"),
    Process(1, "/sbin/launchd"),
)


@pytest.mark.usefixtures("proc")
def test_ancestors_by_ps(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_mac(monkeypatch)
    found = ancestors()
    assert found == FROM_RANK_TO_LAUNCHD
    launcher = detect({"OMPI_COMM_WORLD_SIZE": "2"}, found)
    assert launcher is not None
    assert launcher.prefix == "/opt/homebrew/Cellar/open-mpi/5.0.8"
    # A child of rank 987654, a launcher that a rank has started, and a rank of that.
    assert is_child_of_rank({"MLXDIST_RANK_PID": "987654"}, os.getpid(), found)
    assert not is_child_of_rank({"MLXDIST_RANK_PID": "641"}, os.getpid(), found)


@pytest.mark.usefixtures("proc")
def test_macos_knows_the_file_of_a_process_that_was_started_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class System:
        @staticmethod
        def proc_pidpath(pid: int, path: Any, size: int) -> int:
            path.value = {641: b"/bin/zsh", 987654: b"/opt/anaconda3/bin/python3.12"}.get(pid, b"")
            assert len(path) == size
            return len(path.value)

    on_a_mac(monkeypatch)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: System)
    assert [process.executable for process in ancestors()] == [
        "/opt/anaconda3/bin/python3.12",
        "/opt/homebrew/Cellar/open-mpi/5.0.8/bin/prterun",
        "/bin/zsh",
        *(process.executable for process in FROM_RANK_TO_LAUNCHD[3:]),
    ]


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit('ps: Operation not permitted')",
        "print('  PID  PPID COMM')",
        "print('1\n\n12 x y\n')",
        r"import os; os.write(1, b'\xff\xfe 1 \xff\n')",
        "import time; time.sleep(60)",
    ],
)
@pytest.mark.usefixtures("proc")
def test_no_ancestors_by_a_ps_that_does_not_work(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    printing(monkeypatch, program)
    monkeypatch.setattr(processes, "PROGRAM_S", 1.0)
    began = time.monotonic()
    assert ancestors() == ()
    assert time.monotonic() < began + 30


@pytest.mark.usefixtures("proc")
def test_no_ancestors_without_ps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PS", ("/nowhere/ps",))
    assert ancestors() == ()


def test_nobody_asks_who_is_neither_a_rank_nor_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "ancestors", lambda: (SHELL,))
    assert launchers.ancestors({"PATH": "/bin", "PMI_SIZE": ""}) == ()
    for name in ("MLXDIST_RANK_PID", *launchers.RANK_VARIABLES):
        assert launchers.ancestors({name: "2"}) == (SHELL,)


@pytest.mark.parametrize(
    ("executable", "variable", "prefix"),
    [
        ("/opt/local/libexec/openmpi-mp/orterun", "OMPI_COMM_WORLD_SIZE", "/opt/local"),
        ("/opt/local/libexec/openmpi-clang17/prterun", "OMPI_COMM_WORLD_SIZE", "/opt/local"),
        ("/opt/local/bin/hydra_pmi_proxy-mpich-mp", "PMI_SIZE", "/opt/local"),
        ("/usr/libexec/slurm/slurmstepd", "SLURM_STEP_NUM_TASKS", None),
    ],
)
def test_macports_launchers(executable: str, variable: str, prefix: str | None) -> None:
    launcher = detect({variable: "2"}, [SHELL, Process(60, executable)])
    assert launcher is not None
    assert (launcher.executable, launcher.prefix) == (executable, prefix)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="no /proc")
def test_ancestors_of_this_process() -> None:
    assert ancestors()[0].pid == os.getppid()


def test_a_closed_connection_to_the_launcher_is_reported() -> None:
    read, write = os.pipe()
    assert cut_off({"PMI_FD": str(read)}) is None
    os.close(read)
    os.close(write)
    assert "close_fds=False" in (cut_off({"PMI_FD": str(read)}) or "")
    assert cut_off({}) is None
