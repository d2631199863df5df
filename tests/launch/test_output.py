"""`mlxdist launch` shows every byte that ranks print, however they print it and whoever reads it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import mpis
import pytest
from conftest import Finished, run

LAUNCH = [sys.executable, "-m", "mlxdist", "launch"]
LINES = "import sys\nfor i in range(10000): sys.stdout.write('%099d\\n' % i)\n"


@pytest.fixture
def one(pytestconfig: pytest.Config) -> mpis.MPI:
    """The faster of mpis.TWO: what is shown does not depend on the MPI."""
    here = [mpi for mpi in reversed(mpis.TWO) if mpi in mpis.chosen(pytestconfig.getoption("--mpi"))]
    return here[0] if here else pytest.skip("none of mpis.TWO is installed and asked for")


def shell(mpi: mpis.MPI, line: str, *arguments: str) -> Finished:
    """Run a line of the shell, in which $LAUNCH is mlxdist launch with ``arguments``."""
    launch = shlex.join([*LAUNCH, *arguments])
    return run(["bash", "-c", line.replace("$LAUNCH", launch)], timeout_s=60, MLXDIST_LIBMPI=str(mpi.library_path))


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("print('x' * 1_000_000)", "x" * 1_000_000 + "\n"),
        ("import time\nfor _ in range(100): print('.', end='', flush=True); time.sleep(0.01)", "." * 100),
        ("import os; os.write(1, b'no end')", "no end"),
    ],
    ids=["a long line", "dots", "no end"],
)
def test_what_is_printed_comes_out(one: mpis.MPI, program: str, printed: str) -> None:
    """The dots kept the launcher from its other work, and the long line for minutes."""
    command = ("-n", "1", "--no-prefix", sys.executable, "-c", program)
    finished = shell(one, "$LAUNCH 2>/dev/null && printf %s '|'", *command)
    assert finished.status == 0
    assert finished.output == printed + "|"


def test_a_slow_reader_gets_everything(one: mpis.MPI) -> None:
    """It reads nothing before the program has ended, and longer than any grace."""
    reader = "import sys, time; time.sleep(6); print(len(sys.stdin.buffer.read()), 'bytes')"
    line = f"$LAUNCH 2>/dev/null | {shlex.join([sys.executable, '-c', reader])}; echo status ${{PIPESTATUS[0]}}"
    finished = shell(one, line, "-n", "1", "--no-prefix", sys.executable, "-c", LINES)
    assert finished.output == "1000000 bytes\nstatus 0\n"


BLOCKED = """
import signal, subprocess, sys, time
launch = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
launch.stdout.read(1)
time.sleep(2)
if sys.argv[1] == "signal":
    launch.send_signal(signal.SIGTERM)
print("status", launch.wait(30))
"""


@pytest.mark.parametrize(("end", "status"), [("signal", 143), ("timeout", 124)])
def test_a_reader_that_stops(one: mpis.MPI, end: str, status: int) -> None:
    """Neither a signal nor the timeout waits for it."""
    limit = ["--timeout", "6"] if end == "timeout" else []
    command = [sys.executable, "-c", BLOCKED, end, *LAUNCH, "-n", "2", *limit, "yes"]
    finished = run(command, timeout_s=60, MLXDIST_LIBMPI=str(one.library_path))
    assert finished.output == f"status {status}\n"
    assert finished.left == ()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("$LAUNCH >&-; echo status $?", "status 0\n"),
        ("$LAUNCH <&- 2>&-; echo status $?", "words\nstatus 0\n"),
        (
            "$LAUNCH >/dev/full; echo status $?",
            "mlxdist launch: the output cannot be written: No space left on device\nstatus 1\n",
        ),
    ],
    ids=["closed", "others closed", "full"],
)
def test_output_that_leads_nowhere(one: mpis.MPI, line: str, words: str) -> None:
    finished = shell(one, line, "-n", "1", "--no-prefix", "echo", "words")
    assert finished.output == words


def test_every_argument_reaches_the_program(launcher: mpis.MPI, tmp_path: Path) -> None:
    """A colon alone would begin another program."""
    given = ["a", ":", "\\:", "", "b c", "*", "$HOME", "\\", "'", "-n"]
    path = tmp_path / "arguments.py"
    path.write_text("import os, sys; print(os.environ['K'], sys.argv[1:])")
    finished = shell(launcher, "$LAUNCH", "-n", "1", "--env", "K=:", str(path), *given)
    assert f"[0] : {given}\n" in finished
    assert finished.status == 0
