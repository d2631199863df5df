"""A program whose ranks die in a call, one after the other, and whose survivors report what they observe.

dying.py OPERATION STAGE WAY FOLDER [uncaught]: with n ranks, the last of the first k dies, for k = n ... 2, in a group
of those k, so that earlier deaths do not matter. Every survivor writes a line `k rank | first | second | seconds`: the
outcome of the call and of another one after it, and how long after the death the first of them raised. uncaught: errors
end the program.
"""

from __future__ import annotations

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

DELAY_S = 0.2  # before the victim dies, so that the others are waiting
LATE_S = 0.5  # how long to wait for the last rank


def small(group: dist.Group) -> np.ndarray:
    return np.full(group.size(), group.rank() + 1, np.float32)


def large(group: dist.Group) -> np.ndarray:
    return np.full(group.size() * 100_000, group.rank() + 1, np.float32)


def total(group: dist.Group) -> float:
    return group.size() * (group.size() + 1) / 2


def each(group: dist.Group) -> np.ndarray:
    return np.arange(1, group.size() + 1)


def rooted(group: dist.Group, result: np.ndarray, expected: object) -> bool:
    """Whether rank 0 got it, or another rank its own array back."""
    return bool((result == (expected if group.rank() == 0 else group.rank() + 1)).all())


Operation = Callable[[dist.Group], bool]

# name: the call, and whether its result is correct
COLLECTIVES: dict[str, Operation] = {
    "all_sum": lambda group: bool((dist.all_sum(small(group), group=group) == total(group)).all()),
    "all_sum, large": lambda group: bool((dist.all_sum(large(group), group=group) == total(group)).all()),
    "all_gather": lambda group: bool((dist.all_gather(small(group)[:1], group=group) == each(group)).all()),
    "all_gather, large": lambda group: bool(
        (each(group) == dist.all_gather(large(group), group=group).reshape(group.size(), -1).T).all()
    ),
    "sum_scatter": lambda group: bool((dist.sum_scatter(small(group), group=group) == total(group)).all()),
    "sum_scatter, large": lambda group: bool((dist.sum_scatter(large(group), group=group) == total(group)).all()),
    "all_to_all": lambda group: bool((dist.all_to_all(small(group), group=group) == each(group)).all()),
    "all_to_all, large": lambda group: bool(
        (each(group) == dist.all_to_all(large(group), group=group).reshape(group.size(), -1).T).all()
    ),
    "scatter, large": lambda group: bool((dist.scatter(large(group), 0, group=group) == 1).all()),
    "reduce": lambda group: rooted(group, dist.reduce(small(group), 0, group=group), total(group)),
    "gather, large": lambda group: rooted(
        group, dist.gather(large(group), 0, group=group).reshape(-1, 100_000 * group.size()).T, each(group)
    ),
    "broadcast": lambda group: bool((dist.broadcast(small(group), 0, group=group) == 1).all()),
    "broadcast, large": lambda group: bool((dist.broadcast(large(group), 0, group=group) == 1).all()),
    "barrier": lambda group: dist.barrier(group=group) is None,
    "split": lambda group: group.split(0).size() == group.size(),
}


def sent(group: dist.Group, x: np.ndarray, peer: int) -> bool:
    return dist.send(x, peer, group=group) is x


def received(group: dist.Group, like: np.ndarray, peer: int) -> bool:
    return bool((dist.recv_like(like, peer, group=group) == peer + 1).all())


# name: what the survivors call, with the victim as peer, and what it calls for each of them
MESSAGES = {
    "send": (sent, received, small),
    "send, large": (sent, received, large),
    "recv": (received, sent, small),
    "recv, large": (received, sent, large),
}


def finalize(group: dist.Group) -> bool:
    dist.finalize()
    return True


def operation_on(name: str, group: dist.Group, victim: int) -> bool:
    """The call as the survivors and the victim make it; returns whether its result is correct."""
    if name == "finalize":
        return finalize(group)
    if name in COLLECTIVES:
        return COLLECTIVES[name](group)
    survivors_do, victim_does, array = MESSAGES[name]
    if group.rank() != victim:
        return survivors_do(group, array(group), victim)
    # Rank 0 comes last, since it is late.
    return all(victim_does(group, array(group), peer) for peer in (*range(1, victim), 0))


# Raised by the handler in the main thread, wherever it is waiting.
END: dict[str, BaseException] = {
    "exception": KeyError("broken"),
    "sys.exit(1)": SystemExit(1),
    "sys.exit(0)": SystemExit(0),
}


def crash() -> None:
    ctypes.string_at(0)


WAYS: dict[str, Callable[[], object]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "segfault": crash,
    "os._exit(3)": lambda: os._exit(3),
    **dict.fromkeys(END, lambda: os.kill(os.getpid(), signal.SIGUSR2)),
}


def die(way: str, place: Path) -> None:
    """Write pid and time of death to ``place``, and die."""
    place.with_suffix(".new").write_text(f"{os.getpid()} {time.monotonic()}")
    place.with_suffix(".new").rename(place)
    WAYS[way]()


def attempt(call: Callable[[], bool]) -> tuple[str, str]:
    """The class of the error and the first line of its text, or the result of the call."""
    try:
        if call():
            return "right", ""
        print(f"rank {dist.init().rank()} got {'wrong'} numbers\n", end="", flush=True)
        return "wrong", ""
    except dist.Error as error:
        if "uncaught" in sys.argv:
            raise
        return type(error).__name__, str(error).splitlines()[0]


def live_and_die(name: str, stage: str, way: str, group: dist.Group, place: Path) -> None:
    """One death in ``group``."""
    victim = group.size() - 1
    dist.barrier(group=group)
    if group.rank() == victim:
        if stage == "amid":
            threading.Timer(DELAY_S, die, (way, place)).start()
        if stage == "before":
            time.sleep(DELAY_S)
        else:
            operation_on(name, group, victim)
        die(way, place)
        time.sleep(60)
    if stage == "amid" and group.rank() == 0:
        time.sleep(LATE_S)
    first, why = attempt(lambda: operation_on(name, group, victim))
    raised = time.monotonic()
    second, why_second = attempt(lambda: operation_on(name, group, victim))
    if first == "right":
        raised, why = time.monotonic(), why_second
    while not place.exists():
        time.sleep(0.01)
    died = float(place.read_text().split()[1])
    # A rank that ended now would be missed by the others too.
    place.with_suffix(f".{group.rank()}").touch()
    while len(list(place.parent.glob(f"{place.name}.[0-9]"))) < group.size() - 1 and time.monotonic() < raised + 3:
        time.sleep(0.01)
    line = f"{group.size()} {group.rank()} | {first} | {second} | {raised - died:.3f} | {why}"
    print(line + "\n", end="", flush=True)


def main(name: str, stage: str, way: str, folder: str, *_: str) -> None:
    def raised(number: int, frame: FrameType | None) -> None:
        raise END[way]

    signal.signal(signal.SIGUSR2, raised)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # hydra sends it to the survivors
    world = dist.init()
    sizes = range(world.size(), 2 if stage == "amid" else 1, -1)
    groups = {k: world.split(int(world.rank() >= k)) for k in sizes}
    for k in [world.size()] if name == "finalize" else sizes:
        if world.rank() < k:
            live_and_die(name, stage, way, groups[k], Path(folder, str(k)))
    if way == "SIGSTOP" and world.rank() == 0:
        time.sleep(1)  # MPICH's hydra (5.0.2) loses what others have just printed when it notices the death
        for place in Path(folder).glob("[0-9]"):
            os.kill(int(place.read_text().split()[0]), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
