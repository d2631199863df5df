"""Calls in the background that fail, are interrupted, or are still under way at the end."""

from __future__ import annotations

import importlib.util

import mpis
import pytest
from conftest import Ranks

BEGIN = """
import asyncio, os, signal, sys, threading, time
import numpy as np
import mlxdist as dist

world = dist.init()
rank, size = world.rank(), world.size()

def said(call, *arguments):
    try:
        return f"no error but {call(*arguments)!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

def end():
    sys.stdout.write(f"end {rank}\\n")
    sys.stdout.flush()
"""

each_memory = pytest.mark.parametrize("memory", ["1", "0"], ids=["one-host", "two-hosts"])


def check(ranks: Ranks, mpi: mpis.MPI, program: str, **environ: str) -> str:
    """What the two ranks printed; both have reached their end."""
    finished = ranks(mpi, 2, BEGIN + program, timeout_s=50, **environ)
    assert finished.status == 0, finished.output
    assert {"end 0", "end 1"} <= set(finished.output.splitlines()), finished.output
    return finished.output


MISMATCH = """
x = np.arange(3.0)
first = dist.all_sum(x, wait=False) if rank else dist.all_max(x, wait=False)
second = dist.all_sum(1, wait=False)
for _ in range(2):
    text = said(first.wait)
    assert text.startswith(f"MismatchError: [{'all_sum' if rank else 'all_max'}] the ranks differ in call 1 "), text
    assert "rank 0: all_max float64 (3,)" in text and "rank 1: all_sum float64 (3,)" in text, text
async def main():
    return await second
text = said(lambda: asyncio.run(main()))
assert text.startswith("MismatchError: [all_sum] this group was broken by an earlier error: "), text
assert first.done() and not world.is_usable
text = said(lambda: dist.all_sum(1, wait=False))
assert text.startswith("MismatchError: [all_sum] this group was broken by an earlier error: "), text
end()
"""


@each_memory
def test_a_mismatch_is_raised_by_wait(one: mpis.MPI, ranks: Ranks, memory: str) -> None:
    output = check(ranks, one, MISMATCH, MLXDIST_SHARED_MEMORY=memory)
    assert "nobody waited" not in output


DROPPED = """
if rank:
    dist.all_sum(np.arange(3.0), wait=False)
    said(lambda: dist.all_sum(1, wait=False))  # refused, if the other has failed by then
else:
    print(said(dist.all_max, np.arange(4.0)))
time.sleep(0.3)
end()
"""


def test_a_failure_that_nobody_waits_for_is_reported_once(one: mpis.MPI, ranks: Ranks) -> None:
    output = check(ranks, one, DROPPED)
    assert output.count("mlxdist: [all_sum] nobody waited for this call: the ranks differ in call 1 ") == 1, output
    assert output.count("nobody waited") == 1, output


INTERRUPTED = """
if rank:
    dist.recv((), np.int64, 0)
    assert dist.all_sum(np.int64(2)) == 3
else:
    work = dist.all_sum(np.int64(1), wait=False)
    alarm = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    alarm.start()
    begun = time.monotonic()
    text = said(work.wait)
    assert text.startswith("KeyboardInterrupt"), text
    assert time.monotonic() - begun < 5
    assert not work.done() and world.is_usable
    dist.send(np.int64(0), 1)
    assert work.wait() == 3
"""

HANDLER = """
seen = []
def handler(*_):
    seen.append(said(work.wait))
signal.signal(signal.SIGALRM, handler)
if rank == 0:
    work = dist.recv((), np.int64, 1, wait=False)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    assert dist.recv_like(np.float64(0), 1) == 5
    assert work.wait() == 4
    assert len(seen) == 1 and ("signal handler" in seen[0] or seen[0] == "no error but array(4)"), seen
else:
    time.sleep(0.5)
    dist.send(np.int64(4), 0)
    dist.send(np.float64(5), 0)
end()
"""


def test_a_signal_ends_the_wait_and_not_the_call(one: mpis.MPI, ranks: Ranks) -> None:
    """And its handler does not wait within a wait."""
    check(ranks, one, INTERRUPTED + HANDLER)


