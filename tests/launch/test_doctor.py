"""mlxdist doctor finds what is broken and how to fix it, and finds nothing if nothing is broken."""

from __future__ import annotations

import importlib.util
import itertools
import json
import platform
import re
import socket
import sys
from pathlib import Path
from typing import Any

import mpis
import pytest
from broken import MPICH, OPENMPI, SET_UPS, Broken, path_with
from conftest import run

from mlxdist.cli.doctor import privacy

SET_UP = [
    pytest.param(broken, marks=pytest.mark.root if broken.needs_root else (), id=broken.name) for broken in SET_UPS
]
needs_mpich = pytest.mark.skipif(not MPICH.is_here(), reason="MPICH, which set-ups begin from, is not here")
MLXDIST = (sys.executable, "-m", "mlxdist")


@needs_mpich
@pytest.mark.parametrize("broken", SET_UP)
def test_broken(broken: Broken, tmp_path: Path) -> None:
    def here(text: str) -> str:
        return text.replace("{here}", str(tmp_path))

    missing = [mpi.name for mpi in broken.needs if not mpi.is_here()]
    missing += [package for package in broken.packages if not importlib.util.find_spec(package)]
    if missing:
        pytest.skip(f"not here: {', '.join(missing)}")
    set_up = broken.make(tmp_path)
    if set_up.within and (why := set_up.why_not()):
        pytest.skip(f"cannot be made here: {why}")
    told = set_up.run(*MLXDIST, "doctor")
    assert [words for words in map(here, itertools.chain(*broken.says.items())) if words not in told] == [], told.output
    assert "Traceback" not in told
    assert told.status == (1 if broken.launched else 0), told.output
    assert ("It works." in told) == (not broken.launched), told.output

    launched = set_up.run(*MLXDIST, "launch", "-n", "2", str(mpis.ROOT / "examples" / broken.program))
    assert here(broken.launched) in launched, launched.output
    assert (launched.status == 0) == (not broken.launched), launched.output
    assert launched.output.count(" [2. 2. 2.") == (0 if broken.launched else 2), launched.output
    if broken.not_followed:
        return
    # Ranks work after everything that doctor advises, word for word.
    remedies = re.findall(r"^(?:error|warning|note): (?:.*\n)+?    (.*)$", told.output, re.MULTILINE)
    assert len(remedies) >= len(broken.says), told.output
    followed = set_up.run("sh", "-ec", script_of(remedies, broken, tmp_path))
    assert followed.status == 0, f"{remedies}\n{followed.output}"
    assert followed.output.count("[2. 2. 2.") == 2, f"{remedies}\n{followed.output}"


def script_of(remedies: list[str], broken: Broken, folder: Path) -> str:
    """The commands in the remedies, and the one that starts the ranks, which a remedy may be."""
    program = str(mpis.ROOT / "examples" / broken.program)
    start = "mlxdist launch -n 2 program.py"
    before = [f'mlxdist() {{ {" ".join(MLXDIST)} "$@"; }}', f"export PIP_PREFIX={folder}/installed"]
    for remedy in remedies:
        command = re.split(", which|;| if ", remedy.rpartition(" or ")[2])[0]
        if command.startswith("mpirun"):
            start = f"{command} -np 2 {sys.executable} program.py"
        elif command.startswith("mlxdist"):
            start = command
        elif command.endswith("-m mlxdist"):
            start = f"{command} launch -n 2 program.py"
        else:
            before.append(command)
    return "\n".join([*before, f"PATH={folder}/installed/bin:$PATH", start.replace("program.py", program)])


def doctor(mpi: mpis.MPI, size: int, *before: str, options: tuple[str, ...] = (), **environ: str) -> dict[str, Any]:
    """The report of the ranks of a launcher, or (size 0) of a doctor that starts ranks itself."""
    command = [*before, *MLXDIST, "doctor", "--json", *options]
    environ = {"PATH": path_with(mpi.launcher_path.parent)} | mpi.environment() | environ
    finished = run(mpi.command(size, *command) if size else command, timeout_s=60, **environ)
    found = re.search(r"^\{.*^\}", finished.output, re.DOTALL | re.MULTILINE)
    assert found, finished.output
    told: dict[str, Any] = json.loads(found[0])
    assert (finished.status == 0) == told["works"], finished.output
    return told


def test_nothing_is_broken(representative: mpis.MPI) -> None:
    told = doctor(representative, 0)
    assert told["works"]
    assert [finding for finding in told["findings"] if finding["severity"] != "note"] == []
    assert told["facts"]["libmpi"] == str(representative.library_path.resolve())
    assert told["facts"]["version"].startswith(representative.version)
    assert told["facts"]["launcher"].startswith(str(representative.prefix.resolve()))
    assert told["facts"]["threads"] == "MPI_THREAD_MULTIPLE"
    assert len(told["hosts"]) == 2
    assert told["differences"] == {}


