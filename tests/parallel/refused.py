"""Wrong calls: each raises an error that begins with the operation and says what to do, before anything is sent.

Only one rank makes each call, so if it communicated, it would hang or corrupt the sum that follows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

import mlxdist as dist

WORLD = dist.init()
SIZE, RANK = WORLD.size(), WORLD.rank()
OTHER = (RANK + 1) % SIZE
X = np.arange(6.0)

COLLECTIVES: dict[str, Callable[..., Any]] = {
    "all_sum": dist.all_sum,
    "all_max": dist.all_max,
    "all_min": dist.all_min,
    "all_prod": dist.all_prod,
    "all_gather": dist.all_gather,
    "sum_scatter": dist.sum_scatter,
    "broadcast": functools.partial(dist.broadcast, src=0),
}
MESSAGES: dict[str, Callable[..., Any]] = {
    "send": functools.partial(dist.send, dst=OTHER),
    "recv_like": functools.partial(dist.recv_like, src=OTHER),
}
# In a group of one, messages are rejected for that reason first.
POSSIBLE = COLLECTIVES | (MESSAGES if SIZE > 1 else {})

Case = tuple[str, str, type[Exception], Callable[[], object]]


def case(call: str, text: str, error: type[Exception], run: Callable[..., Any], *args: Any, **kwargs: Any) -> Case:
    """``run`` with these arguments, and the error that it must raise."""
    return call, text, error, functools.partial(run, *args, **kwargs)


def assert_refused(cases: Iterable[Case]) -> None:
    """Each raises its error on one rank while the others are already in the sum after it."""
    for number, (call, text, error, run) in enumerate(cases):
        if number % SIZE == RANK:
            with pytest.raises(error, match=rf"^\[{call}\] .*{text}") as caught:
                run()
            assert caught.type is error
        assert dist.all_sum(number) == number * SIZE
