"""Hosts in every form, and the command line of every family."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import pytest

from mlxdist import config, world
from mlxdist.cli.launch import hosts, mpirun, rank, ssh
from mlxdist.cli.launch.hosts import Host
from mlxdist.cli.launch.mpirun import JobSpec, Mpirun
from mlxdist.mpi.launchers import LibraryInfo

A2, B = Host("a", 2), Host("b")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a:2,b", [A2, B]),
        ("a:2, b", [A2, B]),
        ("user@a:2,10.0.0.2", [Host("user@a", 2), Host("10.0.0.2")]),
        ("a,b,a", [A2, B]),
        ("a,a:2", [Host("a", 3)]),
    ],
)
def test_hosts_of_the_command_line(text: str, found: list[Host]) -> None:
    assert hosts.from_text(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# ours\na slots=2 max_slots=4\n\nb  # the other\n", [A2, B]),
        ("a:2\nb\n", [A2, B]),
        ("a\nb\na\n", [A2, B]),
        ('[{"ssh": "a", "ips": ["10.0.0.1"]}, {"ssh": "a"}, {"ssh": "b", "ips": []}]', [A2, B]),
        ('{"backend": "mpi", "hosts": [{"ssh": "b", "ips": [], "rdma": [null]}]}', [B]),
        ('["a:2", "b"]', [A2, B]),
    ],
)
def test_hosts_of_a_file(text: str, found: list[Host], tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(text)
    assert hosts.from_file(str(path)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\nb slots\n", "hosts, line 2: 'b slots' is not a host: write 'node1', 'node1:2' or 'node1 slots=2'"),
        ("a:x\n", "hosts, line 1: 'a:x' is not a host"),
        ("a slots=0\n", "hosts, line 1: 'a slots=0' is not a host"),
        ("# nothing\n", "names no host: write lines like 'node1 slots=2'"),
        ('[{"ssh": "a"},\n}]', "hosts, line 2: "),
        ('[{"ips": ["10.0.0.1"]}]', 'is not a list of hosts: write [{"ssh": "node1"}'),
        ("[]", "is not a list of hosts"),
        ('{"hosts": 3}', "is not a list of hosts"),
        ("[" * 200000, "hosts is no JSON of hosts: "),
        (
            f"[{'1' * 5000}]",
            "hosts is no JSON of hosts: " if hasattr(sys, "set_int_max_str_digits") else "is not a list of hosts",
        ),
        ("a\n-V\n", "hosts, line 2: '-V' is not a host"),
    ],
)
def test_files_that_name_no_hosts(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(text)
    with pytest.raises(argparse.ArgumentTypeError) as raised:
        hosts.from_file(str(path))
    assert words in str(raised.value)


def test_hosts_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="nowhere: No such file"):
        hosts.from_file(str(tmp_path / "nowhere"))
    for text, part in (("a,,b", ""), ("-V", "-V"), ("a,-oProxyCommand", "-oProxyCommand")):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{part}' is not a host"):
            hosts.from_text(text)


@pytest.mark.parametrize(
    ("named", "many", "slots"),
    [
        ([], 4, []),
        ([Host("a"), Host("b")], 2, [1, 1]),
        ([Host("a"), Host("b")], 5, [3, 3]),
        ([Host("a", 4), Host("b")], 6, [4, 2]),
        ([Host("a", 4), Host("b")], 3, [4, 1]),
        ([Host("a", 1), Host("b", 1)], 4, [1, 1]),
    ],
)
def test_ranks_are_spread_over_hosts(named: list[Host], many: int, slots: list[int]) -> None:
    assert hosts.spread(named, many) == [(host.name, count) for host, count in zip(named, slots, strict=True)]


OPEN_MPI_5 = LibraryInfo("/o/lib/libmpi.so.40", "openmpi", "Open MPI v5.0.11, package: x")
OPEN_MPI_4 = LibraryInfo("/o/lib/libmpi.so.40", "openmpi", "Open MPI v4.1.8, package: x")
MPICH = LibraryInfo("/m/lib/libmpi_abi.so.1", "standard", "MPICH Version:      5.0.2")
INTEL = LibraryInfo("/i/lib/libmpi.so.12", "mpich", "Intel(R) MPI Library 2021.18 for Linux* OS")
FULL = JobSpec(
    5,
    ["python", "x.py"],
    hosts=[("a", 2), ("b", 2)],
    variables={"K": "v w"},
    inherited=["PYTHONPATH"],
    cwd="/d",
    extra=["--more"],
)


@pytest.mark.parametrize(
    ("library", "is_root", "line"),
    [
        (
            OPEN_MPI_5,
            True,
            "--allow-run-as-root --map-by :OVERSUBSCRIBE --bind-to none -np 5 --host a:2,b:2 --wdir /d "
            "-x PYTHONPATH -x K=v w",
        ),
        (
            OPEN_MPI_4,
            False,
            "--oversubscribe --bind-to none -np 5 --host a:2,b:2 --wdir /d -x PYTHONPATH -x K=v w",
        ),
        (MPICH, True, "-np 5 -hosts a:2,b:2 -wdir /d -genv K v w"),
        (INTEL, True, "-np 5 -ppn 1 -hosts a,a,b,b -wdir /d -genv K v w"),
    ],
)
def test_commands(library: LibraryInfo, is_root: bool, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if is_root else 1000)
    command, remarks = mpirun.command(Mpirun("mpirun", library, "PATH"), FULL)
    assert " ".join(command) == f"mpirun {line} --more python x.py"
    assert all(f" {remark.partition(' (')[0]} " in " ".join(command) for remark in remarks)
    assert bool(remarks) == library.is_open_mpi


@pytest.mark.parametrize(
    ("many", "extra", "remarks"),
    [
        (2, [], ["--bind-to none (a rank may use several cores)"]),
        (2, ["--bind-to", "core"], []),
        (4, [], []),
        (5, [], ["--map-by :OVERSUBSCRIBE (5 ranks on 4 cores)", "--bind-to none (a rank may use several cores)"]),
    ],
)
def test_only_what_is_needed_is_added(
    many: int, extra: list[str], remarks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(mpirun, "cores", lambda: 4)
    assert mpirun.command(Mpirun("mpirun", OPEN_MPI_5, "PATH"), JobSpec(many, ["x"], extra=extra))[1] == remarks


def test_cores() -> None:
    assert 1 <= mpirun.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("word", [":", "\\:", "\\\\:", "a:b", "::", "\\", ""])
def test_no_argument_is_a_colon(word: str) -> None:
    """It would begin another program, for every mpirun."""
    assert rank.quoted(word) != ":"
    assert rank.unquoted(rank.quoted(word)) == word


@pytest.mark.parametrize(
    ("command", "many"), [(("echo", "6"), 6), (("false",), os.cpu_count()), (("/nowhere/sysctl",), os.cpu_count())]
)
def test_cores_of_a_mac(command: tuple[str, ...], many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(mpirun, "PHYSICAL_CORES", command)
    assert mpirun.cores() == many


def test_a_group_of_processes_that_have_all_ended_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    def killpg(group: int, number: int) -> None:
        raise PermissionError

    program = rank.Program(["true"], dict(os.environ), "PIPE", 0)
    monkeypatch.setattr(os, "killpg", killpg)
    program.signal(signal.SIGUSR1)
    program.stop()
    assert program.process.wait(30) == 0


@pytest.mark.parametrize(("state", "exiting"), [("S+", False), ("?Es", True), ("", False)])
def test_macos_ps_says_whether_a_program_is_exiting(
    state: str, exiting: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank, "PROC", str(tmp_path))
    monkeypatch.setattr(rank, "PS", ("sh", "-c", f"[ $0 -gt 1 ] && echo '{state}'"))
    program = rank.Program(["sleep", "60"], dict(os.environ), "PIPE", 0)
    assert program._is_exiting() is exiting
    program.stop()
    assert program.was_stopped(program.process.wait()) is not exiting


def test_variables_for_all_ranks() -> None:
    environ = dict.fromkeys(("PYTHONPATH", "PATH", "MLX_X", "XMLX_Y", config.SHARED_MEMORY.name, "MLX"), "1")
    assert config.for_all_ranks(environ) == [config.SHARED_MEMORY.name, "MLX_X", "PYTHONPATH"]


SSH = """#!/bin/sh
# ssh -o BatchMode=yes -o ConnectTimeout=5 HOST COMMAND
case $5 in
    fine) echo "Welcome"; exec sh -c "$6";;
    closed) echo "user@closed: Permission denied (publickey,password)." >&2;;
    stranger) echo "Host key verification failed." >&2;;
    nowhere) echo "ssh: Could not resolve hostname nowhere: Name or service not known" >&2;;
    refusing) echo "ssh: connect to host refusing port 22: Connection refused" >&2;;
    slow) sleep 1; exec sh -c "$6";;