def test_a_report_to_send(one: mpis.MPI, tmp_path: Path) -> None:
    """It has all that was found, and nothing of the user, this host and the secrets in the environment."""
    home, file = tmp_path / "planted-home", tmp_path / "report"
    told = doctor(
        one,
        0,
        options=("--report", str(file)),
        HOME=str(home),
        USER="planted",
        LOGNAME="planted",
        PYTHONPATH=f"{mpis.ROOT}:{home}/lib",
        MLX_API_TOKEN="planted0",
        FI_URL="https://user:planted1@example.com",
        UCX_WORD="password=planted2",
        OMPI_WORD="hf_planted3planted3",
        PRTE_WORD="planted4" + "0" * 32,
        AWS_SECRET_ACCESS_KEY="planted5",
    )
    assert told["works"]
    text = file.read_text()
    assert [line for line in text.splitlines() if "planted" in line] == []
    host = socket.gethostname()
    assert host in privacy.NO_NAMES or not re.search(rf"\b{re.escape(host)}\b", text)
    assert "PYTHONPATH=" in text
    assert ":<home>/lib\n" in text
    assert "FI_URL=https://(hidden)@example.com\n" in text
    assert text.count("It works.") == 1
    parts = dict(part.split("\n", 1) for part in text.split("== ")[1:])
    assert [*parts] == ["What doctor says", "Every MPI that was found", "System", "Environment", "Networks"]
    mpi = parts["Every MPI that was found"]
    assert [words for words in (one.library_path.name, one.version, one.launcher_path.name) if words not in mpi] == []
    assert platform.python_version() in parts["System"]


@needs_mpich
def test_the_ranks_of_a_launcher_write_one_report(tmp_path: Path) -> None:
    told = doctor(
        MPICH, 2, options=("--report", str(tmp_path / "report")), MLX_NOTE=b"\xff".decode(errors="surrogateescape")
    )
    assert told["works"]
    text = (tmp_path / "report").read_text()
    assert text.count("It works.") == 1
    assert "MLX_NOTE=\\udcff\n" in text


def test_a_report_that_cannot_be_written(one: mpis.MPI) -> None:
    finished = run([*MLXDIST, "doctor", "--report", "/nowhere/report"], **one.environment())
    assert finished.status == 1
    assert (
        "mlxdist doctor: the report cannot be written to /nowhere/report, No such file or directory: give" in finished
    )


@needs_mpich
def test_a_host_that_is_not_there() -> None:
    told = doctor(MPICH, 0, options=("--hosts", "localhost,nowhere.invalid"))
    assert not told["works"]
    assert told["hosts"] == []
    (finding,) = (finding for finding in told["findings"] if finding["severity"] == "error")
    assert finding["fact"].startswith("nowhere.invalid: ")
    assert finding["remedy"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--hosts", "a:"), "argument --hosts: 'a:': 'a:' is not a host"),
        (("--hostfile", "/nowhere"), "argument --hostfile: /nowhere: No such file or directory"),
        (("extra",), "unrecognized arguments: extra"),
    ],
)
def test_wrong_options(options: tuple[str, ...], words: str) -> None:
    finished = run([*MLXDIST, "doctor", *options])
    assert finished.status == 2
    assert words in finished
    assert finished.output.count("\n") == 1


ONE_RANK_IS_DIFFERENT = 'if [ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" = 1 ]; then export %s; fi; exec "$@"'


def test_ranks_that_differ(two: mpis.MPI) -> None:
    # Open MPI's mpirun puts its own folder in front of PATH, on other hosts only: no difference
    own = f"PATH={two.prefix.resolve()}/bin:$PATH"
    change = ONE_RANK_IS_DIFFERENT % f"MLXDIST_QUIET=maybe PYTHONPATH=$PYTHONPATH:/gone {own}"
    told = doctor(two, 3, "sh", "-c", change, "sh")
    assert told["works"]
    assert len(told["hosts"]) == 3
    assert told["differences"] == {
        "MLXDIST_QUIET": {"": [0, 2], "maybe": [1]},
        "PYTHONPATH": {str(mpis.ROOT): [0, 2], f"{mpis.ROOT}:/gone": [1]},
    }
    (finding,) = (finding for finding in told["findings"] if "MLXDIST_QUIET" in finding["fact"])
    assert finding["fact"].startswith("rank 1 (")
    assert finding["remedy"] == "unset MLXDIST_QUIET"


def test_under_the_launcher_of_another_mpi(two: mpis.MPI) -> None:
    other = next(mpi for mpi in mpis.TWO if mpi != two)
    told = doctor(two, 2, MLXDIST_LIBMPI=str(other.library_path))
    assert not told["works"]
    (finding,) = (finding for finding in told["findings"] if finding["severity"] == "error")
    assert "cannot join the ranks of" in finding["fact"]
    assert f"start the ranks with {other.prefix}/bin" in finding["fact"]
    assert finding["remedy"] == "unset MLXDIST_LIBMPI"


@pytest.mark.skipif(not OPENMPI.is_here(), reason="not here: Open MPI, which ends a job as soon as a rank fails")
def test_one_rank_fails() -> None:
    """Rank 0 has no time to report; the other rank prints its own error."""
    change = ONE_RANK_IS_DIFFERENT % "MLXDIST_TIMEOUT_S=soon"
    command = OPENMPI.command(2, "sh", "-c", change, "sh", *MLXDIST, "doctor")
    finished = run(command, timeout_s=60, **OPENMPI.environment())
    assert finished.status != 0
    assert "mlxdist doctor: MLXDIST_TIMEOUT_S='soon'" in finished
    assert "unset MLXDIST_TIMEOUT_S" in finished
