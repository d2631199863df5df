"""Calls in the background on the arrays of a framework: the same as without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from parallel.reference import assert_same
from parallel.refused import RANK, SIZE

import mlxdist as dist

Made = Callable[[np.ndarray], Any]  # an array of the framework, with these elements
NEXT, BEFORE = (RANK + 1) % SIZE, (RANK - 1) % SIZE
LENGTHS = (0, 1, 1000, 300_000)  # in slots, in the staging buffer, in pieces
COLLECTIVES: dict[str, Callable[..., Any]] = {
    "all_sum": dist.all_sum,
    "all_max": dist.all_max,
    "all_min": dist.all_min,
    "all_gather": dist.all_gather,
    "sum_scatter": dist.sum_scatter,
    "all_prod": dist.all_prod,
    "all_to_all": dist.all_to_all,
    "broadcast": lambda x, **options: dist.broadcast(x, SIZE - 1, **options),
    "scatter": lambda x, **options: dist.scatter(x, SIZE - 1, **options),
}
TO_A_ROOT: dict[str, Callable[..., Any]] = {
    "gather": lambda x, **options: dist.gather(x, SIZE - 1, **options),
    "reduce": lambda x, **options: dist.reduce(x, SIZE - 1, op="max", **options),
}
WITH_OUT = COLLECTIVES | (
    {"sendrecv": lambda x, **options: dist.sendrecv(x, NEXT, BEFORE, **options)} if SIZE > 1 else {}
)
OPERATIONS = WITH_OUT | TO_A_ROOT


def drawn(length: int, seed: int = 0) -> np.ndarray:
    """Whole numbers, so that sums are exact in any order; divisible among the ranks."""
    return np.random.default_rng([RANK, length, seed]).integers(0, 100, (length * SIZE, 2)).astype(np.float32)


def check_result(made: Made, operation: str) -> None:
    call = OPERATIONS[operation]
    for length in LENGTHS:
        x = made(drawn(length))
        expected = call(x)
        work = call(x, wait=False)
        result = work.wait()
        assert isinstance(work, dist.Work)
        assert type(result) is type(expected)
        assert_same(np.asarray(result), np.asarray(expected))
        assert work.done()
        assert work.result() is work.wait() is result


def check_out(made: Made) -> None:
    for operation, call in WITH_OUT.items():
        x = made(drawn(50))
        expected = call(x)
        out = made(np.zeros(tuple(expected.shape), np.float32))
        assert call(x, out=out, wait=False).wait() is out, operation
        assert_same(np.asarray(out), np.asarray(expected))


def check_messages(made: Made) -> None:
    x = made(np.full(70_000, RANK, np.float32))
    received = dist.recv_like(x, BEFORE, wait=False)
    sent = dist.send(x, NEXT, wait=False)
    assert sent.wait() is x
    assert_same(np.asarray(received.wait()), np.full(70_000, BEFORE, np.float32))


def check_average_gradients(made: Made, all_reduce_size: int) -> None:
    def tree() -> dict[str, Any]:
        return {"a": [made(drawn(k + 1, k)) for k in range(20)], "b": (made(drawn(100_000)), None)}

    expected = dist.average_gradients(tree())
    averaged = dist.average_gradients(tree(), all_reduce_size=all_reduce_size, wait=False).wait()
    assert averaged["b"][1] is None
    for x, wanted in zip([*averaged["a"], averaged["b"][0]], [*expected["a"], expected["b"][0]], strict=True):
        assert_same(np.asarray(x), np.asarray(wanted))
