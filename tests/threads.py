"""All that several threads of a rank can do at once, for some rounds: every result is right, and nothing crashes.

    python tests/mpis.py run openmpi-5 2 python tests/threads.py --rounds 20

It is meant for a free-threaded Python, also for one that the thread sanitizer watches; with the GIL it works too. The
last line is a summary.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from parallel.drawn import ON_THREADS, Part, Rank
from parallel.reference import NAMES, dtype_of
from soak import operate

import mlxdist as dist
from mlxdist import _core

STUCK_S, LIMIT_S, TURNS = 200, 100, 20
COUNTS = (1, 5000, 1 << 17)  # of float32: through slots, the staging buffer, and in several chunks
KEPT_FROM = 1 << 14  # bytes: from there on memory of results is reused, see compiled/memory.pxi


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """What they return, each on a thread, all begun together; the first failure ends the process, so the job."""
    gate = threading.Barrier(len(works))
    returned: list[Any] = [None] * len(works)

    def run(place: int) -> None:
        try:
            gate.wait()
            returned[place] = works[place]()
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            sys.stderr.flush()
            os._exit(1)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return returned


def in_own_group(rank: Rank, part: Part, seed: int) -> None:
    """Random operations, the same on all ranks."""
    same, own = np.random.default_rng(seed), np.random.default_rng((seed, part.group.rank()))
    for _ in range(TURNS):
        operate(rank, part, same, own, ON_THREADS)


def in_shared_group(world: dist.Group, count: int) -> None:
    """Any thread meets any thread of another rank, so all make the same calls."""
    expected = sum(range(1, world.size() + 1))
    for _ in range(TURNS):
        got = dist.all_sum(np.full(count, world.rank() + 1.0, np.float32))
        assert np.all(got == expected)


def arrays(seed: int) -> None:
    """Results made and dropped: no two of them that are alive have the same memory."""
    random, held = np.random.default_rng(seed), []
    for turn in range(TURNS * 20):
        made = _core.empty((KEPT_FROM + 4096 * int(random.integers(4)),), np.dtype(np.uint8))
        made[...] = turn % 251
        held.append((turn % 251, made))
        if len(held) > 10:
            number, x = held.pop(random.integers(len(held)))
            assert np.all(x == number), "another thread wrote to this array"


def splits(part: Part) -> None:
    """Groups made and dropped, of which the last reference may go on any thread."""
    for turn in range(TURNS // 4):
        half = part.group.split(part.group.rank() % 2)
        assert dist.all_sum(turn, group=half) == turn * half.size()
        shared = dist.empty((5000,), np.float64, group=part.group) if _core.local_size()[1] == "" else None
        del half, shared


def interrupted(part: Part) -> None:
    """The main thread handles signals within its waits, and Ctrl-C in a call that its peer never makes."""
    for turn in range(TURNS):
        assert dist.all_sum(turn, group=part.group) == turn * part.group.size()
    alone = part.group.split(0)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with contextlib.suppress(dist.Error, ValueError):  # it has left before; a group of one
            dist.recv((), np.float64, (alone.rank() + 1) % alone.size(), group=alone)
        time.sleep(LIMIT_S)
        raise AssertionError("no interrupt came")
    except KeyboardInterrupt:
        timer.join()


def every_type() -> None:
    """The first use of each type looks it up."""
    for name in NAMES:
        assert _core.DTYPES[_core.type_of(dtype_of(name))] == name


def everything(rank: Rank, parts: Sequence[Part], number: int) -> None:
    """A round: all of the above at once, each kind of work in a group of its own."""
    shared = threading.Thread(
        target=at_once,
        args=(
            lambda: in_own_group(rank, parts[0], number),
            lambda: in_own_group(rank, parts[1], number + 1000),
            lambda: splits(parts[2]),
            *[lambda: in_shared_group(rank.world, COUNTS[number % len(COUNTS)])] * 2,
            *[lambda: arrays(number)] * 2,
        ),
    )
    shared.start()
    interrupted(parts[3])
    shared.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    faulthandler.dump_traceback_later(STUCK_S, exit=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    world, *others = at_once(*[lambda: dist.init(timeout_s=LIMIT_S)] * 4)
    assert all(other is world for other in others)
    if _core.threads() not in ("MPI_THREAD_MULTIPLE", "MPI_THREAD_SINGLE"):  # the latter: alone, without MPI
        print(f"threads: this MPI allows {_core.threads()}")
        return 0
    at_once(*[every_type] * 3)
    handled: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: handled.append(number))
    gil = "with" if getattr(sys, "_is_gil_enabled", lambda: True)() else "without"
    assert gil == "without" or not sysconfig.get_config_var("Py_GIL_DISABLED"), "an import has switched the GIL on"
    rank = Rank(world, 0)
    parts = [Part(world.split(0), tuple(range(world.size()))) for _ in range(4)]
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    for number in range(rounds):
        everything(rank, parts, number)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert handled
    dist.barrier()
    if world.rank() == 0:
        print(
            f"threads: Python {sys.version.split()[0]} {gil} the GIL, {world.size()} ranks, {rounds} rounds, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
    dist.barrier()
    at_once(*[dist.finalize] * 3)
    faulthandler.cancel_dump_traceback_later()
    return 0


if __name__ == "__main__":
    sys.exit(main())