esac
exit 255
"""
REMEDIES = {
    "closed": "ssh-copy-id closed",
    "stranger": "ssh stranger once by hand",
    "nowhere": "correct the name",
    "refusing": "start sshd on refusing",
    "silent": "ssh silent works by hand",
}


def test_hosts_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    answers = ssh.ask(["fine", "localhost", *REMEDIES], [str(tmp_path)], "echo found")
    failures = ssh.failures(answers)
    assert list(failures) == list(REMEDIES)
    for host, remedy in REMEDIES.items():
        assert remedy in failures[host]
    assert [answers[host].printed for host in ("fine", "localhost")] == ["Welcome\nfound\n", "found\n"]
    absent = str(tmp_path / "a file")
    assert ssh.failures(ssh.ask(["fine", "localhost"], [str(tmp_path), absent])) == dict.fromkeys(
        ["fine", "localhost"], f"{absent} is missing: every host needs it at the same path"
    )


def test_aborts_are_announced_on_the_pipe_of_launch_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not another file with its number, in a program that inherited only the variable."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    inode = os.fstat(writing).st_ino
    for value, pipe in ((f"{writing}:{inode + 1}", None), (f"{writing}:{inode}", writing), ("", None), ("9", None)):
        monkeypatch.setenv(config.LAUNCH_PIPE.name, value)
        assert world._take_launch_pipe() == pipe
        assert config.LAUNCH_PIPE.name not in os.environ
    assert not os.get_inheritable(writing)
    os.close(writing)
    monkeypatch.setenv(config.LAUNCH_PIPE.name, f"{writing}:{inode}")
    assert world._take_launch_pipe() is None
    os.close(reading)
