"""mlxdist, libmpi from C, and memory itself: what is always measured. baselines.py has the others.

A backend makes an ``Entry`` for a case. Times are those within the calls: what is sent is written anew before each
call, as a program would, so that it is in the caches of its own core and in no other's; that is not counted, and what
the loop and the clock cost is taken off.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

import mlxdist as dist
from mlxdist import _core
from mlxdist.cli.bench.cases import Case

RAW = "raw C"


@dataclass(frozen=True)
class Entry:
    """A backend that is ready for one case.

    Attributes:
        x: what this rank gives.
        call: carry out the case once.
        result: what came of it.
        spent_s: seconds of this rank in so many calls.
    """

    x: np.ndarray
    call: Callable[[], object]
    result: Callable[[], np.ndarray]
    spent_s: Callable[[int], float]


class Skipped(Exception):
    """A backend cannot take part in a case, and why."""


# Of a case, and two arrays for it that may be used; the second is the first where the case is in place.
Backend = Callable[[Case, np.ndarray, np.ndarray], Entry]


def _loop(rewrite: Callable[[int], object], call: Callable[[], object], repeats: int) -> float:
    clock, spent_s = time.perf_counter, 0.0
    for _ in range(repeats):
        rewrite(_core.REWRITTEN)
        begun_s = clock()
        call()
        spent_s += clock() - begun_s
    return spent_s


@cache
def _own_s() -> float:
    """What the loop adds to a call of Python: the clock and one function around the call."""
    repeats = 2000
    return min(_loop(lambda byte: None, lambda: None, repeats) for _ in range(5)) / repeats


def timed(x: np.ndarray, out: np.ndarray, call: Callable[[], object]) -> Entry:
    """The entry of a call from Python that reads ``x`` and writes ``out``."""
    rewrite = x.view(np.uint8).fill
    return Entry(x, call, lambda: out, lambda repeats: max(0.0, _loop(rewrite, call, repeats) - repeats * _own_s()))


def ours(case: Case, x: np.ndarray, out: np.ndarray) -> Entry:
    """mlxdist as it is called from Python."""
    if case.operation == "broadcast":
        return timed(x, out, lambda: dist.broadcast(x, 0, out=out))
    function = getattr(dist, case.operation)
    return timed(x, out, lambda: function(x, out=out))


def shared(case: Case, x: np.ndarray, out: np.ndarray) -> Entry:
    """The same on arrays of ``mlxdist.empty``."""
    if case.operation != "all_sum":
        raise Skipped("only reductions know arrays of mlxdist.empty()")
    try:
        x = dist.empty(case.count, case.dtype)
        out = x if case.in_place else dist.empty(case.count, case.dtype)
    except dist.Error as error:
        raise Skipped(str(error)) from None
    return ours(case, x, out)


OPERATIONS = {"all_sum": "all_reduce"}


def raw(case: Case, x: np.ndarray, out: np.ndarray) -> Entry:
    """The function of libmpi, called in a loop of C on the same libmpi, started once for all, and the same arrays."""
    operation = _core.OPERATION_OF[OPERATIONS.get(case.operation, case.operation)]
    into, source, world = _core.buffer_of(out), _core.buffer_of(x), dist.init()

    def spent_s(repeats: int) -> float:
        return _core.run_raw(world, operation, source, into, repeats)

    return Entry(x, lambda: _core.run_raw(world, operation, source, into, 1, False), lambda: out, spent_s)


def memory(past_cache: bool) -> Backend:
    """A copy of what a rank gives to an array that is at least as long and another, by all ranks at once."""

    def enter(case: Case, x: np.ndarray, out: np.ndarray) -> Entry:
        source, into = _core.buffer_of(x), _core.buffer_of(out)
        return Entry(x, lambda: None, lambda: out, lambda n: _core.copy_memory(into, source, past_cache, n))

    return enter


COPIES: dict[str, Backend] = {"copy": memory(False), "copy past the cache": memory(True)}
OURS: dict[str, Backend] = {"mlxdist": ours, "mlxdist, shared": shared, RAW: raw}
