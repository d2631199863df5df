"""All ranks sum 16 MiB, and each prints what came of it: `amid | RANK | OUTCOME | SECONDS | TEXT`.

amid.py LIMIT_S [STAY_S]: the limit of the sum, and how long to wait for the others then, in another group. SECONDS are
of the clock of the machine, which all its hosts have in common.
"""

from __future__ import annotations

import contextlib
import sys
import time

import numpy as np

import mlxdist as dist

NBYTES = 16 << 20


def main() -> None:
    world = dist.init(timeout_s=30)
    others = world.split(0)
    x = np.full(NBYTES // 4, world.rank() + 1, np.float32)
    dist.barrier()
    dist.init(timeout_s=float(sys.argv[1]))
    try:
        total = dist.all_sum(x)
        outcome, text = "right" if (total == sum(range(world.size() + 1))).all() else "wrong", ""
    except (dist.Error, KeyboardInterrupt) as error:
        outcome, text = type(error).__name__, str(error.__context__ or error)
    print(f"amid | {world.rank()} | {outcome} | {time.monotonic()} | {text}\n", end="", flush=True)
    # MPICH 5.0.2 crashes in a send to a rank that has ended.
    if len(sys.argv) > 2:
        dist._core.set_timeout(others, float(sys.argv[2]))
        with contextlib.suppress(dist.Error):
            dist.barrier(group=others)


if __name__ == "__main__":
    main()
