"""Ctrl-C ends every wait soon, and a program's own handler of SIGINT decides what happens."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import mpis
import pytest
from conftest import Ranks
from launch import interrupted

SOON_S = 0.2
LOADED_S = 1.0  # on a busy machine

Said = dict[str, list[list[str]]]
Job = Callable[..., Said]


@pytest.fixture
def job(representative: mpis.MPI, ranks: Ranks, tmp_path: Path) -> Job:
    def job(what: str, **environ: str) -> Said:
        """What the ranks printed, by first word; nothing is left of them."""
        (tmp_path / "times").mkdir()
        program = Path(interrupted.__file__)
        finished = ranks(representative, 2, program, what, str(tmp_path / "times"), timeout_s=30, **environ)
        said: Said = {}
        for line in finished.output.splitlines():
            name, *words = line.split(" | ")
            said.setdefault(name, []).append(words)
        assert finished.left == ()
        said["output"] = [[finished.output]]
        return said

    return job


def came_out(said: Said, name: str, outcome: str, text: str = "", within_s: float = LOADED_S) -> float:
    """How long after the signal rank 0 left its wait, and how."""
    found = [words for words in said.get(name, []) if len(words) == 3 and words[0] == outcome]
    assert len(found) == 1, said
    assert text in found[0][1]
    assert 0 <= float(found[0][2]) < within_s
    return float(found[0][2])


@pytest.mark.parametrize("node", ["1", "0"])
def test_every_wait(job: Job, node: str) -> None:
    said = job("every_wait", MLXDIST_SHARED_MEMORY=node)
    seconds = sorted(came_out(said, name, "KeyboardInterrupt") for name in interrupted.WAITS)
    assert seconds[len(seconds) // 2] < SOON_S
    # A message that has not arrived leaves the group intact; everything else breaks it.
    for name in set(interrupted.WAITS) - {"recv"}:
        words = [words[1] for words in said[name] if words[0] == "rank 0 Error"]
        assert len(words) == 1, said
        assert "this group was broken by an earlier error: interrupted in " in words[0]
    assert ["rank 0 goes on"] in said["recv"]
    assert ["rank 1 goes on"] in said["recv"]
    # The other rank does not wait for one that has given up; in shared memory a barrier that both reach succeeds.
    for name in set(interrupted.WAITS) - ({"recv", "barrier"} if node == "1" else {"recv"}):
        error = "PeerError" if node == "0" or name == "send, large" else "MismatchError"
        assert any(words[0] == f"rank 1 {error}" for words in said[name]), said


def test_handlers_of_the_program(job: Job) -> None:
    said = job("handlers")
    # The wait went on until rank 1 arrived, and the sum was correct.
    assert came_out(said, "not raising", "returned") >= interrupted.DELAY_S
    assert said["seen"] == [["1"]]
    assert came_out(said, "raising", "LookupError", "of the handler") < LOADED_S
    assert came_out(said, "default again", "KeyboardInterrupt") < LOADED_S


def test_handler_that_raises_when_the_call_completes(job: Job) -> None:
    said = job("slow_handler")
    came_out(said, "split", "LookupError", "of the handler", within_s=10)
    assert said["sum"] == [["2.0"]] * 2


def test_handler_that_communicates(job: Job) -> None:
    said = job("communicating_handler")
    came_out(said, "barrier", "returned", within_s=5)
    assert said["sum"] == [["2.0"]]
    barrier, finalize = (words[0] for words in said["refused"])
    assert barrier.startswith("[barrier] a signal handler cannot make this call while another of the group is under")
    assert finalize.startswith("[finalize] a signal handler cannot call it while its thread is in another call: raise")
    assert said["goes on"] == [[]] * 2


def test_handler_that_leaves(job: Job) -> None:
    came_out(job("leaving_handler"), "barrier", "SystemExit", "0")


@pytest.mark.parametrize("what", ["worker", "handler_set_anew"])
def test_a_thread_that_waits(job: Job, what: str) -> None:
    """asyncio.run() sets a handler of its own, and the earlier one again: Python installs its C handler anew."""
    said = job(what)
    came_out(said, "main", "KeyboardInterrupt")
    came_out(said, "worker", "KeyboardInterrupt", "[barrier] interrupted in barrier")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.run() has no handler of its own before Python 3.11")
def test_a_thread_that_waits_within_asyncio_run(job: Job) -> None:
    came_out(job("handler_of_asyncio"), "worker", "KeyboardInterrupt", "[barrier] interrupted in barrier")


def test_finalize(job: Job) -> None:
    came_out(job("finalize"), "finalize", "KeyboardInterrupt")


@pytest.mark.skipif(importlib.util.find_spec("mlx") is None, reason="MLX is not installed")
def test_mlx(job: Job) -> None:
    """RuntimeError from mx.eval, and KeyboardInterrupt when Python handles the signal."""
    came_out(job("mlx"), "mlx", "KeyboardInterrupt", "[all_sum] interrupted in all_sum float32 (4,)")


@pytest.mark.skipif(importlib.util.find_spec("mlx") is None, reason="MLX is not installed")
def test_split_of_mlx(job: Job) -> None:
    said = job("mlx_split")
    came_out(said, "split", "KeyboardInterrupt")
    assert said["sum"] == [["2.0"]] * 2


def test_the_handler_is_restored(job: Job) -> None:
    said = job("restored")
    assert said["installed"] == [["True", "restored", "True", "default_int_handler"]] * 2
    assert said["interrupted"] == [[]] * 2


def test_started_in_a_thread(job: Job) -> None:
    """No handler can be set in a thread; the main thread is interrupted all the same."""
    said = job("thread")
    assert said["untouched"] == [["True"]] * 2
    came_out(said, "main", "KeyboardInterrupt")
