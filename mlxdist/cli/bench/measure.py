"""Measures one case with every backend, in turns."""

from __future__ import annotations

import math

import numpy as np

import mlxdist as dist
from mlxdist import _core
from mlxdist.cli.bench import backends, cases, report
from mlxdist.cli.bench.backends import Backend, Prepared, Skipped
from mlxdist.cli.bench.cases import Case
from mlxdist.cli.bench.report import Result

TURN_S = 0.01  # a backend's turn takes about this long, but at least two calls
MOST_REPEATS = 20000
BOUND_FROM = 1 << 20  # bytes from which memory's speed is measured


def on_any_rank(here: object) -> bool:
    """Whether ``here`` is true on any rank."""
    return bool(dist.all_max(np.bool_(here)))


def run_case(case: Case, chosen: dict[str, Backend], rounds: int, check: bool) -> tuple[Result, list[str]]:
    """Measure the ``chosen`` backends; the result, and a line for each backend whose result is wrong."""
    group, result = dist.init(), Result(case)
    x = _core.empty((case.count,), case.dtype)
    out = x if case.in_place else _core.empty((case.out_count,), case.dtype)
    prepared = _prepare(result, chosen, x, out)
    wrong = _check(result, prepared, group.rank()) if check else []
    if wrong:
        return result, wrong
    copies = {}
    if case.nbytes >= BOUND_FROM and _core.local_size()[0] == group.size():
        fits = not case.in_place and case.out_count >= case.count
        target = out if fits else _core.empty((case.count,), case.dtype)
        copies = {name: backend(case, x, target) for name, backend in backends.COPIES.items()}
    rounds_s = _measure(prepared | copies, rounds)
    result.copies_s = {name: rounds_s.pop(name) for name in copies}
    result.rounds_s = rounds_s
    return result, []


def _prepare(result: Result, chosen: dict[str, Backend], x: np.ndarray, out: np.ndarray) -> dict[str, Prepared]:
    """The backends that work on every rank; the reasons against the others go to ``result``."""
    prepared = {}
    for name, backend in chosen.items():
        why = ""
        try:
            ready = backend(result.case, x, out)
        except Skipped as error:
            why = str(error)
        if on_any_rank(why):
            result.skipped[name] = why or "it cannot run on another rank"
        else:
            prepared[name] = ready
    return prepared


def _check(result: Result, prepared: dict[str, Prepared], rank: int) -> list[str]:
    """A line for each backend whose result is not that of NumPy; the same on every rank."""
    lines = []
    for name, backend in prepared.items():
        cases.fill(result.case, rank, backend.x)
        backend.call()
        wrong = dist.all_gather(np.array([cases.count_wrong(result.case, rank, backend.result())]))
        if wrong.any():
            lines.append(
                f"{report.title(result.case)}, {report.format_bytes(result.case.nbytes)}: {name} has wrong results: "
                + ", ".join(f"{count} elements on rank {other}" for other, count in enumerate(wrong) if count)
            )
    result.checked = True
    return lines


def _slowest(seconds: float) -> float:
    return float(dist.all_max(seconds))


def _repeats(call_s: float) -> int:
    """The number of calls in a turn; the same on every rank."""
    return max(2, min(MOST_REPEATS, math.ceil(TURN_S / max(call_s, 1e-9))))


def _first_repeats(backend: Prepared) -> int:
    """Double the calls until they take long enough, since one fast call would make the first turn far too long."""
    backend.time_calls(2)
    repeats, total_s = 1, 0.0
    while total_s < TURN_S / 4 and repeats < MOST_REPEATS:
        repeats *= 2
        total_s = _slowest(backend.time_calls(repeats))
    return _repeats(total_s / repeats)


def _measure(prepared: dict[str, Prepared], rounds: int) -> dict[str, list[float]]:
    """Seconds per call on the slowest rank, for each backend and round."""
    repeats = {name: _first_repeats(backend) for name, backend in prepared.items()}
    rounds_s: dict[str, list[float]] = {name: [] for name in prepared}
    for _ in range(rounds):
        for name, backend in prepared.items():
            dist.barrier()
            call_s = _slowest(backend.time_calls(repeats[name]) / repeats[name])
            rounds_s[name].append(call_s)
            repeats[name] = _repeats(call_s)
    return rounds_s
