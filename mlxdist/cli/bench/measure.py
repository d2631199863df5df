"""Measures one case with every backend, in turns."""

from __future__ import annotations

import math
import time

import numpy as np

import mlxdist as dist
from mlxdist import _core
from mlxdist.cli.bench import backends, cases, report
from mlxdist.cli.bench.backends import Backend, Prepared, Skipped
from mlxdist.cli.bench.cases import Case
from mlxdist.cli.bench.report import Result
from mlxdist.cli.bench.wire import Wire
from mlxdist.cli.objects import on_any_rank

TURN_S = 0.01  # a backend's turn takes about this long, but at least two calls
WIRE_TURN_S = 0.04  # between hosts, where networks let a short burst through faster
FEWEST_CALLS = 3  # of each backend, at the rate of the wire: one unmeasured and one measured, at two thirds of it
EXPECTED_RATE = 1e9  # bytes/s, where no wire was measured
LONG_S = 0.1  # a call that takes longer is alone in its turn
MOST_REPEATS = 20000
BOUND_FROM = 1 << 20  # bytes from which memory's speed is measured


def fitting(every: list[Case], seconds: float, backends: int, wire: Wire | None) -> list[Case]:
    """The cases without the longest, if even the fewest calls would take more than ``seconds`` on the wire."""
    if not wire or wire.why:
        return every
    kept = sorted(every, key=wire.least_s)
    while len(kept) > 1 and FEWEST_CALLS * backends * sum(map(wire.least_s, kept)) > seconds:
        kept.pop()
    return [case for case in every if case in kept]


class Limits:
    """Divides the time of a run among its cases, by what a turn of each will take."""

    def __init__(self, every: list[Case], seconds: float, wire: Wire | None) -> None:
        self._until, self._wire = time.monotonic() + seconds, wire
        self._rest = sum(map(self._turn_s, every))

    def next_s(self, case: Case) -> float:
        """The limit of the next case, the same on every rank."""
        left_s = float(dist.broadcast(np.float64(self._until - time.monotonic()), 0))
        turn_s = self._turn_s(case)
        limit_s = left_s * turn_s / self._rest
        self._rest -= turn_s
        return limit_s

    def _turn_s(self, case: Case) -> float:
        if self._wire and not self._wire.why:
            return WIRE_TURN_S + self._wire.least_s(case)
        return TURN_S + case.nbytes / EXPECTED_RATE


def run_case(
    case: Case, chosen: dict[str, Backend], rounds: int, limit_s: float, check: bool, wire: Wire | None
) -> tuple[Result, list[str]]:
    """Measure the ``chosen`` backends; the result, and a line for each backend whose result is wrong.

    Args:
        rounds: turns of each backend; fewer, but at least one, if they would take longer than ``limit_s``.
        wire: what connects the hosts, if there are several.
    """
    group, result = dist.init(), Result(case)
    x = _core.empty((case.count,), case.dtype)
    out = x if case.in_place else _core.empty((case.out_count,), case.dtype)
    prepared = _prepare(result, chosen, x, out)
    wrong = _check(result, prepared, group.rank()) if check else []
    if wrong:
        return result, wrong
    copies = {}
    if wire:
        result.use_wire(wire)
    elif case.nbytes >= BOUND_FROM and _core.local_size()[0] == group.size():
        fits = not case.in_place and case.out_count >= case.count
        target = out if fits else _core.empty((case.count,), case.dtype)
        copies = {name: backend(case, x, target) for name, backend in backends.COPIES.items()}
    rounds_s, result.sent = _measure(prepared | copies, rounds, limit_s, wire)
    if copies:
        result.use_memory([rounds_s.pop(name) for name in copies])
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


def _repeats(call_s: float, turn_s: float) -> int:
    """The number of calls in a turn; the same on every rank."""
    return 1 if call_s > LONG_S else max(2, min(MOST_REPEATS, math.ceil(turn_s / max(call_s, 1e-9))))


def _first_repeats(backend: Prepared, turn_s: float) -> int:
    """Double the calls until they take long enough, since one fast call would make the first turn far too long."""
    first_s = _slowest(backend.time_calls(1))
    if first_s > LONG_S:
        return 1
    repeats, total_s = 1, 0.0
    while total_s < turn_s / 4 and repeats < MOST_REPEATS:
        repeats *= 2
        total_s = _slowest(backend.time_calls(repeats))
    return _repeats(total_s / repeats, turn_s)


def _measure(
    prepared: dict[str, Prepared], rounds: int, limit_s: float, wire: Wire | None
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """For each backend, seconds per call on the slowest rank in each round, and bytes per call that each host sent."""
    began, turn_s = time.monotonic(), WIRE_TURN_S if wire else TURN_S
    repeats = {name: _first_repeats(backend, turn_s) for name, backend in prepared.items()}
    rounds_s: dict[str, list[float]] = {name: [] for name in prepared}
    sent, calls = dict.fromkeys(prepared, 0), dict.fromkeys(prepared, 0)
    for number in range(1, rounds + 1):
        for name, backend in prepared.items():
            before = wire.sent_nbytes() if wire else 0
            dist.barrier()
            call_s = _slowest(backend.time_calls(repeats[name]) / repeats[name])
            sent[name] += (wire.sent_nbytes() if wire else 0) - before
            calls[name] += repeats[name]
            rounds_s[name].append(call_s)
            repeats[name] = _repeats(call_s, turn_s)
        if on_any_rank((time.monotonic() - began) * (number + 1) / number > limit_s):
            break
    if not wire or on_any_rank(wire.sent_nbytes() < 0):
        return rounds_s, {}
    per_call = {name: dist.all_gather(np.array([sent[name] / calls[name]])) for name in prepared}
    return rounds_s, {name: each[wire.hosts.leaders].tolist() for name, each in per_call.items()}