TIMEOUT = """
dist.init(timeout_s=0.3)
peer = 1 - rank
if rank == 0:
    text = said(dist.recv((3,), np.float32, 1, wait=False).wait)
    assert text.startswith("TimeoutError: [recv] waited for 0.3 s in recv float32 (3,) from rank 1, rank 0: "), text
    assert world.is_usable
    text = said(dist.all_sum(1, wait=False).wait)
    assert text.startswith("TimeoutError: [all_sum] waited for 0.3 s in all_sum "), text
    assert not world.is_usable
else:
    time.sleep(3)
end()
"""


def test_the_timeout_of_the_group_is_that_of_the_call(one: mpis.MPI, ranks: Ranks) -> None:
    """Rank 0 has given up then: its launcher reports a failure."""
    finished = ranks(one, 2, BEGIN + TIMEOUT, timeout_s=50)
    assert "end 0" in finished.output.splitlines(), finished.output


AT_THE_END = """
x = np.full(300_000, rank + 1.0)
if rank == 0:
    dist.all_sum(x, out=x, wait=False)
    kept = dist.send(x[:0], 1, wait=False)
else:
    time.sleep(0.5)
    assert dist.all_sum(x)[-1] == 3
    dist.recv((0,), np.float64, 0)
end()
"""


@each_memory
def test_calls_under_way_are_waited_for_at_the_end(one: mpis.MPI, ranks: Ranks, memory: str) -> None:
    check(ranks, one, AT_THE_END, MLXDIST_SHARED_MEMORY=memory)


IN_A_CHILD = """
work = dist.recv((), np.int64, 1 - rank, wait=False)
if (pid := os.fork()) == 0:
    text = said(work.wait)
    assert text.startswith("ValueError: [recv] this process was forked from a rank"), text
    text = said(lambda: dist.all_sum(1, wait=False))
    assert text.startswith("ValueError: [all_sum] "), text
    del work
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
dist.send(np.int64(rank), 1 - rank)
assert work.wait() == 1 - rank
"""

AFTER_FINALIZE = """
works = [dist.all_sum(np.ones(100_000), wait=False) for _ in range(5)]
thread = threading.Thread(target=lambda: works[0].wait())
thread.start()
dist.finalize()
thread.join()
assert all(work.done() and work.wait()[0] == 2 for work in works)
text = said(lambda: dist.all_sum(1, wait=False))
assert text.startswith("ValueError: [all_sum] the group is closed"), text
end()
"""


def test_a_child_by_fork_does_not_wait_and_finalize_does(one: mpis.MPI, ranks: Ranks) -> None:
    check(ranks, one, IN_A_CHILD + AFTER_FINALIZE)


BY_MPI4PY = f"""
import mpi4py
mpi4py.rc.thread_level = "LEVEL"
from mpi4py import MPI
{BEGIN}
assert dist.info().threads == "MPI_THREAD_" + "LEVEL".upper()
"""

COLLECTIVES = """
work = dist.all_sum(np.arange(50_000.0), wait=False)
assert work.done() or LATER
assert work.wait()[3] == 6
works = [dist.all_sum(np.full(3, k), wait=False) for k in range(10)]
assert [work.wait()[0] for work in works] == [2 * k for k in range(10)]
text = said(lambda: dist.sendrecv(rank, 1 - rank, 1 - rank, wait=False).wait())
assert LATER and text == f"no error but array({1 - rank})" or text.startswith("Error: [sendrecv] MPI was "), text
assert dist.sendrecv(rank, 1 - rank, 1 - rank) == 1 - rank
end()
"""


@pytest.mark.skipif(not importlib.util.find_spec("mpi4py"), reason="mpi4py is not installed")
@pytest.mark.parametrize(("level", "memory"), [("single", "1"), ("serialized", "0")])
def test_where_mpi_allows_less_than_any_thread(one: mpis.MPI, ranks: Ranks, level: str, memory: str) -> None:
    """With one thread, collectives are done at once and messages are refused."""
    later = str(level == "serialized")
    finished = ranks(
        *(one, 2, BY_MPI4PY.replace("LEVEL", level) + COLLECTIVES.replace("LATER", later)),
        timeout_s=50,
        MLXDIST_SHARED_MEMORY=memory,
    )
    assert finished.status == 0, finished.output
    assert {"end 0", "end 1"} <= set(finished.output.splitlines()), finished.output
