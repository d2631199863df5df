"""Each rank prints how many bytes its host sends in each operation: `HOST | OPERATION | NBYTES | SENT`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np

import mlxdist as dist

OPERATIONS = {
    "all_sum": dist.all_sum,
    "all_max": dist.all_max,
    "all_min": dist.all_min,
    "all_gather": dist.all_gather,
    "sum_scatter": dist.sum_scatter,
    "all_to_all": dist.all_to_all,
    "gather": lambda x: dist.gather(x, 0),
    "scatter": lambda x: dist.scatter(x, 0),
    "reduce": lambda x: dist.reduce(x, 0),
    "broadcast": lambda x: dist.broadcast(x, 0),
    "broadcast from the last": lambda x: dist.broadcast(x, dist.init().size() - 1),
}
LENGTHS = (1 << 20,)
# The least of them counts: ranks connect in the first, and on a busy machine TCP sends some packets twice.
TRIES = 2


def sent() -> int:
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith("eth0:"))


def sent_in(operation: Callable[[np.ndarray], object], x: np.ndarray) -> int:
    dist.barrier()
    before = sent()
    operation(x)
    dist.barrier()
    return sent() - before


def main() -> None:
    dist.init()
    for nbytes in LENGTHS:
        x = np.ones(nbytes // 4, np.float32)
        for name, operation in OPERATIONS.items():
            least = min(sent_in(operation, x) for _ in range(TRIES))
            print(f"{socket.gethostname()} | {name} | {nbytes} | {least}\n", end="", flush=True)


if __name__ == "__main__":
    main()
