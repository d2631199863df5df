"""A program may end in any order: with status 0, and no output but that of the ranks."""

from __future__ import annotations

import re

import mpis
import pytest
from conftest import Ranks

BEGIN = """
import atexit, functools, gc, importlib.util, os, sys, threading, time
import numpy as np
import mlxdist as dist

def say(text):
    print(f"{text}\\n", end="", flush=True)

def refusal(call, *arguments):
    try:
        call(*arguments)
    except ValueError as error:
        return f"ValueError: {error}"
    return "no error"
"""

# name: program, and the lines that every rank prints
PROGRAMS = {
    "never finalized": (
        """
def late():
    # Registered before init(), so it runs after finalize().
    say(f"late {refusal(dist.all_sum, np.ones(3))[:21]}")

def early():
    say(f"early {int(dist.all_sum(1)) == world.size()}")

@functools.lru_cache
def half(parity):
    return world.split(parity)

atexit.register(late)
world = dist.init()
atexit.register(early)
assert dist.info().threads == ("MPI_THREAD_MULTIPLE" if dist.info().backend == "mpi" else "")
kept = [half(world.rank() % 2), half(world.rank() % 2), world.split(0)]
kept.append(kept)  # a cycle, freed only by the garbage collector
dist.all_sum(np.ones(3), group=kept[2])
say("end")
""",
        ["early True", "end", "late ValueError: [all_sum]"],
    ),
    "finalized twice": (
        """
dist.finalize()  # does nothing, since nothing has started
world = dist.init()
parts = [world.split(0) for _ in range(5)]
dropped = world.split(0)
del dropped, parts[3:]
x = np.ones(4)
assert world.is_usable and parts[0].is_usable
dist.finalize()
dist.finalize()
operations = {
    "all_sum": (dist.all_sum, x), "all_max": (dist.all_max, x), "all_min": (dist.all_min, x),
    "all_gather": (dist.all_gather, x), "sum_scatter": (dist.sum_scatter, x), "broadcast": (dist.broadcast, x, 0),
    "send": (dist.send, x, 0), "recv": (dist.recv, 4, "f8", 0), "recv_like": (dist.recv_like, x, 0),
    "barrier": (dist.barrier,), "split": (world.split, 0), "init": (dist.init,),
}
for name, call in operations.items():
    said = refusal(*call)
    assert said.startswith(f"ValueError: [{name}] "), (name, said)
assert refusal(lambda: dist.all_sum(x, out=x)).startswith("ValueError: [all_sum] ")
assert refusal(lambda: dist.all_sum(x, group=parts[0])).startswith("ValueError: [all_sum] ")
assert (world.size(), parts[0].size()) == (dist.info().size,) * 2
assert not world.is_usable and not parts[0].is_usable
del world, parts
gc.collect()
dist.finalize()
say("end")
""",
        ["end"],
    ),
    "sys.exit in the middle": (
        """
def nested():
    world = dist.init()
    try:
        dist.broadcast(np.ones(3), 99)
    except ValueError as error:
        say(str(error)[:11])
    try:
        raise KeyError("caught")
    except KeyError:
        dist.barrier()
    say("end")
    sys.exit(0)

nested()
say("not reached")
""",
        ["[broadcast]", "end"],
    ),
    "threads": (
        """
world = dist.init()
mine, theirs = world.split(0), world.split(0)

def after_main():
    time.sleep(0.2)
    say(f"thread {int(dist.all_sum(1, group=theirs)) == world.size()}")

threading.Thread(target=after_main).start()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
for _ in range(10):
    dist.all_sum(np.ones(3), group=mine)
say("end")
""",
        ["end", "thread True"],
    ),
    "daemon threads": (
        """
world = dist.init()
part = world.split(0)

def serve():
    while True:
        dist.recv(4, "f4", 1 - world.rank())

if world.size() > 1:
    threading.Thread(target=serve, daemon=True).start()
    threading.Thread(target=lambda: world.rank() or dist.barrier(group=part), daemon=True).start()
    time.sleep(0.3)
say("end")
""",
        ["end"],
    ),
    "MLX": (
        """
if importlib.util.find_spec("mlx"):
    import mlx.core as mx
    world = dist.init()
    part = world.split(0)
    never = dist.all_sum(mx.ones(4), group=part)
    x = mx.ones((200, 200))
    for _ in range(1 if world.rank() else 50):  # the ranks reach the sum at different times, after the program's end
        x = x @ x / 200
    pending = dist.all_sum(x)
    stream = mx.new_stream(mx.cpu)
    with mx.stream(stream):
        x = x @ x / 200
        elsewhere = dist.all_sum(x, group=part, stream=stream)
    mx.async_eval(pending, elsewhere)
    if "finalize" in sys.argv:
        dist.finalize()
say("end")
""",
        ["end"],
    ),
}


