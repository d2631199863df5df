"""A child process of a rank is told that it is not a rank; the rank and its job go on."""

from __future__ import annotations

import multiprocessing
import shlex

import mpis
import pytest
from conftest import Ranks

BEGIN = """
import multiprocessing, os, subprocess, sys
import numpy as np
import mlxdist as dist

CHILD = "import mlxdist as dist; print(dist.init().size(), dist.info().backend)"

def said(call, *arguments):
    try:
        return f"no error but {call(*arguments)!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def as_child(queue):
    queue.put(said(dist.init))

def by_multiprocessing(method):
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=as_child, args=(queue,))
    process.start()
    process.join()
    assert process.exitcode == 0, process.exitcode
    return queue.get()

def by_subprocess(environ):
    child = subprocess.run([sys.executable, "-c", CHILD], text=True, capture_output=True, env=environ)
    return child.stdout + child.stderr

def by_fork():
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        # Its own groups and inherited ones; then it fails, running its exit handlers, and the job goes on.
        answers = [said(dist.init), said(dist.all_sum, np.ones(3)), said(lambda: dist.barrier(group=part)),
                   said(part.split, 0), str(part.is_usable)]
        os.write(write, "\\n".join(answers).encode())
        raise KeyError("of the child")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1, status
    return os.read(read, 10000).decode().splitlines()
"""

PROGRAM = f"""{BEGIN}
if __name__ == "__main__":
    early = by_multiprocessing("fork")
    assert early.startswith("LoadError: [init] ") and "fork" in early, early
    world = dist.init()
    part = world.split(0)
    answers = by_fork()
    assert answers[0].startswith("LoadError: [init] ") and "fork" in answers[0], answers
    assert answers[4] == "False" and part.is_usable, answers
    for answer, call in zip(answers[1:4], ("all_sum", "barrier", "split")):
        assert answer.startswith(f"ValueError: [{{call}}] "), answers
    assert dist.all_sum(1, group=part) == world.size()
    answer = by_multiprocessing("fork")
    assert answer.startswith("LoadError: [init] ") and "fork" in answer, answer
    answer = by_multiprocessing("spawn")
    assert answer.startswith("LoadError: [init] ") and "started by a rank" in answer, answer
    answer = by_subprocess(dict(os.environ))
    assert "LoadError: [init] " in answer and "started by a rank" in answer, answer
    # The remedy in the message.
    launchers = ("MLXDIST_RANK_PID", "MLXDIST_LIBMPI", "OMPI_", "PMI_", "PMIX_", "HYDI_")
    environ = {{name: value for name, value in os.environ.items() if not name.startswith(launchers)}}
    assert by_subprocess(environ) == "1 alone\\n", by_subprocess(environ)
    assert dist.all_sum(1) == world.size()
    print("end\\n", end="", flush=True)
"""


def test_children_of_ranks(mpi: mpis.MPI, ranks: Ranks) -> None:
    finished = ranks(mpi, 2, PROGRAM, timeout_s=20)
    assert finished.status == 0, finished.output
    assert finished.output.splitlines().count("end") == 2


ALONE = f"""{BEGIN}
if __name__ == "__main__":
    world = dist.init()
    part = world.split(0)
    answers = by_fork()
    assert answers[:3] == ["no error but " + text for text in (repr(world), repr(np.ones(3)), "None")], answers
    assert "rank 0 of 1" in answers[3] and answers[4] == "True", answers
    assert "rank 0 of 1" in by_multiprocessing("fork")
    assert "rank 0 of 1" in by_multiprocessing("spawn")
    assert by_subprocess(None) == "1 alone\\n"
    print("end")
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork")
def test_children_of_a_program_that_runs_alone(ranks: Ranks) -> None:
    """They run alone too, and may use the groups of one that they inherited."""
    finished = ranks(None, 1, ALONE)
    assert finished.status == 0, finished.output
    assert finished.output.splitlines()[-1] == "end"


DRIVER = r"""
import subprocess, sys
child = r"import mlxdist; print(f'size {mlxdist.init().size()}\n', end='')"  # in one piece, or ranks mix
sys.exit(subprocess.run([sys.executable, "-c", child]).returncode)
"""

NESTED = """
import os, shlex, subprocess, sys
import numpy as np
import mlxdist as dist

if sys.argv[1:2] == ["inner"]:
    print(f"inner {dist.all_sum(10)} {dist.init().size()}\\n", end="")
else:
    world = dist.init()
    if world.rank() == 0:
        subprocess.run([*shlex.split(os.environ["INNER"]), sys.executable, __file__, "inner"], check=True)
    print(f"outer {dist.all_sum(1)}\\n", end="")
"""


def test_a_job_started_by_a_rank(launcher: mpis.MPI, ranks: Ranks) -> None:
    if launcher.name in ("openmpi-4", "debian-openmpi"):
        pytest.skip("the mpirun of Open MPI 4 refuses to be started by a rank (4.1.4, 4.1.8)")
    finished = ranks(launcher, 2, NESTED, timeout_s=20, INNER=shlex.join(launcher.command(3)))
    assert finished.status == 0, finished.output
    assert sorted(finished.output.splitlines()) == ["inner 30 3"] * 3 + ["outer 2"] * 2


def test_a_program_that_the_launched_one_starts_is_cut_off_from_hydra(mpi: mpis.MPI, ranks: Ranks) -> None:
    """It is told so, with a remedy. Open MPI's ranks need no open descriptor, and communicate."""
    finished = ranks(mpi, 2, DRIVER, timeout_s=20)
    if mpi.is_openmpi:
        assert finished.output.count("size 2") == 2, finished.output
    else:
        assert "[init] PMI_FD=" in finished
        assert "size" not in finished
