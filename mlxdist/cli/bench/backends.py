"""The backends that are always measured: mlxdist, libmpi from C, and memory itself. baselines.py has the others.

A backend prepares itself for a case. Only the calls are timed: before each of them the input is rewritten, as a program
would do, so that it is in the caches of its own core and of no other; the cost of the loop and the clock is subtracted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

import mlxdist as dist
from mlxdist import _core
from mlxdist.cli.bench.cases import ROOTED, Case

RAW = "raw C"


@dataclass(frozen=True)
class Prepared:
    """A backend that is ready for one case.

    Attributes:
        x: the input of this rank.
        call: carries out the case once.
        result: the result of the last call.
        time_calls: the seconds that this rank needs for a number of calls.
    """

    x: np.ndarray
    call: Callable[[], object]
    result: Callable[[], np.ndarray]
    time_calls: Callable[[int], float]


class Skipped(Exception):
    """Why a backend cannot run a case."""


# From a case and two arrays that may be used for it; in place, both are the same.
Backend = Callable[[Case, np.ndarray, np.ndarray], Prepared]


def _loop(rewrite: Callable[[int], object], call: Callable[[], object], repeats: int) -> float:
    clock, total_s = time.perf_counter, 0.0
    for _ in range(repeats):
        rewrite(_core.REWRITTEN)
        start_s = clock()
        call()
        total_s += clock() - start_s
    return total_s


@cache
def _overhead_s() -> float:
    """What the loop adds to a call from Python: the clock and a function around the call."""
    repeats = 2000
    return min(_loop(lambda byte: None, lambda: None, repeats) for _ in range(5)) / repeats


def from_python(x: np.ndarray, out: np.ndarray, call: Callable[[], object]) -> Prepared:
    """A call from Python that reads ``x`` and writes ``out``."""
    rewrite = x.view(np.uint8).fill

    def time_calls(repeats: int) -> float:
        return max(0.0, _loop(rewrite, call, repeats) - repeats * _overhead_s())

    return Prepared(x, call, lambda: out, time_calls)


def mlxdist(case: Case, x: np.ndarray, out: np.ndarray) -> Prepared:
    """mlxdist, called from Python."""
    function = getattr(dist, case.operation)
    if case.operation in ROOTED:
        result = out if case.has_result(dist.init().rank()) else None
        return from_python(x, out, lambda: function(x, 0, out=result))
    return from_python(x, out, lambda: function(x, out=out))


def shared(case: Case, x: np.ndarray, out: np.ndarray) -> Prepared:
    """The same on arrays of ``mlxdist.empty``."""
    if case.operation != "all_sum":
        raise Skipped("only reductions make use of mlxdist.empty()")
    try:
        x = dist.empty(case.count, case.dtype)
        out = x if case.in_place else dist.empty(case.count, case.dtype)
    except dist.Error as error:
        raise Skipped(str(error)) from None
    return mlxdist(case, x, out)


_CORE_NAMES = {"all_sum": "all_reduce"}


def raw_c(case: Case, x: np.ndarray, out: np.ndarray) -> Prepared:
    """The function of libmpi, called in a loop of C on the same libmpi and the same arrays."""
    operation = _core.OPERATION_OF[_CORE_NAMES.get(case.operation, case.operation)]
    target, source, world = _core.buffer_of(out), _core.buffer_of(x), dist.init()

    def time_calls(repeats: int) -> float:
        return _core.run_raw(world, operation, source, target, repeats)

    return Prepared(x, lambda: _core.run_raw(world, operation, source, target, 1, False), lambda: out, time_calls)


def memory_copy(non_temporal: bool) -> Backend:
    """A copy of the input to another array, which is at least as long, by all ranks at the same time."""

    def prepare(case: Case, x: np.ndarray, out: np.ndarray) -> Prepared:
        source, target = _core.buffer_of(x), _core.buffer_of(out)
        return Prepared(x, lambda: None, lambda: out, lambda n: _core.copy_memory(target, source, non_temporal, n))

    return prepare


COPIES: dict[str, Backend] = {"copy": memory_copy(False), "non-temporal copy": memory_copy(True)}
BUILT_IN: dict[str, Backend] = {"mlxdist": mlxdist, "mlxdist, shared": shared, RAW: raw_c}