def check(mpi: mpis.MPI | None, size: int, ranks: Ranks, name: str, *arguments: str) -> None:
    program, said = PROGRAMS[name]
    finished = ranks(mpi, size, BEGIN + program, *arguments, timeout_s=20)
    assert finished.status == 0, finished.output
    assert sorted(finished.output.splitlines()) == sorted(said * size)


@pytest.mark.parametrize("name", PROGRAMS)
def test_two_ranks(launcher: mpis.MPI, ranks: Ranks, name: str) -> None:
    check(launcher, 2, ranks, name)


def test_finalize_while_mlx_evaluates(launcher: mpis.MPI, ranks: Ranks) -> None:
    check(launcher, 2, ranks, "MLX", "finalize")


@pytest.mark.parametrize("name", PROGRAMS)
def test_one_rank(launcher: mpis.MPI, ranks: Ranks, name: str) -> None:
    check(launcher, 1, ranks, name)


@pytest.mark.parametrize("name", PROGRAMS)
def test_alone(ranks: Ranks, name: str) -> None:
    check(None, 1, ranks, name)


SERVED = """
world = dist.init()

def serve():
    try:
        dist.recv(4, "f4", 1 - world.rank())
    except (ValueError, dist.MismatchError) as error:  # it depends on which rank has ended first
        say(f"{type(error).__name__}: {error}")

server = threading.Thread(target=serve)
server.start()
time.sleep(0.3)
dist.finalize()
server.join()
"""


def test_finalize_ends_calls_that_wait(two: mpis.MPI, ranks: Ranks) -> None:
    """Each rank's thread waits for the other rank, which communicates no more."""
    finished = ranks(two, 2, BEGIN + SERVED, timeout_s=20)
    assert finished.status == 0, finished.output
    assert len(finished.output.splitlines()) == 2
    assert "ValueError: [recv] ended by finalize() or the program's end in recv float32 (4,) from rank " in finished


TIMED_FINALIZE = """
def timed_finalize():
    began = time.monotonic()
    try:
        dist.finalize()
    except dist.TimeoutError as error:
        say(f"{error} | {time.monotonic() - began:.2f}")
        os._exit(0)
"""
LATER_TIMEOUT = """
world = dist.init()
dist.init(timeout_s=1)
dist.init()  # without a timeout it leaves the timeout alone
dist.barrier()
if world.rank():
    time.sleep(4)
timed_finalize()
"""


THREAD_IN_A_CALL = """
world = dist.init()
part = world.split(0)
dist.init(timeout_s=0.3)
peer = world.size() - 1 - world.rank()
if world.rank():
    time.sleep(3)
else:
    threading.Thread(target=lambda: dist.recv(3, float, peer, group=part), daemon=True).start()
    time.sleep(0.2)
    timed_finalize()
os._exit(0)
"""


@pytest.mark.parametrize(
    ("program", "limit_s", "awaited"),
    [(LATER_TIMEOUT, 1, ".*"), (THREAD_IN_A_CALL, 0.3, "another thread .*")],
    ids=["a-late-rank", "a-thread-in-a-call"],
)
def test_a_timeout_given_later_reaches_finalize(
    launcher: mpis.MPI, ranks: Ranks, program: str, limit_s: float, awaited: str
) -> None:
    """The thread waits for a message, without a timeout: its group was made before."""
    finished = ranks(launcher, 2, BEGIN + TIMED_FINALIZE + program, timeout_s=20)
    pattern = rf"\[finalize\] waited for {limit_s} s in finalize: {awaited} \| ([\d.]+)$"
    said = re.search(pattern, finished.output, re.MULTILINE)
    assert said, finished.output
    assert limit_s <= float(said[1]) < limit_s + 2  # less than the other rank sleeps, on a busy machine
