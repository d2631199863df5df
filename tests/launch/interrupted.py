"""Rank 0 waits for rank 1, which sends it a SIGINT instead; rank 0 prints the outcome, and when it came.

interrupted.py WHAT FOLDER, on two ranks.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np

import mlxdist as dist

DELAY_S = 0.2
SMALL, LARGE = np.ones(2, "f4"), np.ones(500_000, "f4")

# name: the call in which rank 0 waits
WAITS: dict[str, Callable[[dist.Group], object]] = {
    "all_sum": lambda group: dist.all_sum(SMALL, group=group),
    "all_sum, large": lambda group: dist.all_sum(LARGE, group=group),
    "all_sum into out": lambda group: dist.all_sum(SMALL, group=group, out=np.empty(2, "f4")),
    "all_gather": lambda group: dist.all_gather(SMALL, group=group),
    "sum_scatter, large": lambda group: dist.sum_scatter(LARGE, group=group),
    "broadcast": lambda group: dist.broadcast(SMALL, 1, group=group),
    "all_to_all, large": lambda group: dist.all_to_all(LARGE, group=group),
    "gather": lambda group: dist.gather(SMALL, 0, group=group),
    "barrier": lambda group: dist.barrier(group=group),
    "split": lambda group: group.split(0),
    "recv": lambda group: dist.recv(2, "f4", 1, group=group),
    "send, large": lambda group: dist.send(LARGE, 1, group=group),
}


def say(*words: object) -> None:
    print(" | ".join(map(str, words)) + "\n", end="", flush=True)


def outcome(call: Callable[[], object], place: Path) -> str:
    """What the call raised, the text, and how long after the signal."""
    try:
        call()
        name = "returned | "
    except BaseException as error:
        name = f"{type(error).__name__} | {error.__context__ or error}"
    seconds = time.monotonic() - float(place.read_text() or "inf")
    return f"{name} | {seconds:.3f}"


class Pair:
    """The two ranks; both call ``interrupted``."""

    def __init__(self, folder: str) -> None:
        self.folder, self.count = Path(folder), 0
        self.world = dist.init()
        self.pids = dist.all_gather(np.array([os.getpid()]))

    def interrupted(
        self,
        name: str,
        call: Callable[[], object],
        group: dist.Group | None = None,
        goes_on: Callable[[], object] | None = None,
    ) -> None:
        """Rank 0 is in ``call`` when rank 1 signals it; both have used ``group`` before.

        goes_on: what rank 1 does next; by default it waits until rank 0 is done.
        """
        self.count += 1
        place = self.folder / str(self.count)
        dist.barrier(group=group)
        if self.world.rank() == 0:
            place.touch()
            say(name, outcome(call, place))
            place.with_suffix(".done").touch()
        else:
            time.sleep(DELAY_S)
            place.write_text(str(time.monotonic()))
            os.kill(int(self.pids[0]), signal.SIGINT)
            while goes_on is None and not place.with_suffix(".done").exists():
                time.sleep(0.01)
            if goes_on is not None:
                time.sleep(DELAY_S)
                goes_on()


def every_wait(pair: Pair) -> None:
    """And what rank 1 learns of it afterwards."""
    for name, wait in WAITS.items():
        group = pair.world.split(0)
        pair.interrupted(name, lambda wait=wait, group=group: wait(group), group)
        dist.barrier()
        try:
            dist.barrier(group=group)
            say(name, f"rank {group.rank()} goes on")
        except dist.Error as error:
            say(name, f"rank {group.rank()} {type(error).__name__}", str(error))
    dist.barrier()


def handlers(pair: Pair) -> None:
    """The program's own handlers, set before and after init()."""
    seen = []

    def remember(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    def refuse(number: int, frame: FrameType | None) -> None:
        raise LookupError("of the handler")

    def sum_of_two(group: dist.Group) -> None:
        assert (dist.all_sum(SMALL, group=group) == 2).all()

    signal.signal(signal.SIGINT, remember)
    group = pair.world.split(0)
    pair.interrupted("not raising", lambda: sum_of_two(group), group, lambda: sum_of_two(group))
    if pair.world.rank() == 0:
        say("seen", len(seen))
    for name, handler in (("raising", refuse), ("default again", signal.default_int_handler)):
        signal.signal(signal.SIGINT, handler)
        group = pair.world.split(0)
        pair.interrupted(name, lambda group=group: sum_of_two(group), group)


def slow_handler(pair: Pair) -> None:
    """It raises when the other rank has arrived, and both go on: the very call raises, not the next one."""

    arrives = pair.folder / "arrives"

    def refuse_slowly(number: int, frame: FrameType | None) -> None:
        while not arrives.exists():
            time.sleep(0.01)
        time.sleep(1)
        raise LookupError("of the handler")

    def arrive() -> None:
        arrives.touch()
        group.split(0)

    group, other = pair.world.split(0), pair.world.split(0)
    signal.signal(signal.SIGINT, refuse_slowly)
    pair.interrupted("split", lambda: group.split(0), group, arrive)
    say("sum", float(dist.all_sum(SMALL, group=other)[0]))


def communicating_handler(pair: Pair) -> None:
    """On another group it can; on the group of the call that it interrupts, and to finalize, it is told what to do."""
    group, other = pair.world.split(0), pair.world.split(0)

    def communicate(number: int, frame: FrameType | None) -> None:
        say("sum", float(dist.all_sum(SMALL, group=other)[0]))
        for call in (lambda: dist.barrier(group=group), dist.finalize):
            try:
                call()
            except dist.Error as error:
                say("refused", str(error))

    def goes_on() -> None:
        dist.all_sum(SMALL, group=other)
        dist.barrier(group=group)

    signal.signal(signal.SIGINT, communicate)
    pair.interrupted("barrier", lambda: dist.barrier(group=group), group, goes_on)
    dist.barrier()
    say("goes on")


def leaving_handler(pair: Pair) -> None:
    """The remedy where a handler cannot finalize."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(0)

    signal.signal(signal.SIGINT, leave)
    group = pair.world.split(0)
    pair.interrupted("barrier", lambda: dist.barrier(group=group), group)
    sys.exit(0)


def handler_set_anew(pair: Pair) -> None:
    asyncio.run(asyncio.sleep(0))
    worker(pair)


def handler_of_asyncio(pair: Pair) -> None:
    """It raises at the second signal; the first only cancels the task."""
    group = pair.world.split(0)
    place = pair.folder / "1"

    async def run() -> None:
        thread = threading.Thread(target=lambda: say("worker", outcome(lambda: dist.barrier(group=group), place)))
        thread.start()
        for _ in range(2):
            time.sleep(DELAY_S)
            place.write_text(str(time.monotonic()))
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(DELAY_S)  # it may be handled a little later
        thread.join()

    dist.barrier(group=group)
    if pair.world.rank() == 0:
        with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            asyncio.run(run())
        (pair.folder / "done").touch()
    while not (pair.folder / "done").exists():
        time.sleep(0.01)


def worker(pair: Pair) -> None:
    """The main thread waits for a thread that waits."""
    group = pair.world.split(0)
    place = pair.folder / "1"
    thread = threading.Thread(target=lambda: say("worker", outcome(lambda: dist.barrier(group=group), place)))

    def join() -> None:
        thread.start()
        thread.join()

    pair.interrupted("main", join, group, lambda: time.sleep(1))
    if pair.world.rank() == 0:
        thread.join()


def finalize(pair: Pair) -> None:
    pair.interrupted("finalize", dist.finalize)


def and_handle(call: Callable[[], object]) -> None:
    """When Python handles the signal, the RuntimeError of MLX is the context of the KeyboardInterrupt."""
    try:
        call()
    finally:
        looks = time.monotonic() + 1
        while time.monotonic() < looks:
            pass


def mlx(pair: Pair) -> None:
    import mlx.core as mx

    dist.install()
    group = pair.world.split(0)
    mx.eval(dist.all_sum(mx.ones(3), group=group))

    pair.interrupted("mlx", lambda: and_handle(lambda: mx.eval(dist.all_sum(mx.ones(4), group=group))), group)


def mlx_split(pair: Pair) -> None:
    dist.install()
    group, other = pair.world.split(0), pair.world.split(0)
    theirs = group.mlx
    pair.interrupted("split", lambda: theirs.split(0), group)
    say("sum", float(dist.all_sum(SMALL, group=other)[0]))


def address() -> bytes:
    """The process's handler of SIGINT."""
    action = ctypes.create_string_buffer(512)
    assert ctypes.CDLL(None).sigaction(int(signal.SIGINT), None, action) == 0
    return action.raw[:8]


def restored(folder: str) -> None:
    before = address()
    dist.init()
    said = address() != before
    dist.barrier()
    dist.finalize()
    say("installed", said, "restored", address() == before, signal.getsignal(signal.SIGINT).__name__)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    except KeyboardInterrupt:
        say("interrupted")


def thread(folder: str) -> None:
    before = address()
    starter = threading.Thread(target=dist.init)
    starter.start()
    starter.join()
    pair = Pair(folder)
    say("untouched", address() == before)
    group = pair.world.split(0)
    pair.interrupted("main", lambda: dist.barrier(group=group), group)


if __name__ == "__main__":
    what, folder = sys.argv[1:]
    if what in ("restored", "thread"):
        globals()[what](folder)
    else:
        globals()[what](Pair(folder))
