"""Measure mlxdist beside C and others that do the same, on the ranks of a launcher.

    mpirun -np 2 mlxdist bench

All backends run in the same processes and take turns. Each figure is the median over rounds of the slowest rank.
What is sent is written anew before each call, and that is not counted. "raw C" is MPI's own function in a loop of C on
the same libmpi, started with MPI_THREAD_MULTIPLE, as mlxdist starts it (where a program calls MPI_Init, some libraries
are quicker with short messages); sums of 16-bit floats, which MPI has not, are a user-defined operation there.
"shared" are arrays of mlxdist.empty(). The memory bound is what the operation would take if each byte went through
memory once, at the speed of the best copy by all ranks at once: all_sum of N bytes on p ranks that can copy B bytes/s
together, read and written, goes at N / t <= B / (2 p). A share above 100 % means that the cache did better.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import mlxdist as dist
from mlxdist import _core
from mlxdist.cli.bench import backends, baselines, cases, report
from mlxdist.cli.bench.backends import Backend, Entry, Skipped
from mlxdist.cli.bench.cases import Case
from mlxdist.cli.bench.report import Result

HELP = "measure mlxdist beside raw MPI and others; run it under mpirun"
ROUND_S = 0.01  # a backend's turn lasts about so long, or two calls
MOST_REPEATS = 20000
BOUND_FROM = 1 << 20  # bytes from which memory's speed is measured
SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def nbytes_of(text: str) -> int:
    """64M is 64 MiB."""
    found = re.fullmatch(r"(\d+) ?([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give one like 4, 64K or 256M")
    return int(found[1]) * SIZES[found[2].upper()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mlxdist bench``."""
    several = ["all_sum", "all_sum_in_place"]
    parser.add_argument("--op", nargs="+", choices=cases.OPERATIONS, default=several, help="default: both all_sum")
    parser.add_argument("--dtype", nargs="+", choices=cases.DTYPES, default=["float32"], help="default: float32")
    parser.add_argument("--min", type=nbytes_of, default=4, metavar="SIZE", help="shortest message; default: 4")
    parser.add_argument("--max", type=nbytes_of, default=64 << 20, metavar="SIZE", help="longest; default: 64M")
    parser.add_argument("--rounds", type=int, default=11, metavar="N", help="turns of each backend; default: 11")
    parser.add_argument("--check", action="store_true", help="compare every result with NumPy's before measuring it")
    parser.add_argument("--gloo", action="store_true", help="also PyTorch's gloo, over the loopback device")
    parser.add_argument("--mlx", action="store_true", help="also mlxdist on mx.array, and MLX's ring backend")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw bandwidth over size; needs matplotlib")


def _anywhere(here: object) -> bool:
    return bool(dist.all_max(np.bool_(here)))


def _slowest(seconds: float) -> float:
    return float(dist.all_max(seconds))


def _enter(result: Result, field: dict[str, Backend], x: np.ndarray, out: np.ndarray) -> dict[str, Entry]:
    """Those of ``field`` that every rank has; why the others are left out goes to ``result``."""
    entries = {}
    for name, backend in field.items():
        why = ""
        try:
            entry = backend(result.case, x, out)
        except Skipped as error:
            why = str(error)
        if _anywhere(why):
            result.left_out[name] = why or "it does not run on another rank"
        else:
            entries[name] = entry
    return entries


def _wrong(result: Result, entries: dict[str, Entry], rank: int) -> list[str]:
    """A line for each backend whose result is not NumPy's; the same on every rank."""
    lines = []
    for name, entry in entries.items():
        cases.fill(result.case, rank, entry.x)
        entry.call()
        found = dist.all_gather(np.array([cases.wrong(result.case, rank, entry.result())]))
        if found.any():
            lines.append(
                f"{report.title(result.case)}, {report.length(result.case.nbytes)}: {name} is wrong in "
                + ", ".join(f"{count} elements on rank {other}" for other, count in enumerate(found) if count)
            )
    result.checked = True
    return lines


def _repeats(call_s: float) -> int:
    """Calls of a turn, where one takes so long; the same on every rank."""
    return max(2, min(MOST_REPEATS, math.ceil(ROUND_S / max(call_s, 1e-9))))


def _first_repeats(entry: Entry) -> int:
    """Double the calls until they last, so that a lucky first one does not make a turn endless."""
    entry.spent_s(2)
    repeats, spent_s = 1, 0.0
    while spent_s < ROUND_S / 4 and repeats < MOST_REPEATS:
        repeats *= 2
        spent_s = _slowest(entry.spent_s(repeats))
    return _repeats(spent_s / repeats)


def _measure(entries: dict[str, Entry], rounds: int) -> dict[str, list[float]]:
    """Seconds a call of the slowest rank, by backend and round."""
    repeats = {name: _first_repeats(entry) for name, entry in entries.items()}
    turns_s: dict[str, list[float]] = {name: [] for name in entries}
    for _ in range(rounds):
        for name, entry in entries.items():
            dist.barrier()
            call_s = _slowest(entry.spent_s(repeats[name]) / repeats[name])
            turns_s[name].append(call_s)
            repeats[name] = _repeats(call_s)
    return turns_s


