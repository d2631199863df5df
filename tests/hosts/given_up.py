"""Rank 0 gives up a call, the other ranks come too late: nobody gets a wrong value or waits for ever.

given_up.py WHAT; each rank prints what came of its call, `RANK | OUTCOME | SECONDS`, and `right | True` if its arrays
hold what they should.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import mlxdist as dist

NBYTES = 16 << 20
COUNT = NBYTES // 4
LIMIT_S = 1.5
LATE_S = 3.0


def say(*words: object) -> None:
    print(" | ".join(map(str, words)) + "\n", end="", flush=True)


def outcome(rank: int, call: Callable[[], object]) -> Any:
    """Call, and print what it raised."""
    began, result, name = time.monotonic(), None, "returned"
    try:
        result = call()
    except (dist.Error, RuntimeError) as error:  # MLX's are RuntimeErrors that begin like ours
        name = type(error).__name__
    say(rank, name, time.monotonic() - began)
    return result


def receive(rank: int, pair: dist.Group) -> None:
    """The sender is stopped in the middle."""
    x, out = np.full(COUNT, 7, np.int32), np.zeros(COUNT, np.int32)
    dist.barrier()
    if rank:
        outcome(rank, lambda: dist.send(x, 0, group=pair))
        return dist.barrier()
    outcome(rank, lambda: dist.recv_like(out, 1, group=pair, out=out))
    out[:] = 42
    own = [np.full(COUNT, 42, np.int32) for _ in range(3)]
    dist.barrier()
    time.sleep(0.3)
    say("right", all((array == 42).all() for array in (out, *own)))


def receive_mlx(rank: int, pair: dist.Group) -> None:
    """The same with MLX, which frees the result and gives its memory to the next array."""
    import mlx.core as mx

    dist.install()
    x = mx.full((COUNT,), 7, dtype=mx.int32)
    mx.eval(x)
    dist.barrier()
    if rank:
        outcome(rank, lambda: mx.eval(dist.send(x, 0, group=pair)))
        return dist.barrier()
    outcome(rank, lambda: mx.eval(dist.recv((COUNT,), mx.int32, 1, group=pair)))
    own = [mx.full((COUNT,), 42, dtype=mx.int32) for _ in range(3)]
    mx.eval(own)
    dist.barrier()
    time.sleep(0.3)
    say("right", all((np.array(array) == 42).all() for array in own))


def send(rank: int, pair: dist.Group) -> None:
    """The receiver comes late. The sender uses its array for something else by then."""
    x = np.full(COUNT, 7, np.int32)
    if rank:
        time.sleep(LATE_S)
        received = outcome(rank, lambda: dist.recv_like(x, 0, group=pair))
        say("right", received is None or (received == 7).all())
    else:
        outcome(rank, lambda: dist.send(x, 1, group=pair))
        x[:] = 42


def reduce(rank: int, group: dist.Group) -> None:
    """On four ranks: the third comes when the others of its group have given up; all go on in another group."""
    pair = dist.init().split(0 if rank in (0, 3) else 1)
    total = None
    dist.barrier()
    if rank < 3:
        time.sleep((0, LIMIT_S / 2, 2 * LIMIT_S)[rank])
        total = outcome(rank, lambda: dist.all_sum(np.ones(4), group=group))
    else:
        time.sleep(LATE_S)
    say("right", total is None or (total == 3).all())
    say("right", (dist.all_sum(np.ones(4), group=pair) == 2).all())


def main() -> None:
    world = dist.init(timeout_s=30)
    rank = world.rank()
    what = {"receive": receive, "receive, MLX": receive_mlx, "send": send, "reduce": reduce}[sys.argv[1]]
    dist.init(timeout_s=LIMIT_S if rank == 0 or what is reduce else 0)
    some = world.split(0 if rank < 3 else 1)  # with this timeout
    dist.init(timeout_s=30)
    dist.barrier()
    what(rank, some)
    dist.barrier()  # Open MPI ends a rank that talks to one that has ended without MPI_Finalize


if __name__ == "__main__":
    main()
