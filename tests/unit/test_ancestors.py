"""launchers: the ancestors of this process, and whether they make it a child of a rank."""

import os
from pathlib import Path

import pytest

from mlxdist.mpi.launchers import Process, ancestors, cut_off, is_child_of_rank

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
        pytest.param("40", (), True, id="no /proc"),
    ],
)
def test_child_of_rank(rank_pid: str, above: tuple[Process, ...], child: bool) -> None:
    assert is_child_of_rank({"MLXDIST_RANK_PID": rank_pid}, 50, above) is child


def fake_process(proc: Path, pid: int, parent: int, name: str, executable: str | None) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} {pid} {pid} 0 -1")
    if executable:
        (proc / str(pid) / "exe").symlink_to(executable)


def test_ancestors_reads_parent_by_parent(tmp_path: Path) -> None:
    fake_process(tmp_path, os.getpid(), 30, "python3", "/usr/bin/python3")
    fake_process(tmp_path, 30, 20, "a) S 7 (b", "/p/bin/a) S 7 (b")
    fake_process(tmp_path, 20, 10, "prterun", "/p/bin/prterun (deleted)")
    fake_process(tmp_path, 10, 1, "slurmstepd", None)
    fake_process(tmp_path, 1, 0, "init", None)
    assert ancestors(str(tmp_path)) == (
        Process(30, "/p/bin/a) S 7 (b"),
        Process(20, "/p/bin/prterun"),
        Process(10, "slurmstepd"),
        Process(1, "init"),
    )


def test_ancestors_of_others_may_be_hidden(tmp_path: Path) -> None:
    fake_process(tmp_path, os.getpid(), 30, "python3", "/usr/bin/python3")
    assert ancestors(str(tmp_path)) == (Process(30, ""),)


def test_ancestors_ends_in_a_cycle(tmp_path: Path) -> None:
    fake_process(tmp_path, os.getpid(), os.getpid(), "python3", "/usr/bin/python3")
    assert {process.pid for process in ancestors(str(tmp_path))} == {os.getpid()}


def test_ancestors_without_proc(tmp_path: Path) -> None:
    assert ancestors(str(tmp_path / "proc")) == ()


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