def _run(case: Case, field: dict[str, Backend], arguments: argparse.Namespace) -> tuple[Result, list[str]]:
    """The result of one case, and what was wrong with it."""
    group, result = dist.init(), Result(case)
    x = _core.empty((case.count,), case.dtype)
    out = x if case.in_place else _core.empty((case.out_count,), case.dtype)
    entries = _enter(result, field, x, out)
    lines = _wrong(result, entries, group.rank()) if arguments.check else []
    if lines:
        return result, lines
    bounds = {}
    if case.nbytes >= BOUND_FROM and _core.local_size()[0] == group.size():
        apart = not case.in_place and case.out_count >= case.count
        into = out if apart else _core.empty((case.count,), case.dtype)
        bounds = {name: backend(case, x, into) for name, backend in backends.COPIES.items()}
    spent_s = _measure(entries | bounds, arguments.rounds)
    result.copies_s = {name: spent_s.pop(name) for name in bounds}
    result.rounds_s = spent_s
    return result, []


@contextlib.contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[Case], None]]:
    """A function to call before each case; it tells of it on stderr."""
    if not shown:
        yield lambda case: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        done = iter(range(1, total + 1))

        def tell(case: Case) -> None:
            words = f"{report.title(case)} {report.length(case.nbytes)}"
            print(f"bench {next(done)}/{total}: {words}", file=sys.stderr, flush=True)

        yield tell
        return
    # mpirun passes each change on as it comes
    with tqdm(total=total, desc="bench", file=sys.stderr, leave=False, mininterval=1) as bar:

        def tell(case: Case) -> None:
            bar.update()
            bar.set_description(f"{report.title(case)} {report.length(case.nbytes)}", refresh=False)

        yield tell


def _refusal(arguments: argparse.Namespace, size: int) -> str:
    """Why this cannot be measured; empty where it can."""
    if arguments.rounds < 1:
        return f"--rounds {arguments.rounds}: give at least 1"
    if size == 1:
        return "one rank has nobody to communicate with: start it as mpirun -np 2 mlxdist bench"
    missing = {"bfloat16": "ml_dtypes"} if "bfloat16" in arguments.dtype else {}
    missing |= {"--plot": "matplotlib"} if arguments.plot else {}
    for wanted, package in missing.items():
        try:
            __import__(package)
        except ImportError:
            return f"{wanted} needs {package}: pip install {package}"
    return ""


def run(arguments: argparse.Namespace) -> int:
    """Measure and report; 1 where --check found a wrong result, 2 where nothing can be measured."""
    group, load = dist.init(), os.getloadavg()[0]
    rank, size = group.rank(), group.size()
    refusal = _refusal(arguments, size)
    if _anywhere(refusal):
        if refusal and rank == 0:
            print(f"mlxdist bench: {refusal}", file=sys.stderr)
        return 2
    field = backends.OURS | baselines.ALWAYS
    for option, chosen in baselines.CHOSEN.items():
        field |= chosen if getattr(arguments, option) else {}
    todo = [
        cases.cases(name, np.dtype(dtype), arguments.min, arguments.max, size)
        for name in arguments.op
        for dtype in arguments.dtype
    ]
    results: list[Result] = []
    if rank == 0:
        _say_what_is_measured()
    with _progress(sum(map(len, todo)), rank == 0) as tell:
        for series in todo:
            for case in series:
                tell(case)
                result, lines = _run(case, field, arguments)
                if lines:
                    if rank == 0:
                        print("\n".join(lines), file=sys.stderr)
                    return 1
                results.append(result)
            if rank == 0 and series:
                report.write_table(report.title(series[0]), report.rows(results[-len(series) :]))
    if rank == 0:
        _say_the_rest(results, arguments.check, load)
        _write(results, arguments, load)
    return 0


def _heading() -> str:
    return f"{dist.info().version.partition(', package')[0]}, {dist.init().size()} ranks"


def _say_what_is_measured() -> None:
    info = dist.info()
    print(f"{_heading()}, {info.threads}, kernels: {info.kernels}, shared memory: {info.shared_memory}")
    print("GB/s are bytes of each rank's input / time / 1e9; then the share of the memory bound.\n", flush=True)


def _say_the_rest(results: list[Result], checked: bool, load: float) -> None:
    cores, size = os.cpu_count() or 1, dist.init().size()
    # a rank that has lost its core for a moment keeps all the others waiting
    if load + size > cores:
        print(f"busy: the load average was {load:.1f} on {cores} cores when this began, and {size} ranks came")
    for reason in sorted({f"{name}: {why}" for result in results for name, why in result.left_out.items()}):
        print(f"left out: {reason}")
    if checked:
        print(f"checked: {len(results)} cases, every element of every backend equals NumPy's")


def _write(results: list[Result], arguments: argparse.Namespace, load: float) -> None:
    if arguments.json:
        info = dist.info()
        facts = {name: getattr(info, name) for name in ("version", "libmpi", "threads", "kernels", "size")}
        whole = {"mlxdist": dist.__version__, **facts, "load": load, "results": [r.as_json() for r in results]}
        arguments.json.write_text(json.dumps(whole, indent=1) + "\n")
    if arguments.plot:
        report.plot(results, _heading(), arguments.plot)
