"""A rank of another host comes too late to each kind of call: this one gives up at its limit, or is interrupted.

Rank 0 prints `CALL | HOW | OUTCOME | SECONDS | TEXT`, with the seconds that it went on after that event; rank 1, which
calls then, prints `CALL | HOW | OUTCOME`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import numpy as np

import mlxdist as dist

LIMIT_S = 0.3
LONG_S = 20.0
LONG = np.ones(1 << 20, np.float32)

# What rank 0 calls, and what rank 1 does.
CALLS: dict[str, tuple[Callable[[dist.Group], object], ...]] = {
    "short sum": (lambda group: dist.all_sum(np.ones(1), group=group),),
    "long sum": (lambda group: dist.all_sum(LONG, group=group),),
    "all_gather": (lambda group: dist.all_gather(LONG, group=group),),
    "sum_scatter": (lambda group: dist.sum_scatter(LONG, group=group),),
    "broadcast": (lambda group: dist.broadcast(LONG, 1, group=group),),
    "all_to_all": (lambda group: dist.all_to_all(LONG, group=group),),
    "gather": (lambda group: dist.gather(LONG, 0, group=group),),
    "barrier": (lambda group: dist.barrier(group=group),),
    "split": (lambda group: group.split(0),),
    "send": (lambda group: dist.send(LONG, 1, group=group), lambda group: dist.recv_like(LONG, 0, group=group)),
    "recv": (lambda group: dist.recv_like(LONG, 1, group=group), lambda group: None),  # that can be called again
}


def outcome(call: Callable[[dist.Group], object], group: dist.Group) -> tuple[str, str]:
    try:
        call(group)
    except (dist.Error, KeyboardInterrupt) as error:
        return type(error).__name__, str(error.__context__ or error)
    return "returned", ""


def give_up(name: str, how: str, group: dist.Group) -> None:
    event_s = time.monotonic() + LIMIT_S
    interrupt = threading.Timer(LIMIT_S, os.kill, (os.getpid(), signal.SIGINT))
    if how == "interrupted":
        interrupt.start()
    came, text = outcome(CALLS[name][0], group)
    interrupt.cancel()
    print(f"{name} | {how} | {came} | {time.monotonic() - event_s} | {text}\n", end="", flush=True)
    dist.barrier()


def come_late(name: str, how: str, group: dist.Group) -> None:
    dist.barrier()
    came, _ = outcome(CALLS[name][-1], group)
    print(f"{name} | {how} | {came}\n", end="", flush=True)


def main() -> None:
    world = dist.init(timeout_s=LONG_S)
    for how in ("limit", "interrupted"):
        dist.init(timeout_s=LIMIT_S if how == "limit" else LONG_S)
        groups = [world.split(0) for _ in CALLS]
        dist.init(timeout_s=LONG_S)
        for name, group in zip(CALLS, groups, strict=True):
            dist.barrier()
            (come_late if world.rank() else give_up)(name, how, group)
            dist.barrier()


if __name__ == "__main__":
    main()
