"""The options of ``mlxdist bench``, its progress and its output."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import mlxdist as dist
from mlxdist.cli.bench import backends, baselines, cases, measure, report
from mlxdist.cli.bench.cases import Case
from mlxdist.cli.bench.report import Result

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _nbytes(text: str) -> int:
    """64M is 64 MiB."""
    found = re.fullmatch(r"(\d+) ?([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: give one like 4, 64K or 256M")
    return int(found[1]) * UNITS[found[2].upper()]


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds: give 1 or more")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``mlxdist bench``."""
    both = ["all_sum", "all_sum_in_place"]
    parser.add_argument("--op", nargs="+", choices=cases.OPERATIONS, default=both, help="default: both all_sum")
    parser.add_argument("--dtype", nargs="+", choices=cases.DTYPES, default=["float32"], help="default: float32")
    parser.add_argument("--min", type=_nbytes, default=4, metavar="SIZE", help="shortest message; default: 4")
    parser.add_argument("--max", type=_nbytes, default=64 << 20, metavar="SIZE", help="longest message; default: 64M")
    parser.add_argument("--rounds", type=_rounds, default=11, metavar="N", help="turns of each backend; default: 11")
    parser.add_argument("--check", action="store_true", help="compare every result with NumPy before measuring")
    parser.add_argument("--gloo", action="store_true", help="add PyTorch's gloo, over the loopback device")
    parser.add_argument("--mlx", action="store_true", help="add mlxdist on mx.array, and MLX's ring backend")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="plot bandwidth against size; needs matplotlib")


def run(arguments: argparse.Namespace) -> int:
    """Measure and report; 1 if --check found a wrong result, 2 if nothing can be measured."""
    try:
        group, load = dist.init(), os.getloadavg()[0]
    except ValueError as error:  # of an environment variable
        print(f"mlxdist bench: {error}", file=sys.stderr)
        return 2
    rank, size = group.rank(), group.size()
    refusal = _refusal(arguments, rank, size)
    first = int(dist.all_min(np.int64(rank if refusal else size)))
    if first < size:
        if rank == first:
            print(f"mlxdist bench: {refusal}", file=sys.stderr)
        return 2
    series = [
        cases.cases(name, np.dtype(dtype), arguments.min, arguments.max, size)
        for name in arguments.op
        for dtype in arguments.dtype
    ]
    chosen = backends.BUILT_IN | baselines.DEFAULT
    for option, optional in baselines.OPTIONAL.items():
        chosen |= optional if getattr(arguments, option) else {}
    results: list[Result] = []
    if rank == 0:
        _print_heading()
    with _progress(sum(map(len, series)), rank == 0) as show:
        for members in series:
            for case in members:
                show(case)
                result, wrong = measure.run_case(case, chosen, arguments.rounds, arguments.check)
                if wrong:
                    if rank == 0:
                        print("\n".join(wrong), file=sys.stderr)
                    return 1
                results.append(result)
            if rank == 0:
                report.print_table(report.title(members[0]), report.table(results[-len(members) :]))
    if rank == 0:
        _print_notes(results, arguments.check, load)
        _write(results, arguments, load)
    return 0


def _refusal(arguments: argparse.Namespace, rank: int, size: int) -> str:
    """Why this cannot be measured; empty if it can."""
    if size == 1:
        return "one rank has no peers: start it with mpirun -np 2 mlxdist bench"
    if not cases.lengths(arguments.min, arguments.max):
        return f"there is no power of 4 from --min {arguments.min} to --max {arguments.max}: choose a wider range"
    written = {"--json": arguments.json, "--plot": arguments.plot} if rank == 0 else {}
    for option, path in written.items():
        if path and (path.is_dir() or not path.parent.is_dir()):
            return f"{option} {path} cannot be written: give a file in a folder that exists"
    missing = {"bfloat16": "ml_dtypes"} if "bfloat16" in arguments.dtype else {}
    missing |= {"--plot": "matplotlib"} if arguments.plot else {}
    for wanted, package in missing.items():
        try:
            __import__(package)
        except ImportError:
            return f"{wanted} needs {package}: pip install {package}"
    if arguments.plot and not report.can_plot(arguments.plot):
        return f"--plot {arguments.plot} has no known format: give a name that ends in .png, .pdf or .svg"
    return ""


@contextlib.contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[Case], None]]:
    """A function to call before each case, which shows it on stderr."""
    if not shown:
        yield lambda case: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        number = iter(range(1, total + 1))

        def show(case: Case) -> None:
            text = f"{report.title(case)} {report.format_bytes(case.nbytes)}"
            print(f"bench {next(number)}/{total}: {text}", file=sys.stderr, flush=True)

        yield show
        return
    # not more often, since mpirun passes on each change
    with tqdm(total=total, desc="bench", file=sys.stderr, leave=False, mininterval=1) as bar:

        def show(case: Case) -> None:
            bar.update()
            bar.set_description(f"{report.title(case)} {report.format_bytes(case.nbytes)}", refresh=False)

        yield show


def _heading() -> str:
    return f"{dist.info().version.partition(', package')[0]}, {dist.init().size()} ranks"


def _print_heading() -> None:
    info = dist.info()
    print(f"{_heading()}, {info.threads}, kernels: {info.kernels}, shared memory: {info.shared_memory}")
    print("GB/s: bytes of each rank's input / time / 1e9, and the share of the memory bound.\n", flush=True)


def _print_notes(results: list[Result], checked: bool, load: float) -> None:
    cores, size = os.cpu_count() or 1, dist.init().size()
    # a rank that loses its core for a moment delays all the others
    if load + size > cores:
        print(f"busy: the load average was {load:.1f} on {cores} cores at the start, before {size} ranks were added")
    for reason in sorted({f"{name}: {why}" for result in results for name, why in result.skipped.items()}):
        print(f"skipped: {reason}")
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
